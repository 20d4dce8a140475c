"""Journal, summary and progress: what happened is on disk first, then shown, then counted."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from report.progress import LiveProgress, PlainProgress
from results.journal import JOURNAL, Event, Journal, read_journal
from results.summary import MAX_LISTED_SAMPLES, format_summary, summarise
from scan.errors import StorageError


def events_of_a_scan() -> list[Event]:
    """A scan of one stripe: field 0 complete, field 1 captured twice after its camera died, field 2
    lost; the camera held once."""
    field: dict[str, Any] = {"stripe": 0, "field": 0, "camera": 0}
    captured = {"began_s": 104.0, "ended_s": 105.0, "slips_ms": [0.1, 0.3], "process": 7}
    work = {"began_s": 105.1, "ended_s": 105.3, "cpu_s": 0.2}
    return [
        {
            "time": 102.0,
            "event": "begun",
            "process_began_s": 100.0,
            "stripes": [3],
            "fields": 3,
            "cameras": 1,
            "versions": {"ray": "2"},
        },
        {
            "time": 102.0,
            "event": "ray",
            "up_s": 102.0,
            "cpus": 2,
            "object_store_bytes": 2e8,
            "batch_bytes": 10**6,
            "credits": 9,
        },
        {
            "time": 104.0,
            "event": "focused",
            "first_exposure_s": 103.0,
            "sweeping_s": [0.8],
            "sampled": 2,
            "kept": 2,
            "rejected": [],
            "surface": "plane",
            "residual_um": 0.1,
        },
        {"time": 105.0, "event": "captured", **field, **captured},
        {
            "time": 105.4,
            "event": "stacked",
            **field,
            **work,
            "asked_s": 105.092,
        },
        {
            "time": 105.4,
            "event": "retried",
            "stripe": 0,
            "field": 1,
            "camera": 0,
            "step": "capture",
            "reason": "camera",
        },
        {"time": 105.5, "event": "restarted", "camera": 0, "reason": "camera"},
        {"time": 105.6, "event": "held", "camera": 0, "began_s": 105.1, "ended_s": 105.35},
        {
            "time": 106.0,
            "event": "captured",
            "stripe": 0,
            "field": 1,
            "camera": 0,
            **captured,
            "began_s": 105.0,
            "ended_s": 106.0,
            "process": 8,
        },
        {
            "time": 106.4,
            "event": "stacked",
            "stripe": 0,
            "field": 1,
            "camera": 0,
            **work,
            "asked_s": 106.0,
            "began_s": 106.04,
            "ended_s": 106.24,
        },
        {"time": 106.2, "event": "warmed", "began_s": 105.5, "ended_s": 106.02, "cpu_s": 0.5},
        {
            "time": 106.2,
            "event": "described",
            "began_s": 105.5,
            "ended_s": 106.03,
            "cpu_s": 0.5,
            "diameter_px": 30.0,
        },
        {"time": 106.5, "event": "lost", "stripe": 0, "field": 2, "reason": "camera"},
        {
            "time": 106.6,
            "event": "detected",
            **field,
            **work,
            "objects": 5,
            "began_s": 106.3,
            "ended_s": 106.5,
        },
        {
            "time": 106.7,
            "event": "detected",
            "stripe": 0,
            "field": 1,
            "camera": 0,
            **work,
            "objects": 2,
            "began_s": 106.4,
            "ended_s": 106.6,
        },
        {
            "time": 107.0,
            "event": "predicted",
            "objects": 7,
            "answered_s": 107.0,
            "digest": "d",
        },
        {
            "time": 108.0,
            "event": "finished",
            "status": "partial",
            "peak_batches_in_flight": 3,
            "spilled_mb": 0.0,
            "driver_cpu_s": 0.5,
        },
    ]


def test_a_run_whose_last_line_is_damaged_is_summarised() -> None:
    """It lasted as long as its whole lines tell."""
    *events, finished = events_of_a_scan()
    assert finished["event"] == "finished"

    summary = summarise([*events, {"event": "damaged"}])

    assert summary["status"] == "failed"
    assert summary["timing"]["wall"] == events[-1]["time"] - events[0]["process_began_s"]


def test_a_line_is_on_disk_before_anyone_is_told(tmp_path: Path) -> None:
    """When a listener hears of an event, its line can be read from the file."""
    path, heard = tmp_path / "events.jsonl", []

    def listen(event: Event) -> None:
        heard.append(json.loads(path.read_text().splitlines()[-1]) == event)

    with Journal(path, listen, clock=lambda: 1.5) as journal:
        journal.write("captured", stripe=0, field=3)
        journal.write("lost", stripe=0, field=4, reason="camera")

    assert heard == [True, True]
    assert journal.seen("lost")
    assert not journal.seen("detected")


def test_the_summary_counts_what_the_journal_says() -> None:
    """Fields, retries, times and memory in the summary follow from the events."""
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


@pytest.mark.parametrize("length", range(len(events_of_a_scan())))
def test_a_run_cut_short_is_summarised(length: int) -> None:
    """However early a run ends, its summary can be made and never claims completion."""
    summary = summarise(events_of_a_scan()[:length])

    assert summary["status"] == "failed"
    assert format_summary(summary)


def test_lost_fields_stand_last_by_name() -> None:
    """The words for people begin with the verdict and end with the fields that were lost."""
    lines = format_summary(summarise(events_of_a_scan()))

    assert lines[0].startswith("partial: 2 of 3 fields, 7 objects")
    assert lines[-1] == "lost: stripe 0 field 2: camera"


@pytest.mark.parametrize(("dropped", "told"), [(0, 0), (2, 2), (40, MAX_LISTED_SAMPLES + 1)])
def test_dropped_focus_samples_are_told_with_their_reason(dropped: int, told: int) -> None:
    """The words name the samples that the surface left out and why; of many, the first few."""
    events = events_of_a_scan()
    (focused,) = (event for event in events if event["event"] == "focused")
    focused["rejected"] = [
        {"stripe": 1, "field": field, "reason": "no contrast"} for field in range(dropped)
    ]

    summary = summarise(events)
    lines = [line for line in format_summary(summary) if line.startswith("    ")]

    assert len(lines) == told
    assert all("no contrast" in line for line in lines[:MAX_LISTED_SAMPLES])
    assert summary["z_positions"]["rejected"] == focused["rejected"]


@pytest.mark.parametrize("display", [PlainProgress, LiveProgress])
def test_any_journal_can_be_shown(display: type, capsys: pytest.CaptureFixture[str]) -> None:
    """Both displays take every event of a scan and name the lost field."""
    with display() as show:
        for event in events_of_a_scan():
            show(event)

    assert "camera" in capsys.readouterr().out


def resumed_scan() -> list[Event]:
    """The scan above, resumed a day later: field 2 is there now."""
    later: list[Event] = [
        {"event": "begun", "process_began_s": 1000.0, "stripes": [3], "fields": 3, "versions": {}},
        {"event": "ray", "up_s": 1002.0, "cpus": 2, "batch_bytes": 10**6, "credits": 9},
        {"event": "resumed", "stacked": [2], "detected": [1]},
        {
            "event": "captured",
            "stripe": 0,
            "field": 2,
            "camera": 0,
            "began_s": 1003.0,
            "ended_s": 1004.0,
            "slips_ms": [0.2],
        },
        {"event": "predicted", "objects": 9, "answered_s": 1005.0, "digest": "e"},
        {"event": "finished", "status": "complete"},
    ]
    return events_of_a_scan() + [{"time": 1006.0, **event} for event in later]


def test_a_resumed_run_tells_its_own_times_and_all_faults() -> None:
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


@pytest.mark.parametrize("display", [PlainProgress, LiveProgress])
def test_a_resumed_run_can_be_shown(display: type) -> None:
    """Both displays take the events of a run that goes on where another stopped."""
    with display() as show:
        for event in [*resumed_scan(), {"event": "stopping"}]:
            show(event)


def journal_of(folder: Path, events: list[Event]) -> bytes:
    """A journal of these events, as bytes."""
    with Journal(folder / JOURNAL) as journal:
        for event in events:
            journal.write(**event)
    return (folder / JOURNAL).read_bytes()


TORN_ENDS = {
    "nothing": b"",
    "half a line": b'{"time": 1.0, "event": "sta',
    "a line without its end": b'{"time": 1.0, "event": "stacked"}',
    "zeros": bytes(64),
}


@pytest.mark.parametrize("end", TORN_ENDS.values(), ids=TORN_ENDS)
def test_a_torn_end_is_cut_off(tmp_path: Path, end: bytes) -> None:
    """What a crash left after the last whole line is not believed, and gone once it is opened."""
    whole = journal_of(tmp_path, [{"event": "begun"}, {"event": "stacked", "field": 3}])
    (tmp_path / JOURNAL).write_bytes(whole + end)

    events = read_journal(tmp_path / JOURNAL)
    unread = (tmp_path / JOURNAL).read_bytes()
    Journal(tmp_path / JOURNAL).close()

    assert [event["event"] for event in events] == ["begun", "stacked"]
    assert unread == whole + end
    assert (tmp_path / JOURNAL).read_bytes() == whole


DAMAGED_LINES = {
    "a number": b"12",
    "no event": b'{"time": 1.0}',
    "an event of no kind": b'{"event": 3}',
    "a flipped byte": b'{"time": 1.0, "evemt: "stacked"}',
    "zeros": bytes(20),
}


@pytest.mark.parametrize("line", DAMAGED_LINES.values(), ids=DAMAGED_LINES)
def test_a_damaged_line_costs_itself_alone(tmp_path: Path, line: bytes) -> None:
    """A line in the middle that cannot be read is told as damaged; those behind it count."""
    whole = journal_of(tmp_path, [{"event": "begun"}])
    (tmp_path / JOURNAL).write_bytes(whole + line + b"\n" + whole)

    events = read_journal(tmp_path / JOURNAL)

    assert [event["event"] for event in events] == ["begun", "damaged", "begun"]


def test_a_journal_cut_at_any_byte_tells_its_whole_lines(tmp_path: Path) -> None:
    """For every length that may be left, just the whole lines are believed, and stay."""
    whole = journal_of(tmp_path, [{"event": "stacked", "field": k} for k in range(20)])

    for length in range(len(whole) + 1):
        (tmp_path / JOURNAL).write_bytes(whole[:length])
        events = read_journal(tmp_path / JOURNAL)
        Journal(tmp_path / JOURNAL).close()

        assert [event["field"] for event in events] == list(range(whole[:length].count(b"\n")))
        assert (tmp_path / JOURNAL).read_bytes() == whole[: whole.rfind(b"\n", 0, length) + 1]


def test_a_screen_that_is_gone_ends_no_scan(tmp_path: Path) -> None:
    """When what shows the run fails, as a closed pipe does, the journal goes on."""

    def closed(event: Event) -> None:
        raise BrokenPipeError

    heard: list[Event] = []
    with Journal(tmp_path / JOURNAL, closed, heard.append) as journal:
        journal.write("begun")
        journal.write("stacked")

    assert len(heard) == len(read_journal(tmp_path / JOURNAL)) == 2


def test_a_folder_without_journal_has_no_past(tmp_path: Path) -> None:
    """Where nothing was written nothing is known, and nothing is made."""
    assert read_journal(tmp_path / JOURNAL) == []
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """A line that does not fit is taken back and told once; later events reach listeners only."""
    heard: list[Event] = []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(tmp_path / JOURNAL, heard.append) as journal:
        journal.write("begun")
        whole = (tmp_path / JOURNAL).read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, limits[1]))
        try:
            with pytest.raises(
                StorageError, match=r"events.jsonl: expected to write \d+ bytes.*free"
            ):
                journal.write("stacked", field=1)
            journal.write("failed")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert (tmp_path / JOURNAL).read_bytes() == whole
    assert [event["event"] for event in heard] == ["begun", "failed"]


def test_a_journal_whose_folder_is_gone_says_so(tmp_path: Path) -> None:
    """Lines are never written into the void."""
    folder = tmp_path / "run"
    folder.mkdir()
    with Journal(folder / JOURNAL) as journal:
        journal.write("begun")
        shutil.rmtree(folder)

        with pytest.raises(StorageError, match="the folder is gone"):
            journal.write("stacked")
