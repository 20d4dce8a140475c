"""What follows when a step of the scan ends: the next step, or one policy for each failure."""

from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Self

from cluster.failures import Failure, FailureKind
from driver.autofocus import Focus
from driver.pending import PendingSteps
from driver.registration import FieldRegistration
from driver.run import Run
from driver.steps import (
    Capture,
    DetectObjects,
    EstimateStatistics,
    Failed,
    PredictScan,
    Reference,
    StackBatch,
    Withdrawn,
)
from prediction import statistics_from
from prediction.scan_predictor import ScanPredictor
from scan import events
from scan.clock import now_s
from scan.errors import ScanError
from scan.plan import Field
from scan.records import (
    AnswerRecord,
    CaptureRecord,
    DetectionJob,
    DetectionRecord,
    StackJob,
    StackRecord,
    WorkRecord,
)
from scan.registration import MatchFields, MatchRecord, PlaceField, PlaceRecord, Register
from scan.state import ScanState
from scan.throttling import Throttling


class ScanLoop:
    """Capture, stack and detect every field; `main.scan` drives it.

    As a context it defers a request to stop until nothing is in flight, and leaves no capture in a
    camera's queue.
    """

    def __init__(self, run: Run, pending: PendingSteps, focus: Focus) -> None:
        self._run, self._pending, self._focus = run, pending, focus
        self._plan, self._settings = run.setup.plan, run.setup.settings
        done = run.checkpoint.stacked, run.checkpoint.detected
        self.state = ScanState(self._plan, run.credits, *done)
        self._written: dict[Field, tuple[int, ...]] = {
            field: (*sums, *done[1].get(field, ())) for field, sums in done[0].items()
        }
        self._registration = FieldRegistration(run, pending)
        self._statistics: Any = None
        self._throttling = Throttling(run.journal.write)
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        self._closing.enter_context(self._run.stop.deferred())
        self._closing.callback(self._pending.cancel_queued_exposures)
        self._closing.callback(self._throttling.note, ())
        if self._focus.samples is not None:
            self._pending.submit(EstimateStatistics(self._focus.samples))
        elif described := self._run.checkpoint.described:
            self._statistics = statistics_from(described.statistics)
            self._submit_detections(*self.state.stacked)
        return self

    def __exit__(self, *failure: Any) -> None:
        self._closing.__exit__(*failure)

    @property
    def finished(self) -> bool:
        """Whether every field is detected or lost."""
        return self.state.finished

    # -------------------------------------------------------------------------- captures

    def submit_captures(self) -> None:
        """Ask the cameras for as many batches as there are credits."""
        if self._run.stop.requested:
            self._drain()
            return
        for camera in self.state.cameras_with_fields():
            if reason := self._pending.cameras.dropped(camera):
                self._lose(reason, *self.state.drop_camera(camera, reason))
        while self.state.has_room and (cameras := self._cameras_with_capacity()):
            self._pending.submit(self._capture_of(self.state.next_capture(cameras)))
        self._note_throttling()

    def _cameras_with_capacity(self) -> list[int]:
        available = self._pending.cameras.available
        return [camera for camera in self.state.cameras_with_fields() if available(camera)]

    def _capture_of(self, field: Field) -> Capture:
        z_um = self._focus.z_um[field.stripe, field.field]
        return Capture(field, z_um, self._plan.camera_of(field.stripe))

    def _drain(self) -> None:
        """Submit nothing more; raise KeyboardInterrupt once nothing is in flight."""
        if not self._run.journal.seen(events.Stopping):
            self._run.journal.write(events.Stopping())
            self._pending.cancel_queued_exposures()
        if not (self.state.in_flight or self._pending.any_of(Register)):
            raise KeyboardInterrupt

    def _note_throttling(self) -> None:
        """Journal the cameras that stood still because there was no room for their batch."""
        idle: set[int] = set()
        if not self.state.has_room:
            idle = {c for c in self._cameras_with_capacity() if self._pending.cameras.idle(c)}
        self._throttling.note(idle)

    # ------------------------------------------------------------------- stack and detect

    def submit_stack(self, capture: Capture, record: CaptureRecord, batch: Reference) -> None:
        """Stack a batch, the moment that its reference resolves."""
        settings = self._settings
        burn_s = settings.stress_seconds if settings.stress else 0.0
        job = StackJob(
            self._run.location, capture.field, record.z_um, settings.align, burn_s,
            settings.task_timeout_s, self._focus.correction, self._run.setup.channels,
            settings.register_fields,
        )  # fmt: skip
        self._pending.submit(StackBatch(job, batch, record))
        in_flight = self.state.credits.taken
        self._log(events.Captured, capture.field, in_flight=in_flight, **vars(record))

    def finish_stack(self, stack: StackBatch, record: StackRecord, image: Reference) -> None:
        """A field is focus-stacked: detect in it, or match it with its neighbours before."""
        if not stack.job.register:
            self._finish_core(stack, record)
            return
        self.state.mark_unplaced(stack.field)
        if not self._run.stop.requested:
            self._registration.add(stack, record, image)

    def submit_placements(self, match: MatchFields, record: MatchRecord) -> None:
        """Fields are matched: write each whose place is decided by that."""
        facts = events.match_facts(match.job.others, record.matches)
        self._log(events.Matched, match.field, matches=facts, **vars(record.work))
        if not self._run.stop.requested:
            self._registration.add_matches(match.job, record)

    def finish_placement(self, place: PlaceField, record: PlaceRecord) -> None:
        """A field is written at its place."""
        facts = vars(place.job.placement) | vars(record.work)
        self._log(events.Placed, place.field, written_px=place.job.offset_px, **facts)
        stack, stacked, _ = self._registration.finish(place.field)
        self._finish_core(stack, replace(stacked, checksums=record.checksums))

    def _finish_core(self, stack: StackBatch, record: StackRecord) -> None:
        """A field lies in the mosaic: detect in each field whose neighbours are all there."""
        self.state.mark_stacked(stack.job.field)
        self._written[stack.job.field] = record.checksums
        self._submit_detections(stack.job.field)
        facts: dict[str, Any] = {"checksums": record.checksums, "flicker": record.flicker}
        facts |= {"asked_s": stack.captured.complete_s, "in_flight": self.state.credits.taken}
        self._log(events.Stacked, stack.job.field, **facts, **vars(record.work))

    def _submit_detections(self, *settled: Field) -> None:
        if self._statistics is None or self._run.stop.requested:
            return
        for place in settled:
            for field in self.state.detections_to_submit(place):
                job = DetectionJob(
                    self._run.location, field, self._plan.surroundings(field),
                    self._plan.pixel_size_um, self._settings.task_timeout_s,
                    self._run.setup.channels.reference, self._plan.gaps(field, self.state.lost),
                )  # fmt: skip
                self._pending.submit(DetectObjects(job, self._statistics, now_s()))

    def finish_field(self, detect: DetectObjects, record: DetectionRecord) -> None:
        """The objects of a field lie on disk."""
        field = detect.job.field
        self.state.mark_detected(field)
        self._written[field] += record.checksums
        facts = {"objects": record.objects, "checksums": record.checksums}
        self._log(events.Detected, field, asked_s=detect.asked_s, **facts, **vars(record.work))

    def use_statistics(self, record: tuple[Any, WorkRecord]) -> None:
        """It is known what objects look like: detect in all fields that waited for that."""
        self._statistics, work = record
        event = events.Described(**vars(self._statistics), **vars(work))
        self._run.journal.write(event)
        self._submit_detections(*self.state.stacked)

    def predict(self) -> AnswerRecord:
        """Make the answer of the whole scan from what was written for its fields."""
        written = {field.place: sums for field, sums in self._written.items()}
        outcome = self._pending.run(
            PredictScan(written, ScanPredictor(self._settings.scan_predictor))
        )
        if isinstance(outcome, Failed):
            raise outcome.failure.error
        return outcome.result

    # -------------------------------------------------------------------------- failures

    def recover(self, outcome: Failed | Withdrawn) -> None:
        """One policy for each kind of failure; what has none ends the scan."""
        match outcome:
            case Withdrawn(Capture(field)):
                self.state.requeue(field)
            case Failed(Capture() as capture, failure):
                self._capture_again(capture, "capture", failure.reason)
            case Failed(StackBatch(job), Failure(FailureKind.BATCH_LOST, reason)):
                self._capture_again(self._capture_of(job.field), "stack", reason)
            case Failed(Register() as step, Failure(FailureKind.BATCH_LOST, reason)):
                for field in self._registration.withdraw(step.job.fields):
                    self._capture_again(self._capture_of(field), step.name, reason)
            case Failed(StackBatch(job) | Register(job), Failure(FailureKind.WORKER_DIED, reason)):
                if not self._pending.retry(outcome):
                    self.state.lose_batch(job.field, reason)
                    self._lose(reason, job.field)
            case Failed(DetectObjects(job), failure) if not failure.ends_scan:
                if not self._pending.retry(outcome):
                    self.state.lose_detection(job.field, failure.reason)
                    self._log(events.Lost, job.field, reason=failure.reason)
            case Failed(EstimateStatistics(), Failure(FailureKind.BATCH_LOST, reason)):
                hint = "resume the run, which sweeps once more"
                raise ScanError("autofocus", "its images to last", reason, hint)
            case Failed(EstimateStatistics()) if self._pending.retry(outcome):
                pass
            case Failed():
                raise outcome.failure.error

    def _capture_again(self, capture: Capture, step: str, reason: str) -> None:
        """The batch does not exist: expose the field again, or lose it after too many attempts."""
        if self._run.stop.requested or self._pending.cameras.may_retry(capture):
            self.state.requeue(capture.field)
            if not self._run.stop.requested:
                self._pending.journal_retry(capture, step, reason)
        else:
            self.state.lose_batch(capture.field, reason)
            self._lose(reason, capture.field)

    def _lose(self, reason: str, *fields: Field) -> None:
        """Fields that will not be in the answer; their neighbours need not wait for them."""
        for field in fields:
            self._log(events.Lost, field, reason=reason)
        self._registration.lose(*fields)
        self._submit_detections(*fields)

    def _log(self, kind: type[events.FieldEvent], field: Field, **facts: Any) -> None:
        self._run.journal.write(kind.of(field, self._plan.camera_of(field.stripe), **facts))
