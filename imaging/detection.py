"""Detect objects in a focus-stacked field, with no trace of field borders in the result.

Invariant: a scan has one set of statistics, and every operation has a finite range on the pixel
grid of the mosaic. So a region with a halo of `DetectionStatistics.halo_px` around its core gives
exactly the objects that the whole mosaic, processed in one piece, would give. Regions of touching
objects that reach further than the halo are the exception: `ownership` marks their objects.

Method: bin so that an object is about twenty pixels wide, subtract the local background, fill the
holes of rings, run a watershed from seeds of distance and log intensity, cut every object at a
fraction of its own brightness, and repeat this on the remaining mask. Then merge neighbours that
are one object by neck, light and shape, and where all objects are discs of one size split those
that are too large at higher cuts.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import scipy

from imaging.detection_kernels import (
    SHAPES,
    Rules,
    bin_blocks,
    boxes_of,
    brightness_of,
    core_of,
    fill_rings,
    half_gaussian,
    large_regions,
    measure_lights,
    measure_shapes,
    merge_regions,
    number_objects,
    sizes_of,
    split_discs,
    split_regions,
)
from imaging.statistics import (
    DARK,
    DIAMETER_RANGE,
    LEVELS_PER_THRESHOLD,
    UNCLEAR,
    DetectionStatistics,
    initial_statistics,
    noise_floor,
    polarity_of,
    typical_light,
    weighted_quantile,
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

CORE_FRACTION = 0.5  # of its own brightness: the second pass measures depth within this
DIP = 0.01  # of the landscape: peaks between which it falls less are one
NECK = 0.85  # depth of a saddle over that of the lower peak, from which neighbours may be one
BRIDGE = 0.75  # light of a saddle over that of the darker neighbour, likewise
SOLIDITY = 0.95  # from which such a pair is one object
ROD_SOLIDITY = 0.85  # the same for several in a row that are no wider than one of them
ROD_WIDTH = 1.3  # minor axis of such a row, in widths of its widest member
EVEN_DEPTH = 0.42  # mean over greatest depth of a curved one: a band has 1/2, touching discs 1/3
HOLLOW = 0.03  # area of holes over that of the walls of rings: touching nuclei have smaller gaps
WALL = 0.6  # least over greatest width of a ring's wall
OPENING = 0.6  # radius of a ring's hole over half the width of its wall: not a gap between discs
LARGEST_RING = 1.5  # area of a hole in areas of a large object

# Where all objects have one width, merging may be bolder, because a clump shows in its width.
DIP_ALIKE, BRIDGE_ALIKE, SLACK_ALIKE = 0.05, 0.55, 1.0
DISC_FACTOR = 1.5  # in areas of a disc: larger objects are tried to be split into discs

# When counts are doubtful. Of 120 images of nuclei none has a median solidity below 0.93, none is
# covered to more than 0.36.
FEW = 8  # objects in all samples
CONFLUENT = 0.5  # of the samples that is covered
TEXTURED = 0.925  # median solidity of objects that are not alike, or that touch others
PIECES = 2.0  # objects in a group that touches: rods are apart, pieces of arcs are not
SATURATED = 0.02  # of the pixels of objects

# Objects below the threshold that are clear all the same. In none of 120 images of nuclei are eight
# or more of them more than 0.4 of what is seen there.
CLEAR_SOLIDITY, CLEAR_SIZE = 0.9, 0.5  # at least; the latter in typical diameters
CLEAR_SHARE = 0.7  # of what is seen below the threshold: where fewer are clear it is haze, texture
WIDER = (1.0, 2.0, 4.0)  # diameters of which dim objects are looked for, in that of what was found
HIDING = 0.02  # of the contrast, below which noise hides nothing that matters
DIM_SHARE = 0.2  # of the number of objects detected: fewer are debris

AUTO = "auto"  # polarity: decided by the samples

RIM_WIDTH = 0.25  # in diameters: the rim with which an object is compared for its score

# A table makes logarithms bit-identical wherever a pixel lies in a vector register.
LIGHT = np.log1p(np.arange(65536) / LEVELS_PER_THRESHOLD).astype(np.float32)
ROUNDS = 2  # of detecting with a diameter and measuring it again; more do not help

# How sizes are learned from regions at half maximum, none of them split.
SEARCH = 6.0  # how much larger than the first guess objects may be
SMALLEST = 0.12  # of the size at half of the area: what is smaller is dirt
TYPICAL_QUANTILE, LARGE_QUANTILE = 0.4, 0.8  # of sizes; the latter weighted by area
WIDTH_FACTOR = 1.15  # from inscribed width to diameter, for nuclei that are not round
WHOLE = 0.93  # solidity of regions that count as large objects, not as clumps
MIXED = 1.8  # large over typical diameter, from which sizes are mixed
MIN_REGIONS = 8  # fewer say nothing about the others
EQUAL_WIDTHS, EQUAL_DISCS = 1.15, 1.08  # typical over small diameter; nuclei are at 1.1 and more
ROUND = 1.1  # diameter by area over width
CLUMP = 0.89  # solidity of what is not round, below which it is a clump: rods are above
SINGLE = 0.1  # of the regions, so many that are no clumps tell the size
BETWEEN = (1.25, 1.65)  # diameters of what is solid and too large for one disc, too small for three
USUAL = (0.8, 1.5)  # typical diameter over the one from detection, where the latter stands

Labels = np.ndarray


def estimate_statistics(
    samples: Sequence[np.ndarray], diameter_px: float | None = None, polarity: str = AUTO
) -> DetectionStatistics:
    """Estimate the statistics of a scan from a few focused images of it.

    Parameters
    ----------
    samples : sequence of ndarray, (y, x), uint8, uint16 or float32
        Focused images of one scan, any sizes.
    diameter_px : float, optional
        Used as given; else estimated from blobs, then measured on detected objects.
    polarity : str
        "bright" or "dark": what objects are on their background; "auto": decided by the samples.

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
    decided = polarity_of(samples) if polarity == AUTO else polarity
    statistics = _with_findings(samples, diameter_px, decided)
    if polarity == AUTO and decided == DARK and "textured" in statistics.findings:
        return _with_findings(samples, diameter_px, UNCLEAR)  # gaps between bright objects
    return statistics


def _with_findings(
    samples: Sequence[np.ndarray], diameter_px: float | None, polarity: str
) -> DetectionStatistics:
    """Estimate the statistics of objects of a polarity, bright ones if it is unclear."""
    if polarity != DARK:
        statistics = _estimate(samples, diameter_px)
    else:  # the same on the negatives
        seen = _estimate([-image.astype(np.float32) for image in samples], diameter_px)
        noise = max(seen.noise, *(noise_floor(image) for image in samples))
        statistics = replace(seen, background=-seen.background, noise=noise, polarity=DARK)
    return replace(statistics, findings=_findings(samples, statistics, polarity))


def _estimate(samples: Sequence[np.ndarray], diameter_px: float | None) -> DetectionStatistics:
    """Estimate the statistics of bright objects."""
    first = initial_statistics(samples)
    statistics = _measured(samples, first, diameter_px)
    if statistics.noisy and diameter_px is None:  # what was found may be noise, or single peaks
        first = initial_statistics(samples, averaged=True)
        statistics = _measured(samples, first, diameter_px)
    if not statistics.contrast:
        return statistics
    statistics = _with_sizes(samples, statistics, first, diameter_px)
    statistics = replace(statistics, contrast=_found(samples, statistics)[0])
    hidden = diameter_px is None and statistics.noise_threshold > HIDING * statistics.contrast
    dim, factor = _dim_objects(samples, statistics, WIDER if hidden else WIDER[:1])
    if dim.number > dim.detected:  # then they are the typical ones, not the few that are brighter
        diameter = diameter_px or dim.diameter_px
        statistics = replace(statistics, contrast=dim.contrast, diameter_px=diameter)
        wide = replace(first, diameter_px=factor * first.diameter_px)
        statistics = _with_sizes(samples, statistics, wide, diameter_px)
        dim, _ = _dim_objects(samples, statistics, WIDER[:1])
    return replace(statistics, findings=("uneven",) if dim.number else ())


def _measured(
    samples: Sequence[np.ndarray], first: DetectionStatistics, diameter_px: float | None
) -> DetectionStatistics:
    """Correct contrast and diameter, if none is given, by the objects that are detected."""
    statistics = first if diameter_px is None else replace(first, diameter_px=float(diameter_px))
    for _ in range(ROUNDS):
        contrast, diameter = _found(samples, statistics)
        statistics = replace(statistics, contrast=contrast, diameter_px=diameter_px or diameter)
    return statistics


def _with_sizes(
    samples: Sequence[np.ndarray],
    statistics: DetectionStatistics,
    first: DetectionStatistics,
    diameter_px: float | None,
) -> DetectionStatistics:
    """Add how sizes differ; correct a diameter that was not given and is unlikely."""
    sizes = _sizes(samples, replace(first, contrast=statistics.contrast))
    ratio = sizes.typical / statistics.diameter_px
    low, high = USUAL
    # Objects are cut below half maximum: narrower discs are parts of discs.
    usual = low < ratio < (1.0 if sizes.alike == "discs" else high)
    if diameter_px is None and sizes.alike and not usual:
        statistics = replace(statistics, diameter_px=sizes.typical)
    mixed = sizes.large > MIXED * statistics.diameter_px
    return replace(
        statistics,
        large_px=sizes.large if mixed else 0.0,
        long_px=sizes.long if sizes.alike == "width" else 0.0,
        alike="width" if mixed and sizes.alike else sizes.alike,
    )


class Dim(NamedTuple):
    """Number of clear objects that are too dim, of detected ones; contrast and diameter of dim."""

    number: int
    detected: int
    contrast: float
    diameter_px: float


def _dim_objects(
    images: Sequence[np.ndarray], statistics: DetectionStatistics, factors: Sequence[float]
) -> tuple[Dim, float]:
    """Look for clear objects below the threshold, where only the noise sets a lower one.

    Returns what is found at the first scale that shows some, and the scale in typical diameters:
    noise hides less of objects that are larger than those above the threshold.
    """
    above = [_objects(image, statistics)[1] for image in images]
    for factor in factors:
        low = replace(statistics, contrast=0.0, diameter_px=factor * statistics.diameter_px)
        dim = _dim_at(images, above, statistics, low)
        if dim.number:
            break
    return dim, factor


def _dim_at(
    images: Sequence[np.ndarray],
    above: Sequence[Labels],
    statistics: DetectionStatistics,
    low: DetectionStatistics,
) -> Dim:
    """Look for clear objects that only `low` finds; `above` are the labels of the others.

    They are clear if they are solid and not small, and if most of what is seen there is.
    """
    seen = [_below_threshold(*each, statistics, low) for each in zip(images, above, strict=True)]
    light, area, solidity = np.hstack(seen)
    detected = sum(int(labels.max()) for labels in above)
    size = low.bin_factor * np.sqrt(area * 4 / np.pi)
    clear = (solidity > CLEAR_SOLIDITY) & (size > CLEAR_SIZE * low.diameter_px)
    number = int(clear.sum())
    if number < max(FEW, CLEAR_SHARE * clear.size, DIM_SHARE * detected):
        return Dim(0, detected, 0.0, low.diameter_px)
    grey = typical_light(light[clear], area[clear])[0] * low.threshold / LEVELS_PER_THRESHOLD
    return Dim(number, detected, grey, float(np.median(size[clear])))


def _below_threshold(
    image: np.ndarray, above: Labels, statistics: DetectionStatistics, low: DetectionStatistics
) -> np.ndarray:
    """Return light, area and solidity of the objects that only `low` finds.

    What is within a radius of one that is detected is not counted: it may be its haze.
    """
    levels, labels = _objects(image, low)
    near = cv2.dilate((above > 0).astype(np.uint8), _disc(rules_of(statistics).radius))
    near = cv2.resize(near, labels.shape[::-1], interpolation=cv2.INTER_NEAREST)
    far = np.ones(int(labels.max()) + 1, bool)
    far[labels[near > 0]] = False
    shapes = measure_shapes(labels, boxes_of(labels, int(labels.max())))
    area, solidity = (shapes[:, SHAPES.index(name)] for name in ("area", "solidity"))
    light = brightness_of(labels, levels, (0, 0), CUT_QUANTILE)[1:]
    return np.stack([light, area, solidity])[:, far[1:]]


def _objects(image: np.ndarray, statistics: DetectionStatistics) -> tuple[np.ndarray, Labels]:
    """Return levels and the labels of objects on the working grid."""
    levels, labels, used = _work(image, statistics, (0, 0))
    least = _least_area(statistics)
    return levels, number_objects(labels, used, least, 1, (0, 0), labels.shape)


def _found(images: Sequence[np.ndarray], statistics: DetectionStatistics) -> tuple[float, float]:
    """Return contrast and diameter of the objects detected; contrast 0 if there are none."""
    lights, areas = [], []
    for image in images:
        levels, labels = _objects(image, statistics)
        lights.append(brightness_of(labels, levels, (0, 0), CUT_QUANTILE)[1:])
        areas.append(np.bincount(labels.ravel())[1:])
    light, area = np.concatenate(lights), np.concatenate(areas)
    if not area.size:
        return 0.0, statistics.diameter_px
    typical, likely = typical_light(light, area)
    diameter = statistics.bin_factor * float(np.median(np.sqrt(area[likely] * 4 / np.pi)))
    grey = typical * statistics.threshold / LEVELS_PER_THRESHOLD
    return grey, float(np.clip(diameter, *DIAMETER_RANGE))


def _findings(
    samples: Sequence[np.ndarray], statistics: DetectionStatistics, polarity: str
) -> tuple[str, ...]:
    """Return the codes of what makes counts doubtful, from the objects in the samples."""
    labels = [detect(sample, statistics) for sample in samples]
    tables = [measure(found, sample, sample, statistics)
              for found, sample in zip(labels, samples, strict=True)]  # fmt: skip
    solidity = np.concatenate([table["solidity"] for table in tables])
    levels = np.concatenate([s[found > 0] for found, s in zip(labels, samples, strict=True)])
    ragged = solidity.size > 0 and float(np.median(solidity)) < TEXTURED
    covered = levels.size / sum(sample.size for sample in samples)
    doubts = dict.fromkeys(statistics.findings, True) | {
        UNCLEAR: polarity == UNCLEAR,
        "few": solidity.size < FEW,
        "confluent": covered > CONFLUENT,
        "textured": ragged and (not statistics.alike or _pieces(labels) > PIECES),
        "saturated": _saturated(levels, statistics.sign) > SATURATED,
    }
    return tuple(code for code, doubtful in doubts.items() if doubtful)


def _pieces(labels: Sequence[Labels]) -> float:
    """Return the mean number of objects in what is connected."""
    parts = sum(cv2.connectedComponents((found > 0).astype(np.uint8))[0] - 1 for found in labels)
    return sum(int(found.max()) for found in labels) / max(parts, 1)


def _saturated(levels: np.ndarray, sign: int) -> float:
    """Return the share of integer levels at the end of a camera's range: 0, or all bits set."""
    if not levels.size or not np.issubdtype(levels.dtype, np.integer):
        return 0.0
    end = int((sign * levels.astype(np.int64)).max() * sign)
    at_end = end & (end + 1) == 0 and (sign < 0 or end >= 255)
    return float((levels == end).mean()) if at_end else 0.0


class Sizes(NamedTuple):
    """Typical and large diameter, greatest length, and in what the regions are alike, if at all."""

    typical: float
    large: float
    long: float
    alike: str


def _sizes(images: Sequence[np.ndarray], guess: DetectionStatistics) -> Sizes:
    """Return the sizes of regions at half maximum, in pixels of the images.

    A diameter is that of the area, or the width if that is less: clumps and rods do not count as
    large objects. A share of small diameters that are equal tells that all are, clumps aside.
    """
    wide = replace(guess, large_px=SEARCH * guess.diameter_px)
    found = np.concatenate([_half_maxima(image, wide) for image in images])
    if not len(found):
        return Sizes(guess.diameter_px, 0.0, 0.0, "")
    size = np.minimum(found[:, 0], WIDTH_FACTOR * found[:, 1] + 1)
    real = size >= SMALLEST * weighted_quantile(size, size**2, 0.5)
    clump = (found[:, 0] >= ROUND * size) & (found[:, 3] < CLUMP)
    if (real & ~clump).sum() >= max(MIN_REGIONS, SINGLE * real.sum()):
        real &= ~clump
    size, (by_area, _, length, solidity) = size[real], found[real].T
    small, typical = np.quantile(size, (0.1, TYPICAL_QUANTILE), method="lower")
    near, whole = np.abs(size / typical - 1) < EQUAL_WIDTHS - 1, solidity >= WHOLE
    large = weighted_quantile(size[whole], size[whole] ** 2, LARGE_QUANTILE) if whole.any() else 0.0
    discs = np.quantile((by_area / size)[near], 0.3) < ROUND  # the others may be clumps
    limit = EQUAL_DISCS if discs else EQUAL_WIDTHS
    between = whole & (by_area > BETWEEN[0] * typical) & (by_area < BETWEEN[1] * typical)
    alike = len(size) >= MIN_REGIONS and typical < limit * small
    alike &= not (discs and between.mean() > SINGLE)
    ends = wide.bin_factor * np.array([typical, large, length[near].max()])
    low, high = DIAMETER_RANGE
    return Sizes(
        float(np.clip(ends[0], low, high)),
        float(min(ends[1], high)),
        float(ends[2]),
        ("discs" if discs else "width") if alike else "",
    )


def _half_maxima(image: np.ndarray, wide: DetectionStatistics) -> np.ndarray:
    """Return diameter by area, width, length and solidity of the parts above half maximum."""
    levels, regions, boxes, areas = regions_of(image, wide, (0, 0))
    rules = rules_of(wide)._replace(largest_ring=np.inf)
    fill_rings(levels, regions, boxes, areas, 0.0, rules)
    core = scipy.ndimage.binary_fill_holes(core_of(regions, levels, rules))
    _, parts = cv2.connectedComponents(core.astype(np.uint8), connectivity=4)
    boxes = boxes_of(parts, int(parts.max()))
    solidity = measure_shapes(parts, boxes)[:, SHAPES.index("solidity")]
    return np.column_stack([sizes_of(parts, boxes), solidity])


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
    levels, regions, boxes, areas = regions_of(image, statistics, origin)
    rules, least, core = rules_of(statistics), _least_area(statistics), regions > 0
    large_px = max(statistics.diameter_px, statistics.large_px)
    coarse = rules_of(statistics, large_px)
    for again in range(PASSES):
        fill_rings(levels, regions, boxes, areas, least, rules)
        if not again:
            large = large_regions(regions, boxes, rules, coarse)
        scales = (rules, coarse, large)
        labels, last = split_regions(levels, regions, boxes, core, LIGHT, *scales)
        regions[labels == 0] = 0
        core = core_of(labels, levels, rules)
    merge_regions(labels, levels, regions, boxes, last, rules)
    used = int(last[-1])
    if statistics.alike == "discs":
        used = split_discs(labels, levels, used, DISC_FACTOR, rules)
    return levels, labels, used


def regions_of(
    image: np.ndarray, statistics: DetectionStatistics, origin: tuple[int, int]
) -> tuple[np.ndarray, Labels, np.ndarray, np.ndarray]:
    """Return levels, and numbers, boxes and areas of the regions above the threshold."""
    levels = statistics.levels(_bin(image, statistics.bin_factor, origin))
    mask = (levels >= LEVELS_PER_THRESHOLD).astype(np.uint8)
    _, regions, found, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = found[:, cv2.CC_STAT_AREA].astype(np.int64)
    return levels, regions, _with_margin(found, mask.shape), areas


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


def rules_of(statistics: DetectionStatistics, diameter_px: float | None = None) -> Rules:
    """Return how regions are split, of the typical diameter or another."""
    diameter = (diameter_px or statistics.diameter_px) / statistics.bin_factor
    large = statistics.large_px / statistics.bin_factor
    alike = bool(statistics.alike)
    return Rules(
        radius=diameter / 2,
        cap=DISTANCE_CAP * max(1.0, 0.5 * large / diameter),
        depth_weight=DISTANCE_WEIGHT,
        steps=float(SEED_STEPS),
        smoothing=half_gaussian(SEED_SIGMA * diameter, 3.0),
        apart=_half_widths(PEAK_DISTANCE * diameter),
        dip=(DIP_ALIKE if alike else DIP) * SEED_STEPS,
        quantile=CUT_QUANTILE,
        cut=CUT_FRACTION,
        core=CORE_FRACTION,
        neck=NECK,
        slack=SLACK_ALIKE if alike else 0.0,
        bridge=BRIDGE_ALIKE if alike else BRIDGE,
        solidity=SOLIDITY,
        rod_solidity=ROD_SOLIDITY,
        rod_width=ROD_WIDTH,
        rod_members=2 if alike else 3,
        curved=np.inf if statistics.alike == "discs" else EVEN_DEPTH,
        largest_hole=np.pi / 4 * diameter**2,
        largest_ring=LARGEST_RING * np.pi / 4 * max(large, diameter) ** 2,
        hollow=HOLLOW,
        wall=WALL,
        opening=OPENING,
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
        ``score`` in [0, 1], s / (1 + s) where s is the difference of the object's mean light from
        the median of its rim in units of a pixel's noise.
        Of dark objects the darkness takes the place of light.
    """
    labels = np.array(labels, np.int32, order="C")
    light, depth = _as_floats(image), _as_floats(depth_um)
    disc, sign = _half_widths(RIM_WIDTH * statistics.diameter_px), statistics.sign
    boxes = boxes_of(labels, int(labels.max()))
    table = {"label": np.arange(1, len(boxes) + 1)} | {f"bbox-{k}": boxes[:, k] for k in range(4)}
    *shapes, down, across = measure_shapes(labels, boxes).T
    table |= zip(SHAPES, shapes, strict=True)
    mean, most, height, ground = measure_lights(
        labels, light, depth, boxes, disc, statistics.background, sign
    ).T
    table |= {"intensity_mean": mean, "intensity_max": most}
    contrast = np.maximum(sign * (mean - ground), 0) / statistics.noise
    table |= {"centroid-0": down, "centroid-1": across}
    return table | {"z_um": height, "score": contrast / (1 + contrast)}
