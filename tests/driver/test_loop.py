"""The workflow of `main.scan` on a cluster without Ray: what follows when a step ends or fails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.failures import FailureKind
from driver import run
from driver.pending import STALL_WARNING_S
from driver.steps import (
    Capture,
    DetectObjects,
    PredictScan,
    StackBatch,
    StartCamera,
    Step,
    Sweep,
)
from scan import events
from scan.errors import FocusError, ScanError, StorageError
from tests.driver.fake_cluster import (
    BATCH_LOST,
    CAMERA_ERROR,
    DIES,
    HANG,
    RAY_DIED,
    WORKER_DIED,
    FakeCluster,
    failure,
    fake_scan,
)

FIELDS = [(stripe, field) for stripe in range(2) for field in range(3)]
FULL_DISK = failure(
    FailureKind.ERROR, "disk full", StorageError("stacked.ome.zarr", "to write", "ENOSPC", "x")
)
BUG = failure(FailureKind.ERROR, "ZeroDivisionError: division by zero", ZeroDivisionError())
MODEL_ERROR = failure(
    FailureKind.ERROR, "my_model: expected labels, got None", ScanError("my_model", "a", "b", "c")
)


@pytest.mark.parametrize("seed", range(20))
def test_each_field_is_done_once_in_any_order(tmp_path: Path, seed: int) -> None:
    """In each order of results, each field is captured, stacked and detected once."""
    with fake_scan(tmp_path, FakeCluster(seed=seed)) as scan:
        answer = scan.scan()

    for stripe, field in FIELDS:
        for step in (Capture, StackBatch, DetectObjects):
            assert scan.cluster.count(step, stripe, field) == 1
    assert answer.objects == 3 * len(FIELDS)
    assert not scan.lost
    assert scan.run.credits.taken == 0


def test_a_batch_is_stacked_by_its_reference(tmp_path: Path) -> None:
    """The frames of a capture go to its stacking task as they were returned: a reference."""
    with fake_scan(tmp_path, FakeCluster()) as scan:
        scan.scan()

    steps = scan.cluster.submitted
    batches = {step.job.field: step.batch for step in steps if isinstance(step, StackBatch)}
    for number, step in enumerate(steps, 1):
        if isinstance(step, Capture):
            assert batches[step.field] == f"frames {number}"


def test_captures_keep_to_the_credits(tmp_path: Path) -> None:
    """With two credits no third batch is asked for before one is stacked; the wait is journaled."""
    in_flight: set[Any] = set()
    peak = 0

    def watch(step: Step) -> None:
        nonlocal peak
        if isinstance(step, Capture):
            in_flight.add(step.field)
        peak = max(peak, len(in_flight))

    with fake_scan(tmp_path, FakeCluster(on_submit=watch), credits=2) as scan:
        scan.journal.on_write = lambda event: (
            in_flight.difference_update(
                {f for f in in_flight if (f.stripe, f.field) == (event.stripe, event.field)}
            )
            if isinstance(event, events.Stacked)
            else None
        )
        scan.scan()

    assert peak == 2
    assert scan.journal.of(events.Throttled)


def test_cameras_of_low_priority_are_reported_once(tmp_path: Path) -> None:
    """Where Ray was started so that cameras do not come before stacking, the run says so."""
    with fake_scan(tmp_path, FakeCluster(niceness=15)) as scan:
        scan.scan()

    (warning,) = scan.journal.of(events.Warned)
    assert "start Ray with RAY_worker_niceness=0" in warning.message


# ------------------------------------------------------------------- exposures that fail

EXPOSURES: Mapping[str, tuple[list[Any], int, int]] = {
    # results of the first captures of field (0, 1); captures of it; restarts
    "camera error": ([CAMERA_ERROR], 2, 0),
    "two camera errors": ([CAMERA_ERROR, CAMERA_ERROR], 3, 0),
    "camera dies": ([DIES], 2, 1),
    "camera hangs": ([HANG], 2, 1),
    "camera hangs, then dies": ([HANG, DIES], 3, 2),
}


@pytest.mark.parametrize(
    ("results", "captures", "restarts"), EXPOSURES.values(), ids=list(EXPOSURES)
)
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_a_failed_exposure_is_repeated_and_no_other(
    tmp_path: Path, results: list[Any], captures: int, restarts: int, seed: int | None
) -> None:
    """Only the field under exposure is captured again; what waited in the camera is not counted."""
    with fake_scan(tmp_path, FakeCluster({("capture", 0, 1): results}, seed)) as scan:
        scan.scan()

    retried = scan.journal.of(events.Retried)
    assert not scan.lost
    assert scan.cluster.count(Capture, 0, 1) == captures
    assert [(e.stripe, e.field, e.step) for e in retried] == [(0, 1, "capture")] * (captures - 1)
    assert len(scan.journal.of(events.Restarted)) == restarts
    assert scan.cluster.count(DetectObjects) == len(FIELDS)


@pytest.mark.parametrize("result", [CAMERA_ERROR, DIES, HANG], ids=["error", "dies", "hangs"])
def test_an_exposure_that_keeps_failing_loses_its_field(tmp_path: Path, result: Any) -> None:
    """After the retries of the settings the field is lost by name, and the others go on."""
    with fake_scan(tmp_path, FakeCluster({("capture", 1, 0): [result] * 9})) as scan:
        answer = scan.scan()

    assert list(scan.lost) == [(1, 0)]
    assert scan.cluster.count(Capture, 1, 0) == 1 + scan.run.setup.settings.retries
    assert answer.objects == 3 * 5
    assert scan.run.credits.taken == 0


def test_a_camera_that_cannot_start_again_loses_its_stripe(tmp_path: Path) -> None:
    """The fields that its camera had left are lost, with both reasons; the other stripe is done."""
    cluster = FakeCluster({("capture", 0, 1): [DIES]}, opens={0: 1})
    with fake_scan(tmp_path, cluster) as scan:
        scan.scan()

    assert set(scan.lost) == {(0, 1), (0, 2)}
    for reason in scan.lost.values():
        assert reason.startswith("the process of the camera died; the camera could not be opened: ")
        assert "expected a camera, got none" in reason


def test_a_camera_that_never_answers_is_dropped(tmp_path: Path) -> None:
    """One that hangs while it starts again is not used again; the scan does not wait for it."""
    cluster = FakeCluster({("capture", 0, 0): [HANG]})
    with fake_scan(tmp_path, cluster, {"camera_start_s": 5.0}) as scan:
        start = cluster._result

        def hang_second_start(step: Step) -> Any:
            again = step == StartCamera(0) and cluster.count(StartCamera) > 2
            return HANG if again else start(step)

        cluster._result = hang_second_start  # type: ignore[method-assign]
        scan.scan()

    assert cluster.ended == [(0, True), (0, False)]
    assert set(scan.lost) == {(0, 0), (0, 1), (0, 2)}
    assert "the camera did not open within 5 s" in scan.lost[0, 1]


# ------------------------------------------------------------------------ tasks that fail

TASKS = {"stack": StackBatch, "detect": DetectObjects}


@pytest.mark.parametrize("step", TASKS)
@pytest.mark.parametrize("times", [1, 2])
def test_a_dead_worker_costs_no_exposure(tmp_path: Path, step: str, times: int) -> None:
    """The same task is submitted again with the same references; the specimen is left alone."""
    with fake_scan(tmp_path, FakeCluster({(step, 0, 1): [WORKER_DIED] * times})) as scan:
        scan.scan()

    assert not scan.lost
    assert scan.cluster.count(Capture) == len(FIELDS)
    assert scan.cluster.count(TASKS[step], 0, 1) == 1 + times
    same = [s for s in scan.cluster.submitted if isinstance(s, TASKS[step]) and s.job.field.field]
    assert len({id(s) for s in same if (s.job.field.stripe, s.job.field.field) == (0, 1)}) == 1
    assert [e.step for e in scan.journal.of(events.Retried)] == [step] * times


@pytest.mark.parametrize("step", TASKS)
def test_a_task_whose_workers_keep_dying_loses_its_field(tmp_path: Path, step: str) -> None:
    """After its retries the field is lost; it was exposed once."""
    with fake_scan(tmp_path, FakeCluster({(step, 0, 1): [WORKER_DIED] * 9})) as scan:
        answer = scan.scan()

    assert scan.lost == {(0, 1): WORKER_DIED.reason}
    assert scan.cluster.count(Capture, 0, 1) == 1
    assert answer.objects == 3 * 5
    assert scan.run.credits.taken == 0


def test_a_lost_batch_is_captured_again(tmp_path: Path) -> None:
    """When the images are gone there is nothing to stack: the field is exposed again, and counted
    as a stacking retry."""
    with fake_scan(tmp_path, FakeCluster({("stack", 0, 1): [BATCH_LOST]})) as scan:
        scan.scan()

    assert not scan.lost
    assert scan.cluster.count(Capture, 0, 1) == 2
    assert [e.step for e in scan.journal.of(events.Retried)] == ["stack"]


def test_a_model_that_refuses_a_field_loses_it(tmp_path: Path) -> None:
    """An error that a predictor reports concerns its field, and is not repeated."""
    with fake_scan(tmp_path, FakeCluster({("detect", 1, 1): [MODEL_ERROR]})) as scan:
        scan.scan()

    assert scan.lost == {(1, 1): MODEL_ERROR.reason}
    assert scan.cluster.count(DetectObjects, 1, 1) == 1


ENDING = {
    "full disk while stacking": (("stack", 0, 1), FULL_DISK, StorageError),
    "full disk while detecting": (("detect", 0, 1), FULL_DISK, StorageError),
    "error of the program": (("stack", 0, 1), BUG, ZeroDivisionError),
    "Ray's own process dies": (("stack", 0, 1), RAY_DIED, ScanError),
    "Ray's own process dies at a capture": (("capture", 0, 1), RAY_DIED, ScanError),
}


@pytest.mark.parametrize(("place", "result", "error"), ENDING.values(), ids=list(ENDING))
def test_what_concerns_more_than_a_field_ends_the_scan(
    tmp_path: Path, place: tuple[str, int, int], result: Any, error: type[Exception]
) -> None:
    """A full disk, an unforeseen error, or the end of Ray: no field is lost for it."""
    with fake_scan(tmp_path, FakeCluster({place: [result]})) as scan, pytest.raises(error):
        scan.scan()

    assert not scan.lost
    assert not scan.cluster.count(PredictScan)


def test_lost_autofocus_images_end_the_scan(tmp_path: Path) -> None:
    """Statistics cannot be estimated without images; a resumed run sweeps once more."""
    lost = FakeCluster({("estimate statistics", 0, 0): [BATCH_LOST]})
    with fake_scan(tmp_path, lost) as scan, pytest.raises(ScanError, match="sweeps once more"):
        scan.scan()


@pytest.mark.parametrize("step", ["find z-positions", "estimate statistics", "predict"])
def test_other_tasks_are_submitted_again(tmp_path: Path, step: str) -> None:
    """A worker that dies in a task of the whole scan costs a repetition, which is journaled."""
    with fake_scan(tmp_path, FakeCluster({(step, 0, 0): [WORKER_DIED]})) as scan:
        answer = scan.scan()

    assert sum(each.name == step for each in scan.cluster.submitted) == 2
    assert [e.step for e in scan.journal.of(events.Retried)] == [step]
    assert answer.objects == 3 * len(FIELDS)


@pytest.mark.parametrize("step", ["find z-positions", "estimate statistics", "predict"])
def test_other_tasks_are_not_repeated_for_ever(tmp_path: Path, step: str) -> None:
    """After the retries the scan ends with the error of the last attempt."""
    cluster = FakeCluster({(step, 0, 0): [WORKER_DIED] * 9})
    with fake_scan(tmp_path, cluster) as scan, pytest.raises(RuntimeError, match="worker died"):
        scan.scan()

    assert sum(each.name == step for each in cluster.submitted) == 3


def test_an_error_of_the_warm_up_ends_the_scan(tmp_path: Path) -> None:
    """What fails while nothing is at stake would fail later, too: a dead worker would not."""
    with fake_scan(tmp_path, FakeCluster({("warm up", 0, 0): [WORKER_DIED]})) as scan:
        scan.scan()
    with (
        fake_scan(tmp_path, FakeCluster({("warm up", 0, 0): [BUG]})) as scan,
        pytest.raises(ZeroDivisionError),
    ):
        scan.scan()


# ---------------------------------------------------------------------------- liveness


@pytest.mark.parametrize("seed", range(5))
def test_a_lost_node_costs_what_it_had(tmp_path: Path, seed: int) -> None:
    """A node that had a camera, a batch and two tasks: each follows its own policy, and only what
    was exposed there is exposed again."""
    script = {
        ("capture", 0, 1): [DIES],
        ("stack", 0, 0): [BATCH_LOST],
        ("stack", 1, 0): [WORKER_DIED],
        ("detect", 1, 2): [WORKER_DIED],
    }
    with fake_scan(tmp_path, FakeCluster(script, seed)) as scan:
        scan.scan()

    retried = {(e.step, e.stripe, e.field) for e in scan.journal.of(events.Retried)}
    captured = [(e.stripe, e.field) for e in scan.journal.of(events.Captured)]
    assert retried == set(script)
    assert sorted(captured) == sorted([*FIELDS, (0, 0)])  # its batch was lost
    assert not scan.lost


def test_a_scan_that_does_not_move_says_so(tmp_path: Path) -> None:
    """After minutes without a result the journal says what is waited for."""
    cluster = FakeCluster({("detect", 0, 1): [HANG]})
    with fake_scan(tmp_path, cluster) as scan:

        def give_up(event: events.Event) -> None:
            if isinstance(event, events.Warned):
                raise ScanError("test", "a warning", event.message, "end")

        scan.journal.on_write = give_up
        with pytest.raises(ScanError, match="no task finished for 300 s; waiting for: detect"):
            scan.scan()
    assert cluster.time_s > STALL_WARNING_S


def test_a_head_that_is_gone_ends_the_scan(tmp_path: Path) -> None:
    """Ray's head is looked after once a second, also when nothing resolves."""
    cluster = FakeCluster({("detect", 0, 1): [HANG]})
    with fake_scan(tmp_path, cluster) as scan:

        def end_head(event: events.Event) -> None:
            cluster.alive = not isinstance(event, events.Stacked)

        scan.journal.on_write = end_head
        with pytest.raises(ScanError, match="its head to answer"):
            scan.scan()


# --------------------------------------------------------------------------------- stop


@pytest.mark.parametrize("seed", range(5))
def test_a_stop_drains(tmp_path: Path, seed: int) -> None:
    """Nothing is submitted after a request to stop, queued captures are withdrawn, what is in
    flight ends, and the scan is interrupted."""
    cluster = FakeCluster(seed=seed)
    with fake_scan(tmp_path, cluster) as scan:
        submitted = 0

        def stop(event: events.Event) -> None:
            nonlocal submitted
            if isinstance(event, events.Captured) and not scan.run.stop.requested:
                scan.run.stop.requested = True
                submitted = cluster.count(Capture)

        scan.journal.on_write = stop
        with pytest.raises(KeyboardInterrupt):
            scan.scan()

    assert cluster.count(Capture) == submitted
    assert cluster.cancelled
    assert scan.run.credits.taken == 0
    assert not scan.lost
    assert not cluster.count(PredictScan)
    assert len(scan.journal.of(events.Stopping)) == 1


def test_a_request_that_ended_ray_as_well_is_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SIGTERM reached Ray's processes first, the run was asked to stop: it did not fail."""
    monkeypatch.setattr(run, "ray_answers", lambda: False)

    with fake_scan(tmp_path, FakeCluster()) as scan:

        def ended(given: run.Run) -> None:
            given.stop.requested = True
            raise ScanError("Ray", "its head", "none", "see Ray's logs")

        error = run.run_workflow(scan.run, ended)

    assert isinstance(error, KeyboardInterrupt)
    assert len(scan.journal.of(events.Stopping)) == 1
    assert [event.status for event in scan.journal.of(events.Finished)] == [events.CANCELLED]


def test_a_full_disk_does_not_keep_captures_in_queues(tmp_path: Path) -> None:
    """Where a scan ends because the journal cannot be written, queued captures are withdrawn."""
    with fake_scan(tmp_path, FakeCluster(), credits=2) as scan:

        def full(event: events.Event) -> None:
            if isinstance(event, events.Stacked | events.Throttled):
                raise StorageError("events.jsonl", "to write", "ENOSPC", "make room")

        scan.journal.on_write = full
        with pytest.raises(StorageError):
            scan.scan()

    queued = [r for r in scan.cluster._queues.values() if len(r) > 1]
    assert not queued


# ----------------------------------------------------------------------------- autofocus


@pytest.mark.parametrize(
    ("results", "restarts"),
    [([CAMERA_ERROR], 0), ([DIES], 1), ([HANG], 1), ([CAMERA_ERROR, DIES], 1)],
    ids=["error", "dies", "hangs", "error, dies"],
)
def test_a_failed_sweep_is_repeated(tmp_path: Path, results: list[Any], restarts: int) -> None:
    """Autofocus supervises cameras as the scan does: a sweep that failed is repeated."""
    with fake_scan(tmp_path, FakeCluster({("sweep", 0, 0): results})) as scan:
        scan.scan()

    (focused,) = scan.journal.of(events.Focused)
    retried = scan.journal.of(events.Retried)
    assert focused.kept == focused.sampled == 4
    assert [(e.step, e.stripe, e.field) for e in retried] == [("focus", 0, 0)] * len(results)
    assert all(e.reason.startswith("the sweep failed: ") for e in retried)
    assert len(scan.journal.of(events.Restarted)) == restarts


def test_a_sample_that_keeps_failing_is_rejected(tmp_path: Path) -> None:
    """After its retries a sample is left out of the surface, with its reason."""
    with fake_scan(tmp_path, FakeCluster({("sweep", 0, 0): [CAMERA_ERROR] * 9})) as scan:
        scan.scan()

    (focused,) = scan.journal.of(events.Focused)
    (rejected,) = focused.rejected
    assert (rejected["stripe"], rejected["field"]) == (0, 0)
    assert rejected["reason"] == f"the sweep failed: {CAMERA_ERROR.reason}"


def test_a_scan_without_any_camera_cannot_begin(tmp_path: Path) -> None:
    """Where no camera opens there is no focus, and the reason is that of the cameras."""
    cluster = FakeCluster(opens={0: 0, 1: 0})
    with fake_scan(tmp_path, cluster) as scan, pytest.raises(FocusError, match="got none"):
        scan.scan()


def test_lost_sweep_images_are_swept_again(tmp_path: Path) -> None:
    """If a node that held the planes of sweeps is lost, autofocus is done again, and counted."""
    with fake_scan(tmp_path, FakeCluster({("find z-positions", 0, 0): [BATCH_LOST]})) as scan:
        scan.scan()

    (retried,) = scan.journal.of(events.Retried)
    assert retried.step == "focus"
    assert scan.cluster.count(Sweep) == 2 * 2 * 3  # twice, two stripes: coarse and fine, then fine


def test_without_autofocus_a_sample_is_one_stack(tmp_path: Path) -> None:
    """Each sample is exposed once, at the heights at which its field is captured."""
    settings = {"focus": "none", "focus_center_um": 2.0}
    with fake_scan(tmp_path, FakeCluster(), settings) as scan:
        scan.scan()

    steps = scan.cluster.submitted
    assert scan.cluster.count(Sweep) == 4
    assert {step.z_um for step in steps if isinstance(step, Sweep | Capture)} == {(1.0, 2.0, 3.0)}
