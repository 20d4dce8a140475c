"""Whose object is it: numbers that all fields agree on, and the rows that one field keeps.

A field sees its core and a halo of its neighbours' cores. All fields read the same mosaic, so they
see the same objects; the field whose core holds the centroid keeps the row, and every field writes
the object's pixels that lie in its own core under the same number.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scan.plan import Field, Span, region

Array = NDArray[Any]
Region = tuple[slice, slice]
Table = dict[str, Array]


@dataclass(frozen=True)
class Sight:
    """How far all fields of a scan see beyond their cores.

    `halo_px` beyond the core is seen; in the last `spoilt_px` of that the filters miss what lies
    further out, save at the mosaic's edge, beyond which there is nothing.
    """

    halo_px: int
    spoilt_px: int
    mosaic_shape: tuple[int, int]

    def sure(self, axis: int, start: int, stop: int) -> Span:
        """The part of a view along an axis that is seen as in the whole mosaic."""
        length = self.mosaic_shape[axis]
        first = start + self.spoilt_px if start > 0 else 0
        return first, stop - self.spoilt_px if stop < length else length


def label_dtype(mosaic_shape: tuple[int, int]) -> np.dtype[Any]:
    """The smallest of uint32 and uint64 that numbers every pixel of a mosaic."""
    pixels = mosaic_shape[0] * mosaic_shape[1]
    return np.dtype(np.uint32 if pixels < 2**32 else np.uint64)


def scan_numbers(labels: Array, seen: Region, mosaic_shape: tuple[int, int]) -> Array:
    """The number of each local label in the scan: 1 + raster index of its first mosaic pixel.

    Numbers are unique and depend on the pixels alone, so that neighbours need not ask each other
    and nothing is renumbered when the scan ends.

    Parameters
    ----------
    labels : (y, x) int
        Label image of a region, 0 where nothing is.
    seen : (slice, slice)
        Its rows and columns in the mosaic.
    """
    found, first = np.unique(labels, return_index=True)
    rows, columns = np.divmod(first, labels.shape[1])
    numbers = np.zeros(int(labels.max(initial=0)) + 1, label_dtype(mosaic_shape))
    places = (rows + seen[0].start) * mosaic_shape[1] + columns + seen[1].start
    numbers[found] = places + 1
    numbers[0] = 0
    return numbers


def seen_by(field: Field, halo_px: int, surroundings: tuple[Span, Span]) -> Region:
    """The region that is searched for a field's objects: its core with a halo."""
    rows, columns = surroundings
    return region(field.rows, halo_px, rows), region(field.columns, halo_px, columns)


def core_of(image: Array, field: Field, seen: Region) -> Array:
    """The part of a region's image that is the field's core."""
    rows, columns = (
        slice(core[0] - part.start, core[1] - part.start)
        for core, part in zip((field.rows, field.columns), seen, strict=True)
    )
    return image[rows, columns]


def owned_rows(
    table: Table, numbers: Array, field: Field, seen: Region, pixel_size_um: float, sight: Sight
) -> Table:
    """Rows of the objects whose centroid lies in the core, in coordinates of the mosaic.

    Parameters
    ----------
    table : columns in coordinates of the region
        As `detection.measure` gives them.
    numbers : as `scan_numbers` gives them.
    sight : by which objects are marked that are too large for some field to see them rightly.
    """
    origin = seen[0].start, seen[1].start
    shifts = {f"bbox-{k}": origin[k % 2] for k in range(4)}
    shifts |= {f"centroid-{k}": origin[k] for k in range(2)}
    rows = {name: column + shifts.get(name, 0) for name, column in table.items()}
    count = len(rows["label"])
    down, across = (_not_surely_whole(rows, field, seen, sight, axis) for axis in (0, 1))
    rows["touches_border"] = down | across
    rows["label"] = numbers[table["label"]]
    rows["stripe"], rows["field"] = np.full(count, field.stripe), np.full(count, field.field)
    rows["x_um"] = rows["centroid-1"] * pixel_size_um
    rows["y_um"] = rows["centroid-0"] * pixel_size_um
    centres = zip(rows["centroid-0"], rows["centroid-1"], strict=True)
    owned = np.array([field.owns(*centre) for centre in centres], bool)
    return {name: column[owned] for name, column in rows.items()}


def _not_surely_whole(
    rows: Table, field: Field, seen: Region, sight: Sight, axis: int
) -> NDArray[np.bool_]:
    """Objects that the slide's edge cuts, or that some field whose core they enter may not see
    whole along an axis: this one, or a neighbour.

    Such a neighbour may give its part of the object another number, or count it as well.
    """
    first, last = rows[f"bbox-{axis}"], rows[f"bbox-{axis + 2}"]
    start, stop = (field.rows, field.columns)[axis]
    view = seen[axis]
    own = sight.sure(axis, view.start, view.stop)
    # The field before sees the first part of this core, the field after sees the last.
    before, after = min(start + sight.halo_px, stop), max(stop - sight.halo_px, start)
    sure_after, sure_before = sight.sure(axis, after, before)
    unsure = (first <= view.start) | (last >= view.stop) | (first < own[0]) | (last > own[1])
    unsure |= (first < start) & (last > sure_before)
    return np.asarray(unsure | ((last > stop) & (first < sure_after)))
