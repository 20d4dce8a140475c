"""The summary: counts, times and faults of a run follow from its journal alone."""

from __future__ import annotations

import pytest

from results.summary import MAX_LISTED_SAMPLES, format_summary, summarise
from scan.correction import CorrectionRecord
from scan.events import Begun, Damaged, Detected, Finished, Focused, Stacked
from tests.results.scans import events_of_a_scan, resumed_scan
from tests.scan.samples import sample


def test_a_run_whose_last_line_is_damaged_is_summarised() -> None:
    """Its duration is that up to the last whole line."""
    *events, finished = events_of_a_scan()
    assert isinstance(finished, Finished)

    summary = summarise([*events, Damaged()])

    assert summary["status"] == "failed"
    assert summary["timing"]["wall"] == events[-1].time - 100.0


def test_the_summary_follows_from_the_events() -> None:
    """Fields, retries, times and memory in the summary are computed from the events."""
    summary = summarise(events_of_a_scan())

    assert summary["status"] == "partial"
    assert summary["fields"] == {
        "planned": 3,
        "captured": 2,
        "stacked": 2,
        "detected": 2,
        "resumed": 0,
        "lost": [{"stripe": 0, "field": 2, "reason": "camera"}],
    }
    assert summary["retries"] == {
        "focus": 0,
        "capture": 1,
        "stack": 0,
        "detect": 0,
        "actor_restarts": 1,
    }
    assert summary["holds"] == {"n": 1, "seconds": 0.25}
    # the second waited for a CPU until 20 ms before it began
    assert summary["dispatch_ms"]["slot_free"]["p50"] == pytest.approx((8 + 20) / 2)
    assert summary["dispatch_ms"]["slot_free"]["n"] == 2
    assert summary["dispatch_ms"]["idle"] == {"n": 1, "p50": 8, "p95": 8, "p99": 8, "max": 8}
    assert summary["dispatch_ms"]["waited_for_cpu"]["p50"] == 40
    assert summary["exposure_slip_ms"]["max"] == 0.3
    assert summary["memory"]["peak_live_mb"] == 3.0
    assert summary["timing"]["startup"] == 3.0
    assert summary["timing"]["first_exposure"] == 1.0
    assert summary["timing"]["answer"] == 1.0
    # sweeps of 0.8, two captures of 1 back to back, then one field's stacking and detection of 0.4
    assert summary["timing"]["lower_bound"] == pytest.approx(3.2)
    assert summary["timing"]["ratio"] == pytest.approx(5 / 3.2, abs=1e-4)


BACKLOGS = {  # when detections ended that began a second before, on two CPUs; how many more lack
    "as soon as possible": ((106.9, 107.0), 0),
    "a queue": ((107.0, 107.1, 108.1, 108.2), 2),
    "waiting for something else": ((107.0, 111.0), 0),
}


@pytest.mark.parametrize(("ended_s", "missing"), BACKLOGS.values(), ids=BACKLOGS)
def test_the_summary_says_if_cpus_were_the_limit(ended_s: tuple[float, ...], missing: int) -> None:
    """Work of more than one field after the last exposure would have been done by more CPUs."""
    events = [event for event in events_of_a_scan() if not isinstance(event, Detected)]
    events[-2:-2] = [
        sample(Detected, field=k % 2, asked_s=106.0, began_s=at_s - 1, ended_s=at_s)
        for k, at_s in enumerate(ended_s)
    ]

    summary = summarise(events)

    assert summary["timing"]["missing_cpus"] == missing
    said = [line for line in format_summary(summary) if line.startswith("CPUs were the limit")]
    assert len(said) == bool(missing)


def test_a_recording_has_no_cameras_to_keep_up_with() -> None:
    """Recorded fields are read as fast as they are stacked: no CPU is missed."""
    events = events_of_a_scan()
    events[0] = events[0].model_copy(update={"input_sizes": 7})
    at = next(k for k, event in enumerate(events) if isinstance(event, Detected))
    events[at] = events[at].model_copy(update={"ended_s": 120.0})

    assert summarise(events)["timing"]["missing_cpus"] == 0


@pytest.mark.parametrize("length", range(len(events_of_a_scan())))
def test_a_run_cut_short_is_summarised(length: int) -> None:
    """However early a run ends, its summary can be made and never claims completion."""
    summary = summarise(events_of_a_scan()[:length])

    assert summary["status"] == "failed"
    assert format_summary(summary)


def test_lost_fields_are_listed_last() -> None:
    """The lines begin with the result and end with the lost fields by name."""
    lines = format_summary(summarise(events_of_a_scan()))

    assert lines[0].startswith("partial: 2 of 3 fields, 7 objects")
    assert lines[-1] == "lost: stripe 0 field 2: camera"


@pytest.mark.parametrize(("dropped", "listed"), [(0, 0), (2, 2), (40, MAX_LISTED_SAMPLES + 1)])
def test_rejected_focus_samples_are_listed_with_their_reason(dropped: int, listed: int) -> None:
    """The lines name the samples that were rejected and why; of many, the first few."""
    events = events_of_a_scan()
    rejected = tuple(
        {"stripe": 1, "field": field, "reason": "no contrast"} for field in range(dropped)
    )
    at = next(k for k, event in enumerate(events) if isinstance(event, Focused))
    events[at] = events[at].model_copy(update={"rejected": rejected})

    summary = summarise(events)
    lines = [line for line in format_summary(summary) if line.startswith("    ")]

    assert len(lines) == listed
    assert all("no contrast" in line for line in lines[:MAX_LISTED_SAMPLES])
    assert summary["z_positions"]["rejected"] == list(rejected)


FOCUS_LINES = {
    "none": (
        {"surface": "none", "centres_um": [(0, 0, -7.5)]},
        "focus: none, all fields at -7.5 um",
    ),
    "points": ({"sampled": 3, "kept": 3}, "focus: 3 of 3 given points kept, plane, residual"),
    "hardware": ({}, "focus: 2 of 2 samples of the autofocus device kept, plane, residual"),
    "surface": ({}, "focus: 2 of 2 samples kept, plane, residual"),
}


@pytest.mark.parametrize("mode", FOCUS_LINES)
def test_the_summary_says_how_fields_were_focused(mode: str) -> None:
    """One line says where heights come from."""
    facts, said = FOCUS_LINES[mode]
    events = events_of_a_scan()
    at = next(k for k, event in enumerate(events) if isinstance(event, Focused))
    events[at] = events[at].model_copy(update={"mode": mode} | facts)

    summary = summarise(events)

    (line,) = (line for line in format_summary(summary) if line.startswith("focus: "))
    assert line.startswith(said)
    assert summary["z_positions"]["mode"] == mode


def test_a_resumed_run_has_its_own_times_and_all_faults() -> None:
    """Fields and faults count over all runs of the folder, times and losses in the last one."""
    summary = summarise(resumed_scan())

    assert summary["status"] == "complete"
    assert summary["fields"]["captured"] == 3
    assert summary["fields"]["lost"] == []
    assert summary["fields"]["resumed"] == 2
    assert summary["retries"]["capture"] == summary["retries"]["actor_restarts"] == 1
    assert summary["z_positions"]["surface"] == "plane"
    assert summary["timing"]["startup"] == 3.0
    assert summary["timing"]["answer"] == 1.0
    assert "2 fields from before" in "\n".join(format_summary(summary))


def test_what_was_not_scanned_is_said_at_the_end() -> None:
    """A run that is complete may have used a part of a recording: its last lines say so."""
    caveat = "2 channels, only channel 0 is used; not scanned: 1"
    events = [
        event.model_copy(update={"caveats": (caveat,)}) if isinstance(event, Begun) else event
        for event in events_of_a_scan()
    ]
    summary = summarise(events)

    assert f"note: {caveat}" in format_summary(summary)
    assert summary["caveats"] == [caveat]


@pytest.mark.parametrize(("flicker", "told"), [(0.02, 0), (0.05, 1)])
def test_flicker_above_three_percent_is_told_once(flicker: float, told: int) -> None:
    """However many fields flicker there is one line, with their number and the greatest."""
    events = [
        event.model_copy(update={"flicker": flicker}) if isinstance(event, Stacked) else event
        for event in events_of_a_scan()
    ]
    summary = summarise(events)

    lines = [line for line in format_summary(summary) if "flickers" in line]

    assert len(lines) == told
    assert all("2 of 2 fields (5 % at most)" in line for line in lines)
    assert summary["flicker"] == {"fields": 2 * told, "max": flicker}


FLAT, DARK = ("flat_field.tif", 1), ("dark_field.tif", 2)
CORRECTIONS = {
    "flat field, dark field": CorrectionRecord(flat="file", files=(FLAT, DARK)),
    "flat field, no dark field": CorrectionRecord(flat="file", files=(FLAT,)),
    "frames corrected: dark field": CorrectionRecord(files=(DARK,)),
    "estimated from 18 places that agree within 0.4 %, dark field": CorrectionRecord(
        flat="estimate", degree=4, places=18, scatter=0.004, files=(FLAT, DARK)
    ),
    "the camera shows 2 specks or hot pixels in every field (0.1 % of the pixels)": (
        CorrectionRecord(specks=2, defects=0.001, files=(("defects.tif", 3),))
    ),
    "3 % of the pixels show the same in every field; check that the stage": CorrectionRecord(
        defects=0.03
    ),
}


@pytest.mark.parametrize("said", CORRECTIONS)
def test_corrected_frames_are_told(said: str) -> None:
    """One line says by what frames were corrected; none if they were not."""
    plain = events_of_a_scan()
    events = [
        event.model_copy(update={"correction": CORRECTIONS[said]})
        if isinstance(event, Focused)
        else event
        for event in plain
    ]

    (line,) = set(format_summary(summarise(events))) - set(format_summary(summarise(plain)))

    assert said in line
