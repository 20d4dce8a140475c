"""Worker processes: priority below the cameras, a time limit, pages of the object store."""

import ctypes
import faulthandler
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import cv2

Result = TypeVar("Result")

WORK_NICENESS = 10  # workers start at 0: cameras come first, then stacking
MAX_PREFAULT_BYTES = 512 * 10**6  # a third of a second, before the first exposure
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux 5.14: contents stay as they are


def run_low_priority(
    work: Callable[..., Result], *arguments: Any, limit_s: float | None = None
) -> Result:
    """Call a function at lower priority; end this worker process if that takes too long.

    The time limit is kept by a native thread, so that it also ends code that holds Python's lock.
    It writes the stack to the worker's log and exits; Ray then reports that the worker died.
    """
    if limit_s is None:
        return _low_priority_thread().submit(work, *arguments).result()
    faulthandler.dump_traceback_later(limit_s, exit=True)
    try:
        return _low_priority_thread().submit(work, *arguments).result()
    finally:
        faulthandler.cancel_dump_traceback_later()


@cache
def _low_priority_thread() -> ThreadPoolExecutor:
    """One thread for all the work of this process.

    On Linux each thread has its own niceness, which can be raised but not lowered again: so the
    worker itself stays quick to take its next task.
    """
    return ThreadPoolExecutor(1, initializer=_lower_priority)


def _lower_priority() -> None:
    cv2.setNumThreads(1)
    if (niceness := os.nice(0)) < WORK_NICENESS:
        os.nice(WORK_NICENESS - niceness)


def prefault_object_store(size_bytes: int) -> None:
    """Map the first pages of the object store into this process before they are needed.

    The first use of a page costs a page fault in each process: 15 to 50 ms for a batch of 31 MB,
    just when the batch is complete. Does nothing outside Linux.
    """
    with suppress(OSError):  # no /proc
        for line in Path("/proc/self/maps").read_text().splitlines():
            if "plasma" in line:
                begin, end = (int(address, 16) for address in line.split()[0].split("-"))
                length = min(end - begin, size_bytes)
                ctypes.CDLL(None).madvise(
                    ctypes.c_void_p(begin), ctypes.c_size_t(length), POPULATE_WRITE
                )
