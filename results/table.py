"""The object table: one part per field while the scan runs, one file at its end.

A part is written by the task that found the field's objects and lives in the run's `.parts` folder;
the whole table is the parts in the order of their labels, so it does not depend on who was first.
"""

import csv
import io
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from errno import ENOENT
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from results.places import Place, is_url, read_bytes, remove_under, write_bytes

TABLE = "objects.csv"
PARTS = ".parts"
FIRST_COLUMNS = ("label", "stripe", "field", "x_um", "y_um", "z_um")
LAST_COLUMNS = ("score", "touches_border")

Columns = Mapping[str, NDArray[Any]]


def write_part(folder: Place, stripe: int, field: int, columns: Columns) -> int:
    """Write the rows of one field, again gives the same bytes; returns their checksum."""
    if not is_url(folder):
        with suppress(OSError):  # what keeps a folder from being made is told by the write
            Path(folder, PARTS).mkdir(exist_ok=True)
    return write_bytes(_part(folder, stripe, field), _as_csv(columns).encode())


def part_checksum(folder: Place, stripe: int, field: int) -> int | None:
    """The checksum of a field's rows as they lie on disk; None where there are none."""
    part = read_bytes(_part(folder, stripe, field))
    return None if part is None else crc32(part)


def _part(folder: Place, stripe: int, field: int) -> str:
    return f"{folder}/{PARTS}/stripe{stripe:03d}-field{field:05d}.csv"


def _as_csv(columns: Columns) -> str:
    """Rows of plain numbers; columns tell of place first, then of shape, then of trust."""
    middle = [name for name in columns if name not in FIRST_COLUMNS + LAST_COLUMNS]
    names = (*FIRST_COLUMNS, *middle, *LAST_COLUMNS)
    plain = [[_plain(value) for value in columns[name].tolist()] for name in names]
    return _joined(names, zip(*plain, strict=True))


def _plain(value: float) -> float:
    """A value as it reads best: six decimals are finer than any of our measures."""
    return round(value, 6) if isinstance(value, float) else int(value)


def _joined(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def join_parts(folder: Place, fields: Sequence[tuple[int, int]]) -> int:
    """Write the table of the whole scan from the parts of its fields; returns its rows."""
    header: Sequence[str] = FIRST_COLUMNS + LAST_COLUMNS
    rows: list[list[str]] = []
    for stripe, field in fields:
        place = _part(folder, stripe, field)
        if (part := read_bytes(place)) is None:
            raise FileNotFoundError(ENOENT, "rows of a field are gone", place)
        header, *more = csv.reader(part.decode().splitlines())
        rows += more
    rows.sort(key=lambda row: int(row[0]))  # by label
    write_bytes(f"{folder}/{TABLE}", _joined(header, rows).encode())
    return len(rows)


def read_table(folder: Place, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Some columns of the table as numbers."""
    return _numbers(f"{folder}/{TABLE}", names)


def read_part(
    folder: Place, stripe: int, field: int, names: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Some columns of one field's part of the table as numbers."""
    return _numbers(_part(folder, stripe, field), names)


def _numbers(place: str, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    text = (read_bytes(place) or b"").decode()  # it may be joined just now
    header, _, rows = text.partition("\n")
    if not rows:
        return {name: np.empty(0) for name in names}
    columns = [header.split(",").index(name) for name in names]
    values = np.loadtxt(io.StringIO(rows), delimiter=",", usecols=columns, ndmin=2)
    return dict(zip(names, values.T, strict=True))


def remove_parts(folder: Place) -> None:
    """Remove the parts, once the table says it all and no field is left to add."""
    if is_url(folder):
        remove_under(f"{folder}/{PARTS}")
    else:
        shutil.rmtree(Path(folder, PARTS), ignore_errors=True)
