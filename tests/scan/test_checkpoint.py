"""The checkpoint: which results of earlier runs are valid, according to the journal."""

from __future__ import annotations

from typing import Any

import pytest

from scan.checkpoint import Checkpoint, crc_of, per_stripe
from scan.events import (
    Begun,
    Damaged,
    Described,
    Detected,
    Event,
    FieldEvent,
    Finished,
    Focused,
    Lost,
    RayStarted,
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
FOCUSED = sample(Focused, centres_um=[(*place, 0.5) for place in ALL])
FOUND: list[Event] = [FOCUSED, sample(Described)]  # by autofocus: detections rely on it
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
    checkpoint = Checkpoint.of([*FOUND, *events], PLAN)

    assert {(field.stripe, field.field) for field in checkpoint.detected} == valid


@pytest.mark.parametrize("kind", [Stacked, Detected])
def test_fields_beyond_the_plan_are_ignored(kind: type[FieldEvent]) -> None:
    """An event of a field that the plan does not have changes nothing."""
    checkpoint = Checkpoint.of([*each(Stacked, *ALL), *each(kind, (7, 0))], PLAN)

    assert len(checkpoint.stacked) == 9
    assert not checkpoint.complete


HIDDEN: dict[str, tuple[int, int, int]] = {  # damaged line: fields stacked and detected then
    "focused": (0, 9, 0),
    "described": (1, 9, 0),
    "the first stacked": (2, 8, 9 - 4),
    "the first detected": (11, 9, 8),
    "the last detected": (19, 9, 8),
}


@pytest.mark.parametrize(("at", "stacked", "detected"), HIDDEN.values(), ids=HIDDEN)
def test_a_damaged_line_costs_what_it_said(at: int, stacked: int, detected: int) -> None:
    """What other lines say stays valid; detections are repeated whose pixels, or whose statistics,
    no line tells."""
    events = [*FOUND, *each(Stacked, *ALL), *each(Detected, *ALL)]
    events[at] = Damaged()

    checkpoint = Checkpoint.of(events, PLAN)

    assert (len(checkpoint.stacked), len(checkpoint.detected)) == (stacked, detected)
    assert checkpoint.warnings == (
        "1 line of the journal could not be read; what was in there is done again",
    )


def test_detections_by_other_statistics_are_not_kept() -> None:
    """A run whose statistics were damaged was resumed and killed: what the first run detected does
    not go with what the second one estimated."""
    second = [sample(Described, diameter_px=11.0), *each(Stacked, *ALL), *each(Detected, CENTER)]
    events = [FOCUSED, Damaged(), *each(Stacked, *ALL), *each(Detected, *ALL), *second]

    checkpoint = Checkpoint.of(events, PLAN)

    assert [(field.stripe, field.field) for field in checkpoint.detected] == [CENTER]


FINGERPRINT = {"input": 7, "seed": 1}
KNOWN = sample(RayStarted, identity_crc=crc_of(FINGERPRINT))
FIRST_LINES: dict[str, tuple[list[Event], int]] = {  # fields that are still valid
    "both": ([sample(Begun, identity=FINGERPRINT), KNOWN], 9),
    "a checksum of the other": ([Damaged(), KNOWN], 9),
    "none": ([Damaged(), Damaged()], 0),
    "none of an earlier version": ([Damaged(), sample(RayStarted)], 0),
    "the checksum of another input": ([Damaged(), sample(RayStarted, identity_crc=1)], 0),
}


@pytest.mark.parametrize(("first", "valid"), FIRST_LINES.values(), ids=FIRST_LINES)
def test_nothing_is_kept_of_an_unknown_input(first: list[Event], valid: int) -> None:
    """Fields on disk are used if a line says that input, settings and model are the same."""
    checkpoint = Checkpoint.of([*first, *FOUND, *each(Stacked, *ALL), *each(Detected, *ALL)], PLAN)

    checkpoint.require_same_run(FINGERPRINT, "run")

    assert (len(checkpoint.stacked), len(checkpoint.detected)) == (valid, valid)
    assert bool(checkpoint.focused) == bool(valid)


def test_an_invalid_field_is_done_again() -> None:
    """A field whose pixels are damaged is captured again; it and its neighbours are detected
    again."""
    events = [*FOUND, *each(Stacked, *ALL), *each(Detected, *ALL)]
    checkpoint = Checkpoint.of(events, PLAN)

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
    centres = [(*place, -3.7000000000000001) for place in ALL]

    checkpoint = Checkpoint.of([sample(Focused, centres_um=centres)], PLAN)

    assert checkpoint.centres_um == dict.fromkeys(ALL, -3.7)


def test_a_focus_surface_with_holes_is_not_used() -> None:
    """Each field needs a height."""
    checkpoint = Checkpoint.of([sample(Focused, centres_um=[(0, 0, 0.1)])], PLAN)

    assert checkpoint.focused is None
