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
import scipy
import skimage

from imaging.statistics import (
    DIAMETER_RANGE,
    LEVELS_PER_THRESHOLD,
    DetectionStatistics,
    initial_statistics,
    typical_light,
    weighted_median,
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
CENTROID_STEPS = 1024  # centroids are multiples of 1/1024 px: exact in float64 wherever they lie

SHAPE_COLUMNS = (
    "label", "centroid_local", "bbox", "area", "equivalent_diameter_area", "eccentricity",
    "solidity", "orientation", "intensity_mean", "intensity_max",
)  # fmt: skip

# A table makes logarithms bit-identical wherever a pixel lies in a vector register.
LOG_OF_LEVEL = np.log1p(np.arange(65536) / LEVELS_PER_THRESHOLD)

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
        levels, labels = _work(image, statistics, (0, 0))
        labels = raster_order(labels)
        lights.append(_brightness(labels, levels)[1:])
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
    _, labels = _work(image, statistics, origin)
    full = labels.repeat(factor, axis=0).repeat(factor, axis=1)
    (top, left), (rows, columns) = (start % factor for start in origin), image.shape
    return raster_order(full[top : top + rows, left : left + columns])


def _work(
    image: np.ndarray, statistics: DetectionStatistics, origin: tuple[int, int]
) -> tuple[np.ndarray, Labels]:
    """Return levels and labels on the working grid."""
    factor = statistics.bin_factor
    levels = statistics.levels(_bin(image, factor, origin))
    diameter = statistics.diameter_px / factor
    light = LOG_OF_LEVEL[levels]
    mask = levels >= LEVELS_PER_THRESHOLD
    for _ in range(PASSES):
        labels = _trim(flood(mask, landscape(mask, light, diameter), diameter), levels)
        mask = labels > 0
    return levels, fill_holes_remove_small(labels, diameter)


def _bin(image: np.ndarray, factor: int, origin: tuple[int, int]) -> np.ndarray:
    """Average blocks aligned with the mosaic's grid; blocks cut by the border repeat the edge."""
    ends = [(o % factor, -(o + n) % factor) for o, n in zip(origin, image.shape, strict=True)]
    padded = np.pad(image, ends, mode="edge").astype(np.float64)
    # Slices are added in a fixed order; the order in numpy's own sum depends on the position.
    tall = sum((padded[i::factor] for i in range(1, factor)), padded[::factor])
    wide = sum((tall[:, i::factor] for i in range(1, factor)), tall[:, ::factor])
    return wide / factor**2


def landscape(mask: np.ndarray, light: np.ndarray, diameter: float) -> np.ndarray:
    """Return the weighted mean of light and capped distance to the rim in object radii."""
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    depth = np.minimum(distance.astype(np.float64) / (diameter / 2), DISTANCE_CAP)
    return DISTANCE_WEIGHT * depth + (1 - DISTANCE_WEIGHT) * light


def flood(mask: np.ndarray, ground: np.ndarray, diameter: float) -> Labels:
    """Label a mask (y, x) by a watershed from the peaks of a landscape with values below 4096."""
    smooth = scipy.ndimage.gaussian_filter(
        ground, SEED_SIGMA * diameter, mode="nearest", truncate=3.0
    )
    height = np.rint(smooth * SEED_STEPS).astype(np.float32)  # integers below 2**24: exact
    peaks = mask & (height == cv2.dilate(height, _disc(PEAK_DISTANCE * diameter)))
    seeds, _ = scipy.ndimage.label(peaks, np.ones((3, 3)))
    return skimage.segmentation.watershed(-height, seeds, mask=mask).astype(np.int32)


def _trim(labels: Labels, levels: np.ndarray) -> Labels:
    """Cut objects at a fraction of their own brightness and keep the largest connected part.

    Of equal parts the first in raster order is kept.
    """
    brightness = _brightness(labels, levels)
    labels = np.where(levels >= CUT_FRACTION * brightness[labels], labels, 0)
    parts, number = skimage.measure.label(labels, connectivity=1, return_num=True)
    owner = np.zeros(number + 1, np.int32)
    owner[parts] = labels
    sizes = np.bincount(parts.ravel(), minlength=number + 1)
    rising = np.argsort(-sizes, kind="stable")[::-1]
    largest = np.zeros(labels.max(initial=0) + 1, int)
    largest[owner[rising]] = rising  # the last assignment wins: the largest part
    return np.where(parts == largest[labels], labels, 0)


def _brightness(labels: Labels, levels: np.ndarray) -> np.ndarray:
    """Return a high quantile of the levels of every label; 0 for background and unused labels."""
    inside = labels > 0
    keys = np.sort(labels[inside].astype(np.int64) << 16 | levels[inside])
    counts = np.bincount(keys >> 16, minlength=1)
    last = np.cumsum(counts) - 1
    quantile = last - ((1 - CUT_QUANTILE) * np.maximum(counts - 1, 0)).astype(np.int64)
    return np.where(counts > 0, (keys & 0xFFFF)[quantile], 0) if keys.size else counts


def fill_holes_remove_small(labels: Labels, diameter: float) -> Labels:
    """Fill holes enclosed by a single object; remove objects far smaller than the typical one."""
    typical_area = np.pi / 4 * diameter**2
    patches, _ = scipy.ndimage.label(labels == 0)
    sizes = np.bincount(patches.ravel())
    sizes[0] = 0
    filled = labels.copy()
    boxes = scipy.ndimage.find_objects(patches)
    for patch in np.flatnonzero((sizes > 0) & (sizes <= typical_area)):  # bounds the range
        box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in boxes[patch - 1])
        hole = patches[box] == patch
        rim = np.unique(labels[box][scipy.ndimage.binary_dilation(hole) & ~hole])
        if rim.size == 1:
            filled[box][hole] = rim[0]
    keep = np.bincount(filled.ravel()) >= MIN_AREA * typical_area
    return np.where(keep[filled], filled, 0)


def raster_order(labels: Labels) -> Labels:
    """Number the objects 1 to n by their first pixels."""
    inside = np.flatnonzero(labels)[::-1]
    first = np.full(labels.max(initial=0) + 1, labels.size)
    first[labels.ravel()[inside]] = inside  # the last assignment wins: the first pixel
    first[0] = -1  # so that the background comes first
    return np.argsort(np.argsort(first)).astype(np.int32)[labels]


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
    table: dict[str, np.ndarray] = skimage.measure.regionprops_table(
        labels, image, properties=SHAPE_COLUMNS
    )
    for axis in "01":
        local = table.pop(f"centroid_local-{axis}")
        corner = table[f"bbox-{axis}"]
        table[f"centroid-{axis}"] = corner + np.rint(local * CENTROID_STEPS) / CENTROID_STEPS
    boxes = scipy.ndimage.find_objects(labels)
    extra = [
        _height_and_score(number, boxes[number - 1], labels, image, depth_um, statistics)
        for number in table["label"].tolist()
    ]
    table["z_um"], table["score"] = np.array(extra, np.float64).reshape(-1, 2).T
    return table


def _height_and_score(
    number: int,
    box: tuple[slice, slice],
    labels: Labels,
    image: np.ndarray,
    depth_um: np.ndarray,
    statistics: DetectionStatistics,
) -> tuple[float, float]:
    disc = _disc(RIM_WIDTH * statistics.diameter_px)
    reach = disc.shape[0] // 2
    wide = tuple(slice(max(s.start - reach, 0), s.stop + reach) for s in box)
    inside = labels[wide] == number
    rim = (cv2.dilate(inside.astype(np.uint8), disc) > 0) & (labels[wide] == 0)
    light = image[wide].astype(np.float64)
    ground = np.median(light[rim]) if rim.any() else statistics.background
    depth = depth_um[wide][inside].astype(np.float64)
    weight = np.maximum(light[inside] - statistics.background, 0)
    finite = np.isfinite(depth)
    height = weighted_median(depth[finite], weight[finite], float("nan"))
    contrast = max(light[inside].mean() - ground, 0) / statistics.noise
    return height, contrast / (1 + contrast)
