"""Processes share what has to be compiled."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from prediction.warm_up import run_parts

ROOT = Path(__file__).parents[2]
SHORT = {"bin_blocks", "brightness_of", "core_of", "number_objects", "sizes_of"}
LEFT_TO_COMPILE = """
import numpy as np
from imaging import detection_kernels
from imaging.compiling import detection_parts
from imaging.detection import detect, estimate_statistics, measure

def versions():
    loops = (loop for loop in vars(detection_kernels).values() if hasattr(loop, "signatures"))
    return {(loop.__name__, str(one)) for loop in loops for one in loop.signatures}

image = np.random.default_rng(0).normal(100, 10, (96, 96)).astype(np.uint16)
image[40:50, 40:50] += 300
for part in detection_parts(image).values():
    part()
compiled = versions()
statistics = estimate_statistics([image], 10.0)
labels = detect(image, statistics, (0, 0))
measure(labels, image, np.zeros(image.shape, np.float32), statistics)
assert labels.any()
print(*sorted({name for name, _ in versions() - compiled}))
"""


def test_a_part_that_another_process_compiles_comes_last(tmp_path: Path) -> None:
    """The parts that are free are compiled first, and the others once their process is done."""
    locks, ran = tmp_path / "locks", []
    other = FileLock(f"{locks}-first", thread_local=False)
    other.acquire()

    def part(name: str) -> Callable[[], None]:
        def run() -> None:
            ran.append(name)
            if name == "third":
                other.release()

        return run

    run_parts({name: part(name) for name in ("first", "second", "third")}, locks)

    assert ran == ["second", "third", "first"]


def test_a_detection_compiles_little_after_its_parts() -> None:
    """The parts that processes share are all that detection compiles, but for short ones."""
    found = subprocess.run(
        [sys.executable, "-c", LEFT_TO_COMPILE], cwd=ROOT, capture_output=True, text=True
    )

    assert found.returncode == 0, found.stderr
    assert set(found.stdout.split()) <= SHORT
