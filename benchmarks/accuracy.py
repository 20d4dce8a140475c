"""How near a simulated scan comes to the truth: focus, objects, heights.

    python benchmarks/accuracy.py --seeds 1 2 3

Each seed is another slide, scanned by the program as its users start it. F1 counts an object as
found when its centre lies within half a diameter of the true one.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.conditions import print_conditions  # noqa: E402
from config import validate  # noqa: E402
from microscope.opening import prepare, specimen_of  # noqa: E402
from microscope.specimen import Specimen  # noqa: E402


@dataclass(frozen=True)
class Accuracy:
    """One run against its truth; errors are medians of absolute values in um."""

    true_objects: int
    found_objects: int
    f1: float
    object_height_um: float
    focus_um: float
    worst_focus_um: float


def accuracy_of(folder: Path) -> Accuracy:
    """Compare the run in a folder with the slide that it scanned."""
    setup = prepare(validate(tomllib.loads((folder / "scan.toml").read_text())))
    specimen = specimen_of(setup)
    with (folder / "objects.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    pairs = matched(specimen, rows)
    heights = [rows[row]["z_um"] - specimen.height_um[truth] for truth, row in pairs]
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    (focused,) = (event for event in events if event["event"] == "focused")
    focus = np.abs(
        [
            z_um - specimen.focus_surface_um(field.x_um, field.y_um)
            for stripe, index, z_um in focused["centres_um"]
            for field in [setup.plan.stripes[stripe][index]]
        ]
    )
    return Accuracy(
        true_objects=len(specimen),
        found_objects=len(rows),
        f1=2 * len(pairs) / (len(specimen) + len(rows)),
        object_height_um=float(np.median(np.abs(heights))),
        focus_um=float(np.median(focus)),
        worst_focus_um=float(focus.max()),
    )


def matched(specimen: Specimen, rows: list[dict[str, float]]) -> list[tuple[int, int]]:
    """Pairs of true object and row whose centres are within half a diameter of each other."""
    distance = cdist(
        np.column_stack([specimen.x_um, specimen.y_um]),
        [[row["x_um"], row["y_um"]] for row in rows],
    )
    allowed = distance <= specimen.diameter_um[:, None] / 2
    pairs = zip(*linear_sum_assignment(np.where(allowed, distance, 1e6)), strict=True)
    return [(int(truth), int(row)) for truth, row in pairs if allowed[truth, row]]


def main() -> None:
    """Scan each slide and print a row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], metavar="N")
    parser.add_argument("options", nargs="*", help="options of main.py, after --")
    call = parser.parse_args()
    print_conditions(seeds=call.seeds)
    print(f"python main.py {' '.join(call.options)} --seed N")
    names = [field.name for field in fields(Accuracy)]
    print("| seed | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for seed in call.seeds:
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                str(ROOT / "main.py"),
                "--plain",
                "--seed",
                str(seed),
                "--out",
                folder,
                *call.options,
            ]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            result = accuracy_of(Path(folder))
        print(f"| {seed} | " + " | ".join(f"{getattr(result, n):.4g}" for n in names) + " |")


if __name__ == "__main__":
    main()
