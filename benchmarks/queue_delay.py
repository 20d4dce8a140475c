"""Do our own stamps and Ray's task events give the same queue delay?

    python benchmarks/queue_delay.py

One scan on a local Ray with its dashboard process, which the state API needs. Ours: a batch is
complete in its actor (stamped before Ray copies it into the object store) to the first line of
stacking. Ray's: the capture is FINISHED to the stacking is RUNNING, in whole milliseconds. The two
differ by the copy, which lies before FINISHED. Events of the same moment are compared as well.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

os.environ["RAY_AUTH_MODE"] = "disabled"  # this Ray is ours alone
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ray
from ray.util.state import list_tasks

import main
from benchmarks.conditions import print_conditions
from results.journal import JOURNAL, read_journal
from scan.events import Stacked

FLUSHED_S = 3.0  # workers send their events once a second
Times = dict[str, dict[str, float]]


def by_ray() -> Times:
    """When each task entered each of its states, in seconds, by the task's name."""
    tasks: Any = list_tasks(detail=True, limit=10_000, raise_on_missing_output=False)
    return {
        task.name: {event["state"]: event["created_ms"] / 1e3 for event in task.events}
        for task in tasks
        if task.name.startswith(("capture ", "stack "))
    }


def by_us(folder: Path) -> Times:
    """When each batch was complete and its stacking began and ended, by the field's name."""
    return {
        f"stripe {event.stripe} field {event.field}": {
            name: getattr(event, name) for name in ("asked_s", "began_s", "ended_s")
        }
        for event in read_journal(folder / JOURNAL)
        if isinstance(event, Stacked)
    }


def compared(ours: Times, rays: Times) -> dict[str, list[float]]:
    """Milliseconds, field by field."""
    found: dict[str, list[float]] = {name: [] for name in ROWS}
    for name, our in ours.items():
        capture, stack = rays[f"capture {name}"], rays[f"stack {name}"]
        values = (
            our["began_s"] - our["asked_s"],
            stack["RUNNING"] - capture["FINISHED"],
            capture["FINISHED"] - our["asked_s"],
            our["began_s"] - stack["RUNNING"],
            stack["FINISHED"] - our["ended_s"],
            stack["RUNNING"] - stack["PENDING_NODE_ASSIGNMENT"],
        )
        for row, value in zip(ROWS, values, strict=True):
            found[row].append(1e3 * value)
    return found


ROWS = (
    "ours: batch complete → first line of stacking",
    "Ray's: capture FINISHED → stacking RUNNING",
    "batch complete → capture FINISHED (the copy)",
    "stacking RUNNING → its first line",
    "last line of stacking → FINISHED",
    "Ray's: arguments there → RUNNING, waiting for a CPU included",
)


def run_from_command_line() -> int:
    """Print conditions and a line for each delay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fields", type=int, default=12, help="per stripe")
    given = parser.parse_args()
    print_conditions(fields=3 * given.fields)
    os.environ |= {"RAY_worker_niceness": "0", "RAY_enable_metrics_collection": "false"}
    ray.init(address="local", include_dashboard=True, logging_level="ERROR", log_to_driver=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        main.main(["--plain", "--out", str(folder), f"--fields={given.fields}"])
        time.sleep(FLUSHED_S)
        found = compared(by_us(folder), by_ray())
    print("\n| ms | p5 | p50 | p95 |", "|---|---|---|---|", sep="\n")
    for row, values in found.items():
        print(f"| {row} |", " | ".join(f"{x:.1f}" for x in np.percentile(values, (5, 50, 95))), "|")
    first, second, copy = (np.array(found[row]) for row in ROWS[:3])
    print(f"\ncorrelation of the two delays {np.corrcoef(first, second)[0, 1]:.4f}; apart from the "
          f"copy they differ by {np.median(first - second - copy):.1f} ms")  # fmt: skip
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(run_from_command_line())
