"""Atomic writes: a temporary file in the same folder replaces the file once it is complete."""

import os
import shutil
import socket
import zlib
from contextlib import suppress
from pathlib import Path

from scan.errors import StorageError


def write_atomically(path: Path, text: str | bytes) -> int:
    """Replace the content of a file and return its crc32; readers see the old or the new content.

    StorageError when it cannot be written.
    """
    data = text.encode("utf-8") if isinstance(text, str) else text
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):  # the folder itself may be read-only
            partial.unlink()
        raise not_written(path, len(data), error) from error
    return zlib.crc32(data)


def not_written(path: Path, needed_bytes: int, error: Exception) -> StorageError:
    """Return the StorageError to raise when so many bytes could not be written."""
    folder = next(parent for parent in (path, *path.parents) if parent.is_dir())
    free_bytes = shutil.disk_usage(folder).free
    reason = error.strerror if isinstance(error, OSError) else str(error).rpartition(": ")[2]
    reason = (reason or type(error).__name__).partition(" [")[0]  # tensorstore's error number
    return StorageError(
        str(path),
        f"to write {needed_bytes} bytes" if needed_bytes else "a folder that can be written",
        f"{reason} ({free_bytes} bytes free on {socket.gethostname()})",
        "make room or bring the folder back, then resume the run",
    )
