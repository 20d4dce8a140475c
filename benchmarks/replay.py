"""A folder of z-stacks: this program against a plain process pool with the same functions.

    python benchmarks/replay.py --rounds 5

The recording is made from the simulated slide. The pool reads, stacks and detects what the program
reads, stacks and detects, and does nothing else: it writes no mosaic and no table, and survives no
fault. Both are timed in turns, from the start of the process to its end; compiled code and
files are in caches.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import tifffile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.conditions import print_conditions  # noqa: E402
from config import validate  # noqa: E402
from imaging.detection import detect, estimate_statistics, measure  # noqa: E402
from imaging.stacking import focus_stack  # noqa: E402
from imaging.statistics import DetectionStatistics  # noqa: E402
from microscope.image_files import read_planes  # noqa: E402
from microscope.opening import open_simulated, prepare  # noqa: E402

SAMPLES = 9


def make_recording(folder: Path, given: argparse.Namespace) -> None:
    """Write a z-stack a field, as TIFF files of uint16."""
    settings = validate(
        {"stripes": 1, "fields": given.fields, "planes": given.planes, "field_px": given.edge_px,
         "exposure_ms": 0.01, "settle_ms": 0.0}
    )  # fmt: skip
    setup = prepare(settings)
    microscope = open_simulated(setup, 0)
    folder.mkdir()
    for index, field in enumerate(setup.plan.fields):
        heights = setup.focus_job.planes_at(settings.focus_center_um)
        frames = microscope.stack(field.x_um, field.y_um, heights).frames
        tifffile.imwrite(
            folder / f"field{index:03}.tif", frames, photometric="minisblack", imagej=True,
            resolution=(1 / setup.plan.pixel_size_um,) * 2,
            metadata={"axes": "ZYX", "unit": "um", "spacing": setup.z_step_um},
        )  # fmt: skip


def prepare_worker() -> None:
    """One thread, as a worker of the program."""
    cv2.setNumThreads(1)


def stacked(path: Path, planes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read and stack one field."""
    found = focus_stack(read_planes(path, range(planes)))
    return found.image, found.depth


def counted(image: np.ndarray, depth: np.ndarray, specimen: DetectionStatistics) -> int:
    """Detect and measure one field: its objects."""
    labels = detect(image, specimen, (0, 0))
    return len(measure(labels, image, depth, specimen)["label"])


def run_pool(folder: Path, planes: int) -> int:
    """Read, stack and detect all fields; returns the number of objects."""
    paths = sorted(folder.iterdir())
    with ProcessPoolExecutor(os.cpu_count(), initializer=prepare_worker) as pool:
        stacks = list(pool.map(stacked, paths, [planes] * len(paths)))
        chosen = np.linspace(0, len(stacks) - 1, SAMPLES).round().astype(int)
        specimen = estimate_statistics([stacks[index][0] for index in chosen], None)
        images, depths = zip(*stacks, strict=True)
        return sum(pool.map(counted, images, depths, [specimen] * len(stacks)))


def run_program(folder: Path, out: Path, given: argparse.Namespace) -> dict[str, float]:
    """Scan the recording; returns seconds by step."""
    command = [sys.executable, str(ROOT / "main.py"), "--plain", "--out", str(out)]
    command += ["--microscope", "replay", "--replay-path", str(folder)]
    command += ["--stripes", str(given.stripes)]
    began_s = time.time()
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    whole_s = time.time() - began_s
    timing = json.loads((out / "summary.json").read_text())["timing"]
    return {"whole": whole_s, "to the first sweep": timing["startup"]}


def timed_pool(folder: Path, given: argparse.Namespace) -> dict[str, float]:
    """Run the pool in a process of its own; returns its seconds."""
    command = [sys.executable, __file__, "--pool", str(folder), "--planes", str(given.planes)]
    began_s = time.time()
    subprocess.run(command, check=True, capture_output=True)
    return {"whole": time.time() - began_s}


def run_from_command_line() -> int:
    """Print conditions, then seconds of both (least, median, most), and how they compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fields", type=int, default=40)
    parser.add_argument("--planes", type=int, default=15)
    parser.add_argument("--edge-px", type=int, default=1024)
    parser.add_argument("--stripes", type=int, default=2, help="cameras that read side by side")
    parser.add_argument("--pool", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.pool:
        print(run_pool(given.pool, given.planes))
        return 0
    megabytes = 2 * given.fields * given.planes * given.edge_px**2 / 1e6
    print_conditions(rounds=given.rounds, fields=given.fields, megabytes=round(megabytes))
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "recording"
        make_recording(folder, given)
        for turn in range(given.rounds + 1):
            program = run_program(folder, Path(name) / f"run{turn}", given)
            pool = timed_pool(folder, given)
            if turn:  # the first fills caches
                row = {"program, s": program["whole"], "pool, s": pool["whole"]}
                row["program to its first sweep, s"] = program["to the first sweep"]
                row["program / pool"] = program["whole"] / pool["whole"]
                for what, value in row.items():
                    times.setdefault(what, []).append(value)
    print("| | least | median | most |", "|---|---|---|---|", sep="\n")
    for what, values in times.items():
        shown = min(values), statistics.median(values), max(values)
        print(f"| {what} | " + " | ".join(f"{value:.2f}" for value in shown) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(run_from_command_line())
