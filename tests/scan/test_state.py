"""Which field comes next, for any order in which steps end."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scan.credits import Credits, credits_for
from scan.errors import UserMistake
from scan.layout import make_plan
from scan.plan import Field
from scan.state import MAX_DETECTIONS, ScanState


class Simulation:
    """Plays a scan against its state: steps end, or fail, in a random order."""

    def __init__(self, state: ScanState, seed: int, failing: float = 0.0) -> None:
        self.state, self.random, self.failing = state, random.Random(seed), failing
        self.captured: list[Field] = []
        self.detected: list[Field] = []
        self._in_flight: list[tuple[str, Field]] = []

    def run(self) -> None:
        """Until all is done; an idle scan that is not finished is stuck."""
        while not self.state.finished:
            while self.state.has_room and (cameras := self.state.cameras_with_fields()):
                self._in_flight.append(("capture", self.state.next_capture(cameras)))
            assert self._in_flight, "nothing in flight, and not finished"
            step, field = self._in_flight.pop(self.random.randrange(len(self._in_flight)))
            getattr(self, step)(field)

    def capture(self, field: Field) -> None:
        """A capture ends: most are stacked, some are repeated, some are lost."""
        if self.random.random() >= self.failing:
            self.captured.append(field)
            self._in_flight.append(("stack", field))
        elif self.random.random() < 0.5:
            self.state.requeue(field)
        else:
            self.state.lose_batch(field, "broken")
            self.detect_around(field)

    def stack(self, field: Field) -> None:
        """A stacking task ends."""
        self.state.mark_stacked(field)
        self.detect_around(field)

    def detect_around(self, field: Field) -> None:
        """Detections that wait for a field start only when all that they see is there."""
        for ready in self.state.detections_to_submit(field):
            around = self.state.plan.neighbours(ready)
            assert all(o in self.state.stacked or o in self.state.lost for o in around)
            self.detected.append(ready)
            self._in_flight.append(("detect", ready))

    def detect(self, field: Field) -> None:
        """A detection ends."""
        self.state.mark_detected(field)


def state_of(stripes: int, fields: int, credits: int) -> ScanState:
    """The state of a small scan."""
    plan = make_plan((fields,) * stripes, (64, 64), 16, 1.0, steered=True)
    return ScanState(plan, Credits(credits))


SCANS = {
    "stripes": st.integers(1, 4),
    "fields": st.integers(1, 6),
    "spare": st.integers(0, 8),
    "seed": st.integers(0, 2**32),
}


@given(**SCANS)
def test_any_order_ends_with_every_field(stripes: int, fields: int, spare: int, seed: int) -> None:
    """In each order of results, every field is captured and detected once, within the credits."""
    state = state_of(stripes, fields, stripes + spare)
    scan = Simulation(state, seed)

    scan.run()

    everything = set(state.plan.fields)
    assert set(scan.captured) == set(scan.detected) == state.detected == everything
    assert len(scan.captured) == len(scan.detected) == len(everything)
    assert state.credits.peak <= stripes + spare


@given(**SCANS, failing=st.floats(0, 0.9))
def test_planned_is_detected_plus_lost(
    stripes: int, fields: int, spare: int, seed: int, failing: float
) -> None:
    """However often captures fail, no field is forgotten and every credit is released."""
    state = state_of(stripes, fields, stripes + spare)

    Simulation(state, seed, failing).run()

    assert state.detected | set(state.lost) == set(state.plan.fields)
    assert not state.detected & set(state.lost)
    assert not state.in_flight


def test_a_requeued_field_comes_before_its_successors() -> None:
    """A field that failed is captured again first, so that a stripe is scanned in order."""
    state = state_of(1, 4, credits=8)
    first, second = state.next_capture([0]), state.next_capture([0])

    state.requeue(second)
    state.requeue(first)

    assert [state.next_capture([0]).field for _ in range(4)] == [0, 1, 2, 3]


def test_the_camera_with_most_fields_left_comes_first() -> None:
    """Cameras that may be asked take turns by what they have left."""
    state = state_of(2, 3, credits=8)

    assert [state.next_capture([0, 1]).stripe for _ in range(4)] == [0, 1, 0, 1]
    assert state.next_capture([1]).stripe == 1
    assert state.cameras_with_fields() == [0]


def test_a_dropped_camera_loses_what_waits_for_it() -> None:
    """The other stripes decide when the scan ends."""
    state = state_of(2, 3, credits=8)

    dropped = state.drop_camera(0, "no camera")
    for field in dropped:
        assert list(state.detections_to_submit(field)) == []
    Simulation(state, seed=0).run()

    assert {field.stripe for field in dropped} == {0}
    assert state.finished
    assert len(state.detected) == 3


def test_a_lost_detection_is_a_lost_field() -> None:
    """A field that is stacked and cannot be searched is lost, and nothing waits for it."""
    state = state_of(1, 1, credits=1)
    field = state.next_capture([0])
    state.mark_stacked(field)
    assert list(state.detections_to_submit(field)) == [field]

    state.lose_detection(field, "no memory")

    assert state.lost == {field: "no memory"}
    assert state.finished
    assert not state.in_flight


def test_what_is_on_disk_is_not_captured_again() -> None:
    """A resumed scan captures what is not stacked, and detects in what was not searched."""
    plan = state_of(3, 5, 8).plan
    stacked = random.Random(3).sample(plan.fields, 9)
    inner = [f for f in stacked if set(plan.neighbours(f)) <= set(stacked)]
    state = ScanState(plan, Credits(8), stacked, inner)
    scan = Simulation(state, seed=1)
    for field in stacked:
        scan.detect_around(field)

    scan.run()

    assert set(scan.captured) == set(plan.fields) - set(stacked)
    assert sorted(map(id, scan.detected)) == sorted(id(f) for f in plan.fields if f not in inner)


def test_detections_that_pile_up_leave_no_room() -> None:
    """When detection is slower than all else, no batch is captured until it catches up."""
    state = state_of(1, MAX_DETECTIONS + 50, credits=8)
    detecting: list[Field] = []
    while state.has_room:
        field = state.next_capture([0])
        state.mark_stacked(field)
        detecting += state.detections_to_submit(field)

    assert len(detecting) == MAX_DETECTIONS
    state.mark_detected(detecting[0])
    assert state.has_room


def test_credits_are_a_fraction_of_the_store() -> None:
    """Credits fill the requested fraction of the store, in whole batches."""
    assert credits_for(1000, 0.6, 100, cameras=3).total == 6


def test_small_batches_have_no_more_credits_than_the_driver_holds_with_ease() -> None:
    """A store of a hundred thousand batches would let cameras run as far ahead."""
    assert credits_for(10**9, 0.6, 6_000, cameras=3).total == 1_000
    assert credits_for(10**9, 0.6, 6_000, cameras=2_000).total == 2_000


def test_a_store_without_a_batch_per_camera_is_refused() -> None:
    """A store too small for a batch of each camera is a mistake that says what to change."""
    with pytest.raises(UserMistake, match="larger object store, or take fewer stripes"):
        credits_for(1000, 0.6, 300, cameras=3)
