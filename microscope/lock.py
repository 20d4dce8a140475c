"""One process drives a microscope, of all on this computer and of those that share its files."""

import fcntl
import hashlib
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from scan.errors import InputError

POLL_S = 0.01


class MicroscopeLock:
    """Locks a microscope by its configuration file until it is released.

    The system releases the locks of a process that was killed. Nothing is left next to the file,
    whose folder may be read-only: one lock is a file among temporary ones, the other is the
    system's own on the configuration file, which other computers see where the file is shared.

    Parameters
    ----------
    file : Path
        The configuration file.
    timeout_s : float
        How long to wait for a process that is about to end.

    Raises
    ------
    InputError
        If another process still drives the microscope then.
    """

    def __init__(self, file: Path, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        name = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]
        path = Path(tempfile.gettempdir(), f"stripe-scan-{name}.lock")
        self._here = FileLock(path, timeout=timeout_s, mode=0o666, thread_local=False)
        self._file: int | None = None
        try:
            self._here.acquire(poll_interval=POLL_S)
            self._file = _locked(file, deadline_s)
        except Timeout:
            self.release()
            expected, got = "a microscope that nobody drives", "one that another process drives"
            hint = "wait until that scan is over, or stop it"
            raise InputError(str(file), expected, got, hint) from None
        except OSError as error:  # another user's, on systems that protect temporary files
            expected, hint = "to be opened", "remove it, unless that user is scanning"
            raise InputError(str(path), expected, str(error.strerror), hint) from None

    def release(self) -> None:
        """Let others drive the microscope; may be called twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._here.release()


def _locked(file: Path, deadline_s: float) -> int | None:
    """Lock a file by the system's own lock; None where its file system has none."""
    writable = os.access(file, os.W_OK)  # as NFS requires
    descriptor = os.open(file, os.O_RDWR if writable else os.O_RDONLY)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                os.close(descriptor)
                raise Timeout(str(file)) from None
            time.sleep(POLL_S)
        except OSError:
            with suppress(OSError):
                os.close(descriptor)
            return None
