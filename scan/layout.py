"""Lay out the fields of a scan: where frames begin, where cores are cut, how large chunks are.

Along each axis the mosaic is cut between neighbouring fields at multiples of their step. With a
steered stage, fields are placed so that the cuts lie in the middle of overlaps: every frame but the
first begins half an overlap before its core. Recorded fields have fixed positions: there a cut is
where the next frame begins, since chunks as small as half an overlap would be too many.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Any

import numpy as np

from scan.errors import UserMistake
from scan.plan import Field, Place, ScanPlan, Span

MAX_CHUNK_PX = 1024  # about 2 MB of camera data, which suits viewers and file systems
CHUNK_STEP_PX = 16  # chunks divisible by 16 allow four pyramid levels
MIN_PLACED_CHUNK_PX = 16  # smaller ones are too many files
MAX_TOP_LEVEL_PX = 256  # a pyramid is high enough when its top fits a thumbnail


@dataclass(frozen=True)
class Axis:
    """One axis of the mosaic: origins of frames, cuts between cores, size of chunks."""

    origins: tuple[int, ...]
    cuts: tuple[int, ...]
    chunk: int

    @property
    def length(self) -> int:
        """Length of the mosaic along this axis, in pixels."""
        return self.cuts[-1]

    def core(self, index: int) -> Span:
        """Return the half-open span that field `index` owns."""
        return self.cuts[index], self.cuts[index + 1]


def steered_axis(count: int, frame_px: int, overlap_px: int) -> Axis:
    """Return an axis of a steered stage: fields overlap by `overlap_px` or a little more."""
    if count == 1:
        return _single_field(frame_px)
    parts = math.ceil((frame_px - overlap_px) / MAX_CHUNK_PX)
    step = (frame_px - overlap_px) // (CHUNK_STEP_PX * parts) * CHUNK_STEP_PX * parts
    half = (frame_px - step) // 2
    origins = tuple(max(0, index * step - half) for index in range(count))
    return _cut(origins, frame_px, step, step // parts)


def recorded_axis(count: int, frame_px: int, overlap_px: int) -> Axis:
    """Return an axis of recorded fields, which lie `frame_px - overlap_px` apart."""
    if overlap_px > frame_px // 2:
        raise UserMistake(
            "overlap_px",
            f"at most half of the recorded field ({frame_px // 2})",
            str(overlap_px),
            "give the overlap of the recording",
        )
    if count == 1:
        return _single_field(frame_px)
    step = frame_px - overlap_px
    origins = tuple(index * step for index in range(count))
    return _cut(origins, frame_px, step, _chunk_of_recorded(step))


def registered_axis(count: int, frame_px: int, overlap_px: int) -> Axis:
    """Return an axis of recorded fields that are to be registered: cut in the middle of overlaps.

    Half an overlap is left out at either end, so that a shifted field covers its core.
    """
    if count == 1:
        return _single_field(frame_px)
    step = frame_px - overlap_px
    origins = tuple(index * step - overlap_px // 2 for index in range(count))
    cuts = tuple(index * step for index in range(count + 1))
    return Axis(origins, cuts, _chunk_of_recorded(step))


def _single_field(frame_px: int) -> Axis:
    return Axis((0,), (0, frame_px), MAX_CHUNK_PX // 2)


def _chunk_of_recorded(step: int) -> int:
    least = math.ceil(step / MAX_CHUNK_PX)
    return step // next((p for p in range(least, 4 * least + 1) if step % p == 0), 1)


def _cut(origins: tuple[int, ...], frame_px: int, step: int, chunk: int) -> Axis:
    inner = (index * step for index in range(1, len(origins)))
    return Axis(origins, (0, *inner, origins[-1] + frame_px), chunk)


def _inset(origins: Sequence[Sequence[int]], frame_px: int) -> int:
    """Return half of the least overlap of neighbouring rows of fields, or columns."""
    overlaps = [min(before) + frame_px - max(row) for before, row in pairwise(origins)]
    return max(min(overlaps, default=0), 0) // 2


def placed_axis(origins: Sequence[Sequence[int]], frame_px: int, inset: int = 0) -> Axis:
    """Return an axis of fields at any places: `origins` are those of each row, or column.

    Cuts are multiples of a chunk where neighbours overlap. The mosaic begins where all fields of
    the first row have begun, and ends before any of the last ends. UserMistake if neighbours do not
    overlap, or if overlaps are too small for chunks of a useful size.

    With an inset the mosaic is so much smaller at either end, and cuts keep half of it to both
    sides, so that a shifted field covers its core.
    """
    first = max(origins[0]) + inset
    moved = [[origin - first for origin in row] for row in origins]
    margin, ends = inset // 2, [min(row) + frame_px for row in moved]
    windows = [(max(row) + margin, end - margin) for end, row in zip(ends, moved[1:], strict=False)]
    end = ends[-1] - inset
    chunk = _largest_chunk(windows, end) if windows else MAX_CHUNK_PX // 2
    if not chunk:
        expected = f"neighbouring fields that overlap by at least {MIN_PLACED_CHUNK_PX} pixels"
        got = f"overlaps of {min(high - low for low, high in windows)} pixels and more"
        raise UserMistake("stage positions", expected, got, "set layout to raster or snake")
    cuts = (0, *_cuts(windows, end, chunk), end)
    return Axis(tuple(min(row) for row in moved), cuts, chunk)


def _cuts(windows: Sequence[tuple[int, int]], end: int, chunk: int) -> tuple[int, ...]:
    """Return a multiple of a chunk in each window, all different; none if that is impossible."""
    cuts: list[int] = []
    for low, high in windows:
        least = max(low, cuts[-1] + 1 if cuts else 1)
        cuts.append(-(-least // chunk) * chunk)
        if cuts[-1] > high:
            return ()
    return tuple(cuts) if cuts and cuts[-1] < end else ()


def _largest_chunk(windows: Sequence[tuple[int, int]], end: int) -> int:
    """Return the largest chunk of which a multiple lies in each window; 0 if there is none.

    One of many pyramid levels is taken if it is at least half as large.
    """
    fitting = [
        chunk
        for chunk in range(windows[0][1], MIN_PLACED_CHUNK_PX - 1, -1)
        if _cuts(windows, end, chunk)
    ]
    usual = [chunk for chunk in fitting if chunk <= MAX_CHUNK_PX] or fitting[-1:]
    even = [chunk for chunk in usual if chunk % CHUNK_STEP_PX == 0 and 2 * chunk >= usual[0]]
    return next(iter(even or usual), 0)


def make_placed_plan(
    origins: Sequence[Sequence[tuple[int, int] | None]],
    frame_shape: tuple[int, int],
    pixel_size_um: float,
    *,
    registered: bool = False,
) -> ScanPlan:
    """Make the plan of recorded fields whose places are known.

    Parameters
    ----------
    origins : sequence of sequence of (int, int)
        For each stripe the first pixel (row, column) of the field in each column, from the left;
        None where there is no field. No column may be empty.
    frame_shape : (int, int)
        Rows and columns of a frame.
    pixel_size_um : float
        Edge of a pixel on the specimen.
    registered : bool
        Whether fields will be moved by their overlaps.
    """
    rows = [[origin[0] for origin in stripe if origin] for stripe in origins]
    columns = [[origin[1] for origin in column if origin] for column in zip_longest(*origins)]
    axes = tuple(zip((rows, columns), frame_shape, strict=True))
    insets = [_inset(*axis) if registered else 0 for axis in axes]
    down, across = (placed_axis(*axis, inset) for axis, inset in zip(axes, insets, strict=True))
    top, left = max(rows[0]) + insets[0], max(columns[0]) + insets[1]
    stripes = tuple(
        tuple(
            _field_at(
                (origin[0] - top, origin[1] - left),
                (s, f),
                (down, across),
                frame_shape,
                pixel_size_um,
            )
            for f, origin in enumerate(stripe)
            if origin
        )
        for s, stripe in enumerate(origins)
    )
    shape, chunk = (down.length, across.length), (down.chunk, across.chunk)
    levels = _levels(shape, chunk)
    return ScanPlan(stripes, frame_shape, shape, chunk, levels, pixel_size_um, len(stripes))


def make_plan(
    counts: tuple[int, ...],
    frame_shape: tuple[int, int],
    overlap_px: int,
    pixel_size_um: float,
    *,
    steered: bool,
    cameras: int | None = None,
    absent: Collection[Place] = (),
    registered: bool = False,
) -> ScanPlan:
    """Make the plan of a scan.

    Parameters
    ----------
    counts : tuple of int
        Columns of each stripe.
    frame_shape : (int, int)
        Rows and columns of a frame.
    overlap_px : int
        Overlap of neighbours: a minimum for a steered stage, exact for recorded fields.
    pixel_size_um : float
        Edge of a pixel on the specimen.
    steered : bool
        Whether the stage is ours to move; else the positions of fields are given.
    cameras : int, optional
        Number of cameras; by default one for each stripe.
    absent : collection of (int, int)
        Places, by stripe and column, that have no field.
    registered : bool
        Whether recorded fields will be moved by their overlaps.
    """
    axis = steered_axis if steered else registered_axis if registered else recorded_axis
    down = axis(len(counts), frame_shape[0], overlap_px)
    across = axis(max(counts), frame_shape[1], overlap_px)
    stripes = tuple(
        tuple(
            _field(s, f, down, across, frame_shape, pixel_size_um)
            for f in range(count)
            if (s, f) not in absent
        )
        for s, count in enumerate(counts)
    )
    shape, chunk = (down.length, across.length), (down.chunk, across.chunk)
    used = min(cameras or len(counts), len(counts))
    return ScanPlan(stripes, frame_shape, shape, chunk, _levels(shape, chunk), pixel_size_um, used)


def _field(
    stripe: int, index: int, down: Axis, across: Axis, shape: tuple[int, int], pixel_um: float
) -> Field:
    origin = down.origins[stripe], across.origins[index]
    return _field_at(origin, (stripe, index), (down, across), shape, pixel_um)


def _field_at(
    origin: tuple[int, int],
    place: tuple[int, int],
    axes: tuple[Axis, Axis],
    shape: tuple[int, int],
    pixel_um: float,
) -> Field:
    (row, column), (stripe, index), (down, across) = origin, place, axes
    return Field(
        stripe=stripe,
        field=index,
        origin_px=origin,
        rows=down.core(stripe),
        columns=across.core(index),
        x_um=(column + (shape[1] - 1) / 2) * pixel_um,
        y_um=(row + (shape[0] - 1) / 2) * pixel_um,
    )


def _levels(shape: tuple[int, int], chunk: tuple[int, int]) -> int:
    levels = 1
    while max(shape) >> (levels - 1) > MAX_TOP_LEVEL_PX and not any(
        edge % (1 << levels) for edge in chunk
    ):
        levels += 1
    return levels


def label_dtype(mosaic_shape: tuple[int, int]) -> np.dtype[Any]:
    """Return the smaller of uint32 and uint64 that can number every pixel of a mosaic."""
    pixels = mosaic_shape[0] * mosaic_shape[1]
    return np.dtype(np.uint32 if pixels < 2**32 else np.uint64)
