"""Detect bright objects in a focus-stacked field, with no trace of field borders in the result.

Invariant: a scan has one set of statistics, and every operation has a finite range on the pixel
grid of the mosaic. So a region with a halo of `DetectionStatistics.halo_px` around its core gives
exactly the objects that the whole mosaic, processed in one piece, would give.

Method: bin so that an object is about twenty pixels wide, subtract the local background, run a
watershed from seeds of distance and log intensity, cut every object at a fraction of its own
brightness, and repeat the last two steps on the remaining mask.
"""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from imaging.detection_kernels import (
    SHAPES,
    Rules,
    bin_blocks,
    boxes_of,
    brightness_of,
    half_gaussian,
    measure_lights,
    measure_shapes,
    number_objects,
    split_regions,
)
from imaging.statistics import (
    DIAMETER_RANGE,
    LEVELS_PER_THRESHOLD,
    DetectionStatistics,
    initial_statistics,
    typical_light,
)

# Lengths in object diameters, tuned on the 120 real images of benchmarks/detection.py. All optima
# are flat: a change by 20 % costs about 0.01 of F1.
PEAK_DISTANCE = 0.25  # seeds closer than this are one object
SEED_SIGMA = 0.1  # smoothing of the seed landscape

CUT_FRACTION = 0.35  # of an object's own brightness; manual labels lie below half maximum
CUT_QUANTILE = 0.9  # of its levels, as an object's brightness: high, but not one pixel
DISTANCE_WEIGHT = 0.6  # shape against log intensity in the seed landscape
DISTANCE_CAP = 1.5  # in object radii: keeps the range of the distance transform finite
MIN_AREA = 0.1  # of a typical object: beads cut by the edge stay, specks are removed
PASSES = 2  # the first pass removes haze between objects, the second splits what it hid
SEED_STEPS = 4096  # quantisation of the seed landscape: the watershed compares integers

RIM_WIDTH = 0.25  # in diameters: the rim with which an object is compared for its score

# A table makes logarithms bit-identical wherever a pixel lies in a vector register.
LIGHT = np.log1p(np.arange(65536) / LEVELS_PER_THRESHOLD).astype(np.float32)

ROUNDS = 2  # of detecting with a diameter and measuring it again; more do not help

Labels = np.ndarray


def estimate_statistics(
    samples: Sequence[np.ndarray], diameter_px: float | None = None
) -> DetectionStatistics:
    """Estimate the statistics of a scan from a few focused images of it.

    Parameters
    ----------
    samples : sequence of ndarray, (y, x), uint8, uint16 or float32
        Focused images of one scan, any sizes.
    diameter_px : float, optional
        Used as given; else estimated from blobs, then measured on detected objects.

    Returns
    -------
    DetectionStatistics
        The contrast of samples without objects is 0: then only objects well above the noise are
        detected.

    Raises
    ------
    ValueError
        If there is no sample, or one is not a two-dimensional image.
    """
    if not samples or any(sample.ndim != 2 or not sample.size for sample in samples):
        raise ValueError("expected one or more images (y, x) to estimate statistics from")
    statistics = initial_statistics(samples)
    if diameter_px is not None:
        statistics = replace(statistics, diameter_px=float(diameter_px))
    for _ in range(ROUNDS):
        contrast, diameter = _found(samples, statistics)
        statistics = replace(statistics, contrast=contrast, diameter_px=diameter_px or diameter)
    return statistics


def _found(images: Sequence[np.ndarray], statistics: DetectionStatistics) -> tuple[float, float]:
    """Return contrast and diameter of the objects detected; contrast 0 if there are none."""
    lights, areas = [], []
    for image in images:
        levels, labels, used = _work(image, statistics, (0, 0))
        least = _least_area(statistics)
        labels = number_objects(labels, used, least, 1, (0, 0), labels.shape)
        lights.append(brightness_of(labels, levels, (0, 0), CUT_QUANTILE)[1:])
        areas.append(np.bincount(labels.ravel())[1:])
    light, area = np.concatenate(lights), np.concatenate(areas)
    if not area.size:
        return 0.0, statistics.diameter_px
    typical, likely = typical_light(light, area)
    diameter = statistics.bin_factor * float(np.median(np.sqrt(area[likely] * 4 / np.pi)))
    grey = typical * statistics.threshold / LEVELS_PER_THRESHOLD
    return grey, float(np.clip(diameter, *DIAMETER_RANGE))


def detect(
    image: np.ndarray, statistics: DetectionStatistics, origin: tuple[int, int] = (0, 0)
) -> Labels:
    """Label the objects of one region.

    Parameters
    ----------
    image : ndarray, (y, x), uint8, uint16 or float32
        Pixels of the region. Not modified.
    statistics : DetectionStatistics
        Of the whole scan, from `estimate_statistics`.
    origin : (int, int)
        Row and column in the mosaic of the region's first pixel.

    Returns
    -------
    ndarray, (y, x), int32
        0 is background; objects are 1 to n in the raster order of their first pixels.
    """
    factor = statistics.bin_factor
    _, labels, used = _work(image, statistics, origin)
    least = _least_area(statistics)
    first = (origin[0] % factor, origin[1] % factor)
    return np.asarray(number_objects(labels, used, least, factor, first, image.shape))


def _work(
    image: np.ndarray, statistics: DetectionStatistics, origin: tuple[int, int]
) -> tuple[np.ndarray, Labels, int]:
    """Return levels, labels on the working grid, and how many labels were used."""
    factor = statistics.bin_factor
    levels = statistics.levels(_bin(image, factor, origin))
    mask = (levels >= LEVELS_PER_THRESHOLD).astype(np.uint8)
    _, regions, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    rules = _rules(statistics.diameter_px / factor)
    return levels, *split_regions(levels, regions, _with_margin(boxes, mask.shape), LIGHT, rules)


def _least_area(statistics: DetectionStatistics) -> float:
    """Return the area below which something is not an object, in working pixels."""
    return float(MIN_AREA * np.pi / 4 * (statistics.diameter_px / statistics.bin_factor) ** 2)


def _bin(image: np.ndarray, factor: int, origin: tuple[int, int]) -> np.ndarray:
    """Average blocks aligned with the mosaic's grid; float32."""
    pixels = _as_floats(image)
    if factor == 1:
        return pixels
    first = (origin[0] % factor, origin[1] % factor)
    shape = [-(-(o + n) // factor) for o, n in zip(first, image.shape, strict=True)]
    binned = np.empty(shape, np.float32)
    bin_blocks(pixels, factor, first, binned)
    return binned


def _as_floats(image: np.ndarray) -> np.ndarray:
    """Return a float32 copy; compiled loops have one version, for writable rows in one piece."""
    return np.array(image, np.float32, order="C")


def _with_margin(boxes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return top, left, bottom, right of each region with a margin of one pixel, in the image."""
    left, top, width, height = boxes[1:, : cv2.CC_STAT_AREA].T.astype(np.int64)
    ends = [np.minimum(top + height + 1, shape[0]), np.minimum(left + width + 1, shape[1])]
    return np.stack([np.maximum(top - 1, 0), np.maximum(left - 1, 0), *ends], axis=1)


def _rules(diameter: float) -> Rules:
    """Return how regions are split for a diameter in working pixels."""
    return Rules(
        radius=diameter / 2,
        cap=DISTANCE_CAP,
        depth_weight=DISTANCE_WEIGHT,
        steps=float(SEED_STEPS),
        smoothing=half_gaussian(SEED_SIGMA * diameter, 3.0),
        apart=_half_widths(PEAK_DISTANCE * diameter),
        quantile=CUT_QUANTILE,
        cut=CUT_FRACTION,
        largest_hole=np.pi / 4 * diameter**2,
        passes=PASSES,
    )


def _half_widths(radius: float) -> np.ndarray:
    """Return half of the width of each row of a disc, its centre not counted."""
    return _disc(radius).sum(axis=1, dtype=np.int64) // 2


def _disc(radius: float) -> np.ndarray:
    size = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))


def measure(
    labels: Labels, image: np.ndarray, depth_um: np.ndarray, statistics: DetectionStatistics
) -> dict[str, np.ndarray]:
    """Measure the labelled objects of one region; its position only shifts coordinates.

    Parameters
    ----------
    labels : ndarray, (y, x), int32
        From `detect`.
    image : ndarray, (y, x)
        The pixels on which the labels were detected.
    depth_um : ndarray, (y, x)
        Height of best focus; values that are not finite are ignored.
    statistics : DetectionStatistics
        Of the whole scan.

    Returns
    -------
    dict of str to ndarray, one value an object
        Columns of `skimage.measure.regionprops_table` in region coordinates (centroids rounded to
        1/1024 px, so that they shift exactly), and
        ``z_um``, the median of the heights under the object weighted by light above background
        (nan if none is finite), and
        ``score`` in [0, 1], s / (1 + s) where s is the object's mean light above the median of
        its rim in units of a pixel's noise.
    """
    labels = np.array(labels, np.int32, order="C")
    light, depth = _as_floats(image), _as_floats(depth_um)
    background, disc = statistics.background, _half_widths(RIM_WIDTH * statistics.diameter_px)
    boxes = boxes_of(labels, labels.max())
    table = {"label": np.arange(1, len(boxes) + 1)} | {f"bbox-{k}": boxes[:, k] for k in range(4)}
    *shapes, down, across = measure_shapes(labels, boxes).T
    table |= zip(SHAPES, shapes, strict=True)
    mean, most, height, ground = measure_lights(labels, light, depth, boxes, disc, background).T
    table |= {"intensity_mean": mean, "intensity_max": most}
    contrast = np.maximum(mean - ground, 0) / statistics.noise
    table |= {"centroid-0": down, "centroid-1": across}
    return table | {"z_um": height, "score": contrast / (1 + contrast)}
