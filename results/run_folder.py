"""The run folder: a new one for every run, or one that is resumed; never two runs in one."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import TextIO

from results.storage import POINTER, location_of
from scan.errors import InputError

LOCK = ".lock"

PACKAGES = ("ray", "numpy", "opencv-python-headless", "numba", "scikit-image", "tensorstore")


def choose_folder(out: Path | None) -> Path:
    """The folder to make, by default named by the time; one that holds something is refused."""
    folder = out or _by_time()
    if folder.exists() and (not folder.is_dir() or any(map(_is_result, folder.iterdir()))):
        advice = "choose another --out, or give it to --resume if a run stopped in it"
        raise InputError(
            location_of(folder), "a new or empty folder", "one that holds something", advice
        )
    return folder


def _is_result(path: Path) -> bool:
    return path.name not in (LOCK, POINTER)


def _by_time() -> Path:
    name = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(folder for folder in map(Path("runs").joinpath, names) if not folder.exists())


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Own a run folder, made if need be: of two runs the second is refused, naming the first.

    The system gives the lock back when its owner dies, however that comes about. A folder in which
    nothing came to lie is removed again.
    """
    with _lock_file(folder) as file:
        _lock(folder, file)
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()


def _lock_file(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / LOCK).open("a+")
    except OSError as error:
        came = str(error.strerror)
        raise InputError(
            str(folder), "a folder that can be written", came, "choose another"
        ) from None


def _lock(folder: Path, file: TextIO) -> None:
    try:
        flock(file, LOCK_EX | LOCK_NB)
        if not os.fstat(file.fileno()).st_nlink:
            raise BlockingIOError  # its owner removed it just now
    except BlockingIOError:
        file.seek(0)
        came = f"one in use by {file.read().strip() or 'another'}"
        advice = "wait until that run is over, or stop it"
        raise InputError(str(folder), "a folder that no run is using", came, advice) from None
    file.truncate(0)
    began = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {began}\n")
    file.flush()


def versions() -> dict[str, str]:
    """Versions of what the result depends on, and the commit where there is one."""
    found = {"python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES}
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    )
    return found | ({"commit": git.stdout.strip()} if git.returncode == 0 else {})
