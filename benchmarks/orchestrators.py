"""The same workflow under five orchestrators: start-up, dispatch, slip, makespan, driver, memory.

    python benchmarks/orchestrators.py --rounds 4

Three cameras at a fixed cadence, 31 MB a batch, this project's focus stacking for each batch on two
CPU slots. *Calm*: stacking is a trifle; *working*: it takes what the CPUs can just give;
*stressed*: calm, with a foreign process burning on every core; *full*: both at once. Every run is a
process of its own, systems take turns within a round. Dask and Prefect take part if installed
(`pip install distributed prefect "fastapi<0.150"`; newer ones break Prefect 3.8). All results are
kept in `benchmarks/results/orchestrators.json`, with machine, versions and commit. `--systems` also
takes variants of this driver that leave one thing out; `--help` names them.

Dispatch runs from the moment that a batch and a CPU slot are there to the first line of its
stacking; slip is how late an exposure began; the ratio is makespan over the least time possible
(foreign processes take their share of it); the driver's CPU seconds are those of
all batches; memory is how much of the machine's went at most.
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
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil

os.environ["RAY_AUTH_MODE"] = "disabled"  # these Rays are ours alone
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.conditions import conditions, print_conditions
from benchmarks.systems import EMPTY, SYSTEMS, VARIANTS
from benchmarks.workload import Workload, measures
from scan.stress import burning

CONDITIONS = ("calm", "working", "stressed", "full")
LOAD = 0.95  # of the CPUs' time that stacking takes in "working"
NEEDS = {"Dask": "distributed", "Prefect": "prefect"}
SAMPLE_S = 0.05
KEPT = Path(__file__).parent / "results" / "orchestrators.json"
Result = dict[str, Any]


def workload(condition: str, fields: int) -> Workload:
    """The workload of a condition."""
    calm = Workload(fields=fields)
    cpu_s = LOAD * calm.cpus * calm.batch_s / calm.stripes
    return Workload(fields=fields, cpu_s=cpu_s if condition in ("working", "full") else 0.0)


def run_one(system: str, condition: str, fields: int, began_s: float) -> Result:
    """Run one system in this process."""
    if condition == "tasks":
        return {"tasks_per_s": EMPTY[system](Workload())}
    work = workload(condition, fields)
    burners = (os.cpu_count() or 1) if condition in ("stressed", "full") else 0
    around = partial(burning, burners) if burners else nullcontext
    return measures(work, (SYSTEMS | VARIANTS)[system](work, around), began_s)


def run_apart(system: str, condition: str, fields: int) -> Result:
    """Run one system in a process of its own, and watch the machine's memory meanwhile."""
    with tempfile.TemporaryDirectory() as name:
        answer = Path(name) / "answer.json"
        command = [sys.executable, __file__, "--one", system, condition, str(answer)]
        free = least = psutil.virtual_memory().available
        with (Path(name) / "said.txt").open("w+") as said:
            began_s = time.time()
            command += ["--fields", str(fields), "--began-s", repr(began_s)]
            process = subprocess.Popen(command, stdout=said, stderr=said)
            while process.poll() is None:
                least = min(least, psutil.virtual_memory().available)
                time.sleep(SAMPLE_S)
            if process.returncode:
                said.seek(0)
                return {"failed": said.read()[-2000:]}
        result: Result = json.loads(answer.read_text())
    return {**result, "memory_mb": (free - least) / 1e6}


def table(results: dict[str, list[Result]]) -> str:
    """A line per system: medians over rounds, percentiles over all batches of all rounds."""
    lines = [
        "| | start, s | dispatch p50 / p99, ms | slip p50 / p99, ms | ratio | driver CPU, s "
        "| memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for system, rounds in results.items():
        good = [each for each in rounds if "failed" not in each]
        if good:
            spread = f" ± {deviation(good, 'ratio'):.3f}" if len(good) > 1 else ""
            lines.append(
                f"| {system} | {middle(good, 'startup'):.2f} | {percentiles(good, 'waits_ms')} "
                f"| {percentiles(good, 'slips_ms')} | {middle(good, 'ratio'):.3f}{spread} "
                f"| {middle(good, 'driver_cpu'):.2f} | {middle(good, 'memory_mb'):.0f} |"
            )
        if len(good) < len(rounds):
            lines.append(f"| {system}, {len(rounds) - len(good)} of {len(rounds)} failed | | | | |")
    return "\n".join(lines)


def middle(rounds: list[Result], name: str) -> float:
    """Median over rounds."""
    return statistics.median(each[name] for each in rounds)


def deviation(rounds: list[Result], name: str) -> float:
    """Half the distance of the middle half of the rounds' values."""
    lower, upper = np.percentile([each[name] for each in rounds], (25, 75))
    return float(upper - lower) / 2


def percentiles(rounds: list[Result], name: str) -> str:
    """50th and 99th percentile of the values of all rounds."""
    values = [value for each in rounds for value in each[name]]
    return " / ".join(f"{np.percentile(values, p):.3g}" for p in (50, 99))


def compare(systems: list[str], asked: list[str], fields: int, rounds: int) -> dict[str, Any]:
    """All systems, interleaved; results by condition and system."""
    found: dict[str, Any] = {each: {system: [] for system in systems} for each in asked}
    for turn in range(rounds):
        for condition in asked:
            for system in systems[turn % len(systems) :] + systems[: turn % len(systems)]:
                if condition != "tasks" or system in EMPTY:
                    found[condition][system].append(run_apart(system, condition, fields))
                print(".", end="", flush=True, file=sys.stderr)
    return found


def report(found: dict[str, Any], fields: int) -> None:
    """Print the tables, and what went wrong."""
    for condition, results in found.items():
        failures = {each["failed"] for rounds in results.values() for each in rounds
                    if "failed" in each}  # fmt: skip
        for failure in failures:
            print(failure, file=sys.stderr)
        if condition != "tasks":
            work = workload(condition, fields)
            print(f"\n{condition}: {3 * fields} batches of {work.batch_bytes / 1e6:.0f} MB, one "
                  f"in {work.batch_s:.3f} s per camera, {work.cpu_s:.3f} CPU s of stacking at least"
                  )  # fmt: skip
            print(f"\n{table(results)}")
            continue
        for system, rounds in results.items():
            if good := [each for each in rounds if "failed" not in each]:
                print(f"\n{system}: {middle(good, 'tasks_per_s'):.0f} empty tasks per second")


def run_from_command_line() -> int:
    """Compare, or be one of those compared."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fields", type=int, default=10, help="per camera")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS | VARIANTS, default=list(SYSTEMS))
    parser.add_argument("--conditions", nargs="+", default=[*CONDITIONS, "tasks"])
    parser.add_argument("--json", type=Path, default=KEPT, help="where all results are kept")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--began-s", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        system, condition, answer = given.one
        result = run_one(system, condition, given.fields, given.began_s)
        Path(answer).write_text(json.dumps(result))
        return 0
    systems = [name for name in given.systems if find_spec(NEEDS.get(name, "ray"))]
    print_conditions(rounds=given.rounds)
    found = compare(systems, given.conditions, given.fields, given.rounds)
    report(found, given.fields)
    given.json.parent.mkdir(exist_ok=True)
    given.json.write_text(json.dumps({"conditions": conditions(), "found": found}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_from_command_line())
