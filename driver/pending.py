"""The remote calls in flight: one collection, from which each call can be submitted again.

Cameras are supervised here, for autofocus and scan alike: one that dies or hangs is restarted, and
only what it was exposing has failed.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from cluster.calls import RemoteCalls
from cluster.failures import Failure, FailureKind, last_line
from cluster.workers import WORK_NICENESS
from driver.run import Run
from driver.steps import (
    Capture,
    Done,
    Exposure,
    Failed,
    Outcome,
    Pending,
    Reference,
    StartCamera,
    Step,
    Sweep,
    Task,
    WarmUp,
    Withdrawn,
)
from scan import events
from scan.errors import ScanError
from scan.supervisor import CameraSupervisor
from scan.timeouts import capture_timeout_s

POLL_INTERVAL_S = 1.0  # how often liveness is checked when nothing resolves
STALL_WARNING_S = 300.0


class PendingSteps:
    """Submit steps, wait for them, restart cameras, and resubmit tasks whose worker died.

    Parameters
    ----------
    calls : RemoteCalls
    run : Run
    """

    def __init__(self, calls: RemoteCalls, run: Run) -> None:
        self.calls, self._run = calls, run
        plan, settings = run.setup.plan, run.setup.settings
        self.cameras = CameraSupervisor(
            plan.cameras,
            settings.retries,
            partial(capture_timeout_s, settings, plan),
            settings.camera_start_s,
        )
        self._pending: dict[Reference, Pending] = {}
        self._checked_s = self._progress_s = calls.now_s()

    # ------------------------------------------------------------------ submit and wait

    def submit(self, step: Step, attempt: int = 1) -> None:
        """Start the remote call of a step."""
        if isinstance(step, Exposure):
            self.cameras.mark_submitted(step, self.calls.now_s())
        reference, payload = self.calls.submit(step)
        self._pending[reference] = Pending(reference, step, payload, attempt)

    def wait(self) -> Iterator[Outcome]:
        """Block until a step ends, or for `POLL_INTERVAL_S`; yield how each ended that did."""
        self._check_liveness()
        if not self._pending:
            return
        resolved = self.calls.wait(list(self._pending), POLL_INTERVAL_S)
        if resolved:
            self._progress_s = self.calls.now_s()
        for reference in resolved:
            if outcome := self._settle(self._pending.pop(reference)):
                yield outcome

    def any_of(self, *kinds: type) -> bool:
        """Whether a step of such a kind is in flight."""
        return any(isinstance(pending.step, kinds) for pending in self._pending.values())

    def run(self, task: Task) -> Done | Failed:
        """Submit a task and wait for its end; it is submitted again if its worker dies."""
        self.submit(task)
        while True:
            for outcome in self.wait():
                match outcome:
                    case Done(step) if step is task:
                        return outcome
                    case Failed(step) if step is not task or not self.retry(outcome):
                        return outcome

    def retry(self, failed: Failed) -> bool:
        """Submit a task again whose worker died, with the same references, and journal that; False
        if it failed for another reason, or too often."""
        retries, failure = self._run.setup.settings.retries, failed.failure
        if failure.kind is not FailureKind.WORKER_DIED or failed.attempt > retries:
            return False
        self.journal_retry(failed.step, failed.step.name, failure.reason)
        self.submit(failed.step, failed.attempt + 1)
        return True

    def journal_retry(self, step: Step, name: str, reason: str) -> None:
        """Write that a step is repeated, with its field if it has one."""
        event = events.Retried(step=name, reason=reason)
        if field := getattr(step, "field", None):
            camera = self._run.setup.plan.camera_of(field.stripe)
            event = events.Retried.of(field, camera, step=name, reason=reason)
        self._run.journal.write(event)

    def cancel_queued_exposures(self) -> None:
        """Withdraw the exposures that no camera has begun."""
        queued = self.cameras.queued()
        for pending in self._pending.values():
            if pending.step in queued:
                self.calls.cancel(pending.reference)

    def _settle(self, pending: Pending) -> Outcome | None:
        """How a call ended; None for those that concern nobody outside."""
        step, result = pending.step, self.calls.result(pending.reference)
        if isinstance(result, Failure):
            return self._fail(step, result, pending.attempt)
        match step:
            case StartCamera(camera):
                if reason := self.cameras.mark_started(camera):
                    self._run.journal.write(events.Restarted(camera=camera, reason=reason))
                elif result >= WORK_NICENESS and camera == 0:  # how Ray was started decides that
                    hint = "start Ray with RAY_worker_niceness=0, or exposures wait for stacking"
                    self._warn(f"cameras run at niceness {result}; {hint}")
                return None
            case WarmUp():
                self._run.journal.write(events.WarmedUp(**vars(result)))
                return None
            case Sweep() | Capture():
                self.cameras.mark_ended(step, self.calls.now_s())
        return Done(step, result, pending.payload)

    def _fail(self, step: Step, failure: Failure, attempt: int) -> Outcome | None:
        if failure.kind not in (FailureKind.ERROR, FailureKind.CANCELLED):
            self.calls.require_alive()  # what fails with Ray is no failure of its own
        if failure.kind is FailureKind.RAY_DIED:
            hint = "see Ray's logs, and resume the run"
            raise ScanError("Ray", "its process on this computer to run", failure.reason, hint)
        match step:
            case StartCamera(camera):
                self.cameras.mark_dropped(camera, last_line(failure.error))
                return None
            case WarmUp() if failure.kind is not FailureKind.ERROR:
                return None
            case Sweep() | Capture():
                return self._fail_exposure(step, failure, attempt)
        return Failed(step, failure, attempt)

    # -------------------------------------------------------------------------- cameras

    def start_cameras(self) -> None:
        """Start all cameras, and then one worker in each CPU slot."""
        for camera in range(self._run.setup.plan.cameras):
            self.start_camera(camera)
        started = tuple(self._pending)
        for _ in range(self.calls.cpu_slots()):
            self.submit(WarmUp(started))

    def start_camera(self, camera: int, reason: str = "") -> None:
        """Ask nothing of a camera until its process has started; `reason` is journaled."""
        if self.cameras.mark_starting(camera, reason, self.calls.now_s()):
            self.submit(StartCamera(camera))

    def _fail_exposure(self, step: Exposure, failure: Failure, attempt: int) -> Failed | Withdrawn:
        """When a camera dies, only what it was exposing has failed."""
        if failure.kind is not FailureKind.CAMERA_DIED:
            self.cameras.mark_ended(step, self.calls.now_s())
            if failure.kind is FailureKind.CANCELLED:
                return Withdrawn(step)
            return Failed(step, failure, attempt)
        if not self.cameras.orphaned(step):
            self.start_camera(step.camera, failure.reason)
        reason = self.cameras.claim_orphan(step)
        return Failed(step, replace(failure, reason=reason), attempt) if reason else Withdrawn(step)

    # ------------------------------------------------------------------------- liveness

    def _check_liveness(self) -> None:
        """Once a second: does Ray answer, do the cameras, does work end?"""
        now_s = self.calls.now_s()
        if now_s - self._checked_s < POLL_INTERVAL_S:
            return
        self._checked_s = now_s
        self.calls.require_alive()
        for camera, restart, reason in self.cameras.take_hung(now_s):
            self.calls.end_camera(camera, restart=restart)
            self.start_camera(camera, reason)
        if now_s - self._progress_s > STALL_WARNING_S:
            self._progress_s = now_s
            steps = ", ".join(sorted({pending.step.name for pending in self._pending.values()}))
            self._warn(f"no task finished for {STALL_WARNING_S:.0f} s; waiting for: {steps}")

    def _warn(self, message: str) -> None:
        self._run.journal.write(events.Warned(message=message))
