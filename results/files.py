"""Atomic writes: a temporary file in the same folder replaces the file once it is complete."""

import os
import shutil
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from scan.errors import InputError, StorageError
from scan.text import describe


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


@contextmanager
def readable(location: str) -> Iterator[None]:
    """Raise InputError where a run folder, or the path to it, cannot be read."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:  # rights, a name of no file, a link loop
        got = describe(error) if not isinstance(error, OSError) else str(error.strerror)
        expected, hint = "a run folder that can be read", "check its path and its rights"
        raise InputError(location, expected, got, hint) from error


def require_regular_files(folder: Path) -> None:
    """Raise InputError for a pipe or a device in a run folder: to open one might never end."""
    for entry in files_below(folder):
        if not entry.is_file() and Path(entry.path).exists():
            raise InputError(entry.path, "a regular file", "a pipe or a device", "remove it")


def files_below(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    """Yield everything below a folder that is no folder; of ten thousands no file is opened."""
    if not Path(folder).is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from files_below(entry.path)
            else:
                yield entry


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
