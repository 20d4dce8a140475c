"""How long from the start of the process to the first exposure: with a Ray of its own, or joining.

    python benchmarks/startup.py --rounds 5

The program scans a few small fields, in turns with a Ray that it starts itself and with one that
runs already. "Workflow" is what remains once Ray is up: processes of cameras and of autofocus.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

os.environ["RAY_AUTH_MODE"] = "disabled"  # this Ray is ours alone
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray spells it so)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ray.cluster_utils import Cluster

from benchmarks.conditions import print_conditions
from benchmarks.stress import scan

SMALL = ["--fields=2", "--planes=7", "--field-px=256"]


def startup(options: list[str]) -> tuple[float, float]:
    """Seconds to the first exposure: from the start of the process, and once Ray is up."""
    timing = scan([*SMALL, *options])["timing"]
    return timing["startup"], timing["first_exposure"]


def run_from_command_line() -> int:
    """Print conditions and a line for each way to get a Ray."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print_conditions(rounds=given.rounds)
    found: dict[str, list[tuple[float, float]]] = {"Ray of its own": [], "joining a Ray": []}
    for _ in range(given.rounds):
        found["Ray of its own"].append(startup([]))
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": os.cpu_count()})
        try:
            found["joining a Ray"].append(startup([f"--address={cluster.address}"]))
        finally:
            cluster.shutdown()
    print(
        "| | start to first exposure, s (least, median, most) | workflow, s |",
        "|---|---|---|",
        sep="\n",
    )
    for way, times in found.items():
        whole, workflow = np.array(times).T
        spread = ", ".join(f"{f(whole):.2f}" for f in (np.min, np.median, np.max))
        print(f"| {way} | {spread} | {np.median(workflow):.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(run_from_command_line())
