"""The object table: one part per field while the scan runs, one file at its end.

A part is written by the task that found the field's objects and lives in the run's `.parts` folder;
the whole table is the parts in the order of their labels, so it does not depend on who was first.
"""

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.files import write_atomically

TABLE = "objects.csv"
PARTS = ".parts"
FIRST_COLUMNS = ("label", "stripe", "field", "x_um", "y_um", "z_um")
LAST_COLUMNS = ("score", "touches_border")

Columns = Mapping[str, NDArray[Any]]


def write_part(folder: Path, stripe: int, field: int, columns: Columns) -> None:
    """Write the rows of one field; again gives the same bytes."""
    (folder / PARTS).mkdir(exist_ok=True)
    write_atomically(_part(folder, stripe, field), _as_csv(columns))


def _part(folder: Path, stripe: int, field: int) -> Path:
    return folder / PARTS / f"stripe{stripe:03d}-field{field:05d}.csv"


def _as_csv(columns: Columns) -> str:
    names = ordered(tuple(columns))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    plain = [[_plain(value) for value in columns[name]] for name in names]
    writer.writerows(zip(*plain, strict=True))
    return text.getvalue()


def ordered(names: Sequence[str]) -> tuple[str, ...]:
    """Column names in the order of the table: place first, then shape, then trust."""
    middle = [name for name in names if name not in FIRST_COLUMNS + LAST_COLUMNS]
    return (*FIRST_COLUMNS, *middle, *LAST_COLUMNS)


def _plain(value: Any) -> Any:
    """A value as it reads best: six decimals are finer than any of our measures."""
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6)
    return int(value)


def join_parts(folder: Path, fields: Sequence[tuple[int, int]]) -> int:
    """Write the table of the whole scan from the parts of its fields; returns its rows."""
    header: list[str] = list(FIRST_COLUMNS + LAST_COLUMNS)
    rows: list[list[str]] = []
    for stripe, field in fields:
        with _part(folder, stripe, field).open(newline="", encoding="utf-8") as file:
            header, *more = csv.reader(file)
            rows += more
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *sorted(rows, key=_label)])
    write_atomically(folder / TABLE, text.getvalue())
    return len(rows)


def _label(row: list[str]) -> int:
    return int(row[0])


def remove_parts(folder: Path) -> None:
    """Remove the parts, once the table says it all."""
    shutil.rmtree(folder / PARTS, ignore_errors=True)
