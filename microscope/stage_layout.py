"""Where recorded fields lie: by stage positions, by rows and columns in names, or by their order.

Stage positions are those of the fields' centres, x to the right and y down in the images. Cameras
may be mounted otherwise: where neighbours overlap, the images decide which edges meet. If no edges
meet, the positions contradict the images, and that is told.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from statistics import fmean
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from microscope.coordinates import Label, Unclear, named, natural_key

LEAST_STEP = 0.5  # of a frame, between rows of which some places have no field
MAX_NAMED = 3  # of places without a field
SAME_ROW = 0.25  # of a frame: fields that are less apart across a row are in it
MIN_OVERLAP_PX = 12  # of neighbours, for their images to be compared
MAX_ERROR_PX = 8  # of stage positions, along and across the edge
MAX_PAIRS = 6  # of neighbours that are compared, along each axis
MEET = 0.5  # correlation of edges that show the same
CLEARER = 0.35  # by which it must exceed that of the usual directions (Fisher's z)
CHANCE = (0.3, 0.5)  # limits of the correlation of edges that show different things
FINE_PX, SLOW_PX = 2.0, 12.0  # finer is noise, coarser is uneven light
NOISE_OF_STEPS = 0.954  # median difference of two values whose noise is 1
MIN_DETAIL = 3.0  # contrast of an edge against its noise: true edges then correlate by 0.9
GAP_PX = 1.0  # between neighbours that is none

Cell = tuple[int, int]  # row and column
Rows = tuple[tuple[int | None, ...], ...]
Origins = tuple[tuple[tuple[int, int] | None, ...], ...]
Reader = Callable[[int], NDArray[np.uint8 | np.uint16 | np.float32]]  # one plane of a field
DIRECTIONS = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}
HINT = 'set layout to "raster" or "snake", which ignores stage positions'


class Scattered(ValueError):
    """Stage positions do not say which fields are neighbours."""


@dataclass(frozen=True)
class Layout:
    """Recorded fields in rows.

    Attributes
    ----------
    rows : tuple of tuple of int
        Numbers of the recorded fields by column, from the left; None where there is no field.
    origins : tuple of tuple of (int, int), or None
        First pixel (row, column) of each field; None if they lie side by side.
    origin_um : (float, float) or None
        Stage position, x and y, of the mosaic's first pixel, along the axes of the images.
    caveats, warnings : tuple of str
    """

    rows: Rows
    origins: Origins | None = None
    origin_um: tuple[float, float] | None = None
    caveats: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def absent(self) -> set[Cell]:
        """Row and column of the places without a field."""
        return {
            (r, c)
            for r, row in enumerate(self.rows)
            for c, field in enumerate(row)
            if field is None
        }


def in_order(count: int, stripes: int, fields: int | None, *, snake: bool) -> Layout:
    """Return a layout by the order of fields, in rows of `fields`, or in so many stripes.

    In a snake every other row runs from right to left.
    """
    length = fields or -(-count // stripes)
    used = min(count, length * stripes)
    rows: list[list[int | None]] = [
        list(range(first, min(first + length, used))) for first in range(0, used, length)
    ]
    for row in rows[1::2] if snake else ():
        row += [None] * (length - len(row))
        row.reverse()
    left = count - used
    caveats = (f"{used} of {count} positions are scanned: {len(rows)} stripes of {length}",)
    return Layout(tuple(map(tuple, rows)), caveats=caveats if left else ())


def by_cells(cells: Sequence[tuple[Label, Label]]) -> Layout:
    """Return a layout by rows and columns; Unclear if two fields are in one place."""
    rows = sorted({row for row, _ in cells}, key=natural_key)
    columns = sorted({column for _, column in cells}, key=natural_key)
    found = _rows_of([(rows.index(row), columns.index(column)) for row, column in cells])
    return Layout(found, caveats=_lacking(found))


def by_stage(
    places_um: Sequence[tuple[float, float]],
    frame_shape: tuple[int, int],
    pixel_size_um: float,
    read: Reader,
) -> Layout:
    """Return a layout by stage positions.

    Parameters
    ----------
    places_um : sequence of (float, float)
        Stage position, x and y, of each field's centre.
    frame_shape : (int, int)
        Rows and columns of a frame.
    pixel_size_um : float
    read : callable
        Returns one plane of a field, to compare the edges of neighbours.

    Raises
    ------
    Scattered
        The positions say nothing: they are all the same, or form no grid and do not overlap.
    Unclear
        Fields overlap, but in no grid.
    """
    places = np.array(places_um) / pixel_size_um  # x, y
    if np.ptp(places, axis=0).max() < GAP_PX:
        raise Scattered("stage positions are all the same")
    turn, agrees, warnings = _orientation(places, frame_shape, read)
    centres = places @ turn.T  # row, column
    try:
        rows = _rows_of(_cells(centres, frame_shape))
        _require_grid(rows, centres, frame_shape)
    except Unclear as unclear:
        if _overlap(centres, frame_shape):
            raise
        raise Scattered(f"stage positions form no grid ({unclear.args[1]})") from None
    if not agrees:
        caveats = (CONTRADICTION, *_lacking(rows))
        return Layout(rows, caveats=caveats, warnings=tuple(warnings))
    origins, caveats = _origins(centres - centres.min(axis=0), rows, frame_shape)
    index = next(k for k, field in enumerate(rows[0]) if field is not None)
    first = np.array(origins[0][index]) + (np.array(frame_shape) - 1) / 2
    corner = np.array(
        [max(o[0] for o in origins[0] if o), max(row[0][1] for row in origins if row[0])]
    )
    row_um, column_um = (centres[rows[0][index]] - (first - corner)) * pixel_size_um
    caveats = (*caveats, *_lacking(rows))
    return Layout(rows, origins, (float(column_um), float(row_um)), caveats, tuple(warnings))


UNSEEN = "no overlap shows which way the stage points: x to the right and y down are assumed"
CONTRADICTION = (
    "stage positions say that fields overlap, but their images differ there: fields are laid out "
    "edge to edge; check pixel_size_um"
)


# ------------------------------------------------------------------------------------- the grid


def _cells(centres: NDArray[np.float64], frame_shape: tuple[int, int]) -> list[Cell]:
    """Return row and column of each field."""
    rows, columns = (groups(centres[:, axis], SAME_ROW * frame_shape[axis]) for axis in range(2))
    return list(zip(rows, columns, strict=True))


def groups(places: NDArray[np.float64], gap: float) -> list[int]:
    """Return the number of the group of each place; groups are more than `gap` apart."""
    order = np.argsort(places, kind="stable")
    steps = np.concatenate([[0], np.diff(places[order]) > gap])
    groups = np.empty(len(places), int)
    groups[order] = np.cumsum(steps)
    return [int(group) for group in groups]


def _rows_of(cells: Sequence[Cell]) -> Rows:
    """Return the field in each column of each row.

    Unclear if two are in one place, or if fields are no neighbours, so that there is no mosaic.
    """
    if len(set(cells)) < len(cells):
        raise Unclear("one field in each place of a grid", "two in one place", HINT)
    taken = np.zeros(np.max(cells, axis=0) + 1, bool)
    taken[tuple(np.transpose(cells))] = True
    groups = cv2.connectedComponents(taken.astype(np.uint8), connectivity=4)[0] - 1
    if groups > 1:
        got = f"{groups} groups that have none in common"
        raise Unclear("fields whose rows or columns are neighbours", got, HINT)
    found: dict[int, dict[int, int]] = {}
    for field, (row, column) in enumerate(cells):
        found.setdefault(row, {})[column] = field
    return tuple(
        tuple(found[row].get(column) for column in range(max(found[row]) + 1))
        for row in sorted(found)
    )


def _lacking(rows: Rows) -> tuple[str, ...]:
    """Say which places between two fields of a row have none; at the ends of rows that is usual."""
    inner = [
        f"row {r + 1} column {c + 1}"
        for r, row in enumerate(rows)
        for c, field in enumerate(row)
        if field is None and any(other is not None for other in row[:c])
    ]
    return (f"no field in {named(inner, MAX_NAMED)}, between others",) if inner else ()


def _require_grid(rows: Rows, centres: NDArray[np.float64], frame_shape: tuple[int, int]) -> None:
    """Raise Unclear if fields lie like bricks: places without a field that others cover."""
    if len({len(row) for row in rows}) == 1 and not any(None in row for row in rows):
        return
    columns = list(zip_longest(*rows))
    for axis, lines in enumerate((rows, columns)):
        middles = [
            float(np.mean([centres[field, axis] for field in line if field is not None]))
            for line in lines
        ]
        least = min((b - a for a, b in pairwise(middles)), default=math.inf)
        if least < LEAST_STEP * frame_shape[axis]:
            what, apart = ("rows", "columns")[axis], f"{least:.0f} pixels"
            got = f"{what} that are {apart} apart, with places that have no field"
            raise Unclear("fields in rows and columns", got, HINT)


def _overlap(centres: NDArray[np.float64], frame_shape: tuple[int, int]) -> bool:
    """Whether any two fields show the same."""
    for number, centre in enumerate(centres[:-1]):
        apart = np.abs(centres[number + 1 :] - centre)
        if (apart < np.array(frame_shape) - GAP_PX).all(axis=1).any():
            return True
    return False


def _origins(
    centres: NDArray[np.float64], rows: Rows, frame_shape: tuple[int, int]
) -> tuple[Origins, tuple[str, ...]]:
    """Return the first pixel of each field, gaps closed; and what that changes, if it does."""
    down, gap_down = _closed(centres[:, 0], _present(rows), frame_shape[0])
    across, gap_across = _closed(centres[:, 1], _present(zip_longest(*rows)), frame_shape[1])
    origins = tuple(
        tuple(None if field is None else (int(down[field]), int(across[field])) for field in row)
        for row in rows
    )
    gap = max(gap_down, gap_across)
    said = f"fields lie up to {gap:.0f} pixels apart: the mosaic shows them side by side"
    return origins, (said,) if gap > GAP_PX else ()


def _present(lines: Iterable[Iterable[int | None]]) -> list[list[int]]:
    return [[field for field in line if field is not None] for line in lines]


def _closed(
    places: NDArray[np.float64], groups: Sequence[Sequence[int]], frame_px: int
) -> tuple[NDArray[np.int64], float]:
    """Return whole pixels along an axis, moved so that neighbours touch; and the greatest gap.

    Rows on both sides of a gap are set straight: there is no overlap to hide a shift.
    """
    closed = np.rint(places).astype(np.int64)
    greatest, shift = 0.0, 0
    for before, group in pairwise(map(list, groups)):
        closed[group] -= shift
        gap = int(closed[group].max() - closed[before].min()) - frame_px
        if gap > 0:
            closed[before] = closed[before].min()
            closed[group] = closed[before].min() + frame_px
            shift += gap
            nearest = places[group].min() - places[before].max() - frame_px
            greatest = max(greatest, float(nearest))
    return closed, greatest


# ---------------------------------------------------------------------------------- orientation


def _orientation(
    places: NDArray[np.float64], frame_shape: tuple[int, int], read: Reader
) -> tuple[NDArray[np.float64], bool, list[str]]:
    """Return what turns stage x, y into rows and columns, as the edges of images meet.

    And whether the images agree with the positions, and a warning if the axes are turned.
    """
    usual = ("right", "down")
    edges = [each for axis in range(2) if (each := _edges(places, axis, frame_shape, read))]
    if not edges:
        return _turn(usual), True, [UNSEEN]
    ways = [(x, y) for x in DIRECTIONS for y in DIRECTIONS if _across(x, y)]
    totals = {way: fmean(each.scores[way[each.axis]] for each in edges) for way in ways}
    best = max(ways, key=lambda way: totals[way])
    clearer = np.arctanh(min(totals[best], 0.999)) - np.arctanh(min(totals[usual], 0.999))
    if best != usual and totals[best] > MEET and clearer > CLEARER:
        said = f"the images show that stage x points {best[0]} and y {best[1]}"
        return _turn(best), True, [said]
    return _turn(usual), totals[usual] > fmean(each.chance for each in edges), []


class _Edges(NamedTuple):
    """How well edges of neighbours along a stage axis meet, for each direction of that axis; and
    how well edges meet that show different things."""

    axis: int
    scores: dict[str, float]
    chance: float


def _across(x: str, y: str) -> bool:
    return {x, y} & {"right", "left"} != {x, y} and {x, y} & {"up", "down"} != {x, y}


def _turn(way: tuple[str, str]) -> NDArray[np.float64]:
    """Return the matrix from (x, y) to (row, column)."""
    return np.array([DIRECTIONS[direction] for direction in way], float).T


def _edges(
    places: NDArray[np.float64], axis: int, frame_shape: tuple[int, int], read: Reader
) -> _Edges | None:
    """Return how the edges of some pairs meet; None if none overlap, or nothing is seen there."""
    found: dict[str, list[float]] = {}
    chances: list[float] = []
    for first, second, apart in _pairs(places, axis, min(frame_shape)):
        (one, noise), (other, more) = _structure(read(first)), _structure(read(second))
        for direction in DIRECTIONS:
            met = _meeting((one, other), direction, apart, MIN_DETAIL * max(noise, more))
            if met is not None:
                found.setdefault(direction, []).append(met[0])
                chances.append(met[1])
    if not found:
        return None
    scores = {each: max(found.get(each, [0.0])) for each in DIRECTIONS}
    return _Edges(axis, scores, float(np.median(chances)))


def _structure(image: NDArray[Any]) -> tuple[NDArray[np.float32], float]:
    """Return an image without noise and without slow changes of light, as vignetting makes them
    at edges; and the noise that is left."""
    light = image.astype(np.float32)
    noise = float(np.median(np.abs(np.diff(light, axis=0)))) / NOISE_OF_STEPS
    band = cv2.GaussianBlur(light, (0, 0), FINE_PX) - cv2.GaussianBlur(light, (0, 0), SLOW_PX)
    return band, noise / (2 * np.sqrt(np.pi) * FINE_PX)


def _pairs(
    places: NDArray[np.float64], axis: int, frame_px: int
) -> Iterator[tuple[int, int, float]]:
    """Yield some pairs of neighbours along an axis, the first before the second, in pixels."""
    pairs = []
    for number, place in enumerate(places):
        apart = places - place
        near = (apart[:, axis] > SAME_ROW * frame_px) & (apart[:, axis] < frame_px - MIN_OVERLAP_PX)
        near &= np.abs(apart[:, 1 - axis]) < MAX_ERROR_PX
        if near.any():
            other = int(np.flatnonzero(near)[np.argmin(apart[near, axis])])
            pairs.append((number, other, float(apart[other, axis])))
    step = -(-len(pairs) // MAX_PAIRS) or 1
    yield from pairs[::step]


def _meeting(
    images: tuple[NDArray[np.float32], NDArray[np.float32]],
    direction: str,
    apart: float,
    least: float,
) -> tuple[float, float] | None:
    """Return how well the second image continues the first in a direction, as a correlation, and
    the greatest that chance gives; None if the contrast of either edge is less than the least."""
    first, second = images
    down, right = DIRECTIONS[direction]
    if down + right < 0:
        first, second = second, first
    if down:
        first, second = first.T, second.T
    overlap = first.shape[1] - round(apart)
    if overlap < MIN_OVERLAP_PX:
        return None
    margin = min(MAX_ERROR_PX, overlap // 4)
    edge = np.ascontiguousarray(first[:, -overlap:])
    part = np.ascontiguousarray(second[margin:-margin, margin : overlap - margin])
    if min(edge.std(), part.std()) <= least:
        return None
    return float(cv2.matchTemplate(edge, part, cv2.TM_CCOEFF_NORMED).max()), _chance(part)


def _chance(part: NDArray[np.float32]) -> float:
    """Return the correlation that unrelated images of this texture reach, within limits.

    Of N independent values it has a spread of 1 / sqrt(N); the best of all shifts is 3.5 of these.
    A texture whose correlation falls as a Gaussian has 2 pi (spread / gradient)^2 pixels for each.
    """
    gradient = float(np.mean([np.diff(part, axis=axis).var() for axis in range(2)]))
    independent = part.size * gradient / (2 * np.pi * max(float(part.var()), 1e-9))
    return float(np.clip(3.5 / np.sqrt(max(independent, 1.0)), *CHANCE))
