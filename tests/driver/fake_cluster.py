"""A cluster without Ray: calls resolve as a script says, in an order that a seed decides."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import main
from cluster.failures import Failure, FailureKind
from cluster.signals import Stop
from config import validate
from driver.run import Run
from driver.steps import (
    Capture,
    DetectObjects,
    EstimateStatistics,
    FindZPositions,
    MatchFields,
    PlaceField,
    PredictScan,
    StackBatch,
    StartCamera,
    Step,
    Sweep,
    WarmUp,
)
from imaging.detection import DetectionStatistics
from imaging.zpositions import z_positions
from microscope.opening import prepare
from scan.checkpoint import Checkpoint
from scan.credits import Credits
from scan.errors import CaptureError, ScanError
from scan.events import Event
from scan.matches import Match
from scan.plan import Field
from scan.records import (
    AnswerRecord,
    CaptureRecord,
    DetectionRecord,
    StackRecord,
    SweepRecord,
    WorkRecord,
)
from scan.registration import MatchRecord, PlaceRecord

EXACT = 1e-3, 1e-3, 0.0  # covariance of a match, in square pixels
HANG = object()  # a call that never resolves
DIES = object()  # a camera whose process dies at this exposure
STATISTICS = DetectionStatistics(100.0, 5.0, 500.0, 10.0)
WORK = WorkRecord(1.0, 2.0, 0.5)


def failure(kind: FailureKind, reason: str = "broken", error: Exception | None = None) -> Failure:
    """A failure as Ray's exceptions are sorted into."""
    return Failure(kind, reason, error or RuntimeError(reason))


WORKER_DIED = failure(FailureKind.WORKER_DIED, "WorkerCrashedError: the worker died")
BATCH_LOST = failure(FailureKind.BATCH_LOST, "the images were lost with the node that held them")
CAMERA_ERROR = failure(
    FailureKind.ERROR,
    "camera: expected a frame, got none; check the cable",
    CaptureError("camera", "a frame", "none", "check the cable"),
)
CAMERA_DIED = failure(FailureKind.CAMERA_DIED, "the process of the camera died")
CANCELLED = failure(FailureKind.CANCELLED, "cancelled")
RAY_DIED = failure(FailureKind.RAY_DIED, "Ray's local process died")


class FakeJournal:
    """Keeps events in a list."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.on_write: Callable[[Event], None] = lambda event: None

    def write(self, event: Event) -> None:
        """Keep an event."""
        self.on_write(event)
        self.events.append(event)

    def seen(self, kind: type[Event]) -> bool:
        """Whether such an event was kept."""
        return bool(self.of(kind))

    def of(self, kind: type[Event]) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


Script = Mapping[tuple[str, int, int], Sequence[Any]]  # (step, stripe, field): results, in order


@dataclass
class FakeCluster:
    """Plays `cluster.calls.RemoteCalls`; a step with no result left in the script succeeds.

    `opens` holds for each camera how often its process can start; `busy_s` is how long each call
    takes on the fake clock; `on_submit` is called with each step; `shift_px` is what the overlap of
    two fields shows.
    """

    script: Script = field(default_factory=dict)
    seed: int | None = None
    opens: Mapping[int, int] = field(default_factory=dict)
    busy_s: float = 0.1
    niceness: int = 0
    on_submit: Callable[[Step], None] = lambda step: None
    shift_px: Callable[[Field, Field], tuple[float, float] | None] = lambda field, other: None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.time_s = 0.0
        self.submitted: list[Step] = []
        self.cancelled: list[int] = []
        self.ended: list[tuple[int, bool]] = []
        self.alive = True
        self._steps: dict[int, Step] = {}
        self._results: dict[int, Any] = {}
        self._left = {key: list(results) for key, results in self.script.items()}
        self._queues: dict[int, list[int]] = {}
        self._starts: Counter[int] = Counter()

    # -------------------------------------------------------------- what the driver calls

    def submit(self, step: Step) -> tuple[int, Any]:
        """Note the step and decide how it will end."""
        self.on_submit(step)
        self.submitted.append(step)
        reference = len(self.submitted)
        self._steps[reference] = step
        self._results[reference] = self._result(step)
        if isinstance(step, Sweep | Capture):
            self._queues.setdefault(step.camera, []).append(reference)
        return reference, f"frames {reference}"

    def wait(self, references: Sequence[int], timeout_s: float) -> list[int]:
        """Resolve one call, chosen by the seed, or let the time pass."""
        assert references, "waiting for nothing"
        ready = [r for r in references if self._results[r] is not HANG and self._first(r)]
        if not ready:
            self.time_s += timeout_s
            return []
        chosen = ready[0] if self.seed is None else self.random.choice(ready)
        self.time_s += self.busy_s
        if self._results[chosen] is DIES:
            self._kill(self._steps[chosen].camera)
            return self.wait(references, timeout_s)
        for queue in self._queues.values():
            if chosen in queue:
                queue.remove(chosen)
        return [chosen]

    def result(self, reference: int) -> Any:
        """The record or the failure of a call."""
        return self._results[reference]

    def store(self, value: Any) -> Any:
        """The value itself."""
        return value

    def cancel(self, reference: int) -> None:
        """Fail a call that waits."""
        self.cancelled.append(reference)
        if not self._first(reference):
            self._results[reference] = CANCELLED
            self._leave_queue(reference)

    def end_camera(self, camera: int, *, restart: bool) -> None:
        """Fail all calls of the camera."""
        self.ended.append((camera, restart))
        self._kill(camera)
        for reference, step in self._steps.items():
            if step == StartCamera(camera) and self._results[reference] is HANG:
                self._results[reference] = CAMERA_DIED

    def now_s(self) -> float:
        """The fake clock."""
        return self.time_s

    def cpu_slots(self) -> int:
        """Two."""
        return 2

    def require_alive(self) -> None:
        """Raise if a test ended the head."""
        if not self.alive:
            raise ScanError("Ray", "its head to answer", "nothing", "resume the run")

    # ------------------------------------------------------------------- how calls end

    def count(self, kind: type, stripe: int | None = None, number: int | None = None) -> int:
        """How often a kind of step was submitted, for one field or all."""
        steps = [step for step in self.submitted if isinstance(step, kind)]
        if stripe is None:
            return len(steps)
        return sum(place_of(step) == (stripe, number) for step in steps)

    def _first(self, reference: int) -> bool:
        """Whether a camera works on this call, or no camera is needed."""
        queues = [queue for queue in self._queues.values() if reference in queue]
        return not queues or queues[0][0] == reference

    def _leave_queue(self, reference: int) -> None:
        for queue in self._queues.values():
            if reference in queue:
                queue.remove(reference)

    def _kill(self, camera: int) -> None:
        for reference in self._queues.pop(camera, []):
            self._results[reference] = CAMERA_DIED

    def _result(self, step: Step) -> Any:
        place = place_of(step)
        left = self._left.get((step.name, *place)) if place else self._left.get((step.name, 0, 0))
        if left:
            return left.pop(0)
        match step:
            case StartCamera(camera):
                self._starts[camera] += 1
                if self._starts[camera] > self.opens.get(camera, 99):
                    died = RuntimeError("The actor died\ncamera: expected a camera, got none")
                    return failure(FailureKind.CAMERA_DIED, "died", died)
                return self.niceness
            case WarmUp():
                return WORK
            case Sweep(_, z_um):
                curve = tuple(float(np.exp(-((z - 3) ** 2) / 50)) for z in z_um)
                return SweepRecord(z_um, curve, 1e-3, 10.0, 11.0)
            case FindZPositions(job, peaks, sweeps):
                return z_positions(peaks, job, sweeps), ["crops"]
            case EstimateStatistics():
                return STATISTICS, WORK
            case Capture(_, z_um):
                return CaptureRecord(z_um, 1.0, 2.0, 2.1, (0.1,), 7)
            case StackBatch(job):
                return StackRecord(() if job.register else (1, 2), WORK)
            case MatchFields(job):
                shifts = (self.shift_px(job.field, other) for other in job.others)
                matches = (Match(shift, EXACT, 0.9) if shift else None for shift in shifts)
                return MatchRecord(tuple(matches), WORK)
            case PlaceField():
                return PlaceRecord((1, 2), WORK)
            case DetectObjects():
                return DetectionRecord(3, (3, 4), WORK)
            case PredictScan(written, _):
                detected = sum(len(checksums) == 4 for checksums in written.values())
                return AnswerRecord(3 * detected, 9.0, "digest", {})
        raise AssertionError(step)


def place_of(step: Step) -> tuple[int, int] | None:
    """Stripe and field of a step that has one."""
    found: Field | None = getattr(step, "field", None)
    return (found.stripe, found.field) if found else None


@dataclass
class FakeScan:
    """A scan of `main.scan` on a fake cluster."""

    run: Run
    cluster: FakeCluster
    journal: FakeJournal

    def scan(self) -> AnswerRecord:
        """Run the workflow of the program."""
        return main.scan(self.run)

    @property
    def lost(self) -> dict[tuple[int, int], str]:
        """The reasons of the fields that were lost."""
        from scan.events import Lost

        return {(e.stripe, e.field): e.reason for e in self.journal.of(Lost)}


@contextmanager
def fake_scan(
    folder: Path, cluster: FakeCluster, settings: Mapping[str, Any] | None = None, **more: Any
) -> Iterator[FakeScan]:
    """Two stripes of three small fields whose remote calls are played by a fake cluster."""
    defaults = {"stripes": 2, "fields": 3, "planes": 3, "field_px": 64, "focus_samples": 2}
    setup = prepare(validate(defaults | dict(settings or {})))
    journal = FakeJournal()
    credits = Credits(more.pop("credits", 6), more.pop("image_share", 0.2))
    run = Run(
        setup=setup,
        predictor=None,
        location=str(folder),
        checkpoint=more.pop("checkpoint", None) or Checkpoint(setup.plan),
        journal=journal,
        credits=credits,
        stop=Stop(),
        placements=(),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "capture_actors", lambda run: _nothing())
        patch.setattr(main, "Workflow", lambda run, actors: cluster)
        yield FakeScan(run, cluster, journal)


@contextmanager
def _nothing() -> Iterator[tuple[()]]:
    yield ()
