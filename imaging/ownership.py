"""Ownership of objects: label numbers common to all fields, and the table rows of each field.

Detection of a field reads its core and a halo of its neighbours' cores. All fields read the same
mosaic, so they detect the same objects. The field whose core contains the centroid keeps the row;
every field writes the object's pixels in its own core, with the same number.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scan.layout import label_dtype
from scan.plan import Field, Span

Array = NDArray[Any]
Region = tuple[slice, slice]
Table = dict[str, Array]


@dataclass(frozen=True)
class HaloGeometry:
    """The halo around the cores of all fields of a scan.

    `halo_px` around the core are read; in the outer `invalid_px` of these the filters lack their
    neighbourhood, except at the edge of the mosaic. `gaps` are rows and columns of places that no
    field has written.
    """

    halo_px: int
    invalid_px: int
    mosaic_shape: tuple[int, int]
    gaps: tuple[tuple[Span, Span], ...] = ()

    def valid_span(self, axis: int, start: int, stop: int) -> Span:
        """Return the part of a region along an axis that is processed as in the whole mosaic."""
        length = self.mosaic_shape[axis]
        first = start + self.invalid_px if start > 0 else 0
        return first, stop - self.invalid_px if stop < length else length


def scan_numbers(labels: Array, seen: Region, mosaic_shape: tuple[int, int]) -> Array:
    """Number each local label by 1 + raster index of its first mosaic pixel.

    Numbers are unique and depend on the pixels only, so fields need no exchange and nothing is
    renumbered at the end of the scan.

    Parameters
    ----------
    labels : (y, x) int
        Label image of a region, 0 for background.
    seen : (slice, slice)
        Its rows and columns in the mosaic.
    """
    found, first = np.unique(labels, return_index=True)
    rows, columns = np.divmod(first, labels.shape[1])
    numbers = np.zeros(int(labels.max(initial=0)) + 1, label_dtype(mosaic_shape))
    raster = (rows + seen[0].start) * mosaic_shape[1] + columns + seen[1].start
    numbers[found] = raster + 1
    numbers[0] = 0
    return numbers


def region(core: Span, halo_px: int, surroundings: Span) -> slice:
    """Return a core with a halo, clipped to its surroundings, along one axis."""
    return slice(max(core[0] - halo_px, surroundings[0]), min(core[1] + halo_px, surroundings[1]))


def region_with_halo(field: Field, halo_px: int, surroundings: tuple[Span, Span]) -> Region:
    """Return the region in which a field's objects are detected: its core with a halo."""
    rows, columns = surroundings
    return region(field.rows, halo_px, rows), region(field.columns, halo_px, columns)


def core_of(image: Array, field: Field, seen: Region) -> Array:
    """Return the part of a region's image that is the field's core."""
    rows, columns = (
        slice(core[0] - part.start, core[1] - part.start)
        for core, part in zip((field.rows, field.columns), seen, strict=True)
    )
    return image[rows, columns]


def rows_in_core(
    table: Table,
    numbers: Array,
    field: Field,
    seen: Region,
    pixel_size_um: float,
    halo: HaloGeometry,
) -> Table:
    """Return the rows of objects whose centroid lies in the core, in mosaic coordinates.

    Parameters
    ----------
    table : columns in coordinates of the region
        From `detection.measure`.
    numbers :
        From `scan_numbers`.
    halo : HaloGeometry
        Marks objects that are too large for the halo of some field, or cut by a gap.
    """
    origin = seen[0].start, seen[1].start
    shifts = {f"bbox-{k}": origin[k % 2] for k in range(4)}
    shifts |= {f"centroid-{k}": origin[k] for k in range(2)}
    rows = {name: column + shifts.get(name, 0) for name, column in table.items()}
    count = len(rows["label"])
    down, across = (_maybe_cut(rows, field, seen, halo, axis) for axis in (0, 1))
    rows["touches_border"] = down | across | _beside_gaps(rows, halo)
    rows["label"] = numbers[table["label"]]
    rows["stripe"], rows["field"] = np.full(count, field.stripe), np.full(count, field.field)
    rows["x_um"] = rows["centroid-1"] * pixel_size_um
    rows["y_um"] = rows["centroid-0"] * pixel_size_um
    centres = zip(rows["centroid-0"], rows["centroid-1"], strict=True)
    owned = np.array([field.owns(*centre) for centre in centres], bool)
    return {name: column[owned] for name, column in rows.items()}


def _beside_gaps(rows: Table, halo: HaloGeometry) -> NDArray[np.bool_]:
    """Return which objects touch a place that no field has written."""
    found = np.zeros(len(rows["label"]), bool)
    for (top, bottom), (left, right) in halo.gaps:
        down = (rows["bbox-0"] <= bottom) & (rows["bbox-2"] >= top)
        found |= down & (rows["bbox-1"] <= right) & (rows["bbox-3"] >= left)
    return found


def _maybe_cut(
    rows: Table, field: Field, seen: Region, halo: HaloGeometry, axis: int
) -> NDArray[np.bool_]:
    """Return which objects are cut by the slide's edge or too large for the halo along an axis.

    A field or neighbour that reads only a part of an object may number or count it differently.
    """
    first, last = rows[f"bbox-{axis}"], rows[f"bbox-{axis + 2}"]
    start, stop = (field.rows, field.columns)[axis]
    span = seen[axis]
    own = halo.valid_span(axis, span.start, span.stop)
    # The previous field's halo covers the first part of this core, the next field's the last.
    before, after = min(start + halo.halo_px, stop), max(stop - halo.halo_px, start)
    valid_after, valid_before = halo.valid_span(axis, after, before)
    cut = (first <= span.start) | (last >= span.stop) | (first < own[0]) | (last > own[1])
    cut |= (first < start) & (last > valid_before)
    return np.asarray(cut | ((last > stop) & (first < valid_after)))
