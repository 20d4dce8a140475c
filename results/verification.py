"""Check what an earlier run left in its folder before a resume relies on it."""

from pathlib import Path

from results.storage import Location
from results.store import DEPTH, LABELS, STACKED, checksum_of
from results.table import part_checksum
from scan.checkpoint import Checkpoint
from scan.plan import Field

STRAYS = ("*.__lock", ".*.partial")  # of the store and of small files, left by whoever was killed


def remove_temp_files(folder: Path) -> None:
    """Remove the temporary files of writers that are gone."""
    for pattern in STRAYS:
        for stray in folder.rglob(pattern):
            stray.unlink(missing_ok=True)


def verify(folder: Location, checkpoint: Checkpoint) -> None:
    """Read what the journal says is on disk and forget what is not there as it was written."""
    for field, checksums in list(checkpoint.stacked.items()):
        if list(checksums) != [_core(folder, name, field) for name in (STACKED, DEPTH)]:
            checkpoint.invalidate(field)
    for field, checksums in list(checkpoint.detected.items()):
        rows = part_checksum(folder, field.stripe, field.field)
        if list(checksums) != [_core(folder, LABELS, field), rows]:
            del checkpoint.detected[field]


def _core(folder: Location, name: str, field: Field) -> int | None:
    return checksum_of(f"{folder}/{name}", slice(*field.rows), slice(*field.columns))
