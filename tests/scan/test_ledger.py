"""The driver's decisions, for any order in which things finish."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scan.credits import Credits, credits_for
from scan.errors import UserMistake
from scan.ledger import QUEUED_DETECTIONS, QUEUED_PER_CAMERA, Ledger
from scan.plan import Field, make_plan


class Simulation:
    """Plays a scan against a ledger: things finish, or fail, in a random order."""

    def __init__(self, ledger: Ledger, seed: int, failing: float = 0.0) -> None:
        self.ledger, self.random, self.failing = ledger, random.Random(seed), failing
        self.captured: list[Field] = []
        self.searched: list[Field] = []
        self.deepest = 0
        self._under_way: list[tuple[str, Field]] = []

    def run(self) -> None:
        """Until the ledger says that all is done; an idle scan that is not finished is stuck."""
        while not self.ledger.finished:
            self._under_way += [("capture", field) for field in self.ledger.captures_to_begin()]
            self.deepest = max(self.deepest, *(self._queued(s) for s in self._stripes()))
            assert self._under_way, "nothing under way, and not finished"
            step, field = self._under_way.pop(self.random.randrange(len(self._under_way)))
            getattr(self, step)(field)

    def _stripes(self) -> range:
        return range(len(self.ledger.plan.stripes))

    def _queued(self, stripe: int) -> int:
        return sum(s == "capture" and f.stripe == stripe for s, f in self._under_way)

    def capture(self, field: Field) -> None:
        self.ledger.was_captured(field)
        if self.random.random() < self.failing:
            self.fail(field)
        else:
            self.captured.append(field)
            self._under_way.append(("stack", field))

    def stack(self, field: Field) -> None:
        if self.random.random() < self.failing:
            self.fail(field)
            return
        self.ledger.was_stacked(field)
        self.search_around(field)

    def fail(self, field: Field) -> None:
        if not self.ledger.failed(field, "broken"):
            self.search_around(field)

    def search_around(self, field: Field) -> None:
        for ready in self.ledger.detections_to_begin(field):
            around = self.ledger.plan.neighbours(ready)
            assert all(o in self.ledger.stacked or o in self.ledger.lost for o in around)
            self.searched.append(ready)
            self._under_way.append(("detect", ready))

    def detect(self, field: Field) -> None:
        self.ledger.was_detected(field)


def ledger_of(stripes: int, fields: int, credits: int, retries: int = 2) -> Ledger:
    """A ledger for a small steered scan."""
    plan = make_plan((fields,) * stripes, (64, 64), 16, 1.0, steered=True)
    return Ledger(plan, Credits(credits), retries)


SCANS = {
    "stripes": st.integers(1, 4),
    "fields": st.integers(1, 6),
    "spare": st.integers(0, 8),
    "seed": st.integers(0, 2**32),
}


@given(**SCANS)
def test_any_order_ends_with_every_field(stripes: int, fields: int, spare: int, seed: int) -> None:
    """Whatever finishes first, every field is captured, stacked and searched just once."""
    ledger = ledger_of(stripes, fields, stripes + spare)
    scan = Simulation(ledger, seed)

    scan.run()

    everything = set(ledger.plan.fields)
    assert set(scan.captured) == set(scan.searched) == ledger.detected == everything
    assert len(scan.captured) == len(scan.searched) == len(everything)


@given(**SCANS, failing=st.floats(0, 0.9))
def test_planned_is_detected_plus_lost(
    stripes: int, fields: int, spare: int, seed: int, failing: float
) -> None:
    """However often captures and stacks fail, no field is forgotten and no credit goes astray."""
    ledger = ledger_of(stripes, fields, stripes + spare)

    Simulation(ledger, seed, failing).run()

    assert ledger.detected | set(ledger.lost) == set(ledger.plan.fields)
    assert not ledger.detected & set(ledger.lost)
    assert ledger.credits.taken == 0


@given(**SCANS)
def test_no_more_batches_than_credits(stripes: int, fields: int, spare: int, seed: int) -> None:
    """Batches in flight never exceed the credits, nor captures of a stripe its queue."""
    scan = Simulation(ledger_of(stripes, fields, stripes + spare), seed)

    scan.run()

    assert scan.ledger.credits.peak <= stripes + spare
    assert scan.deepest <= QUEUED_PER_CAMERA


def test_a_failed_field_comes_before_its_successors() -> None:
    """A field that failed is captured again at once, so a stripe is scanned in order."""
    ledger = ledger_of(1, 4, credits=8)
    first, second = ledger.captures_to_begin()

    ledger.was_captured(first)
    again = ledger.failed(first, "camera error")

    assert again
    assert next(ledger.captures_to_begin()) is first
    assert second.field == 1


def test_a_paused_stripe_is_asked_nothing() -> None:
    """While a camera is started anew its stripe waits, and the others go on."""
    ledger = ledger_of(2, 2, credits=8)

    ledger.paused.add(0)
    asked = list(ledger.captures_to_begin())
    ledger.paused.discard(0)

    assert {field.stripe for field in asked} == {1}
    assert {field.stripe for field in ledger.captures_to_begin()} == {0}


def test_a_field_is_lost_after_its_retries() -> None:
    """A field that fails once more than it is retried is lost, with its last reason."""
    ledger = ledger_of(1, 1, credits=2, retries=1)
    for reason in ("first", "second"):
        (field,) = ledger.captures_to_begin()
        ledger.was_captured(field)
        ledger.failed(field, reason)

    assert ledger.lost == {field: "second"}
    assert ledger.finished


def test_credits_are_a_fraction_of_the_store() -> None:
    """Credits fill the asked fraction of the store, in whole batches."""
    assert credits_for(1000, 0.6, 100, cameras=3).total == 6


def test_a_store_without_a_batch_per_camera_is_refused() -> None:
    """A store too small for a batch of each camera is a mistake that says what to change."""
    with pytest.raises(UserMistake, match="larger object store, or take fewer stripes"):
        credits_for(1000, 0.6, 300, cameras=3)


def test_what_is_on_disk_is_not_captured_again() -> None:
    """A resumed scan captures what is not stacked, and searches what is not searched."""
    plan = ledger_of(3, 5, 8).plan
    generator = random.Random(3)
    stacked = generator.sample(plan.fields, 9)
    inner = [f for f in stacked if set(plan.neighbours(f)) <= set(stacked)]
    ledger = Ledger(plan, Credits(8), 2, stacked, inner)
    scan = Simulation(ledger, seed=1)
    for field in stacked:
        scan.search_around(field)

    scan.run()

    assert set(scan.captured) == set(plan.fields) - set(stacked)
    assert sorted(map(id, scan.searched)) == sorted(id(f) for f in plan.fields if f not in inner)


def test_only_the_field_under_exposure_pays_for_a_dead_camera() -> None:
    """Fields that waited in the camera's queue go back, in order, with all their retries."""
    ledger = ledger_of(1, 4, credits=8, retries=0)
    first, second = ledger.captures_to_begin()
    assert ledger.under_exposure(0) is first
    assert ledger.in_queues() == [second]

    for field in (second, first):
        ledger.was_captured(field)
    ledger.put_back(second)
    lost = not ledger.failed(first, "the camera died")

    assert lost
    assert ledger.credits.taken == 0
    assert [next(ledger.captures_to_begin()).field for _ in range(2)] == [1, 2]


def test_a_stripe_without_camera_is_lost_and_the_scan_ends() -> None:
    """What waited for a camera that is gone for good is lost; the other stripes decide the end."""
    ledger = ledger_of(2, 3, credits=8)

    gone = ledger.abandon(0, "no camera")
    Simulation(ledger, seed=0).run()

    assert {field.stripe for field in gone} == {0}
    assert ledger.finished
    assert len(ledger.detected) == 3


def test_a_camera_is_held_only_for_want_of_credits() -> None:
    """A camera is held if it has nothing to expose, fields wait for it and no credit is left."""
    ledger = ledger_of(2, 3, credits=2)
    asked = list(ledger.captures_to_begin())
    assert ledger.held_cameras() == set()

    ledger.was_captured(asked[0])
    assert ledger.held_cameras() == {asked[0].stripe}

    ledger.was_stacked(asked[0])
    assert ledger.held_cameras() == set()


def test_detections_that_pile_up_hold_the_cameras() -> None:
    """When searching is slower than all else, no further batch is asked for until it catches up."""
    ledger = ledger_of(1, QUEUED_DETECTIONS + 50, credits=8)
    searching = []
    while field := next(ledger.captures_to_begin(), None):
        ledger.was_captured(field)
        ledger.was_stacked(field)
        searching += ledger.detections_to_begin(field)

    assert len(searching) == QUEUED_DETECTIONS
    assert ledger.held_cameras() == {0}
    ledger.was_detected(searching[0])
    ledger.was_not_detected(searching[1], "broken")
    assert ledger.has_room
    assert not ledger.held_cameras()
