"""The checkpoint: which results of earlier runs are valid, according to the journal."""

from __future__ import annotations

from typing import Any

import pytest

from scan.checkpoint import Checkpoint, per_stripe
from scan.events import (
    Begun,
    Damaged,
    Detected,
    Event,
    FieldEvent,
    Finished,
    Focused,
    Lost,
    Stacked,
)
from scan.layout import make_plan
from tests.scan.samples import sample

PLAN = make_plan((3, 3, 3), (64, 64), 16, 1.0, steered=True)
CENTER = (1, 1)
ALL = [(field.stripe, field.field) for field in PLAN.fields]
FAR_FROM_CORNER = {place for place in ALL if max(place) == 2}


def each(kind: type[FieldEvent], *places: tuple[int, int]) -> list[Any]:
    """One event of a kind for each field."""
    return [sample(kind, stripe=stripe, field=field) for stripe, field in places]


BEGUN = sample(Begun)
HISTORIES: dict[str, tuple[list[Event], set[tuple[int, int]]]] = {  # events, valid detections
    "calm": ([*each(Stacked, *ALL), *each(Detected, *ALL)], set(ALL)),
    "detected beside a missing field": (
        [*each(Stacked, *ALL[1:]), *each(Lost, ALL[0]), *each(Detected, *ALL[1:])],
        FAR_FROM_CORNER,
    ),
    "the missing field was stacked later": (
        [*each(Stacked, *ALL[1:]), *each(Detected, *ALL[1:]), BEGUN, *each(Stacked, ALL[0])],
        FAR_FROM_CORNER,
    ),
    "and all were detected again": (
        [*each(Stacked, *ALL[1:]), *each(Detected, *ALL[1:]), BEGUN, *each(Stacked, ALL[0]),
         *each(Detected, *ALL)],
        set(ALL),
    ),
    "captured twice": (
        [*each(Stacked, *ALL), *each(Detected, *ALL), *each(Stacked, CENTER)], set(),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("events", "valid"), HISTORIES.values(), ids=HISTORIES)
def test_a_detection_is_valid_if_all_its_pixels_were_there(
    events: list[Event], valid: set[tuple[int, int]]
) -> None:
    """A field is detected again if it, or a neighbour, was stacked after its detection."""
    checkpoint = Checkpoint.of(events, PLAN)

    assert {(field.stripe, field.field) for field in checkpoint.detected} == valid


@pytest.mark.parametrize("kind", [Stacked, Detected])
def test_fields_beyond_the_plan_are_ignored(kind: type[FieldEvent]) -> None:
    """An event of a field that the plan does not have changes nothing."""
    checkpoint = Checkpoint.of([*each(Stacked, *ALL), *each(kind, (7, 0))], PLAN)

    assert len(checkpoint.stacked) == 9
    assert not checkpoint.complete


def test_a_damaged_line_invalidates_all_detections() -> None:
    """A line that cannot be read may be a stack that came after the detections before it."""
    checkpoint = Checkpoint.of([*each(Stacked, *ALL), *each(Detected, *ALL), Damaged()], PLAN)

    assert len(checkpoint.stacked) == 9
    assert not checkpoint.detected


def test_an_invalid_field_is_done_again() -> None:
    """A field whose pixels are damaged is captured again; it and its neighbours are detected
    again."""
    checkpoint = Checkpoint.of([*each(Stacked, *ALL), *each(Detected, *ALL)], PLAN)

    checkpoint.invalidate(PLAN.fields[0])

    assert per_stripe(checkpoint.stacked, PLAN) == [2, 3, 3]
    assert {(field.stripe, field.field) for field in checkpoint.detected} == FAR_FROM_CORNER


def test_the_last_run_decides_whether_all_is_complete() -> None:
    """Complete means: finished as complete, and no run began afterwards."""
    finished = Finished(status="complete")

    assert Checkpoint.of([BEGUN, finished], PLAN).complete
    assert not Checkpoint.of([BEGUN, finished, BEGUN], PLAN).complete
    assert not Checkpoint.of([BEGUN, Finished(status="partial")], PLAN).complete
    assert not Checkpoint.of([], PLAN).complete


def test_the_focus_surface_is_read_back() -> None:
    """Heights by field are those that were written, to the last bit."""
    centres = [(0, 0, 0.1), (0, 1, -3.7000000000000001)]

    checkpoint = Checkpoint.of([sample(Focused, centres_um=centres)], PLAN)

    assert checkpoint.centres_um == {(0, 0): 0.1, (0, 1): -3.7}
