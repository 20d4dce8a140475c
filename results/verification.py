"""Check what runs left in their folder: before a resume relies on it, and where a user asks."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from results.digest import digest_of
from results.files import files_below
from results.journal import EventIndex, latest
from results.storage import Location
from results.store import DEPTH, LABELS, STACKED, checksum_of
from results.table import TABLE, part_checksum, table_checksum
from scan.checkpoint import Checkpoint
from scan.events import Begun, Detected, Event, Predicted, Stacked
from scan.plan import Field, Place

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
    for field in _changed(checkpoint.stacked, partial(_stacked, folder)):
        checkpoint.invalidate(field)
    for field in _changed(checkpoint.detected, partial(_detected, folder)):
        del checkpoint.detected[field]


def _changed(
    written: Mapping[Field, Sequence[int]], read: Callable[[Field], list[int | None]]
) -> list[Field]:
    """Return the fields whose checksums on disk are others than those written."""
    with ThreadPoolExecutor(READERS) as pool:
        found = zip(written.items(), pool.map(read, written), strict=True)
        return [field for (field, checksums), now in found if list(checksums) != now]


def _stacked(folder: Location, field: Field) -> list[int | None]:
    return [_core(folder, name, field) for name in (STACKED, DEPTH)]


def _detected(folder: Location, field: Field) -> list[int | None]:
    return [_core(folder, LABELS, field), part_checksum(folder, field.stripe, field.field)]


def _core(folder: Location, name: str, field: Field) -> int | None:
    return checksum_of(f"{folder}/{name}", slice(*field.rows), slice(*field.columns))


def differences(folder: Location, events: Sequence[Event]) -> list[str]:
    """Read back all that runs have written; return the names of what differs.

    Parameters
    ----------
    folder : path or URL
    events : sequence of Event
        The journal. If the last run did not end, the table is not compared: it is made last.
    """
    written, cuts = _written(events), EventIndex(events).of(Begun)[-1]

    def differs(item: tuple[Place, tuple[int, ...]]) -> list[str]:
        (stripe, field), checksums = item
        rows = slice(*cuts.row_cuts[stripe : stripe + 2])
        columns = slice(*cuts.column_cuts[field : field + 2])
        return [
            f"stripe {stripe} field {field} of {name}"
            for name, checksum in zip(IMAGES, checksums, strict=False)  # rows are in the table
            if checksum_of(f"{folder}/{name}", rows, columns) != checksum
        ]

    with ThreadPoolExecutor(READERS) as pool:
        different = [name for names in pool.map(differs, sorted(written.items())) for name in names]
    predicted = EventIndex(latest(events)).last(Predicted)
    if predicted and digest_of(written, table_checksum(folder)) != predicted.digest:
        different.append(TABLE)
    return different


def _written(events: Sequence[Event]) -> dict[tuple[int, int], tuple[int, ...]]:
    """What the last tasks that wrote a field said of it."""
    checksums: dict[tuple[int, int], tuple[int, ...]] = {}
    for event in events:
        if isinstance(event, Stacked):
            checksums[event.place] = event.checksums
        elif isinstance(event, Detected) and event.place in checksums:
            checksums[event.place] = (*checksums[event.place][:2], *event.checksums)
    return checksums
