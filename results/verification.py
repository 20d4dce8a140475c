"""Check what an earlier run left in its folder before a resume relies on it."""

from pathlib import Path

from results.storage import Location
from results.store import DEPTH, LABELS, STACKED, checksum_of
from results.table import part_checksum
from scan.checkpoint import Checkpoint
from scan.plan import Field

TEMPORARY = ("*.__lock", ".*.partial")  # names that tensorstore and write_atomically use


def remove_temp_files(folder: Path) -> None:
    """Remove the temporary files of processes that were killed."""
    for pattern in TEMPORARY:
        for path in folder.rglob(pattern):
            path.unlink(missing_ok=True)


def verify(folder: Location, checkpoint: Checkpoint) -> None:
    """Compare all files of a checkpoint with their checksums; invalidate fields that differ."""
    for field, checksums in list(checkpoint.stacked.items()):
        if list(checksums) != [_core(folder, name, field) for name in (STACKED, DEPTH)]:
            checkpoint.invalidate(field)
    for field, checksums in list(checkpoint.detected.items()):
        rows = part_checksum(folder, field.stripe, field.field)
        if list(checksums) != [_core(folder, LABELS, field), rows]:
            del checkpoint.detected[field]


def _core(folder: Location, name: str, field: Field) -> int | None:
    return checksum_of(f"{folder}/{name}", slice(*field.rows), slice(*field.columns))
