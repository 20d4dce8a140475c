"""Does the driver's work per batch stay flat from ten to ten thousand batches; and a farm on paper.

    python benchmarks/scaling.py

Tiny batches, so that nothing but the driver and Ray count. Then what a farm of a hundred cameras
would need, from what was just measured and from one batch of usual size on this machine: which
resource runs out first?
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np

os.environ["RAY_AUTH_MODE"] = "disabled"  # this Ray is ours alone
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.conditions import print_conditions
from benchmarks.systems import this_driver
from benchmarks.workload import Camera, Timeline, Workload, rehearse, stack
from config import validate
from imaging.detection import measure
from microscope.opening import open_microscope, prepare
from prediction.classic import Classic

LENGTHS = (10, 100, 1_000, 10_000)
CAMERAS = 100
LINK_BYTES_PER_S = 1.25e9  # 10 gigabit Ethernet
NODE_CORES = 32
USUAL = Workload()


def run(batches: int) -> tuple[float, float, float]:
    """Driver CPU ms, wall-clock ms and median dispatch in ms for each batch of a scan."""
    work = Workload(stripes=2, fields=batches // 2, planes=2, edge_px=64, exposure_s=1e-5)
    timeline = this_driver(work, nullcontext)
    first_s = min(each.began_s for each in timeline.captures.values())
    wall_s = max(each.ended_s for each in timeline.works.values()) - first_s
    return 1e3 * timeline.driver_cpu_s / batches, 1e3 * wall_s / batches, dispatch_ms(timeline)


def dispatch_ms(timeline: Timeline) -> float:
    """Median time from a batch being complete to its stacking."""
    works, captures = timeline.works, timeline.captures
    return 1e3 * statistics.median(
        work.began_s - captures[place].complete_s for place, work in works.items()
    )


def usual_batch() -> tuple[float, float]:
    """CPU seconds of copying and of stacking one batch of usual size, medians."""
    frames, copies, stacks = Camera(USUAL).frames, [], []
    rehearse()
    shared = np.empty_like(frames)
    for _ in range(15):
        began_s = time.thread_time()
        np.copyto(shared, frames)
        copies.append(time.thread_time() - began_s)
        stacks.append(stack(shared, 0.0).cpu_s)
    return statistics.median(copies), statistics.median(stacks)


def usual_detection_s() -> float:
    """CPU seconds of finding and measuring the objects of one field of usual size."""
    edge = USUAL.edge_px
    setup = prepare(validate({"stripes": 1, "fields": 1, "field_px": edge, "exposure_ms": 20.0}))
    field = setup.plan.fields[0]
    image = open_microscope(setup).stack(field.x_um, field.y_um, (0.0,)).frames[0]
    predictor = Classic()
    statistics_of_scan = predictor.estimate_statistics([image], None)
    spent = []
    for _ in range(3):
        began_s = time.thread_time()
        labels = predictor.detect(image, statistics_of_scan, (0, 0))
        measure(labels, image, np.zeros(image.shape, np.float32), statistics_of_scan)
        spent.append(time.thread_time() - began_s)
    return statistics.median(spent)


def farm(driver_s: float) -> str:
    """What so many cameras at the usual cadence need of each resource, and how many it would serve,
    the scarcest first."""
    (copy_s, stack_s), detect_s = usual_batch(), usual_detection_s()
    per_s = 1 / USUAL.batch_s  # batches of one camera
    megabytes = USUAL.batch_bytes / 1e6
    needs = {
        f"driver, {1e3 * driver_s:.1f} ms of one core per batch": per_s * driver_s,
        f"10 gigabit link of one stacking node, {megabytes:.0f} MB per batch": per_s
        * USUAL.batch_bytes
        / LINK_BYTES_PER_S,
        f"{NODE_CORES} cores of stacking, {1e3 * stack_s:.0f} ms per batch": per_s
        * stack_s
        / NODE_CORES,
        f"{NODE_CORES} cores of detection, {1e3 * detect_s:.0f} ms per batch": per_s
        * detect_s
        / NODE_CORES,
        f"{NODE_CORES} cores of cameras, {1e3 * copy_s:.0f} ms of copying per batch": per_s
        * copy_s
        / NODE_CORES,
    }
    lines = [f"| resource | {CAMERAS} cameras need | one serves |", "|---|---|---|"]
    for name, share in sorted(needs.items(), key=lambda item: -item[1]):
        lines.append(f"| {name} | {CAMERAS * share:.2g} of it | {1 / share:.0f} cameras |")
    return "\n".join(lines)


def run_from_command_line() -> int:
    """Print conditions, a line per length and the farm; exit code 1 if the driver's work grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    given = parser.parse_args()
    print_conditions(rounds=given.rounds)
    found = {
        length: [run(length) for _ in range(given.rounds if length < max(LENGTHS) else 1)]
        for length in given.lengths
    }
    print("| batches | driver CPU per batch, ms | wall per batch, ms | dispatch, median, ms |")
    print("|---|---|---|---|")
    for length, rounds in found.items():
        cpu_ms, wall_ms, waits_ms = (
            statistics.median(column) for column in zip(*rounds, strict=True)
        )
        print(f"| {length} | {cpu_ms:.2f} | {wall_ms:.2f} | {waits_ms:.1f} |")
    cpu_ms = {length: statistics.median(r[0] for r in rounds) for length, rounds in found.items()}
    usual = min(found, key=lambda length: abs(length - 100))
    growth = cpu_ms[max(found)] / cpu_ms[usual]
    print(f"\n{max(found)} batches against {usual}: {growth:.2f} x\n")
    print(farm(cpu_ms[max(found)] / 1e3))
    return int(growth > 1.2)


if __name__ == "__main__":
    sys.exit(run_from_command_line())
