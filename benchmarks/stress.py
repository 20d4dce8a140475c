"""What a fully loaded CPU does to the scan: the program calm, stressed and outpaced, in turns.

    python benchmarks/stress.py --rounds 3

*Calm* is the program as it comes. *Stressed* is `--stress`: a foreign process burns on every core,
and each stacking burns for two seconds more, so that no CPU slot is ever free. *Outpaced* has
cameras three times as fast as stacking and an object store with room for few batches, so that
credits run out. The simulated cameras compute their pictures on the same cores, as a real one does
not. Medians over rounds; all scans must give the same digest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.conditions import print_conditions  # noqa: E402

CONDITIONS = {
    "calm": [],
    "stressed": ["--stress"],
    "outpaced 3:1": ["--stress", "--stress-seconds=0.7", "--object-store-mb=200"],
}
Summary = dict[str, Any]
ROWS: dict[str, Callable[[Summary], float | None]] = {
    "stacking began after batch and CPU were there, ms, median": lambda s: dispatch(s, "p50"),
    "stacking, 99th percentile": lambda s: dispatch(s, "p99"),
    "stacking, longest": lambda s: dispatch(s, "max"),
    "exposures began late by, ms, median": lambda s: s["exposure_slip_ms"]["p50"],
    "exposures, 99th percentile": lambda s: s["exposure_slip_ms"]["p99"],
    "exposures, longest": lambda s: s["exposure_slip_ms"]["max"],
    "captures and stackings tried again": lambda s: sum(s["retries"].values()),
    "processes that died": lambda s: s["retries"]["actor_restarts"] + s["retries"]["stack"],
    "batches at most in flight": lambda s: s["memory"]["peak_batches_in_flight"],
    "of so many credits": lambda s: s["memory"]["credits"],
    "cameras held, s": lambda s: s["holds"]["seconds"],
    "spilled, MB": lambda s: s["memory"]["spilled_mb"],
    "answer after the last exposure, s": lambda s: s["timing"]["answer"],
    "workflow over the least time possible": lambda s: s["timing"]["ratio"],
    "process start to first exposure, s": lambda s: s["timing"]["startup"],
    "driver's CPU, s": lambda s: s["driver_cpu_s"],
}
HEAD = "| | " + " | ".join(CONDITIONS) + " |"


def dispatch(summary: Summary, name: str) -> float:
    """Time from batch and slot to the first line of stacking."""
    return float(summary["dispatch_ms"]["slot_free"][name])


def scan(options: list[str]) -> Summary:
    """One scan by the program; what its summary says."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "main.py"), "--plain", "--out", f"{folder}/run"]
        environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
        subprocess.run([*command, *options], check=True, capture_output=True, env=environment)
        return dict(json.loads((Path(folder) / "run" / "summary.json").read_text()))


def run_from_command_line() -> int:
    """Print conditions and a column for each; exit code 1 unless all digests are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fields", type=int, default=12, help="per stripe")
    given = parser.parse_args()
    print_conditions(rounds=given.rounds, fields=3 * given.fields)
    found: dict[str, list[Summary]] = {name: [] for name in CONDITIONS}
    for _ in range(given.rounds):
        for name, options in CONDITIONS.items():
            found[name].append(scan([*options, f"--fields={given.fields}"]))
    print(HEAD, "|---" * (1 + len(CONDITIONS)) + "|", sep="\n")
    for row, value in ROWS.items():
        middles = [statistics.median(map(value, summaries)) for summaries in found.values()]
        print(f"| {row} |", *(f"{middle:.4g} |" for middle in middles))
    digests = {summary["digest"] for summaries in found.values() for summary in summaries}
    print(f"\n{len(digests)} digest(s) in {given.rounds * len(CONDITIONS)} scans")
    return int(len(digests) > 1)


if __name__ == "__main__":
    sys.exit(run_from_command_line())
