"""The plan of a scan: the fields, their cores in the mosaic, their neighbours. Pixels are integers.

Invariant: cores tile the mosaic and consist of whole chunks on all pyramid levels, so tasks write
without locks. `scan.layout` makes plans.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

Span = tuple[int, int]
Place = tuple[int, int]  # stripe and field


@dataclass(frozen=True)
class Field:
    """One field of view: its indices in the scan, its position in the mosaic and on the stage.

    `field` is the column of the grid in which it lies.

    `rows` and `columns` are the core as half-open spans of mosaic pixels, `origin_px` is the mosaic
    pixel (row, column) of the frame's first pixel, `x_um` and `y_um` the frame's centre.
    """

    stripe: int
    field: int
    origin_px: tuple[int, int]
    rows: Span
    columns: Span
    x_um: float
    y_um: float

    @property
    def name(self) -> str:
        """Name of the field in logs and in the summary."""
        return f"stripe {self.stripe} field {self.field}"

    @property
    def place(self) -> Place:
        """The field as (stripe, field)."""
        return self.stripe, self.field

    def core_in_frame(self) -> tuple[slice, slice]:
        """Return the core as slices of the field's own frame."""
        row, column = self.origin_px
        return (
            slice(self.rows[0] - row, self.rows[1] - row),
            slice(self.columns[0] - column, self.columns[1] - column),
        )

    def owns(self, row: float, column: float) -> bool:
        """Return whether a point of the mosaic lies in the core; exactly one field owns it."""
        return (
            self.rows[0] <= row + 0.5 < self.rows[1]
            and self.columns[0] <= column + 0.5 < self.columns[1]
        )


@dataclass(frozen=True)
class ScanPlan:
    """All fields of a scan and the mosaic that they tile.

    `stripes` holds a tuple of fields per stripe, from the left; stripes of recorded scans may begin
    and end in any column, and lack some. Stripes are assigned round-robin to `cameras`.
    """

    stripes: tuple[tuple[Field, ...], ...]
    frame_shape: tuple[int, int]
    mosaic_shape: tuple[int, int]
    chunk_shape: tuple[int, int]
    levels: int
    pixel_size_um: float
    cameras: int

    @property
    def fields(self) -> tuple[Field, ...]:
        """Every field, stripe by stripe."""
        return tuple(field for stripe in self.stripes for field in stripe)

    @cached_property
    def _places(self) -> dict[Place, Field]:
        return {field.place: field for field in self.fields}

    def at(self, place: Place) -> Field | None:
        """Return the field of a stripe and column, if there is one."""
        return self._places.get(place)

    @property
    def counts(self) -> tuple[int, ...]:
        """For each stripe the number of columns up to its last field."""
        return tuple(stripe[-1].field + 1 for stripe in self.stripes)

    @property
    def absent(self) -> tuple[Place, ...]:
        """The places before the last field of a stripe that have no field."""
        places = ((s, f) for s, count in enumerate(self.counts) for f in range(count))
        return tuple(place for place in places if place not in self._places)

    def camera_of(self, stripe: int) -> int:
        """Return the camera to which a stripe is assigned."""
        return stripe % self.cameras

    def fields_of(self, camera: int) -> list[Field]:
        """Return the fields of a camera in the order in which it captures them."""
        return [field for stripe in self.stripes[camera :: self.cameras] for field in stripe]

    @cached_property
    def row_cuts(self) -> tuple[int, ...]:
        """The rows at which cores are cut: stripe s owns the rows from cut s to cut s + 1."""
        return *(stripe[0].rows[0] for stripe in self.stripes), self.mosaic_shape[0]

    @cached_property
    def column_cuts(self) -> tuple[int, ...]:
        """The columns at which cores are cut: field f of any stripe begins at cut f."""
        return *sorted({field.columns[0] for field in self.fields}), self.mosaic_shape[1]

    def neighbours(self, field: Field) -> tuple[Field, ...]:
        """Return the fields whose cores touch that of `field`, corners included."""
        around = (
            self.at((stripe, index))
            for stripe in range(field.stripe - 1, field.stripe + 2)
            for index in range(field.field - 1, field.field + 2)
        )
        return tuple(other for other in around if other and other != field)

    def surroundings(self, field: Field) -> tuple[Span, Span]:
        """Return the rows and columns that are stacked once `field` and its neighbours are."""
        around = (field, *self.neighbours(field))
        return _hull([other.rows for other in around]), _hull([other.columns for other in around])

    def gaps(self, field: Field, lost: Collection[Field]) -> tuple[tuple[Span, Span], ...]:
        """Return rows and columns of the places around `field` that no field writes."""
        written = {other.place for other in self.neighbours(field) if other not in lost}
        rows, columns = ((*pairwise(cuts),) for cuts in (self.row_cuts, self.column_cuts))
        return tuple(
            (rows[s], columns[f])
            for s in range(max(0, field.stripe - 1), min(len(rows), field.stripe + 2))
            for f in range(max(0, field.field - 1), min(len(columns), field.field + 2))
            if (s, f) not in written and (s, f) != field.place
        )


def _hull(spans: list[Span]) -> Span:
    return min(start for start, _ in spans), max(end for _, end in spans)
