"""The Ray tasks of the scan, in the order of the diagram: unwrap, call a function, return a record.

Ray repeats nothing (``max_retries=0``): the driver submits a task again whose worker died. Stacking
and detection run at lower priority, so that cameras on the same machine keep time. What takes long
to import is imported by the tasks that need it, because the driver imports this file too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray

from cluster.workers import prefault_object_store, run_low_priority
from imaging.correction import correct_samples, learn_correction
from imaging.detection import DetectionStatistics, measure
from imaging.focus import crops
from imaging.intensities import with_channels
from imaging.ownership import HaloGeometry, core_of, region_with_halo, rows_in_core, scan_numbers
from imaging.pyramid import mean_pyramid, nearest_pyramid
from imaging.registration import core_at, matches_of
from imaging.zpositions import depth_um, z_positions
from prediction import Predictor
from prediction.scan_predictor import ScanPredictor
from prediction.warm_up import compile_kernels
from results.correction import read_correction, write_correction
from results.digest import digest_of
from results.store import (
    DEPTH,
    LABELS,
    STACKED,
    fit_display_windows,
    level_count,
    read_region,
    shape_of,
    write_core,
)
from results.table import join_parts, table_checksum, write_part
from scan.clock import now_s
from scan.focusing import FocusJob, FocusPeak, FocusResult
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
from scan.registration import MatchJob, MatchRecord, PlaceJob, PlaceRecord
from scan.stress import burn

Array = NDArray[Any]
Batch = Array | tuple[Array, ...]  # of one channel, or of several
FocusStack = Any  # image and depth; its module takes long to import
Result = TypeVar("Result")


# ------------------------------------------------------------------------- find_z_positions


@ray.remote(num_cpus=0, max_retries=0)
def find_z_positions(
    job: FocusJob,
    peaks: Mapping[Field, FocusPeak],
    sweeps: Sequence[tuple[Field, SweepRecord]],
    *planes: Array,
) -> tuple[FocusResult, list[Array]]:
    """Fit the focus surface through the peaks of the sweeps: the z-positions of all fields.

    Crops of the sharpest planes go with it: they show what the specimen looks like. All frames of
    the scan are corrected as these are; the fields for that are written to the run folder.
    """
    used = job.kept or write_correction(job.folder, learn_correction(job, planes))
    correction = read_correction(job.folder, used).of_channel(job.reference)
    images = correct_samples(peaks, planes, correction)
    return z_positions(peaks, job, sweeps, used), crops(images)


# ----------------------------------------------------------------------- estimate_statistics


@ray.remote(num_cpus=1, max_retries=0)
def estimate_statistics(
    samples: list[Array], diameter_px: float | None, predictor: Predictor, limit_s: float
) -> tuple[DetectionStatistics, WorkRecord]:
    """Estimate background, contrast and object size, by which every field is searched."""
    return _timed(predictor.estimate_statistics, samples, diameter_px, limit_s=limit_s)


# ------------------------------------------------------------------------------- stack_batch


@ray.remote(num_cpus=1, max_retries=0)
def stack_batch(job: StackJob, frames: Batch) -> StackRecord:
    """Focus-stack a batch (z, y, x) of each channel; write its core of image and height."""
    (checksums, flicker), work = _timed(stack, job, frames, limit_s=job.limit_s)
    return StackRecord(checksums, work, flicker)


@ray.remote(num_cpus=1, max_retries=0, num_returns=2)
def fuse_batch(job: StackJob, frames: Batch) -> tuple[StackRecord, FocusStack]:
    """Focus-stack a batch whose place is not yet known: a small record, and image and depth."""
    stacked, work = _timed(fuse, job, frames, limit_s=job.limit_s)
    return StackRecord((), work, stacked.flicker), stacked


def stack(job: StackJob, frames: Batch) -> tuple[tuple[int, int], float]:
    """Write the focus stack of a batch; returns the checksums of image and depth, and flicker."""
    stacked = fuse(job, frames)
    return _write_field(job, stacked, (0, 0)), stacked.flicker


def fuse(job: StackJob, frames: Batch) -> FocusStack:
    """Return the focus stack of a batch."""
    from imaging import batches

    fields = read_correction(job.folder, job.correction)
    stacked = batches.fuse(frames, fields, job.channels, job.z_um, aligned=job.align)
    burn(job.burn_s)
    return stacked


def _write_field(
    job: StackJob | PlaceJob, stacked: FocusStack, offset_px: tuple[int, int]
) -> tuple[int, int]:
    """Write a field's core of image and height; returns the checksums of both."""
    image = _write_core(job, STACKED, core_at(stacked.image, job.field, offset_px))
    depth = depth_um(core_at(stacked.depth, job.field, offset_px), job.z_um)
    return image, _write_core(job, DEPTH, depth)


def _write_core(job: StackJob | PlaceJob | DetectionJob, name: str, pixels: Array) -> int:
    """Write a field's core to an image; returns the checksum."""
    place = f"{job.folder}/{name}"
    pyramid = nearest_pyramid if name == LABELS else mean_pyramid
    rows, columns = slice(*job.field.rows), slice(*job.field.columns)
    return write_core(place, rows, columns, pyramid(pixels, level_count(place)))


# ------------------------------------------------------------------ match_fields, place_field


@ray.remote(num_cpus=1, max_retries=0)
def match_fields(job: MatchJob, *stacked: FocusStack) -> MatchRecord:
    """Measure how far a field lies from its neighbours, other than the stage says."""
    return MatchRecord(*_timed(matches_of, job, stacked, limit_s=job.limit_s))


@ray.remote(num_cpus=1, max_retries=0)
def place_field(job: PlaceJob, stacked: FocusStack) -> PlaceRecord:
    """Write the core of a field whose place is known, image and height."""
    return PlaceRecord(*_timed(_write_field, job, stacked, job.offset_px, limit_s=job.limit_s))


# ---------------------------------------------------------------------------- detect_objects


@ray.remote(num_cpus=1, max_retries=0)
def detect_objects(
    job: DetectionJob, predictor: Predictor, statistics: DetectionStatistics
) -> DetectionRecord:
    """Detect the objects of one field in the mosaic and write its core of the label image."""
    (objects, checksums), work = _timed(detect, job, predictor, statistics, limit_s=job.limit_s)
    return DetectionRecord(objects, checksums, work)


def detect(
    job: DetectionJob, predictor: Predictor, statistics: DetectionStatistics
) -> tuple[int, tuple[int, int]]:
    """Write labels and rows of a field; returns its objects and the checksums of both."""
    image_place, depth_place = f"{job.folder}/{STACKED}", f"{job.folder}/{DEPTH}"
    seen = region_with_halo(job.field, statistics.halo_px, job.surroundings)
    image = read_region(image_place, *seen)
    searched = image[job.channel] if image.ndim > 2 else image
    labels = predictor.detect(searched, statistics, (seen[0].start, seen[1].start))
    table = measure(labels, searched, read_region(depth_place, *seen), statistics)
    table = with_channels(table, labels, image)
    reach = statistics.halo_px, statistics.filter_reach_px
    geometry = HaloGeometry(*reach, shape_of(image_place), job.gaps)
    numbers = scan_numbers(labels, seen, geometry.mosaic_shape)
    written = _write_core(job, LABELS, numbers[core_of(labels, job.field, seen)])
    rows = rows_in_core(table, numbers, job.field, seen, job.pixel_size_um, geometry)
    listed = write_part(job.folder, job.field.stripe, job.field.field, rows)
    return len(rows["label"]), (written, listed)


# ------------------------------------------------------------------------------ predict_scan


@ray.remote(num_cpus=0, max_retries=0)
def predict_scan(
    folder: str, written: Mapping[tuple[int, int], tuple[int, ...]], predictor: ScanPredictor
) -> AnswerRecord:
    """Make the answer of the whole scan: its table, predictions from the table, its digest.

    `written` holds the checksums of image and depth, and where objects were detected, of labels
    and rows, by stripe and field.
    """
    detected = sorted(place for place, checksums in written.items() if len(checksums) > 2)
    objects, facts = join_parts(folder, detected, predictor.predict if predictor.spec else None)
    answered_s = now_s()
    fit_display_windows(folder)
    return AnswerRecord(objects, answered_s, digest_of(written, table_checksum(folder)), facts)


# ----------------------------------------------------------------------------------- warm_up


@ray.remote(num_cpus=1, max_retries=0)
def warm_up(
    predictor: Predictor, dtype: np.dtype[Any], prefault_bytes: int, *ready: int
) -> WorkRecord:
    """Import and compile what stacking and detection need, while autofocus runs.

    It waits for the processes of the cameras, because the first exposure waits for those.
    """
    prefault_object_store(prefault_bytes)
    return _timed(compile_kernels, predictor, dtype)[1]


def _timed(
    work: Callable[..., Result], *arguments: Any, limit_s: float | None = None
) -> tuple[Result, WorkRecord]:
    """Call a function at lower priority; its result, when it ran, and its CPU seconds."""

    def timed() -> tuple[Result, WorkRecord]:
        began_s, cpu_s = now_s(), time.process_time()
        result = work(*arguments)
        return result, WorkRecord(began_s, now_s(), time.process_time() - cpu_s)

    return run_low_priority(timed, limit_s=limit_s)


ALL = (
    find_z_positions, estimate_statistics, stack_batch, fuse_batch, match_fields, place_field,
    detect_objects, predict_scan, warm_up,
)  # fmt: skip
