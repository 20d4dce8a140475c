"""What one scan's empty specimen and objects look like, estimated once and used for every field.

The law of this module: a field is never judged by itself, or its neighbour, which sees the same
object in its halo, would judge it otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite, pi, sqrt

import cv2
import numpy as np
import scipy

from imaging.pyramid import mean_pyramid

WORKING_DIAMETER = 20  # binned pixels an object is wide at least: finer costs time, gains nothing
LEVELS_PER_THRESHOLD = 64  # steps of the levels below the threshold; 16 bit hold 1000 thresholds
LEVEL_OFFSET = 16 * LEVELS_PER_THRESHOLD  # room for levels below the background

# Lengths in object diameters, tuned on the 120 real images of benchmarks/detection.py.
SMOOTHING_SIGMA = 0.09  # keeps nucleoli and noise from being objects
SMOOTHING_REACH = 3.0  # in sigmas
BACKGROUND_WINDOW = 1.4  # of the opening that follows haze; wider than an object
CLUMP = 2.0  # how far an object and the neighbours it touches may reach out of the core

THRESHOLD_FRACTION = 0.2  # of the contrast: fainter ones are debris more often than objects
THRESHOLD_SNR = 10.0  # in noise after smoothing; the opening takes the lowest noise for background

FLOOR_OF_INTEGERS = 0.29  # 1/sqrt(12): what rounding to whole grey levels adds
FLOOR_OF_FLOATS = 1e-6  # of the largest value: a few steps of float32
SMALLEST_BLOB = 6.0  # pixels: below it an object is a point
STEPS_PER_OCTAVE = 3
OCTAVES = 6  # up to 240 pixels, given the excess below
NEIGHBOURS = np.ones((3, 3), np.uint8)
BLOB_EXCESS = 1.25  # blobs of real nuclei in haze answer to a scale that much too large
LEAST_BLOB = 0.5  # of log light: fainter blobs are texture
DIAMETER_RANGE = (6.0, 256.0)  # pixels
DEFAULT_DIAMETER = 30.0  # pixels, when there is nothing to measure
MODE_SHARE = 0.2  # of all pixels: less is noise, more may not be empty
LIKELY_LIGHT = 0.4  # of the typical brightness: fainter finds have no say in the diameter
MEDIAN_OF_NORMAL = 0.6745  # median of |x| where x has deviation 1
STABILISER = 10.0  # in noise: log light below it is flat


@dataclass(frozen=True)
class DetectionStatistics:
    """What the objects of one scan have in common.

    Attributes
    ----------
    background : float
        Grey level of empty specimen.
    noise : float
        Standard deviation of a pixel there, in grey levels.
    contrast : float
        Typical grey level of objects above the background; 0 if the samples were empty.
    diameter_px : float
        Typical diameter of the circle of an object's area, in pixels.

    Raises
    ------
    ValueError
        If noise or diameter is not positive, contrast negative, or one is not finite.
    """

    background: float
    noise: float
    contrast: float
    diameter_px: float

    def __post_init__(self) -> None:
        values = (self.background, self.noise, self.contrast, self.diameter_px)
        sound = all(map(isfinite, values)) and min(self.noise, self.diameter_px) > 0
        if not sound or self.contrast < 0:
            raise ValueError(f"expected finite statistics, noise and diameter above 0, got {self}")

    @property
    def bin_factor(self) -> int:
        """Pixels of the mosaic a working pixel is wide."""
        return max(1, int(self.diameter_px / WORKING_DIAMETER))

    @property
    def threshold(self) -> float:
        """Grey levels above the local background where an object may be."""
        sigma = SMOOTHING_SIGMA * self.diameter_px
        smoothed = self.noise / sqrt(max(1.0, 4 * pi * sigma**2))  # white noise through a Gaussian
        return max(THRESHOLD_FRACTION * self.contrast, THRESHOLD_SNR * smoothed)

    @property
    def halo_px(self) -> int:
        """Pixels a region needs around its core: the clump of an object, and the filters' reach."""
        return self.filter_reach_px + ceil(CLUMP * self.diameter_px)

    @property
    def filter_reach_px(self) -> int:
        """Pixels from a region's end within which the filters miss what lies beyond it."""
        diameter = self.diameter_px / self.bin_factor
        filters = ceil(SMOOTHING_REACH * SMOOTHING_SIGMA * diameter) + _window(diameter)
        return self.bin_factor * (filters + 1)

    def levels(self, binned: np.ndarray) -> np.ndarray:
        """Light above the local background, uint16, in steps of a part of the threshold."""
        diameter = self.diameter_px / self.bin_factor
        light = (binned - self.background) * (LEVELS_PER_THRESHOLD / self.threshold)
        sigma = SMOOTHING_SIGMA * diameter
        smooth = scipy.ndimage.gaussian_filter(
            light, sigma, mode="nearest", truncate=SMOOTHING_REACH
        )
        steps = np.clip(np.rint(smooth) + LEVEL_OFFSET, 0, 65535).astype(np.uint16)
        window = np.ones((_window(diameter),) * 2, np.uint8)
        return steps - cv2.morphologyEx(steps, cv2.MORPH_OPEN, window)


def _window(diameter: float) -> int:
    return 2 * round(BACKGROUND_WINDOW * diameter / 2) + 1


def first_statistics(images: Sequence[np.ndarray]) -> DetectionStatistics:
    """Estimate all but the diameter, which is only a first guess."""
    smooth = [scipy.ndimage.gaussian_filter(image.astype(np.float64), 1.0) for image in images]
    background = _mode(np.concatenate([image.ravel() for image in smooth]))
    noise = _noise(np.concatenate([image.ravel() for image in images]), background)
    unit = STABILISER * noise
    light = [np.log1p(np.maximum(image - background, 0) / unit) for image in smooth]
    found = [_blobs(image.astype(np.float32)) for image in light]
    diameters, values, weights = np.concatenate(found, axis=1)
    contrast, likely = typical_light(np.expm1(values) * unit, diameters**2)
    diameter = weighted_median(diameters[likely], weights[likely], DEFAULT_DIAMETER * BLOB_EXCESS)
    return DetectionStatistics(background, noise, contrast, diameter / BLOB_EXCESS)


def _mode(values: np.ndarray) -> float:
    """Middle of the shortest interval that holds `MODE_SHARE` of the values."""
    ordered = np.sort(values)
    share = max(1, int(ordered.size * MODE_SHARE))
    widths = ordered[share - 1 :] - ordered[: ordered.size - share + 1]
    start = int(np.argmin(widths))
    return float(np.median(ordered[start : start + share]))


def _noise(values: np.ndarray, background: float) -> float:
    """Deviation of the pixels darker than the background: no object is among them."""
    darker = background - values[values < background].astype(np.float64)
    spread = float(np.median(darker)) / MEDIAN_OF_NORMAL if darker.size else 0.0
    whole = np.issubdtype(values.dtype, np.integer)
    floor = FLOOR_OF_INTEGERS if whole else FLOOR_OF_FLOATS * float(np.abs(values).max())
    return max(spread, floor, FLOOR_OF_FLOATS)


def _blobs(image: np.ndarray) -> np.ndarray:
    """Diameters, values and weights of the blobs of a scale space.

    A disc answers the scale-normalised Laplacian of a Gaussian most at sigma = diameter / sqrt 8.
    Lindeberg 1998, Int. J. Computer Vision 30:79.
    """
    octaves = enumerate(mean_pyramid(image, OCTAVES))
    found = [_octave_blobs(octave) * [[2**power], [1], [2**power]] for power, octave in octaves]
    return np.concatenate(found, axis=1)


def _octave_blobs(image: np.ndarray) -> np.ndarray:
    """Diameters, values and weights of the blobs of one octave, in pixels of this image."""
    scales = SMALLEST_BLOB * 2 ** (np.arange(-1, STEPS_PER_OCTAVE + 1) / STEPS_PER_OCTAVE)
    stack = np.stack([_laplacian(image, scale / sqrt(8)) for scale in scales])
    around = scipy.ndimage.maximum_filter1d(
        np.stack([cv2.dilate(x, NEIGHBOURS) for x in stack]), 3, 0
    )
    peaks = (stack == around) & (stack > LEAST_BLOB)
    peaks[[0, -1]] = False  # their own peak lies in the next octave
    scale, row, column = np.nonzero(peaks)
    return np.stack([scales[scale], image[row, column], stack[peaks] * scales[scale]])


def _laplacian(image: np.ndarray, sigma: float) -> np.ndarray:
    smooth = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return -(sigma**2) * cv2.Laplacian(smooth, cv2.CV_32F, borderType=cv2.BORDER_REPLICATE)


def typical_light(light: np.ndarray, area: np.ndarray) -> tuple[float, np.ndarray]:
    """Brightness where half of all light is reached, and which objects are not far below it."""
    typical = weighted_median(light, light * area, 0.0)
    return typical, light >= LIKELY_LIGHT * typical


def weighted_median(values: np.ndarray, weights: np.ndarray, default: float) -> float:
    """First value at which half of the weight is reached; the default if there is no value."""
    if not values.size:
        return default
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) if weights.any() else np.arange(1.0, values.size + 1)
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])
