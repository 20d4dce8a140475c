"""What a journal says was done, and what may be believed of it."""

from __future__ import annotations

from typing import Any

import pytest

from scan.past import Past, per_stripe
from scan.plan import make_plan

PLAN = make_plan((3, 3, 3), (64, 64), 16, 1.0, steered=True)
MIDDLE = (1, 1)
ALL = [(field.stripe, field.field) for field in PLAN.fields]
FAR_FROM_CORNER = {place for place in ALL if max(place) == 2}


def lines(kind: str, *places: tuple[int, int]) -> list[dict[str, Any]]:
    return [
        {"event": kind, "stripe": stripe, "field": field, "checksums": [1, 2]}
        for stripe, field in places
    ]


STORIES = {
    "calm": ([*lines("stacked", *ALL), *lines("detected", *ALL)], set(ALL)),
    "searched around a hole": (
        [*lines("stacked", *ALL[1:]), *lines("lost", ALL[0]), *lines("detected", *ALL[1:])],
        FAR_FROM_CORNER,
    ),
    "the hole was filled later": (
        [
            *lines("stacked", *ALL[1:]),
            *lines("detected", *ALL[1:]),
            {"event": "begun"},
            *lines("stacked", ALL[0]),
        ],
        FAR_FROM_CORNER,
    ),
    "and searched again": (
        [
            *lines("stacked", *ALL[1:]),
            *lines("detected", *ALL[1:]),
            {"event": "begun"},
            *lines("stacked", ALL[0]),
            *lines("detected", *ALL),
        ],
        set(ALL),
    ),
    "captured twice": ([*lines("stacked", *ALL), *lines("detected", *ALL),
                        *lines("stacked", MIDDLE)], set()),
}  # fmt: skip


@pytest.mark.parametrize(("events", "believed"), STORIES.values(), ids=STORIES)
def test_a_search_counts_if_all_it_saw_was_there(
    events: list[dict[str, Any]], believed: set[tuple[int, int]]
) -> None:
    """A field is searched anew if it, or a neighbour, was stacked after it was searched."""
    past = Past.of(events, PLAN)

    assert {(field.stripe, field.field) for field in past.detected} == believed


@pytest.mark.parametrize(
    "line",
    [
        {"event": "stacked"},
        {"event": "stacked", "stripe": 7, "field": 0, "checksums": [1]},
        {"event": "detected", "stripe": "one", "field": 0, "checksums": [1]},
        {"event": "finished"},
    ],
)
def test_a_line_that_does_not_fit_tells_nothing(line: dict[str, Any]) -> None:
    """Places beyond the plan and missing facts are passed over."""
    past = Past.of([*lines("stacked", *ALL), line], PLAN)

    assert len(past.stacked) == 9
    assert not past.complete


def test_a_damaged_line_lets_all_be_searched_again() -> None:
    """What cannot be read may have told of a field that came later than the searches before it."""
    past = Past.of([*lines("stacked", *ALL), *lines("detected", *ALL), {"event": "damaged"}], PLAN)

    assert len(past.stacked) == 9
    assert not past.detected


def test_what_is_forgotten_is_done_again() -> None:
    """A field whose pixels are damaged is captured again, and all who looked at it look again."""
    past = Past.of([*lines("stacked", *ALL), *lines("detected", *ALL)], PLAN)

    past.forget(PLAN.fields[0])

    assert per_stripe(past.stacked, PLAN) == [2, 3, 3]
    assert {(field.stripe, field.field) for field in past.detected} == FAR_FROM_CORNER


def test_the_last_run_says_whether_all_is_done() -> None:
    """Complete is what finished as complete and was not begun again."""
    begun, finished = {"event": "begun"}, {"event": "finished", "status": "complete"}

    assert Past.of([begun, finished], PLAN).complete
    assert not Past.of([begun, finished, begun], PLAN).complete
    assert not Past.of([begun, finished | {"status": "partial"}], PLAN).complete
    assert not Past.of([], PLAN).complete


def test_the_focus_surface_is_read_back() -> None:
    """Heights by field are those that were written, to the last bit."""
    told = [[0, 0, 0.1], [0, 1, -3.7000000000000001]]

    past = Past.of([{"event": "focused", "centres_um": told}], PLAN)

    assert past.centres_um == {(0, 0): 0.1, (0, 1): -3.7}
