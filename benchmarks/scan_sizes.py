"""Does any step cost more for each field where there are more? Whole scans of tiny fields.

    python benchmarks/scan_sizes.py --fields 100 1000 10000

Each scan is the program as users start it, with 16 simulated cameras, fields of 64 x 64 pixels, two
planes and no autofocus; then the report is made again, the complete run is resumed (which reads all
results back) and verified, each by a process of its own whose start is included. With
--register-fields they are matched and placed, at a pixel size at which most overlaps of such small
fields show something.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.conditions import print_conditions  # noqa: E402
from results.journal import JOURNAL, EventIndex, read_journal  # noqa: E402
from results.summary import SUMMARY  # noqa: E402
from scan.events import Detected, Predicted  # noqa: E402

CAMERAS = 16
SETTINGS = f"""cameras = {CAMERAS}
settle_ms = 0.0
exposure_ms = 0.5
focus = "none"
planes = 2
field_px = 64
"""
REGISTERED = """register_fields = true
pixel_size_um = 1.3
stage_error_um = 2.6
"""
ROWS = (
    "driver's CPU, ms a field", "scan, ms a field", "last objects to answer, s",
    "journal, s per 10,000 lines", "report, s", "resume of the complete run, s", "verify, s",
    "fields placed by overlaps",
)  # fmt: skip


def run(*options: str) -> float:
    """Run the program; returns its seconds."""
    began_s = time.perf_counter()
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, str(ROOT / "main.py"), *options]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return time.perf_counter() - began_s


def scan(fields: int, folder: Path, more: str) -> None:
    """Scan so many fields, in a square."""
    settings = folder.with_suffix(".toml")
    stripes = math.isqrt(fields)
    settings.write_text(f"{SETTINGS}{more}stripes = {stripes}\nfields = {fields // stripes}\n")
    run("--plain", "--config", str(settings), "--out", str(folder))


def costs(fields: int, folder: Path, more: str) -> list[float]:
    """Return a number for each row."""
    scan(fields, folder, more)
    began_s = time.perf_counter()
    events = read_journal(folder / JOURNAL)
    read_s = time.perf_counter() - began_s
    index = EventIndex(events)
    done = len(index.of(Detected))
    (predicted,) = index.of(Predicted)
    last_s = max(event.ended_s for event in index.of(Detected))
    summary: dict[str, Any] = json.loads((folder / SUMMARY).read_text())
    timing = summary["timing"]
    return [
        1e3 * summary["driver_cpu_s"] / done,
        1e3 * (timing["wall"] - timing["startup"]) / done,
        predicted.answered_s - last_s,
        read_s / len(events) * 1e4,
        run("--report", str(folder)),
        run("--plain", "--resume", str(folder)),
        run("--verify", str(folder)),
        (summary["registration"] or {"matched": 0})["matched"],
    ]


def run_from_command_line() -> int:
    """Print conditions and a column for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fields", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--register-fields", action="store_true")
    given = parser.parse_args()
    more = REGISTERED if given.register_fields else ""
    print_conditions(cameras=CAMERAS, register_fields=given.register_fields)
    with tempfile.TemporaryDirectory() as name:
        columns = [costs(count, Path(name) / f"run{count}", more) for count in given.fields]
    print("| | " + " | ".join(f"{count:,} fields" for count in given.fields) + " |")
    print("|---" * (1 + len(columns)) + "|")
    for row, values in zip(ROWS, zip(*columns, strict=True), strict=True):
        print(f"| {row} | " + " | ".join(f"{value:.4g}" for value in values) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(run_from_command_line())
