"""Import and compile what stacking and detection need, before the first batch."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock, Timeout

from imaging.code_cache import cache_folder
from imaging.compiling import detection_parts
from imaging.detection import detect, estimate_statistics, measure
from prediction import Predictor

# The slowest part takes 15 s on a slow machine. Who waits longer compiles for itself: the process
# that holds the lock may be stopped.
LONGEST_S = 120.0


def compile_kernels(predictor: Predictor, dtype: np.dtype[Any]) -> None:
    """Stack and detect once in a small stack of discs, of which one plane is sharp and two are
    brighter.

    What the processes of a computer need to compile they share among them.
    """
    from imaging.stacking import focus_stack

    rows, columns = np.mgrid[:256, :256] % 32 - 16
    grain = np.random.default_rng(0).normal(100, 10, (256, 256))
    grain[np.hypot(rows, columns) < 5] += 100
    planes = ((3, 1.0), (0.5, 1.1), (3, 1.0), (3, 1.1))  # blur in px and light
    blurred = np.stack([light * cv2.GaussianBlur(grain, (0, 0), blur) for blur, light in planes])
    frames = blurred.astype(dtype)
    run_parts({"stacking": lambda: focus_stack(frames)} | detection_parts(frames[1]), _locks())
    image = focus_stack(frames).image
    statistics = predictor.estimate_statistics([image], None)
    labels = predictor.detect(image, statistics, (0, 0))
    measure(labels, image, np.zeros(image.shape, np.float32), statistics)
    detect(image, estimate_statistics([image], 64.0))  # large objects are binned


def run_parts(parts: Mapping[str, Callable[[], object]], locks: Path) -> None:
    """Run all parts, first those that no other process runs now, then the others.

    Compiled code is kept on disk, so a part that another process has run costs nothing.

    Parameters
    ----------
    parts : mapping of str to callable
        In the order in which they are needed.
    locks : Path
        Start of the names of the files that processes lock.
    """
    waiting = list(parts)
    while waiting:
        free = next((name for name in waiting if _run(parts[name], f"{locks}-{name}", 0)), None)
        if free is None:
            free = waiting[0]
            if not _run(parts[free], f"{locks}-{free}", LONGEST_S):
                parts[free]()
        waiting.remove(free)


def _run(part: Callable[[], object], lock: str, timeout_s: float) -> bool:
    """Run a part under its lock and return true; false if the lock is not free in time."""
    try:
        with FileLock(lock, timeout=timeout_s):
            part()
    except Timeout:
        return False
    return True


def _locks() -> Path:
    """Return where the processes that share compiled code lock its parts."""
    folder = hashlib.sha256(str(cache_folder()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"stripe-scan-{os.getuid()}-{folder}"
