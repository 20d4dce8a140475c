"""Check what runs left in their folder: before a resume relies on it, and where a user asks."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

from results.digest import digest_of
from results.files import files_below
from results.journal import EventIndex, latest
from results.storage import Location
from results.store import DEPTH, LABELS, STACKED, checksums_of
from results.table import TABLE, part_checksum, table_checksum
from scan.checkpoint import Checkpoint
from scan.events import Begun, Detected, Event, Predicted, Stacked
from scan.plan import Field, Place, Span

Core = tuple[Place, Span, Span]  # a field's place, and rows and columns of its core

MAX_READ_PX = 2**22  # that a thread reads at once: 22 MB of heights with their pyramid
READERS = 2 * (os.cpu_count() or 1)  # threads, which wait for the disk
IMAGES = (STACKED, DEPTH, LABELS)  # in the order of checksums
TEMPORARY = ("*.__lock", ".*.partial")  # names that tensorstore and write_atomically use


def remove_temp_files(folder: Path) -> None:
    """Remove the temporary files of processes that were killed."""
    for entry in list(files_below(folder)):
        if any(fnmatch(entry.name, pattern) for pattern in TEMPORARY):
            Path(entry.path).unlink(missing_ok=True)


def verify(folder: Location, checkpoint: Checkpoint) -> None:
    """Compare all files of a checkpoint with their checksums; invalidate fields that differ."""
    stacked = checkpoint.stacked
    images = [_on_disk(folder, name, map(_core_of, stacked)) for name in (STACKED, DEPTH)]
    for field, checksums in list(stacked.items()):
        if list(checksums) != [found[field.place] for found in images]:
            checkpoint.invalidate(field)
    detected = checkpoint.detected
    labels = _on_disk(folder, LABELS, map(_core_of, detected))
    with ThreadPoolExecutor(READERS) as pool:
        parts = list(pool.map(lambda field: part_checksum(folder, *field.place), detected))
    for (field, checksums), part in zip(list(detected.items()), parts, strict=True):
        if list(checksums) != [labels[field.place], part]:
            del detected[field]


def _core_of(field: Field) -> Core:
    return field.place, field.rows, field.columns


def _on_disk(folder: Location, name: str, cores: Iterable[Core]) -> dict[Place, int | None]:
    """Return the checksums on disk of cores of an image; None for those that cannot be read."""

    def read(row: Sequence[Core]) -> list[int | None]:
        columns = [slice(*each) for _, _, each in row]
        return checksums_of(f"{folder}/{name}", slice(*row[0][1]), columns)

    rows = list(_side_by_side(cores))
    with ThreadPoolExecutor(READERS) as pool:
        return {
            place: checksum
            for row, checksums in zip(rows, pool.map(read, rows), strict=True)
            for (place, _, _), checksum in zip(row, checksums, strict=True)
        }


def _side_by_side(cores: Iterable[Core]) -> Iterator[list[Core]]:
    """Yield cores that lie side by side, as many as a thread may hold in memory."""
    row: list[Core] = []
    for place, rows, columns in sorted(cores):
        if row:
            begin, end = row[0][2][0], row[-1][2][1]
            pixels = (rows[1] - rows[0]) * (columns[1] - begin)
            if rows != row[0][1] or columns[0] != end or pixels > MAX_READ_PX:
                yield row
                row = []
        row.append((place, rows, columns))
    if row:
        yield row


def differences(folder: Location, events: Sequence[Event]) -> list[str]:
    """Read back all that runs have written; return the names of what differs.

    Parameters
    ----------
    folder : path or URL
    events : sequence of Event
        The journal. If the last run did not end, the table is not compared: it is made last.
    """
    written, cuts = _written(events), EventIndex(events).of(Begun)[-1]
    rows, columns = (list(pairwise(each)) for each in (cuts.row_cuts, cuts.column_cuts))
    different: list[tuple[Place, int]] = []
    for number, name in enumerate(IMAGES):
        expected = {place: each[number] for place, each in written.items() if len(each) > number}
        found = _on_disk(folder, name, (((s, f), rows[s], columns[f]) for s, f in expected))
        different += [(place, number) for place in expected if found[place] != expected[place]]
    named = [f"stripe {s} field {f} of {IMAGES[number]}" for (s, f), number in sorted(different)]
    predicted = EventIndex(latest(events)).last(Predicted)
    if predicted and digest_of(written, table_checksum(folder)) != predicted.digest:
        named.append(TABLE)
    return named


def _written(events: Sequence[Event]) -> dict[tuple[int, int], tuple[int, ...]]:
    """What the last tasks that wrote a field said of it."""
    checksums: dict[tuple[int, int], tuple[int, ...]] = {}
    for event in events:
        if isinstance(event, Stacked):
            checksums[event.place] = event.checksums
        elif isinstance(event, Detected) and event.place in checksums:
            checksums[event.place] = (*checksums[event.place][:2], *event.checksums)
    return checksums
