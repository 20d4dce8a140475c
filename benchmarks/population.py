"""How well the last task counts by the population of a scan; fits its parameters.

    python benchmarks/population.py --data FOLDER

FOLDER holds `images/` and `labels/` of the same names, TIFF; each image is a scan of its own. The
parameters are fitted on four fifths of the images and tried on the rest, five times; then on all,
and printed. Without --data the parameters of the program are tried on scenes of one kind each,
which must not be counted otherwise than they are found.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detection import count, kinds, real_scenes, shared_pixels

from benchmarks.conditions import print_conditions
from imaging.detection import detect, estimate_statistics, measure
from prediction.population import (
    HIGHEST,
    LOWEST,
    WEIGHTS,
    Weights,
    class_probabilities,
    count_of,
    members,
    shares_of,
)

PARTS = 5  # of the images, one of which is tried each time
WRONG, SAME = 0.03, 0.02  # of the truth: counts that should get nearer, and that should stay
ENDS = (0.06, 0.94)  # quantiles of the errors that the interval holds
SEED = 900  # of the scenes: on none of them anything was fitted


class Scan(NamedTuple):
    """What the detector found in an image: areas, solidities, cut ones, and true classes."""

    truth: int
    area: np.ndarray
    solidity: np.ndarray
    cut: np.ndarray
    classes: np.ndarray  # 0 single, 1 clump, 2 debris


def scan_of(image: np.ndarray, truth: np.ndarray) -> Scan:
    """Detect and measure; an object is a clump if it holds most of two true ones or more."""
    statistics = estimate_statistics([image])
    labels = detect(image, statistics)
    table = measure(labels, image, np.zeros(image.shape), statistics)
    shared = shared_pixels(truth, labels)[1:]
    held = (shared[:, 1:] > 0.5 * shared.sum(axis=1, keepdims=True)).sum(axis=0)
    box = np.stack([table[f"bbox-{k}"] for k in range(4)])
    cut = (box[:2] == 0).any(axis=0) | (box[2] == image.shape[0]) | (box[3] == image.shape[1])
    classes = np.select([held > 1, held == 0], [1, 2], 0)
    return Scan(count(truth), table["area"], table["solidity"], cut, classes)


def fitted(scans: list[Scan]) -> Weights:
    """Return the parameters of greatest likelihood for the objects that are not cut."""

    def unlikely(values: np.ndarray) -> float:
        total = number = 0.0
        for scan in scans:
            share = class_probabilities(scan.area, scan.solidity, Weights(*values))
            own = share[scan.classes, np.arange(share.shape[1])][~scan.cut]
            total, number = total - np.log(own).sum(), number + own.size
        return total / number

    return Weights(*scipy.optimize.minimize(unlikely, np.array(WEIGHTS), method="BFGS").x)


def counted(scan: Scan, weights: Weights) -> tuple[float, float]:
    """Return the estimated count of a scan, and its deviation."""
    share = shares_of(scan.area, scan.solidity, scan.cut, weights)
    return count_of(share, members(scan.area, scan.solidity))


def tried(scans: list[Scan]) -> Iterator[tuple[Scan, float, float]]:
    """Yield each scan, its count and deviation by parameters that were fitted on others."""
    for part in range(PARTS):
        weights = fitted([scan for k, scan in enumerate(scans) if k % PARTS != part])
        for scan in scans[part::PARTS]:
            yield scan, *counted(scan, weights)


def print_counts(scans: list[Scan]) -> None:
    """Print in how many scans the count is nearer than the number found, and the interval."""
    rows = np.array([(s.truth, s.area.size, *found) for s, *found in tried(scans)])
    truth, raw, estimate, deviation = rows.T
    wrong = abs(raw - truth) > WRONG * truth
    gains, rounded = (
        (abs(raw - truth) - abs(value - truth))[wrong] for value in (estimate, estimate.round())
    )
    moved = abs(estimate - raw)[~wrong] > SAME * truth[~wrong]
    low, high = (np.maximum(estimate + end * deviation, 0).round() for end in (LOWEST, HIGHEST))
    errors = np.quantile((truth - estimate) / deviation, ENDS)
    print(f"{len(scans)} images, {truth.sum():.0f} objects, {raw.sum():.0f} found")
    print(f"count off by more than {WRONG:.0%}: {wrong.sum()}; nearer {(gains > 0).sum()}")
    print(f"  rounded: nearer {(rounded > 0).sum()}, farther {(rounded < 0).sum()}")
    print(f"others: {moved.size}, moved by more than {SAME:.0%}: {moved.sum()}")
    sums = (abs(value - truth).sum() for value in (raw, estimate))
    print("sum of errors: found {:.0f}, count {:.0f}".format(*sums))
    print(f"interval holds the truth: {((low <= truth) & (truth <= high)).mean():.0%}")
    print(f"  median width {np.median((high - low) / estimate):.0%}; ends {errors.round(2)}")
    print("all:", fitted(scans))


def print_kinds() -> None:
    """Print what is found and counted in scenes of one kind each, over sizes."""
    print(f"{'scenes':46} {'truth':>6} {'found':>6} {'count':>7}")
    for name, scenes in kinds(SEED):
        scans = [scan_of(*scene) for scene in scenes]
        truth, found = sum(scan.truth for scan in scans), sum(scan.area.size for scan in scans)
        estimate = sum(counted(scan, WEIGHTS)[0] for scan in scans)
        print(f"  {name:44} {truth:6} {found:6} {estimate:7.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with images/ and labels/")
    data = parser.parse_args().data
    print_conditions()
    if data:
        print_counts([scan_of(*scene) for scene in real_scenes(data, 1)])
    else:
        print_kinds()


if __name__ == "__main__":
    main()
