"""The data of the charts: every value is counted once, and the timeline has no gaps."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from report import columns
from report.columns import Geometry
from scan.events import (
    Begun,
    Captured,
    Detected,
    Event,
    Focused,
    Lost,
    Placed,
    RayStarted,
    Restarted,
    Retried,
    RunFailed,
    Stacked,
    Throttled,
    Warned,
)
from scan.layout import make_plan
from tests.scan.samples import sample

BEGUN = sample(
    Begun, time=100.0, process_began_s=100.0, stripes=[3, 2], fields=5, cameras=2,
    pixel_size_um=0.5, row_cuts=[0, 100, 240], column_cuts=[0, 100, 200, 340],
)  # fmt: skip
RAY = sample(RayStarted, time=100.1, cpus=2)

# ----------------------------------------------------------------------------------- histograms

MEASURES = st.floats(-1e6, 1e6).map(lambda value: round(value, 6))  # as the table has them
SCALES = {
    "linear": ("linear", MEASURES, float),
    "logarithmic": ("log", st.floats(-10, 1e7), float),
    "whole numbers": ("linear", st.integers(-3000, 100_000), int),
    "few whole numbers": ("linear", st.integers(0, 20), int),
}
VALUES = {  # scale, values
    "one": ("linear", [3.7]),
    "one on a logarithmic scale": ("log", [3.7]),
    "equal": ("linear", [812.25] * 7),
    "equal on a logarithmic scale": ("log", [812.25] * 7),
    "zeros on a logarithmic scale": ("log", [0.0, 0.0, 5.0]),
    "nothing but zeros on a logarithmic scale": ("log", [0.0]),
    "negatives on a logarithmic scale": ("log", [-0.3, 0.2, 1e5]),
    "negatives": ("linear", [-4.0, -2.0, 9.5]),
    "one whole number": ("linear", [4]),
    "whole numbers far apart": ("linear", [0, 100_000]),
}


def counted_once(values: list[Any], scale: str) -> None:
    """Every value lies in just one bin, and every bin counts what lies in it."""
    found = columns.histogram(values, scale)
    left, right, count = (np.asarray(found[name]) for name in ("left", "right", "count"))
    shown = np.maximum(values, columns.MIN_MS) if scale == "log" else np.asarray(values)

    assert (left < right).all()
    np.testing.assert_array_equal(left[1:], right[:-1])
    inside = (left[:, None] <= shown) & (shown < right[:, None])
    inside[-1] |= shown == right[-1]
    np.testing.assert_array_equal(inside.sum(axis=0), 1)
    np.testing.assert_array_equal(inside.sum(axis=1), count)
    assert len(count) <= columns.BINS + 1


@pytest.mark.parametrize(("scale", "values"), VALUES.values(), ids=VALUES)
def test_special_values_are_counted_once(scale: str, values: list[Any]) -> None:
    """One value, equal ones, zeros and negatives are counted as any other."""
    counted_once(values, scale)


@pytest.mark.parametrize(("scale", "values", "kind"), SCALES.values(), ids=SCALES)
@given(data=st.data())
def test_every_value_is_counted_once(
    data: st.DataObject, scale: str, values: st.SearchStrategy[Any], kind: type
) -> None:
    """A histogram counts every value in the one bin that it lies in."""
    counted_once(data.draw(st.lists(values.map(kind), min_size=1, max_size=60)), scale)


def test_nothing_has_no_bins() -> None:
    """Where nothing was measured, nothing is drawn."""
    assert columns.histogram([]) == {"left": [], "right": [], "count": []}


@given(st.lists(st.integers(0, columns.BINS - 1), min_size=1))
def test_bins_of_few_integers_are_centred_on_them(values: list[int]) -> None:
    """Bins of whole numbers that span little lie around one number each."""
    found = columns.histogram(values)

    middles = (found["left"] + found["right"]) / 2
    assert list(middles) == list(range(min(values), min(values) + len(middles)))
    np.testing.assert_array_equal(found["right"] - found["left"], 1)


# ------------------------------------------------------------------------------------- timeline

KINDS = ("capture", "hold", "stack")


def took(kind: type[Event], stripe: int, began_s: float, seconds: float) -> Event:
    """An event that took time."""
    times = {"began_s": 100 + began_s, "ended_s": 100 + began_s + seconds}
    return sample(kind, time=times["ended_s"], stripe=stripe, camera=stripe, **times)


EVENTS = st.lists(
    st.builds(
        took,
        st.sampled_from([Captured, Throttled, Stacked]),
        st.integers(0, 1),
        st.floats(0, 1e5),
        st.floats(0, 1e3),
    ),
    max_size=40,
)


def bars_of(events: Iterable[Event], most: int) -> list[dict[str, Any]]:
    """The bars of a timeline with room for so many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "MAX_BARS", most)
        found = columns.timeline([BEGUN, RAY, *events], KINDS)["timeline"]
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]


@given(EVENTS, st.integers(1, 12))
def test_joined_bars_cover_all_original_bars(events: list[Event], most: int) -> None:
    """However many bars become one, each moment that had a bar of a lane and kind still has one;
    there are no more than there is room for, but for one of each lane and kind."""
    every, fewer = bars_of(events, 10**6), bars_of(events, most)

    sorts = {(bar["lane"], bar["kind"]) for bar in every}
    assert len(every) == len(events)
    assert len(fewer) <= max(most, len(sorts))
    assert {(bar["lane"], bar["kind"]) for bar in fewer} == sorts
    for bar in every:
        assert any(
            (other["lane"], other["kind"]) == (bar["lane"], bar["kind"])
            and other["left"] <= bar["left"] <= bar["right"] <= other["right"]
            for other in fewer
        )
    for end in ("left", "right"):
        assert {bar[end] for bar in fewer} <= {bar[end] for bar in every}


def test_bars_are_joined_only_if_there_are_too_many() -> None:
    """As many bars as there is room for stay as they are; one more, and those that follow most
    closely become one that says so, and no other does."""
    starts_s = [0, 1, 2.001, 3, 4]
    lengths_s = [0.9, 1.0, 0.9, 0.9, 0.9]  # the second ends a millisecond before the third begins
    events = [took(Captured, 0, *span) for span in zip(starts_s, lengths_s, strict=True)]

    assert [bar["text"] for bar in bars_of(events, 5)] == ["capture stripe 0 field 0"] * 5
    assert [(bar["left"], bar["right"], bar["text"]) for bar in bars_of(events, 4)] == [
        (0, 0.9, "capture stripe 0 field 0"),
        (1, 2.901, "many times capture"),
        (3, 3.9, "capture stripe 0 field 0"),
        (4, 4.9, "capture stripe 0 field 0"),
    ]


def test_there_is_a_lane_per_camera_and_cpu_slot() -> None:
    """Every camera and every CPU slot has a lane, also one that had nothing to do."""
    assert columns.lanes([BEGUN, RAY]) == ["camera 0", "camera 1", "CPU slot 0", "CPU slot 1"]


def test_work_beyond_the_slots_has_a_lane() -> None:
    """Where clocks differ and more seems to run than there are slots, no bar lies outside lanes."""
    events = [BEGUN, RAY, *(took(Stacked, 0, 1, 2) for _ in range(3))]

    lanes = columns.lanes(events)
    assert lanes[2:] == ["CPU slot 0", "CPU slot 1", "CPU slot 2"]
    assert set(columns.timeline(events, KINDS)["timeline"]["lane"]) <= set(lanes)


# --------------------------------------------------------------------------------------- faults

AT = {"stripe": 1, "field": 2, "camera": 1}
FAULTS: dict[str, tuple[Event, str, str]] = {  # event, lane, text
    "a capture again": (
        Retried(step="capture", **AT, reason="no frame"),
        "camera 1", "retried capture stripe 1 field 2: no frame",
    ),
    "a sweep again": (
        Retried(step="focus", stripe=0, field=4, camera=0, reason="no peak"),
        "camera 0", "retried focus stripe 0 field 4: no peak",
    ),
    "all sweeps again": (
        Retried(step="focus", reason="the worker died"), "", "retried focus: the worker died",
    ),
    "stacking again": (
        Retried(step="stack", **AT, reason="killed"), "", "retried stack stripe 1 field 2: killed",
    ),
    "a lost field": (Lost(**AT, reason="dead"), "camera 1", "lost stripe 1 field 2: dead"),
    "a camera": (Restarted(camera=1, reason="hung"), "camera 1", "restarted camera 1: hung"),
    "a warning": (Warned(message="another Ray"), "", "warning: another Ray"),
    "the end": (RunFailed(reason="disk full"), "", "failed: disk full"),
}  # fmt: skip


@pytest.mark.parametrize(("event", "lane", "text"), FAULTS.values(), ids=FAULTS)
def test_faults_are_in_the_lane_of_a_camera_or_in_none(event: Event, lane: str, text: str) -> None:
    """Faults say when, what and where; what concerns no camera stands above the lanes."""
    events = [BEGUN, took(Captured, 1, 0, 1), event.model_copy(update={"time": 107.5})]

    (fault,) = columns.faults(events)
    assert (fault["at"], fault["lane"]) == (107.5, lane)
    assert fault["text"] == text
    marks = columns.timeline(events, KINDS)["faults"]
    assert (marks["left"], marks["right"], marks["lane"]) == ([7.5], [7.5], [lane])


# --------------------------------------------------------------------------------------- fields


HISTORIES: dict[str, tuple[list[Any], str, str, int]] = {  # events, state, reason, objects
    "nothing yet": ([], "planned", "", 0),
    "captured": ([sample(Captured)], "captured", "", 0),
    "stacked": ([sample(Captured), sample(Stacked)], "stacked", "", 0),
    "detected": ([sample(Stacked), sample(Detected, objects=7)], "detected", "", 7),
    "lost": ([sample(Captured), sample(Lost, reason="dead")], "lost", "dead", 0),
    "lost, then detected on resume": (
        [sample(Lost, reason="dead"), sample(Stacked), sample(Detected, objects=3)],
        "detected", "", 3,
    ),
    "detected, then stacked again": (
        [sample(Stacked), sample(Detected, objects=7), sample(Stacked)], "stacked", "", 0,
    ),
    "another field": ([sample(Lost, field=1, reason="dead")], "planned", "", 0),
}  # fmt: skip


@pytest.mark.parametrize(("events", "state", "reason", "count"), HISTORIES.values(), ids=HISTORIES)
def test_the_last_event_of_a_field_is_its_state(
    events: list[Any], state: str, reason: str, count: int
) -> None:
    """A field is as its last event has it; only fields that are lost now are listed as lost."""
    found = columns.fields(Geometry(BEGUN), events)

    of_first = [found["fields"][name][0] for name in ("name", "state", "reason", "objects")]
    assert of_first == ["stripe 0 field 0", state, reason, count]
    last = {event.field: event for event in events}
    lost = [f"stripe 0 field {k}" for k, event in last.items() if isinstance(event, Lost)]
    assert found["lost"]["name"] == lost
    assert found["lost"]["reason"] == ["dead"] * len(lost)


def test_borders_are_between_pixels() -> None:
    """Fields tile the mosaic, stripes hold their fields, and pixel 0 has its middle at 0 µm."""
    found = columns.fields(Geometry(BEGUN), [sample(Lost, stripe=1, field=1, reason="dead")])

    boxes = list(zip(*(found["fields"][edge] for edge in columns.BOX), strict=True))
    assert boxes == [
        *((left, right, -0.25, 49.75) for left, right in itertools.pairwise(
            [-0.25, 49.75, 99.75, 169.75])),
        *((left, right, 49.75, 119.75) for left, right in itertools.pairwise(
            [-0.25, 49.75, 99.75])),
    ]  # fmt: skip
    assert found["stripes"]["right"] == [169.75, 99.75]
    assert [found["lost"][edge] for edge in columns.BOX] == [[49.75], [99.75], [49.75], [119.75]]


def test_many_fields_have_no_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more fields than one can see only stripes are drawn, and every k-th of those lost."""
    monkeypatch.setattr(columns, "MAX_BORDERS", 4)
    monkeypatch.setattr(columns, "MAX_MARKS", 2)
    lost = [sample(Lost, field=field, reason="dead") for field in range(3)]

    found = columns.fields(Geometry(BEGUN), lost)
    assert found["fields"]["name"] == []
    assert len(found["stripes"]["left"]) == 2
    assert found["lost"]["name"] == ["stripe 0 field 0", "stripe 0 field 2"]


# ---------------------------------------------------------------------------------------- focus

FOCUSED = sample(
    Focused,
    samples=[(0, 0, 1.0), (0, 2, 9.0), (1, 1, 3.0)],
    rejected=[{"stripe": 0, "field": 2, "reason": "dust"}],
    centres_um=[(0, 0, 1.1), (0, 1, 1.2), (0, 2, 1.3), (1, 0, 2.1), (1, 1, 2.2)],
)


def test_samples_are_at_their_fields() -> None:
    """Kept samples and rejected ones, these with the reason, lie in the middle of their fields."""
    found = columns.focus(Geometry(BEGUN), FOCUSED)

    assert found["kept"] == {
        "name": ["stripe 0 field 0", "stripe 1 field 1"],
        "x_um": [24.75, 74.75], "y_um": [24.75, 84.75], "z_um": [1.0, 3.0], "reason": ["", ""],
    }  # fmt: skip
    assert found["rejected"] == {
        "name": ["stripe 0 field 2"], "x_um": [134.75], "y_um": [24.75], "z_um": [9.0],
        "reason": ["dust"],
    }  # fmt: skip


def test_the_surface_has_a_height_for_each_field() -> None:
    """From above every core at its place with its height; from the side a line a stripe."""
    geometry = Geometry(BEGUN)
    found = columns.focus(geometry, FOCUSED)

    assert found["surface"]["z_um"] == [1.1, 1.2, 1.3, 2.1, 2.2]
    for edge in columns.BOX:
        cores = [geometry.core(place)[edge] for place in geometry.places()]
        assert found["surface"][edge] == cores
    assert found["profile"] == {
        "x_um": [[24.75, 74.75, 134.75], [24.75, 74.75]],
        "z_um": [[1.1, 1.2, 1.3], [2.1, 2.2]],
    }


def test_before_autofocus_there_is_no_surface() -> None:
    """A run that has only begun has no samples and no picture of a surface."""
    found = columns.focus(Geometry(BEGUN), None)

    assert not any(found["surface"].values())
    assert not any(found[name]["name"] for name in ("kept", "rejected"))


# -------------------------------------------------------------------------------------- objects


@given(st.integers(0, 300), st.integers(1, 50))
def test_objects_are_limited(number: int, most: int) -> None:
    """Of too many objects every k-th has a tooltip, from the first on; of fewer, all."""
    labels = np.arange(1.0, number + 1)
    names = ("label", "x_um", "y_um", "z_um", "diameter_um", "intensity", "score")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "MAX_OBJECTS", most)
        found = columns.objects(dict.fromkeys(names, labels), 0.5)

    assert len(found["label"]) <= most
    if number < most:
        np.testing.assert_array_equal(found["label"], labels)
    assert not number or found["label"][0] == 1
    assert len(set(np.diff(found["label"]))) <= 1
    assert all(len(column) == len(found["label"]) for column in found.values())


def test_an_object_can_be_pointed_at() -> None:
    """The disc under the pointer is a little larger than its object, and what was not measured
    is a number, too, as JavaScript wants it."""
    names = ("label", "x_um", "y_um", "z_um", "intensity", "score")
    rows = dict.fromkeys(names, np.array([4.0])) | {"diameter_um": np.array([10.0])}
    found = columns.objects(rows | {"z_um": np.array([np.nan])}, 0.5)

    assert found["radius_um"] == [6.0]
    assert found["z_um"] == [0.0]


def test_arrows_show_where_fields_lie() -> None:
    """The longest arrow is as long as most of a field; fields without a match are apart."""
    plan = make_plan((3, 3), (128, 128), 32, 0.5, steered=True)
    begun = Begun.of(plan, process_began_s=0.0, versions={}, identity={})
    work = {"began_s": 1.0, "ended_s": 2.0, "cpu_s": 0.1}
    first, second = (
        Placed.of(field, 0, offset_px=(0.0, across), written_px=(0, 0), agreeing=agreeing, **work)
        for field, across, agreeing in zip(plan.fields[:2], (4.0, -2.0), (2, 0), strict=True)
    )
    found = columns.registration(columns.Geometry(begun), [begun, first, second])
    (length_um,) = np.subtract(found["offsets"]["to_x"], found["offsets"]["x_um"])
    (shorter_um,) = np.subtract(found["by_stage"]["to_x"], found["by_stage"]["x_um"])

    assert length_um == pytest.approx(-2 * shorter_um)
    assert 0.5 < length_um / (96 * 0.5) <= 1
    assert found["offsets"]["text"] == ["+4.0, +0.0 px, 2 matches"]


@pytest.mark.parametrize(("longest_px", "round_px"), [(4.0, 2), (0.7, 0.5), (12.0, 10), (5.0, 5)])
def test_arrows_have_a_scale(longest_px: float, round_px: float) -> None:
    """An arrow of a round length stands for as many pixels as its text says."""
    plan = make_plan((3, 3), (128, 128), 32, 0.5, steered=True)
    begun = Begun.of(plan, process_began_s=0.0, versions={}, identity={})
    work = {"began_s": 1.0, "ended_s": 2.0, "cpu_s": 0.1}
    offset = {"offset_px": (0.0, longest_px), "written_px": (0, 0), "agreeing": 1}
    placed = Placed.of(plan.fields[0], 0, **offset, **work)
    found = columns.registration(columns.Geometry(begun), [begun, placed])
    (arrow_um,) = np.subtract(found["offsets"]["to_x"], found["offsets"]["x_um"])
    (scale_um,) = np.subtract(found["arrow_scale"]["to_x"], found["arrow_scale"]["x_um"])
    times = arrow_um / (longest_px * 0.5)

    assert scale_um / arrow_um == pytest.approx(round_px / longest_px)
    assert found["arrow_scale"]["text"] == [
        f"{round_px:g} px = {round_px * 0.5:.3g} µm (arrows {times:.3g} x longer)"
    ]
    assert columns.registration(columns.Geometry(begun), [begun])["arrow_scale"]["text"] == []
