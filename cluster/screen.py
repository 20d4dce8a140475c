"""Standard output and standard error that may be gone: no scan ends for a closed pipe or a full
disk, and no exit code changes."""

import io
import os
import sys
from typing import Any, TextIO


class LossyFile(io.RawIOBase):
    """Writes to a file descriptor until that fails, and from then on nowhere.

    Parameters
    ----------
    descriptor : int
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: Any) -> int:
        """Write, or discard what cannot be written."""
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            raise
        except OSError:
            _redirect_to_nowhere(self._descriptor)
            return memoryview(data).nbytes

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._descriptor)


def keep_screen() -> None:
    """Make this process's standard streams usable, whatever the caller left of them.

    Closed ones are opened: files that are opened later would take their numbers.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            _redirect_to_nowhere(descriptor)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = _lossy(sys.stdout, 1)
    sys.stderr = _lossy(sys.stderr, 2)


def _redirect_to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def _lossy(stream: TextIO | None, descriptor: int) -> TextIO:
    encoding = stream.encoding if stream else "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(LossyFile(descriptor)),
        encoding=encoding,
        errors="backslashreplace",  # what a terminal cannot show is no reason to end
        line_buffering=True,
    )
