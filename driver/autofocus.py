"""Autofocus: sweep the sample fields of all cameras at once, then fit the focus surface."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cluster.failures import FailureKind
from driver.pending import PendingSteps
from driver.run import Run
from driver.steps import Done, Failed, FindZPositions, Reference, Sweep, Withdrawn
from imaging.zpositions import given_heights, peak_of
from results.store import create_mosaics
from scan import events
from scan.correction import CorrectionRecord
from scan.focusing import FocusJob, FocusPeak, FocusResult, Heights
from scan.plan import Field
from scan.records import SweepRecord
from scan.sweeps import after, sweeps_by_stripe


@dataclass(frozen=True)
class Focus:
    """Heights of the planes of each field, by (stripe, field); how frames are corrected; and
    autofocus images (a reference), None if the statistics of the specimen are known."""

    z_um: Mapping[tuple[int, int], Heights]
    correction: CorrectionRecord
    samples: Reference | None


def run_autofocus(run: Run, pending: PendingSteps) -> Focus:
    """Find the z-positions of all fields; a focus surface of an earlier run is kept."""
    setup, checkpoint = run.setup, run.checkpoint
    kept = checkpoint.correction
    job = replace(setup.focus_job, folder=run.location, kept=kept)
    if kept is not None and checkpoint.described:
        return Focus(_planes(job, checkpoint.centres_um), kept, None)
    result, crops = find_z_positions(run, pending, job)
    samples = pending.calls.store(crops)
    if kept is not None:  # fields on disk were captured at its heights
        return Focus(_planes(job, checkpoint.centres_um), kept, samples)
    create_mosaics(run.location, setup.plan, setup.dtype, setup.settings.origin_um, setup.channels)
    run.journal.write(result.to_event())
    return Focus(_planes(job, result.centres_um), result.correction, samples)


def _planes(job: FocusJob, centres_um: Mapping[tuple[int, int], float]) -> dict[Any, Heights]:
    return {place: job.planes_at(centre_um) for place, centre_um in centres_um.items()}


def find_z_positions(run: Run, pending: PendingSteps, job: FocusJob) -> tuple[FocusResult, Any]:
    """Sweep the samples and fit the surface; again if a node that held their images is lost."""
    retries = run.setup.settings.retries
    while True:
        sweeps = FocusSweeps(run, pending, job)
        sweeps.run()
        outcome = pending.run(sweeps.fit())
        if isinstance(outcome, Done):
            return outcome.result
        if outcome.failure.kind is not FailureKind.BATCH_LOST or not retries:
            raise outcome.failure.error
        retries -= 1
        run.journal.write(events.Retried(step="focus", reason=outcome.failure.reason))


class FocusSweeps:
    """Run the sweeps of all samples; no camera waits for another."""

    def __init__(self, run: Run, pending: PendingSteps, job: FocusJob) -> None:
        self._run, self._pending, self._job = run, pending, job
        self._samples, self._sequences = job.samples, sweeps_by_stripe(job, given_heights(job))
        self._waiting: list[deque[Sweep]] = [deque() for _ in range(job.plan.cameras)]
        self._peaks: dict[Field, FocusPeak] = {}
        self._planes: dict[Field, Reference] = {}
        self._sweeps: list[tuple[Field, SweepRecord]] = []

    def run(self) -> None:
        """Sweep until each sample has its last peak."""
        for sequence in self._sequences.values():
            self._append(*next(sequence))
        while len(self._peaks) < len(self._samples):
            self._submit()
            for outcome in self._pending.wait():
                match outcome:
                    case Done(Sweep() as sweep, SweepRecord() as record, plane):
                        self._planes[sweep.field] = plane
                        self._sweeps.append((sweep.field, record))
                        self._continue(sweep, peak_of(record, self._job))
                        self._journal(sweep)
                    case Withdrawn(Sweep() as sweep):
                        self._waiting[sweep.camera].appendleft(sweep)
                    case Failed(Sweep() as sweep, failure):
                        self._recover(sweep, failure.reason)
                    case Failed():
                        raise outcome.failure.error

    def fit(self) -> FindZPositions:
        """The task that follows; its images are in order, those of accepted peaks first."""
        peaks = {field: self._peaks[field] for field in self._samples}
        shown = sorted(self._planes, key=lambda f: (peaks[f].reason is not None, f.stripe, f.field))
        planes = [self._planes[field] for field in shown]
        return FindZPositions(self._job, peaks, self._sweeps, planes)

    def _submit(self) -> None:
        cameras = self._pending.cameras
        for camera, waiting in enumerate(self._waiting):
            if reason := cameras.dropped(camera):
                while waiting:
                    self._give_up(waiting.popleft(), reason)
            while waiting and cameras.available(camera):
                self._pending.submit(waiting.popleft())

    def _append(self, field: Field, heights: Heights) -> None:
        camera = self._job.plan.camera_of(field.stripe)
        self._waiting[camera].append(Sweep(field, heights, camera))

    def _continue(self, sweep: Sweep, peak: FocusPeak) -> None:
        """Go on with a stripe; a peak is the last of its sample if that is not swept again."""
        following = after(self._sequences[sweep.field.stripe], peak)
        if following is None or following[0] != sweep.field:
            self._peaks[sweep.field] = peak
        if following is not None:
            self._append(*following)

    def _journal(self, sweep: Sweep) -> None:
        counts = {"done": len(self._peaks), "samples": len(self._samples)}
        event = events.Swept.of(sweep.field, sweep.camera, planes=len(sweep.z_um), **counts)
        self._run.journal.write(event)

    def _recover(self, sweep: Sweep, reason: str) -> None:
        if not self._pending.cameras.may_retry(sweep):
            self._give_up(sweep, reason)
            return
        self._pending.journal_retry(sweep, "focus", f"the sweep failed: {reason}")
        self._waiting[sweep.camera].appendleft(sweep)

    def _give_up(self, sweep: Sweep, reason: str) -> None:
        reason = f"the sweep failed: {reason}"
        self._continue(sweep, FocusPeak(sweep.z_um[0], failed=True, reason=reason))
