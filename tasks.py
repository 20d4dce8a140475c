"""The Ray tasks of the scan, in the order of the figure: unwrap, do the one thing, return a record.

Stacking and detection work in a thread of lower priority, so that cameras on the same machine keep
time. What takes long to import is imported by the tasks that need it: this file is imported by the
driver and by autofocus too, and until then nothing is exposed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import cv2
import numpy as np
import ray
from numpy.typing import NDArray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from imaging.detection import measure
from imaging.focus import FocusPeak, crops, find_peak
from imaging.ownership import Sight, core_of, owned_rows, scan_numbers, seen_by
from imaging.pyramid import mean_pyramid, nearest_pyramid
from imaging.statistics import DetectionStatistics
from imaging.zpositions import z_positions
from prediction import Predictor
from results.digest import digest_of
from results.storage import storage_at
from results.store import DEPTH, LABELS, STACKED, level_count, read_region, shape_of, write_core
from results.table import join_parts, write_part
from scan.focusing import (
    COARSE_STEP_UM,
    FINE_REACH_UM,
    FINE_STEP_UM,
    WIDER,
    FocusJob,
    FocusResult,
    Rejected,
    sample_fields,
    sweep_heights,
)
from scan.pages import touch_store
from scan.plan import Field
from scan.records import (
    AnswerRecord,
    DetectionJob,
    DetectionRecord,
    StackJob,
    StackRecord,
    SweepRecord,
    WorkRecord,
)
from scan.stress import burn
from scan.watchdog import allowed_s

Array = NDArray[Any]
Actors = Sequence[ActorHandle]
Made = TypeVar("Made")

WORK_NICENESS = 10  # workers start at 0: cameras come first, then stacking, whatever else runs


# ------------------------------------------------------------------------- find_z_positions


@ray.remote(num_cpus=0, num_returns=2, max_retries=0)  # sweeps are exposures, too
def find_z_positions(actors: Actors, job: FocusJob) -> tuple[FocusResult, list[Array]]:
    """Focus on sample fields of every stripe at once; the z-positions of all fields follow.

    The sharpest planes of some samples go with them: they show what the specimen looks like.
    """
    samples = sample_fields(job.plan, job.settings.focus_samples)
    sweeps = _Sweeps(actors, samples, job)
    if job.recorded_z_um:
        sweeps.go(dict.fromkeys(samples, job.recorded_z_um))
    else:
        _coarse_to_fine(sweeps, job)
    found = z_positions(sweeps.peaks, job, sweeps.made)
    found = replace(found, restarted=tuple(sweeps.restarted), failed=tuple(sweeps.failed))
    return found, sweeps.sharpest_planes()


def _coarse_to_fine(sweeps: _Sweeps, job: FocusJob) -> None:
    reach_um = job.settings.focus_range_um / 2
    centres = dict.fromkeys(sweeps.samples, job.settings.focus_center_um)
    sweeps.around(centres, reach_um, COARSE_STEP_UM)
    sweeps.around(sweeps.believed(), FINE_REACH_UM, FINE_STEP_UM)


class _Sweeps:
    """Focus sweeps at the sample fields, all stripes at once."""

    def __init__(self, actors: Actors, samples: list[Field], job: FocusJob) -> None:
        self.samples = samples
        self.restarted: list[int] = []
        self.failed: list[Rejected] = []
        self._job = job
        self.peaks: dict[Field, FocusPeak] = {}
        self.made: list[tuple[Field, SweepRecord]] = []
        self._planes: dict[Field, Array] = {}
        self._actors = actors
        self._started = [actor.ready.remote() for actor in actors]
        self._processes: dict[int, int] = {}

    def around(self, centres: dict[Field, float], reach_um: float, step_um: float) -> None:
        """Sweep around each centre; a sweep that peaks at its edge is widened once."""
        self.go({f: sweep_heights(z, reach_um, step_um) for f, z in centres.items()})
        at_edge = {f: z for f, z in centres.items() if self.peaks[f].at_edge}
        self.go({f: sweep_heights(z, WIDER * reach_um, step_um) for f, z in at_edge.items()})

    def go(self, heights: dict[Field, tuple[float, ...]]) -> None:
        """Sweep each field over its heights; one that fails is asked for again, then rejected."""
        reasons: dict[Field, str] = dict.fromkeys(heights, "")
        for _ in range(self._job.settings.retries + 1):
            self.failed += [Rejected(f.stripe, f.field, why) for f, why in reasons.items() if why]
            asked: dict[Field, Any] = {
                f: self._actors[self._camera(f)].sweep.remote(f, heights[f]) for f in reasons
            }
            outcomes = {f: self._take(f, len(heights[f]), ref) for f, ref in asked.items()}
            reasons = {field: reason for field, reason in outcomes.items() if reason}
        for field, reason in reasons.items():
            self.peaks[field] = FocusPeak(heights[field][0], False, reason)

    def _take(self, field: Field, planes: int, ref: ray.ObjectRef) -> str | None:
        """Keep a sweep's peak and sharpest plane; the reason, if the sweep failed."""
        allowed = allowed_s(self._job.settings, self._job.plan, planes)
        try:
            self._await_start(self._camera(field))
            record, plane = ray.get(ref, timeout=allowed)
        except RayError as error:
            self._revive(self._camera(field), error)
            if isinstance(error, GetTimeoutError):
                return f"the sweep failed: no answer from the camera within {allowed:.0f} s"
            told = error.cause if isinstance(error, RayTaskError) else error
            return f"the sweep failed: {(str(told).strip().splitlines() or [''])[-1]}"
        self.peaks[field] = find_peak(record.z_um, record.sharpness, record.noise)
        self._planes[field] = plane
        self.made.append((field, record))
        return None

    def _await_start(self, camera: int) -> None:
        """Wait for the camera's process; one that does not come in time is given up."""
        try:
            patience_s = self._job.settings.camera_start_s
            process: Any = ray.get(self._started[camera], timeout=patience_s)
        except GetTimeoutError:
            ray.kill(self._actors[camera])
            raise
        if process != self._processes.setdefault(camera, process):
            self._processes[camera] = process
            self.restarted.append(camera)

    def _revive(self, camera: int, error: RayError) -> None:
        """End a camera process that hangs; a new one takes its place."""
        if isinstance(error, GetTimeoutError):
            ray.kill(self._actors[camera], no_restart=False)
        if isinstance(error, (GetTimeoutError, RayActorError)):
            self._started[camera] = self._actors[camera].ready.remote()

    def _camera(self, field: Field) -> int:
        return self._job.plan.camera_of(field.stripe)

    def believed(self) -> dict[Field, float]:
        """Heights of the peaks that may be believed."""
        return {f: peak.z_um for f, peak in self.peaks.items() if peak.reason is None}

    def sharpest_planes(self) -> list[Array]:
        """The sharpest planes of some believed samples, or of any if none is believed."""
        return crops([self._planes[field] for field in self.believed() or self._planes])


# ------------------------------------------------------------------------- describe_specimen


@ray.remote(num_cpus=1, num_returns=2)
def describe_specimen(
    samples: list[Array], diameter_px: float | None, predictor: Predictor
) -> tuple[DetectionStatistics, WorkRecord]:
    """Background, contrast and object size of the scan, by which every field is searched."""
    return modestly(predictor.describe, samples, diameter_px)


# ------------------------------------------------------------------------------- stack_batch


@ray.remote(num_cpus=1, max_retries=3)
def stack_batch(job: StackJob, frames: Array) -> StackRecord:
    """Focus-stack one batch (z, y, x) and write its core of the mosaic, image and height."""
    return StackRecord(*modestly(_stack, job, frames))


def _stack(job: StackJob, frames: Array) -> tuple[int, int]:
    from imaging.alignment import align
    from imaging.stacking import focus_stack

    stack = focus_stack(align(frames) if job.align else frames)
    rows, columns = job.field.core_in_frame()
    image = _write(job, STACKED, stack.image[rows, columns])
    depth = _write(job, DEPTH, _heights(stack.depth[rows, columns], job.z_um))
    burn(job.burn_s)
    return image, depth


def _heights(depth: NDArray[np.float32], z_um: tuple[float, ...]) -> NDArray[np.float32]:
    """Depth in planes as height in um; planes are equally spaced."""
    step_um = z_um[1] - z_um[0] if len(z_um) > 1 else 0.0
    return (z_um[0] + step_um * depth).astype(np.float32)


def _write(job: StackJob | DetectionJob, name: str, pixels: Array) -> int:
    """Write a field's core to an image; returns the checksum."""
    place = f"{job.folder}/{name}"
    pyramid = nearest_pyramid if name == LABELS else mean_pyramid
    rows, columns = slice(*job.field.rows), slice(*job.field.columns)
    return write_core(place, rows, columns, pyramid(pixels, level_count(place)))


# ---------------------------------------------------------------------------- detect_objects


@ray.remote(num_cpus=1, max_retries=3)
def detect_objects(
    job: DetectionJob, predictor: Predictor, statistics: DetectionStatistics
) -> DetectionRecord:
    """Find the objects of one field in the mosaic and write its core of the label image."""
    (objects, checksums), work = modestly(_detect, job, predictor, statistics)
    return DetectionRecord(objects, checksums, work)


def _detect(
    job: DetectionJob, predictor: Predictor, statistics: DetectionStatistics
) -> tuple[int, tuple[int, int]]:
    image_place, depth_place = f"{job.folder}/{STACKED}", f"{job.folder}/{DEPTH}"
    seen = seen_by(job.field, statistics.halo_px, job.surroundings)
    image = read_region(image_place, *seen)
    labels = predictor.detect(image, statistics, (seen[0].start, seen[1].start))
    table = measure(labels, image, read_region(depth_place, *seen), statistics)
    sight = Sight(statistics.halo_px, statistics.filter_reach_px, shape_of(image_place))
    numbers = scan_numbers(labels, seen, sight.mosaic_shape)
    written = _write(job, LABELS, numbers[core_of(labels, job.field, seen)])
    rows = owned_rows(table, numbers, job.field, seen, job.pixel_size_um, sight)
    listed = write_part(job.folder, job.field.stripe, job.field.field, rows)
    return len(rows["label"]), (written, listed)


# ------------------------------------------------------------------------------ predict_scan


@ray.remote(num_cpus=0)
def predict_scan(folder: str, detected: Sequence[tuple[int, int]]) -> AnswerRecord:
    """Make the answer of the whole scan from its stacked and searched fields: table and digest."""
    objects = join_parts(folder, detected)
    answered_s = time.time()
    return AnswerRecord(objects, answered_s, digest_of(folder))


# ---------------------------------------------------------------------------------- try_place


@ray.remote(num_cpus=0, max_retries=0)
def try_place(place: str, node: str) -> bool:
    """Whether a node sees what the driver wrote at the place of the results; it writes, too."""
    return storage_at(place).answer_probe(node)


# ----------------------------------------------------------------------------------- warm_up


@ray.remote(num_cpus=1)
def warm_up(predictor: Predictor, dtype: np.dtype[Any], size_bytes: int, *ready: int) -> WorkRecord:
    """Import and compile what stacking and detection need, while autofocus runs.

    The cameras' processes come first: the first exposure waits for those.
    """
    touch_store(size_bytes)
    return modestly(_rehearse, predictor, dtype)[1]


def _rehearse(predictor: Predictor, dtype: np.dtype[Any]) -> None:
    from imaging.stacking import focus_stack

    grain = np.random.default_rng(0).normal(100, 20, (256, 256))
    frames = np.stack([cv2.GaussianBlur(grain, (0, 0), blur) for blur in (3, 0.5, 3)])
    image = focus_stack(frames.astype(dtype)).image  # one that is sharpened, too
    statistics = predictor.describe([image], 10.0)
    labels = predictor.detect(image, statistics, (0, 0))
    measure(labels, image, np.zeros(image.shape, np.float32), statistics)


# --------------------------------------------------------------------------------- modest work


def modestly(work: Callable[..., Made], *given: Any) -> tuple[Made, WorkRecord]:
    """Do it in the worker's modest thread; what it gives, and when and at what cost."""
    return _modest_thread().submit(_timed, _repeats(), work, *given).result()


@cache
def _modest_thread() -> ThreadPoolExecutor:
    """A thread for all the work of this process.

    On Linux every thread has a niceness of its own, which can be raised but not taken back: so the
    worker itself stays quick to take its next task, or to become a camera.
    """
    return ThreadPoolExecutor(1, initializer=_be_modest)


def _timed(repeats: int, work: Callable[..., Made], *given: Any) -> tuple[Made, WorkRecord]:
    began_s, cpu_s = time.time(), time.process_time()
    made = work(*given)
    return made, WorkRecord(began_s, time.time(), time.process_time() - cpu_s, repeats)


def _repeats() -> int:
    """How often Ray ran this task before, in workers that died; 0 where this Ray does not tell."""
    try:  # told by no public part of Ray
        from ray._private.worker import global_worker

        return int(global_worker.core_worker.get_current_task_attempt_number())
    except (ImportError, AttributeError):
        return 0


def _be_modest() -> None:
    """Lower this worker's priority and keep OpenCV to one thread; again changes nothing."""
    cv2.setNumThreads(1)
    if (niceness := os.nice(0)) < WORK_NICENESS:
        os.nice(WORK_NICENESS - niceness)
