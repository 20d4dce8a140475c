"""Which source tells where the fields of a recording lie, and what contradicts it.

Stage positions come first, then rows and columns in names, then the order. The setting `layout`
overrules the first two.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from config import Settings
from microscope.coordinates import Unclear
from microscope.replay import Recording
from microscope.stage_layout import (
    HINT,
    SAME_ROW,
    Layout,
    Scattered,
    by_cells,
    by_stage,
    groups,
    in_order,
)

Place = tuple[float, float]  # x and y of the stage, in micrometres


def lay_out(recording: Recording, settings: Settings) -> Layout:
    """Return where the fields of a recording lie; Unclear if they cannot lie so."""
    said: tuple[str, ...] = ()
    try:
        layout = None if settings.layout else _as_told(recording)
    except Scattered as scattered:
        layout, said = None, (f"{scattered}: fields are laid out in the order of their names",)
    if layout is None:
        count, snake = recording.field_count, settings.layout == "snake"
        layout = in_order(count, settings.stripes, settings.fields, snake=snake)
        if settings.layout and _told(recording):
            said = (f"stage positions are ignored: layout is {settings.layout}",)
    else:
        layout = _limited(layout, settings)
    return replace(layout, warnings=(*layout.warnings, *said))


def _told(recording: Recording) -> bool:
    return all(field.stage_um for field in recording.fields)


def _as_told(recording: Recording) -> Layout | None:
    """Return the layout by stage positions or cells; None if there are none."""
    fields = recording.fields
    stage = [field.stage_um for field in fields]
    if len(fields) == 1:
        return None
    if not any(stage):
        cells = [field.cell for field in fields if field.cell]
        return by_cells(cells) if len(cells) == len(fields) else None
    if not recording.sized:
        raise Scattered("the pixel size is unknown, so stage positions cannot be used")
    lacking = [number for number, place in enumerate(stage) if not place]
    if not all(recording.is_damaged(number) for number in lacking):
        raise Scattered("some fields have no stage position")
    edge_um = min(recording.frame_shape) * recording.pixel_size_um
    gaps = _gaps([place for place in stage if place], edge_um)
    if len(gaps) < len(lacking):
        raise Scattered("damaged files do not tell where the stage was")
    places = [place or gaps.pop(0) for place in stage]  # such a field is lost wherever it lies
    return by_stage(places, recording.frame_shape, recording.pixel_size_um, recording.read_middle)


def _gaps(places: Sequence[Place], edge_um: float) -> list[Place]:
    """Return the places of a grid where none of the fields lies, row by row."""
    at = np.array(places)
    columns, rows = (groups(at[:, axis], SAME_ROW * edge_um) for axis in range(2))
    taken = set(zip(rows, columns, strict=True))
    return [
        (float(at[np.equal(columns, column), 0].mean()), float(at[np.equal(rows, row), 1].mean()))
        for row in range(max(rows) + 1)
        for column in range(max(columns) + 1)
        if (row, column) not in taken
    ]


def _limited(layout: Layout, settings: Settings) -> Layout:
    """Return the part of a layout that the settings ask for, and what they contradict."""
    caveats, warnings = list(layout.caveats), list(layout.warnings)
    rows, given = layout.rows, settings.model_fields_set
    longest = max(map(len, rows))
    if "stripes" in given and settings.stripes != len(rows):
        warnings.append(f"there are {len(rows)} rows of fields, not {settings.stripes} stripes")
    if settings.overlap_px and layout.origins:
        warnings.append(f"overlap_px {settings.overlap_px} is not used: stage positions decide")
    if settings.fields and settings.fields > longest:
        got = f"{longest}"
        raise Unclear(
            f"{settings.fields} fields in each stripe as set", got, f"correct it, or {HINT}"
        )
    if settings.fields and settings.fields < longest:
        before = rows
        rows = tuple(row[: settings.fields] for row in rows)
        kept, of = (sum(field is not None for row in r for field in row) for r in (rows, before))
        if not all(any(field is not None for field in row) for row in rows):
            got = "rows that begin farther to the right"
            raise Unclear(f"rows with any of the first {settings.fields} fields", got, HINT)
        caveats.append(f"{kept} of {of} positions are scanned: {settings.fields} of each row")
    origins = layout.origins and tuple(
        each[: len(row)] for each, row in zip(layout.origins, rows, strict=True)
    )
    return replace(
        layout, rows=rows, origins=origins, caveats=tuple(caveats), warnings=tuple(warnings)
    )
