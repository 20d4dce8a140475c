"""The object table: one part per field during the scan, one file at the end.

The task that detects a field's objects writes its part into the folder `.parts`. The table holds
the rows of all parts in the order of their labels, whichever task finished first.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from results.storage import Location, Storage, missing, storage_at

TABLE = "objects.csv"
PARTS = ".parts"
FIRST_COLUMNS = ("label", "stripe", "field", "x_um", "y_um", "z_um")
LAST_COLUMNS = ("score", "touches_border")

Columns = Mapping[str, NDArray[Any]]
Facts = Mapping[str, float | int | str]


def write_part(folder: Location, stripe: int, field: int, columns: Columns) -> int:
    """Write the rows of one field and return their checksum; a repeated write gives equal bytes."""
    return storage_at(folder).write_bytes(_part(stripe, field), _as_csv(columns).encode())


def part_checksum(folder: Location, stripe: int, field: int) -> int | None:
    """Return the checksum of a field's rows on disk; None if there are none."""
    part = storage_at(folder).read_bytes(_part(stripe, field))
    return None if part is None else crc32(part)


def _part(stripe: int, field: int) -> str:
    return f"{PARTS}/stripe{stripe:03d}-field{field:05d}.csv"


def _as_csv(columns: Columns) -> str:
    """Columns as CSV: position first, then shape and intensity, then score."""
    middle = [name for name in columns if name not in FIRST_COLUMNS + LAST_COLUMNS]
    names = (*FIRST_COLUMNS, *middle, *LAST_COLUMNS)
    plain = [[_plain(value) for value in columns[name].tolist()] for name in names]
    return _joined(names, zip(*plain, strict=True))


def _plain(value: float | str) -> float | str:
    """A value with at most six decimals, which is finer than any measurement here."""
    if isinstance(value, str):
        return value
    return round(value, 6) if isinstance(value, float) else int(value)


def _joined(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def join_parts(
    folder: Location,
    fields: Sequence[tuple[int, int]],
    extend: Callable[[Columns], tuple[Columns, Facts]] | None = None,
) -> tuple[int, Facts]:
    """Write the table of the whole scan from the parts of its fields.

    `extend` gets all columns as numbers and returns columns that are added to them, and facts. The
    number of rows is returned, and the facts.
    FileNotFoundError if the part of a field is missing.
    """
    storage = storage_at(folder)
    header: Sequence[str] = FIRST_COLUMNS + LAST_COLUMNS
    rows: list[list[str]] = []
    for stripe, field in fields:
        name = _part(stripe, field)
        if (part := storage.read_bytes(name)) is None:
            raise missing(f"{folder}/{name}")
        header, *more = csv.reader(part.decode().splitlines())
        rows += more
    rows.sort(key=lambda row: int(row[0]))  # by label
    added: Columns = {}
    facts: Facts = {}
    if extend:
        values = np.array(rows, float).reshape(len(rows), len(header))
        added, facts = extend(dict(zip(header, values.T, strict=True)))
    if added:
        columns = zip(*(map(_plain, column.tolist()) for column in added.values()), strict=True)
        rows = [[*row, *new] for row, new in zip(rows, columns, strict=True)]
    storage.write_bytes(TABLE, _joined([*header, *added], rows).encode())
    return len(rows), facts


def table_checksum(folder: Location) -> int | None:
    """Return the checksum of the table on disk; None if there is none."""
    table = storage_at(folder).read_bytes(TABLE)
    return None if table is None else crc32(table)


def read_table(folder: Location, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return columns of the table as numbers."""
    return _numbers(storage_at(folder), TABLE, names)


def read_part(
    folder: Location, stripe: int, field: int, names: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Return columns of one field's part of the table as numbers."""
    return _numbers(storage_at(folder), _part(stripe, field), names)


def read_texts(folder: Location, name: str) -> list[str]:
    """Return a column of the table as it is written; nothing if there is no such column.

    ValueError if the table cannot be read.
    """
    text = (storage_at(folder).read_bytes(TABLE) or b"").decode()
    try:
        return [row[name] or "" for row in csv.DictReader(io.StringIO(text)) if name in row]
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _numbers(storage: Storage, name: str, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    text = (storage.read_bytes(name) or b"").decode()  # the table may be replacing it
    header, _, rows = text.partition("\n")
    if not rows:
        return {name: np.empty(0) for name in names}
    columns = [header.split(",").index(name) for name in names]
    values = np.loadtxt(io.StringIO(rows), delimiter=",", usecols=columns, ndmin=2)
    return dict(zip(names, values.T, strict=True))


def remove_parts(folder: Location) -> None:
    """Remove the parts, once the table is complete and no field can be added."""
    storage_at(folder).remove_tree(PARTS)
