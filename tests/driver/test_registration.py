"""Registration in the workflow of `main.scan`, on a cluster without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driver.steps import Capture, DetectObjects, MatchFields, PlaceField, StackBatch, Step
from scan import events
from scan.checkpoint import Checkpoint
from scan.matches import Offset
from scan.plan import Field, Place
from tests.driver.fake_cluster import (
    BATCH_LOST,
    CAMERA_ERROR,
    DIES,
    WORKER_DIED,
    FakeCluster,
    FakeScan,
    fake_scan,
)

SLIDE = {"stripes": 3, "fields": 6, "register_fields": True}
FIELDS = [(stripe, field) for stripe in range(3) for field in range(6)]


def shift_px(one: Field, other: Field) -> tuple[float, float] | None:
    """What two fields show: a third of them nothing, the others what no stage error explains."""
    pair = sorted((one.place, other.place))
    generator = np.random.default_rng([*pair[0], *pair[1]])
    down, across = generator.normal(0, 3, 2)
    return (float(down), float(across)) if generator.random() < 2 / 3 else None


def scan_of(folder: Path, cluster: FakeCluster, **more: Any) -> FakeScan:
    """A whole scan."""
    cluster.shift_px = shift_px
    with fake_scan(folder, cluster, SLIDE, **more) as scan:
        scan.scan()
    return scan


def placed(scan: FakeScan) -> dict[Place, Offset]:
    """Where the fields of a scan were placed."""
    return {event.place: event.offset_px for event in scan.journal.of(events.Placed)}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[Place, Offset]:
    """Where fields lie if all goes well."""
    return placed(scan_of(tmp_path_factory.mktemp("usual"), FakeCluster()))


@pytest.mark.parametrize("seed", range(10))
def test_fields_lie_at_the_same_places_in_any_order(
    tmp_path: Path, seed: int, usual: dict[Place, Offset]
) -> None:
    """In each order of results, each field is placed once, and where it is in any other."""
    scan = scan_of(tmp_path, FakeCluster(seed=seed), credits=18)

    assert placed(scan) == usual
    assert usual.keys() == set(FIELDS)
    assert len(set(usual.values())) == len(FIELDS)
    for place in FIELDS:
        for step in (Capture, StackBatch, PlaceField, DetectObjects):
            assert scan.cluster.count(step, *place) == 1
    assert scan.run.credits.taken == 0
    assert not scan.run.credits.images


def test_tasks_get_the_images_by_reference(tmp_path: Path) -> None:
    """Images go from stacking to matching and placing as they were returned: as references."""
    scan = scan_of(tmp_path, FakeCluster(seed=1))
    steps = scan.cluster.submitted
    images = {s.field: f"frames {n}" for n, s in enumerate(steps, 1) if isinstance(s, StackBatch)}

    for step in steps:
        if isinstance(step, MatchFields):
            assert list(step.images) == [images[field] for field in step.job.fields]
        if isinstance(step, PlaceField):
            assert step.image == images[step.field]


def test_each_pair_is_matched_once(tmp_path: Path) -> None:
    """All neighbours are matched, each pair by the later of both."""
    scan = scan_of(tmp_path, FakeCluster(seed=2))
    pairs = [
        frozenset((step.field, other))
        for step in scan.cluster.submitted
        if isinstance(step, MatchFields)
        for other in step.job.others
    ]
    plan = scan.run.setup.plan
    wanted = {frozenset((one, two)) for one in plan.fields for two in plan.neighbours(one)}

    assert len(pairs) == len(wanted)
    assert set(pairs) == wanted


FAULTS = {
    "matching dies": {("match", 1, 2): [WORKER_DIED]},
    "placing dies twice": {("place", 1, 2): [WORKER_DIED, WORKER_DIED]},
    "an image is lost before it is matched": {("match", 1, 2): [BATCH_LOST]},
    "an image is lost before it is written": {("place", 1, 2): [BATCH_LOST]},
    "a camera dies": {("capture", 1, 2): [DIES]},
}


@pytest.mark.parametrize("script", FAULTS.values(), ids=list(FAULTS))
@pytest.mark.parametrize("seed", range(4))
def test_faults_do_not_move_fields(
    tmp_path: Path, script: dict[Any, Sequence[Any]], seed: int, usual: dict[Place, Offset]
) -> None:
    """Tasks that fail are submitted again, lost images captured again; places are the same."""
    scan = scan_of(tmp_path, FakeCluster(script, seed=seed), credits=18)

    assert placed(scan) == usual
    assert not scan.lost
    assert scan.journal.of(events.Retried)
    assert scan.run.credits.taken == 0
    assert not scan.run.credits.images


@pytest.mark.parametrize("step", ["capture", "stack", "match", "place"])
@pytest.mark.parametrize("seed", range(4))
def test_a_lost_field_leaves_its_neighbours_placed(tmp_path: Path, step: str, seed: int) -> None:
    """A field that is lost in any step is the only one that is not placed and detected."""
    fault = CAMERA_ERROR if step == "capture" else WORKER_DIED
    scan = scan_of(tmp_path, FakeCluster({(step, 1, 2): [fault] * 9}, seed=seed), credits=18)
    detected = {event.place for event in scan.journal.of(events.Detected)}

    assert scan.lost.keys() == {(1, 2)}
    assert detected == set(FIELDS) - {(1, 2)}
    assert scan.run.credits.taken == 0
    assert not scan.run.credits.images


@pytest.mark.parametrize("credits", [3, 4, 6])
@pytest.mark.parametrize("seed", range(4))
def test_a_small_store_delays_fields_and_does_not_end_them(
    tmp_path: Path, seed: int, credits: int, usual: dict[Place, Offset]
) -> None:
    """Where images that wait take all room, fields are captured one at a time until they go."""
    scan = scan_of(tmp_path, FakeCluster(seed=seed), credits=credits, image_share=1.0)

    assert placed(scan) == usual


def test_images_that_wait_count_as_room(tmp_path: Path) -> None:
    """Batches and images together keep to the credits, but for the one batch that must go on."""
    taken: list[tuple[int, int]] = []

    def watch(step: Step) -> None:
        if isinstance(step, Capture):
            taken.append((running.credits.taken, len(running.credits.images)))

    cluster = FakeCluster(on_submit=watch, shift_px=shift_px)
    with fake_scan(tmp_path, cluster, SLIDE, credits=12, image_share=1.0) as scan:
        running = scan.run
        scan.scan()

    assert max(images for _, images in taken) > 6
    assert all(batches == 1 or batches + images <= 12 for batches, images in taken)


@pytest.mark.parametrize("part", [0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_a_resume_goes_on_where_fields_lie(
    tmp_path: Path, seed: int, part: float, usual: dict[Place, Offset]
) -> None:
    """After a stop at any moment, what was written stays, and the rest comes where it would."""
    whole = scan_of(tmp_path, FakeCluster(seed=seed), credits=18)
    kept = whole.journal.events[: int(part * len(whole.journal.events))]
    checkpoint = Checkpoint.of(kept, whole.run.setup.plan)
    checkpoint.require_placed()
    before = {field.place for field in checkpoint.stacked}
    scan = scan_of(tmp_path, FakeCluster(seed=seed + 50), credits=18, checkpoint=checkpoint)

    assert before == {event.place for event in kept if isinstance(event, events.Stacked)}
    assert {place for place in FIELDS if scan.cluster.count(PlaceField, *place)} == (
        set(FIELDS) - before
    )
    assert {place: usual[place] for place in before} | placed(scan) == usual


@pytest.mark.parametrize("kind", [events.Placed, events.Matched])
def test_a_damaged_line_of_a_place_costs_captures_and_moves_nothing(
    tmp_path: Path, kind: type[events.FieldEvent], usual: dict[Place, Offset]
) -> None:
    """Fields whose place or matches cannot be read are captured again, and lie where they did."""
    whole = scan_of(tmp_path, FakeCluster(seed=3), credits=18)
    damaged = next(e for e in whole.journal.of(kind) if e.place == (1, 2))
    checkpoint = Checkpoint.of(
        [event for event in whole.journal.events if event is not damaged], whole.run.setup.plan
    )
    checkpoint.require_placed()
    scan = scan_of(tmp_path, FakeCluster(seed=4), credits=18, checkpoint=checkpoint)

    assert scan.cluster.count(Capture, 1, 2) == 1
    assert usual | placed(scan) == usual
