"""The run folder: a new one for each run, or one that is resumed, and its lock."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from results.files import readable, require_regular_files
from results.storage import POINTER, location_of, storage_at
from scan.errors import InputError

LOCK = ".lock"
OWNER = ".owner"  # who holds the lock, for the message to others
ENDING_S = 1.0  # a run that was killed may still be ending

PACKAGES = ("ray", "numpy", "opencv-python-headless", "numba", "scikit-image", "tensorstore")


def choose_folder(out: Path | None) -> Path:
    """Return the folder to create, by default named by the time; InputError if it has content."""
    folder = out or _by_time()
    with readable(str(folder)):
        used = folder.exists() and (not folder.is_dir() or any(map(_is_result, folder.iterdir())))
    if used:
        hint = "choose another --out, or give it to --resume if a run stopped in it"
        got = "one that holds something"
        raise InputError(location_of(folder), "a new or empty folder", got, hint)
    return folder


def _is_result(path: Path) -> bool:
    return path.name not in (LOCK, OWNER, POINTER)


def _by_time() -> Path:
    name = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(folder for folder in map(Path("runs").joinpath, names) if not folder.exists())


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Lock a run folder, created if necessary; InputError if another run has locked it.

    The lock is released when the process ends, however it ends. A folder that is still empty at the
    end is removed.
    """
    lock = _acquired(folder)
    try:
        _name_owner(folder)
        with storage_at(location_of(folder)).reserved():
            yield
    finally:
        for name in (OWNER, LOCK):
            with suppress(OSError):  # the folder itself may be gone, or read-only by now
                (folder / name).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):
            folder.rmdir()


def _acquired(folder: Path) -> BaseFileLock:
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        require_regular_files(folder)
        lock.acquire(timeout=ENDING_S, poll_interval=0.02)
    except Timeout:
        got = f"one in use by {_owner(folder)}"
        hint = "wait until that run is over, or stop it"
        raise InputError(str(folder), "a folder that no run is using", got, hint) from None
    except (OSError, ValueError) as error:
        expected, got = "a folder that can be written", getattr(error, "strerror", str(error))
        raise InputError(str(folder), expected, got, "choose another") from None
    return lock


def _name_owner(folder: Path) -> None:
    began = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    owner = f"process {os.getpid()} on {socket.gethostname()} since {began}"
    with suppress(OSError):  # a full disk is reported by the first result
        (folder / OWNER).write_text(f"{owner}\n", encoding="utf-8")


def _owner(folder: Path) -> str:
    with suppress(OSError):
        return (folder / OWNER).read_text(encoding="utf-8").strip()
    return "another run"


def versions() -> dict[str, str]:
    """Return the versions of Python and the main packages, and the commit if there is one."""
    found = {"python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES}
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    )
    return found | ({"commit": git.stdout.strip()} if git.returncode == 0 else {})
