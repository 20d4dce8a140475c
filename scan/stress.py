"""The stress test: what keeps every core busy while a scan runs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from config import Settings
from scan.events import Event, Stressed

# Ends when its parent process ends.
BURNER = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    sum(range(1_000_000))
"""


def burn(seconds: float) -> None:
    """Keep this thread's core busy for so long."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        pass


@contextmanager
def burning(processes: int) -> Iterator[None]:
    """Keep so many cores busy with processes of usual priority; in the end all are gone."""
    command = [sys.executable, "-c", BURNER, str(os.getpid())]
    burners = [subprocess.Popen(command, start_new_session=True) for _ in range(processes)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


@contextmanager
def stressed(settings: Settings, write: Callable[[Event], None]) -> Iterator[None]:
    """Under --stress, keep every core of this machine busy, and write an event that says so."""
    processes = (os.cpu_count() or 1) if settings.stress else 0
    if processes:
        write(Stressed(burners=processes, seconds=settings.stress_seconds))
    with burning(processes):
        yield
