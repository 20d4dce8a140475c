"""The small files of a run in an object store: kept in a local folder, copied as they change."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from scan.errors import InputError, StorageError

SMALL_FILES = ("scan.toml", "events.jsonl", "summary.json", "report.html", "trace.json")
COPY_INTERVAL_S = 0.5
MAX_COPYING_SHARE = 0.1  # of the time: the journal of a large scan is large

Read = Callable[[str], bytes | None]
Write = Callable[[str, bytes], int]


class CopyError(StorageError):
    """The small files of a run could not be copied to its object store; they are kept locally."""


@contextmanager
def mirrored_folder(read: Read, write: Write) -> Iterator[Path]:
    """Yield a temporary folder with the small files of a run; copy back those that change.

    InputError if they cannot be read. CopyError if the last copy fails; the folder is kept then.

    Parameters
    ----------
    read, write : callables
        Read and write one file of the object store by its name.
    """
    folder = Path(tempfile.mkdtemp(prefix="stripe-scan-"))
    try:
        _fetch(read, folder)
        with _copying(folder, write):
            yield folder
    except CopyError:
        raise  # the folder has the only copy
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def _fetch(read: Read, folder: Path) -> None:
    try:
        for name in SMALL_FILES:
            if (data := read(name)) is not None:
                (folder / name).write_bytes(data)
    except StorageError as error:
        raise InputError(*error.args) from None


@contextmanager
def _copying(folder: Path, write: Write) -> Iterator[None]:
    """Copy files that change, in a thread, and once more at the end."""
    copied, ended = _states(folder), Event()

    def copy() -> None:
        for name, state in _states(folder).items():
            if copied.get(name) != state:
                write(name, (folder / name).read_bytes())
                copied[name] = state

    thread = Thread(target=_copy_until, args=(ended, copy), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _copy_last(copy, folder)


def _copy_until(ended: Event, copy: Callable[[], None]) -> None:
    took_s = 0.0
    while not ended.wait(max(COPY_INTERVAL_S, took_s / MAX_COPYING_SHARE)):
        began_s = time.monotonic()
        with suppress(StorageError, OSError):  # the next copy, or the last one, raises it
            copy()
        took_s = time.monotonic() - began_s


def _copy_last(copy: Callable[[], None], folder: Path) -> None:
    try:
        copy()
    except StorageError as error:
        subject, expected, got, hint = error.args
        kept = f"journal, summary and report are kept in {folder}"
        raise CopyError(subject, expected, got, f"{hint}; {kept}") from None


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time of each small file that exists."""
    found = {}
    for name in SMALL_FILES:
        with suppress(OSError):
            status = (folder / name).stat()
            found[name] = status.st_size, status.st_mtime_ns
    return found
