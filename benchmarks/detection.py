"""How well and how fast objects are found, compared with scikit-image's own recipe; see --help.

With `--data FOLDER` (holding `images/` and `labels/` of the same names, TIFF) on real nuclei too,
as they are and enlarged; every image is a scan of its own. Without it on synthetic scenes only.
Then scenes of one kind each: clumps, rods, sizes, rings, dark objects; and focus-stacked ones with
highlights, a lamp that flickers, and shading.
With `--stacks N` instead: z-stacks rendered from N of these images, each object at its own depth,
and what is found in them fused, in single planes and in the maximum projection.
Columns: F1 by overlap (IoU above 0.5) and by centroid (within half a diameter), count error summed
over images, signed count error, CPU seconds a megapixel with the estimate of the statistics.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import scipy
import tifffile
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label, regionprops
from skimage.segmentation import watershed

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rendering import z_stack

from benchmarks import object_scenes
from benchmarks.conditions import print_conditions
from imaging.correction import correct
from imaging.detection import detect, estimate_statistics, measure
from imaging.stacking import focus_stack
from imaging.statistics import DetectionStatistics
from scan.correction import Correction

Finder = Callable[[np.ndarray], np.ndarray]
Scene = tuple[np.ndarray, np.ndarray]  # image, labels
ENLARGED = (1, 2, 3)
HEADER = f"{'':46} {'truth':>6} {'F1 iou':>6} {'F1 cen':>6} {'count':>7} {'bias':>7} {'s/MP':>6}"
SCENES = (  # objects in a field, light of the brightest, scale
    (15, 400, 1.0), (15, 80, 1.0), (15, 4000, 1.0), (5, 400, 1.0), (60, 400, 1.0), (15, 400, 0.5),
    (15, 400, 3.0),
)  # fmt: skip
SIZES = (20, 25, 40, 60, 100)  # diameters for the speed table
REPEATS = 5  # of each, the median counts
CORES = (128, 192, 256)  # pixels
PLANES = (9, 15)  # of the z-stacks
DIAMETERS = (8, 12, 16, 22, 30, 45, 60)
RODS = ((1, 10), (2, 9), (3, 16), (4, 12), (5, 9), (6, 10))  # aspect, width
CURVED = ((4, 1.0), (5, 1.5), (6, 2.5), (8, 4.0))  # aspect, radians from end to end
# Diameter, wall.
RINGS = ((12, 2), (16, 2), (20, 3), (24, 4), (34, 1.5), (34, 6), (50, 4), (50, 10), (80, 8))
RATIOS = (2, 3, 4, 5, 6)


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


def shared_pixels(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """How many pixels each pair of labels shares, (true, found); 0 is background."""
    size = (int(truth.max()) + 1, int(found.max()) + 1)
    pairs = (truth.astype(np.int64) * size[1] + found).ravel()
    return np.bincount(pairs, minlength=size[0] * size[1]).reshape(size)


def matched_by_overlap(truth: np.ndarray, found: np.ndarray) -> int:
    """Objects with an intersection over union above one half: such a match is unique."""
    shared = shared_pixels(truth, found)
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    return int((shared[1:, 1:] > 0.5 * union[1:, 1:]).sum())


def matched_by_centroid(truth: np.ndarray, found: np.ndarray) -> int:
    """Pairs of centroids nearer than half the true diameter, as many as can be had."""
    real = regionprops(truth)
    places = [
        np.array([r.centroid for r in rs]).reshape(-1, 2) for rs in (real, regionprops(found))
    ]
    diameters = np.array([r.equivalent_diameter_area for r in real]).reshape(-1, 1)
    near = scipy.spatial.distance.cdist(*places) <= 0.5 * diameters
    rows, columns = scipy.optimize.linear_sum_assignment(~near)
    return int(near[rows, columns].sum())


def count(labels: np.ndarray) -> int:
    return np.unique(labels[labels > 0]).size


def resized(scene: Scene, factor: float) -> Scene:
    """Image and labels so many times as large."""
    image, labels = scene
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    same = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    return cv2.resize(image, size, interpolation=how), same


def real_scenes(folder: Path, factor: int) -> Iterator[Scene]:
    for path in sorted((folder / "images").iterdir()):
        image, truth = tifffile.imread(path), tifffile.imread(folder / "labels" / path.name)
        yield resized((image, truth.astype(np.int32)), factor)


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
    spent = (time.process_time() - begun) / sum(image.size / 1e6 for image, _ in scenes)
    pairs = [(truth, labels) for (_, truth), labels in zip(scenes, found, strict=True)]
    real, seen = (np.array([count(pair[side]) for pair in pairs]) for side in (0, 1))
    overlap, centre = (
        2 * sum(matched(*pair) for pair in pairs) / (real.sum() + seen.sum())
        for matched in (matched_by_overlap, matched_by_centroid)
    )
    wrong, bias = np.abs(real - seen).sum() / real.sum(), seen.sum() / real.sum() - 1
    return (
        f"{name:46} {real.sum():6} {overlap:6.3f} {centre:6.3f} {wrong:7.1%} {bias:+7.1%}"
        f" {spent:6.2f}"
    )


def print_finds(name: str, scenes: list[Scene]) -> None:
    for finder in FINDERS:
        print(row(f"{name}: {finder}", scenes, FINDERS[finder]), flush=True)


def kinds(seed: int) -> Iterator[tuple[str, list[Scene]]]:
    """Scenes of one kind each, over sizes; every scene is a scan of its own."""
    for profile in object_scenes.PROFILES:
        for clump in object_scenes.CLUMPS:
            yield (
                f"{profile} discs, {clump}",
                [
                    object_scenes.clumps(seed + k, clump, profile, d, min(768, max(256, 12 * d)))
                    for k, d in enumerate(DIAMETERS)
                ],
            )
    for textured in (False, True):
        name = "textured" if textured else "smooth"
        yield (
            f"{name} rods of 1:1 to 1:6",
            [object_scenes.rods(seed + k, *rod, textured=textured) for k, rod in enumerate(RODS)],
        )
        yield (
            f"{name} discs of two sizes, 1:2 to 1:6",
            [
                object_scenes.sizes(seed + k, ratio, textured=textured)
                for k, ratio in enumerate(RATIOS)
            ],
        )
        yield (
            f"{name} curved rods of 1:4 to 1:8",
            [
                object_scenes.rods(seed + k, aspect, 10, textured=textured, bend=bend)
                for k, (aspect, bend) in enumerate(CURVED)
            ],
        )
    yield from stacked_kinds(seed)
    yield "rings", [object_scenes.rings(seed + k, *ring) for k, ring in enumerate(RINGS)]
    yield (
        "rings with a third of their light inside",
        [object_scenes.rings(seed + k, *ring, inside=0.33) for k, ring in enumerate(RINGS)],
    )
    yield "dark discs", [object_scenes.dark_discs(seed + k, d) for k, d in enumerate(DIAMETERS)]


def stacked_kinds(seed: int) -> Iterator[tuple[str, list[Scene]]]:
    """Focus-stacked scenes whose light is uneven, as a scan would correct them."""
    dim, bright = object_scenes.DIM, 60 * object_scenes.DIM

    def uneven(frames: np.ndarray) -> np.ndarray:
        return object_scenes.shaded(frames)[0]

    def corrected(frames: np.ndarray) -> np.ndarray:
        shaded, flat = object_scenes.shaded(frames)
        return correct(shaded, Correction(flat, np.full_like(flat, object_scenes.DARK)))

    def flickering(frames: np.ndarray) -> np.ndarray:
        return object_scenes.flickering(frames, seed, 0.1)

    ways: dict[str, tuple[float, Finder]] = {
        "dim discs, a tenth 60 times as bright": (bright, lambda frames: frames),
        "discs, steady lamp": (dim, lambda frames: frames),
        "discs, lamp flickers by 10 %": (dim, flickering),
        "discs, 45 % less light in corners": (dim, corrected),
        "the same, not corrected": (dim, uneven),
    }
    for name, (brightest, frames_of) in ways.items():
        stacks = [object_scenes.stack_of_discs(seed + k, brightest) for k in range(4)]
        yield name, [(focus_stack(frames_of(frames)).image, labels) for frames, labels in stacks]


def print_kinds(seed: int) -> None:
    """F1 by overlap and count error of each kind."""
    print(f"\n{'kinds':46} {'truth':>6} {'F1 iou':>6} {'count':>7}")
    for name, scenes in kinds(seed):
        f1, wrong = f1_and_count_error(scenes, [ours(image) for image, _ in scenes])
        truth = sum(count(labels) for _, labels in scenes)
        print(f"  {name:44} {truth:6} {f1:6.3f} {wrong:7.1%}", flush=True)


def print_speed(seed: int) -> None:
    """CPU seconds a megapixel on one thread; statistics are given."""
    print(f"\n{'s/MP, one thread':46} {'found':>6} {'detect':>7} {'measure':>7} {'all':>7}")
    for diameter in SIZES:
        scale = diameter / 34
        number = 118 if diameter == 25 else round(15 * (1024 / 450 / scale) ** 2)
        image, _ = synthetic_scene(np.random.default_rng(seed), 1024, number, 400, scale)
        statistics, depth = estimate_statistics([image]), image.astype(np.float32)
        spent = []
        for _ in range(REPEATS):
            begun = time.process_time()
            labels = detect(image, statistics)
            between = time.process_time()
            measure(labels, image, depth, statistics)
            spent.append((between - begun, time.process_time() - between))
        seconds = np.median(spent, axis=0) / (image.size / 1e6)
        name = f"  objects of {diameter} px"
        print(
            f"{name:46} {labels.max():6} {seconds[0]:7.3f} {seconds[1]:7.3f} {seconds.sum():7.3f}"
        )


def owned(
    image: np.ndarray, statistics: DetectionStatistics, rows: slice, columns: slice
) -> set[tuple[bytes, ...]]:
    """Pixels and measures, to the bit, of the objects whose centroid lies in a core."""
    seen = [slice(max(0, s.start - statistics.halo_px), s.stop + statistics.halo_px)
            for s in (rows, columns)]  # fmt: skip
    part = image[seen[0], seen[1]]
    origin = (seen[0].start, seen[1].start)
    labels = detect(part, statistics, origin)
    table = measure(labels, part, part.astype(np.float32), statistics)
    for axis in (0, 1):
        for column in (f"centroid-{axis}", f"bbox-{axis}", f"bbox-{axis + 2}"):
            table[column] = table[column] + origin[axis]
    numbers = table.pop("label")
    inside = np.ones(numbers.size, bool)
    for axis, core in enumerate((rows, columns)):
        inside &= (core.start <= table[f"centroid-{axis}"]) & (
            table[f"centroid-{axis}"] < core.stop
        )
    kept = np.flatnonzero(inside)
    pixels = {k: (np.argwhere(labels == numbers[k]) + origin).tobytes() for k in kept}
    return {(p, *(column[k].tobytes() for column in table.values())) for k, p in pixels.items()}


def print_borders(name: str, scenes: list[Scene]) -> None:
    """Count the objects that differ between fields and the mosaic in one piece."""
    for core in CORES:
        whole_count = differ = 0
        for image, _ in scenes:
            statistics = estimate_statistics([image])
            rows, columns = ([slice(a, a + core) for a in range(0, n, core)] for n in image.shape)
            parts = [owned(image, statistics, r, c) for r in rows for c in columns]
            whole = owned(image, statistics, slice(0, image.shape[0]), slice(0, image.shape[1]))
            whole_count += len(whole)
            differ += (
                len(whole ^ set().union(*parts)) + sum(map(len, parts)) - len(set().union(*parts))
            )
        print(f"{f'  {name}, cores of {core} px':46} {whole_count:6} {differ:7}", flush=True)


def print_stacks(name: str, scenes: list[Scene], step_um: float, seed: int) -> None:
    """Find the objects of z-stacks rendered from scenes: fused, in single planes, and otherwise."""
    for planes in PLANES:
        title = f"{name}, {len(scenes)} stacks of {planes} planes, {step_um:g} um"
        print(f"{title:46} {'F1 iou':>6} {'count':>7} {'of all in focus':>16}", flush=True)
        generator = np.random.default_rng([seed, planes])
        rendered = [z_stack(image, truth, planes, step_um, generator) for image, truth in scenes]
        ways = {"all in focus": [ours(image) for image, _ in scenes]}
        ways |= found_in_stacks(rendered, [truth for _, truth in scenes])
        found_by = {way: f1_and_count_error(scenes, found) for way, found in ways.items()}
        for way, (f1, wrong) in found_by.items():
            print(f"  {way:44} {f1:6.3f} {wrong:7.1%} {f1 / found_by['all in focus'][0]:16.3f}")


def found_in_stacks(
    rendered: list[tuple[np.ndarray, np.ndarray]], truths: list[np.ndarray]
) -> dict[str, list[np.ndarray]]:
    """Label images of all stacks (planes, true depth), by the way in which they were looked at."""
    scenes = [(stack, truth) for (stack, _), truth in zip(rendered, truths, strict=True)]
    planes = range(len(rendered[0][0]))
    singles = [[ours(stack[z]) for stack, _ in rendered] for z in planes]
    best = max(planes, key=lambda z: f1_and_count_error(scenes, singles[z])[0])
    each = [
        max(found, key=lambda labels: f1_and_count_error([scene], [labels])[0])
        for scene, found in zip(scenes, zip(*singles, strict=True), strict=True)
    ]
    middle = len(planes) // 2
    return {
        "fused": [ours(focus_stack(stack).image) for stack, _ in rendered],
        "fused by the true depth": [ours(fused_by(*stack)) for stack in rendered],
        f"single plane, the best of all ({best})": singles[best],
        f"single plane, the middle ({middle})": singles[middle],
        "single plane, each stack's own best": each,
        "maximum projection": [ours(stack.max(axis=0)) for stack, _ in rendered],
    }


def fused_by(stack: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """What a fusion that knows all depths would see: the nearest plane of each pixel."""
    return np.take_along_axis(stack, np.rint(depth).astype(np.intp)[None], axis=0)[0]


def f1_and_count_error(scenes: list[Scene], found: list[np.ndarray]) -> tuple[float, float]:
    """F1 by overlap of all images together, and their count errors added up."""
    pairs = [(truth, labels) for (_, truth), labels in zip(scenes, found, strict=True)]
    real, seen = (np.array([count(pair[side]) for pair in pairs]) for side in (0, 1))
    matched = sum(matched_by_overlap(*pair) for pair in pairs)
    return 2 * matched / (real.sum() + seen.sum()), float(np.abs(real - seen).sum() / real.sum())


def stack_scenes(folder: Path | None, number: int, seed: int) -> tuple[str, list[Scene]]:
    """A seeded choice of the real images, or as many synthetic scenes where there is no folder."""
    if folder is None:
        return "synthetic", list(synthetic_scenes(seed, number, *SCENES[0]))
    scenes = list(real_scenes(folder, 1))
    chosen = np.random.default_rng(seed).permutation(len(scenes))[:number]
    return "real nuclei", [scenes[index] for index in sorted(chosen)]


def print_recipes(options: argparse.Namespace) -> None:
    """Ours beside the recipe of scikit-image, on synthetic scenes and on real nuclei."""
    print(f"\n{HEADER}")
    for number, brightest, scale in SCENES:
        scenes = list(synthetic_scenes(options.seed, options.rounds, number, brightest, scale))
        name = f"{number} a field, light {brightest}, {25 * scale:.0f}-{43 * scale:.0f} px"
        print_finds(name, scenes)
    for factor in ENLARGED if options.data else ():
        print_finds(f"real nuclei x {factor}", list(real_scenes(options.data, factor)))
    if options.beads:
        print(f"\nbeads found: {count(ours(tifffile.imread(options.beads)))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--beads", type=Path, help="one focused image of beads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=20, help="synthetic scenes of each kind")
    parser.add_argument("--stacks", type=int, metavar="N", help="only z-stacks of N images")
    parser.add_argument("--only-kinds", action="store_true", help="kinds, speed and borders")
    parser.add_argument("--step-um", type=float, default=1.0, help="of planes; cells are 10 um")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print_conditions(seed=options.seed, scipy=scipy.__version__, threads=1, times="of the CPU")
    if options.stacks:
        name, scenes = stack_scenes(options.data, options.stacks, options.seed)
        print_stacks(name, scenes, options.step_um, options.seed)
        return
    if not options.only_kinds:
        print_recipes(options)
    print_kinds(options.seed)
    print_speed(options.seed)
    print(f"\n{'borders':46} {'whole':>6} {'differ':>7}")
    print_borders("synthetic", list(synthetic_scenes(options.seed, options.rounds, 30, 400, 1)))
    for name, scenes in kinds(options.seed):
        print_borders(name, scenes[2:4])
    if options.data:
        print_borders("real nuclei", list(real_scenes(options.data, 1)))


if __name__ == "__main__":
    main()
