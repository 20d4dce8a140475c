"""How well and how fast objects are found, beside scikit-image's own recipe; see --help.

With `--data FOLDER` (holding `images/` and `labels/` of the same names, TIFF) on real nuclei too,
as they are and enlarged; every image is a scan of its own. Without it on synthetic scenes only.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import scipy
import skimage
import tifffile
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label, regionprops
from skimage.segmentation import watershed

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from imaging.detection import detect, estimate_statistics

Finder = Callable[[np.ndarray], np.ndarray]
Scene = tuple[np.ndarray, np.ndarray]  # image, labels
ENLARGED = (1, 2, 3)


def ours(image: np.ndarray) -> np.ndarray:
    return detect(image, estimate_statistics([image]))


def scikit_image(image: np.ndarray) -> np.ndarray:
    """Otsu, distance transform and watershed, as in scikit-image's gallery of examples."""
    smooth = gaussian(image, 1, preserve_range=True)
    mask = smooth > threshold_otsu(smooth)
    distance = scipy.ndimage.distance_transform_edt(mask)
    peaks = peak_local_max(distance, min_distance=5, labels=label(mask))
    seeds = np.zeros(image.shape, int)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, seeds, mask=mask)


FINDERS: dict[str, Finder] = {"ours": ours, "scikit-image": scikit_image}


def matched_by_overlap(truth: np.ndarray, found: np.ndarray) -> int:
    """Objects with an intersection over union above one half: such a match is unique."""
    size = (int(truth.max()) + 1, int(found.max()) + 1)
    both = np.bincount((truth.astype(np.int64) * size[1] + found).ravel(), minlength=size[0] * size[1])
    shared = both.reshape(size)
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    return int((shared[1:, 1:] > 0.5 * union[1:, 1:]).sum())


def matched_by_centroid(truth: np.ndarray, found: np.ndarray) -> int:
    """Pairs of centroids nearer than half the true diameter, as many as can be had."""
    real, ours = regionprops(truth), regionprops(found)
    if not real or not ours:
        return 0
    distance = scipy.spatial.distance.cdist([r.centroid for r in real], [r.centroid for r in ours])
    near = distance <= 0.5 * np.array([[r.equivalent_diameter_area] for r in real])
    rows, columns = scipy.optimize.linear_sum_assignment(~near)
    return int(near[rows, columns].sum())


def count(labels: np.ndarray) -> int:
    return np.unique(labels[labels > 0]).size


def real_scenes(folder: Path, factor: int) -> Iterator[Scene]:
    for path in sorted((folder / "images").iterdir()):
        image, truth = tifffile.imread(path), tifffile.imread(folder / "labels" / path.name)
        size = (image.shape[1] * factor, image.shape[0] * factor)
        large = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        yield large, truth.repeat(factor, 0).repeat(factor, 1).astype(np.int32)


def synthetic_scene(
    rng: np.random.Generator, side: int, number: int, brightest: float, scale: float = 1.0
) -> Scene:
    """Ellipses 25 to 43 px wide (times scale), brightness over 4x, offset 100, shot noise."""
    light, truth = np.zeros((side, side)), np.zeros((side, side), np.int32)
    rows, columns = np.mgrid[:side, :side]
    placed: list[tuple[float, float, float]] = []
    while len(placed) < number:
        row, column = rng.uniform(0, side, 2)
        radius = scale * rng.uniform(25, 43) / 2
        if any(np.hypot(row - r, column - c) < 0.95 * (radius + other) for r, c, other in placed):
            continue
        placed.append((row, column, radius))
        angle, flat = rng.uniform(0, np.pi), np.sqrt(rng.uniform(0.75, 1))
        u = (rows - row) * np.cos(angle) + (columns - column) * np.sin(angle)
        v = (columns - column) * np.cos(angle) - (rows - row) * np.sin(angle)
        far = np.hypot(u * flat, v / flat) / radius
        profile = np.sqrt(np.clip(1 - far**2, 0, 1)) * 0.5 + 0.5 * (far < 1)
        light = np.maximum(light, brightest * rng.uniform(0.25, 1) * profile)
        truth[far < 1] = len(placed)
    blurred = cv2.GaussianBlur(light, (0, 0), 1.5) + 5
    camera = 100 + rng.poisson(blurred) + rng.normal(0, 2, light.shape)
    return np.clip(camera, 0, 65535).astype(np.uint16), truth


def synthetic_scenes(
    seed: int, rounds: int, number: int, brightest: float, scale: float
) -> Iterator[Scene]:
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        yield synthetic_scene(rng, round(450 * scale), number, brightest, scale)


def row(name: str, scenes: list[Scene], finder: Finder) -> str:
    begun = time.process_time()
    found = [finder(image) for image, _ in scenes]
    spent = time.process_time() - begun
    real, ours = ([count(x) for x in labels] for labels in ([t for _, t in scenes], found))
    pairs = [(truth, labels) for (_, truth), labels in zip(scenes, found, strict=True)]
    both = sum(real) + sum(ours)
    overlap = 2 * sum(matched_by_overlap(*pair) for pair in pairs) / both
    centre = 2 * sum(matched_by_centroid(*pair) for pair in pairs) / both
    wrong = sum(abs(a - b) for a, b in zip(real, ours, strict=True)) / sum(real)
    bias = sum(ours) / sum(real) - 1
    speed = spent / sum(image.size / 1e6 for image, _ in scenes)
    return f"{name:44} {sum(real):6} {overlap:6.3f} {centre:6.3f} {wrong:7.1%} {bias:+7.1%} {speed:6.2f}"


def print_speed(seed: int) -> None:
    print(f"\n{'speed, one thread, statistics given':44} {'found':>6} {'s/MP':>6}")
    for diameter in (20, 40, 60, 100):
        scale = diameter / 34
        rng = np.random.default_rng(seed)
        image, _ = synthetic_scene(rng, 1024, round(15 * (1024 / 450 / scale) ** 2), 400, scale)
        statistics = estimate_statistics([image])
        begun = time.process_time()
        number = detect(image, statistics).max()
        spent = (time.process_time() - begun) / (image.size / 1e6)
        print(f"{f'  objects of {diameter} px':44} {number:6} {spent:6.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=20, help="synthetic scenes of each kind")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, "
          f"numpy {np.__version__}, scipy {scipy.__version__}, scikit-image {skimage.__version__}, "
          f"OpenCV {cv2.__version__}, seed {options.seed}, one thread, CPU time")  # fmt: skip
    print(f"\n{'':44} {'truth':>6} {'F1 iou':>6} {'F1 cen':>6} {'count':>7} {'bias':>7} {'s/MP':>6}")
    for number, brightest, scale in (
        (15, 400, 1), (15, 80, 1), (15, 4000, 1), (5, 400, 1), (60, 400, 1), (15, 400, 0.5),
        (15, 400, 3),
    ):  # fmt: skip
        scenes = list(synthetic_scenes(options.seed, options.rounds, number, brightest, scale))
        name = f"{number} in a field, light {brightest}, {25 * scale:.0f}-{43 * scale:.0f} px"
        for finder in FINDERS:
            print(row(f"{name}: {finder}", scenes, FINDERS[finder]), flush=True)
    for factor in ENLARGED if options.data else ():
        scenes = list(real_scenes(options.data, factor))
        for finder in FINDERS:
            print(row(f"real nuclei x {factor}: {finder}", scenes, FINDERS[finder]), flush=True)
    print_speed(options.seed)


if __name__ == "__main__":
    main()
