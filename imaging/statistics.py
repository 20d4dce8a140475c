"""Statistics of background and objects of a scan, estimated once and used for every field.

Invariant: no decision depends on statistics of a single field; else a neighbour, which has the same
object in its halo, would decide differently.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite, pi, sqrt

import cv2
import numpy as np
import scipy

from imaging.detection_kernels import half_gaussian, smooth
from imaging.pyramid import mean_pyramid

WORKING_DIAMETER = 20  # minimum width of an object in binned pixels: finer only costs time
LEVELS_PER_THRESHOLD = 64  # steps of the levels per threshold; 16 bit hold 1000 thresholds
LEVEL_OFFSET = 16 * LEVELS_PER_THRESHOLD  # room for levels below the background

# Lengths in object diameters, tuned on the 120 real images of benchmarks/detection.py.
SMOOTHING_SIGMA = 0.09  # suppresses nucleoli and noise
SMOOTHING_REACH = 3.0  # in sigmas
BACKGROUND_WINDOW = 1.4  # of the opening that estimates haze; wider than an object
LARGE_WINDOW = 1.1  # of the same opening, in diameters of large objects
CLUMP = 2.0  # how far an object with touching neighbours may extend beyond the core

THRESHOLD_FRACTION = 0.2  # of the contrast: fainter objects are mostly debris
THRESHOLD_SNR = 10.0  # in noise after smoothing; the opening follows the lowest noise

FLOOR_OF_INTEGERS = 0.29  # 1/sqrt(12): noise of rounding to integer grey levels
FLOOR_OF_FLOATS = 1e-6  # of the largest value: a few steps of float32
MIN_BLOB_PX = 6.0  # pixels: smaller objects are points
STEPS_PER_OCTAVE = 3
OCTAVES = 6  # up to 240 pixels, with the excess below
NEIGHBOURS = np.ones((3, 3), np.uint8)
BLOB_EXCESS = 1.25  # the best scale of real nuclei in haze is too large by this factor
MIN_BLOB_LIGHT = 0.5  # of log light: fainter blobs are texture
DIAMETER_RANGE = (6.0, 256.0)  # pixels
DEFAULT_DIAMETER = 30.0  # pixels, if nothing can be measured
MODE_SHARE = 0.2  # of all pixels: less is noisy, more may include objects
LIKELY_LIGHT = 0.4  # of the typical brightness: fainter objects are ignored for the diameter
MEDIAN_OF_NORMAL = 0.6745  # median of |x| for x of deviation 1
STABILISER = 10.0  # in noise: log light is flat below it
FAINTEST, BRIGHTEST = 0.01, 0.9999  # likewise below this share of the light of this quantile


# Nuclei have an asymmetry of -0.9 and less, dark objects on a bright ground 1.0.
BRIGHT, DARK, UNCLEAR = "bright", "dark", "polarity"
CLEAR_ASYMMETRY = 0.5
MODE_DEVIATIONS = 0.507  # width of the interval that holds a fifth of a normal distribution
FAR_DEVIATIONS = 5.0  # from the mode: pixels that belong to something
MIN_SHARE = 5e-4  # of such pixels: fewer say nothing
ENDS = 1e-3  # share of pixels at either end that does not count as the range


@dataclass(frozen=True)
class DetectionStatistics:
    """Statistics of the objects of one scan.

    Attributes
    ----------
    background : float
        Grey level of empty specimen.
    noise : float
        Standard deviation of a pixel there, in grey levels.
    contrast : float
        Typical grey level of objects above the background; 0 if the samples are empty.
    diameter_px : float
        Typical equivalent diameter of an object, in pixels; of rods the width.
    large_px : float
        Diameter of large objects; 0 if sizes are not mixed.
    long_px : float
        Length of the longest objects; 0 if they are no rods.
    alike : str
        "discs" if all objects are discs of one diameter, "width" if they have one width, else "".
    polarity : str
        "bright" or "dark": what objects are on their background.
    findings : tuple of str
        Why the counts should be looked at; the codes of `scan.findings`.

    Raises
    ------
    ValueError
        If noise or diameter is not positive, contrast negative, or one is not finite.
    """

    background: float
    noise: float
    contrast: float
    diameter_px: float
    large_px: float = 0.0
    long_px: float = 0.0
    alike: str = ""
    polarity: str = BRIGHT
    findings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values = (self.background, self.noise, self.contrast, self.diameter_px)
        sound = all(map(isfinite, values)) and min(self.noise, self.diameter_px) > 0
        if not sound or self.contrast < 0:
            raise ValueError(f"expected finite statistics, noise and diameter above 0, got {self}")

    @property
    def sign(self) -> int:
        """1 if objects are brighter than the background, -1 if they are darker."""
        return -1 if self.polarity == DARK else 1

    @property
    def bin_factor(self) -> int:
        """Width of a working pixel, in pixels of the mosaic."""
        return max(1, int(self.diameter_px / WORKING_DIAMETER))

    @property
    def threshold(self) -> float:
        """Minimum grey levels of an object above the local background."""
        return max(THRESHOLD_FRACTION * self.contrast, self.noise_threshold)

    @property
    def noisy(self) -> bool:
        """Whether noise sets the threshold, not what is faint among objects."""
        return self.noise_threshold > THRESHOLD_FRACTION * self.contrast

    @property
    def noise_threshold(self) -> float:
        """Minimum grey levels of what noise alone does not show."""
        sigma = SMOOTHING_SIGMA * self.diameter_px
        return THRESHOLD_SNR * self.noise / sqrt(max(1.0, 4 * pi * sigma**2))  # after a Gaussian

    @property
    def halo_px(self) -> int:
        """Width of the halo around a core: the clump of an object, and the range of filters."""
        clump = CLUMP * max(self.diameter_px, self.large_px)
        return self.filter_reach_px + ceil(max(clump, self.diameter_px + self.long_px))

    @property
    def filter_reach_px(self) -> int:
        """Width of the margin of a region in which filters lack their neighbourhood."""
        diameter = self.diameter_px / self.bin_factor
        filters = ceil(SMOOTHING_REACH * SMOOTHING_SIGMA * diameter) + self._window
        return self.bin_factor * (filters + 1)

    @property
    def _window(self) -> int:
        """Width of the opening that estimates haze, in working pixels."""
        width = max(BACKGROUND_WINDOW * self.diameter_px, LARGE_WINDOW * self.large_px)
        return 2 * round(width / self.bin_factor / 2) + 1

    def levels(self, binned: np.ndarray) -> np.ndarray:
        """Return light above the local background, uint16, in fractions of the threshold."""
        diameter = self.diameter_px / self.bin_factor
        scale = np.float32(LEVELS_PER_THRESHOLD / self.threshold)
        light = (binned.astype(np.float32) - np.float32(self.background)) * (self.sign * scale)
        soft = np.empty_like(light)
        smooth(light, half_gaussian(SMOOTHING_SIGMA * diameter, SMOOTHING_REACH), soft)
        steps = np.clip(np.rint(soft, out=soft) + LEVEL_OFFSET, 0, 65535).astype(np.uint16)
        window = np.ones((self._window,) * 2, np.uint8)
        return steps - cv2.morphologyEx(steps, cv2.MORPH_OPEN, window)


def initial_statistics(
    images: Sequence[np.ndarray], *, averaged: bool = False
) -> DetectionStatistics:
    """Estimate the statistics; the diameter is a first guess.

    With `averaged`, large objects may be fainter: in these more pixels tell them from the noise.
    """
    smooth = [scipy.ndimage.gaussian_filter(image.astype(np.float64), 1.0) for image in images]
    ordered = np.sort(np.concatenate([image.ravel() for image in smooth]))
    background = _shortest(ordered)[0]
    noise = _noise(np.concatenate([image.ravel() for image in images]), background)
    units = [
        _flat_below(ordered, background, noise / 2**power if averaged else noise)
        for power in range(OCTAVES)
    ]
    found = [_blobs(np.maximum(image - background, 0), units) for image in smooth]
    diameters, values, weights = np.concatenate(found, axis=1)
    contrast, likely = typical_light(values, diameters**2)
    diameter = weighted_median(diameters[likely], weights[likely], DEFAULT_DIAMETER * BLOB_EXCESS)
    return DetectionStatistics(background, noise, contrast, diameter / BLOB_EXCESS)


def _flat_below(pixels: np.ndarray, background: float, noise: float) -> float:
    """Return the light up to which log light is flat, in grey levels.

    Images that were cleaned have hardly any noise: faint haze would outweigh the objects.
    """
    bright = float(np.quantile(pixels, BRIGHTEST))
    return max(STABILISER * noise, FAINTEST * (bright - background))


def polarity_of(images: Sequence[np.ndarray]) -> str:
    """Return "bright" or "dark" by what lies on the ground, "polarity" if it is neither or both.

    The ground is the most frequent grey level. Objects are dark if what differs from it is darker,
    and if it lies in the upper half of the range: no camera's offset does.
    """
    smooth = [scipy.ndimage.gaussian_filter(image.astype(np.float32), 1.0) for image in images]
    ordered = np.sort(np.concatenate([image.ravel() for image in smooth]))
    ground, width = _shortest(ordered)
    spread = max(width / MODE_DEVIATIONS, FLOOR_OF_FLOATS)
    far = (ordered - ground) / spread
    above, below = (np.maximum(side - FAR_DEVIATIONS, 0) for side in (far, -far))
    if np.count_nonzero(above + below) < MIN_SHARE * far.size:
        return BRIGHT
    asymmetry = (below.sum() - above.sum()) / (below.sum() + above.sum())
    low, high = ordered[[int(ENDS * far.size), -1 - int(ENDS * far.size)]]
    if asymmetry < -CLEAR_ASYMMETRY:
        return BRIGHT
    return DARK if asymmetry > CLEAR_ASYMMETRY and 2 * ground > low + high else UNCLEAR


def _shortest(ordered: np.ndarray) -> tuple[float, float]:
    """Return median and width of the shortest interval that contains `MODE_SHARE` of the values."""
    share = max(1, int(ordered.size * MODE_SHARE))
    widths = ordered[share - 1 :] - ordered[: ordered.size - share + 1]
    start = int(np.argmin(widths))
    return float(np.median(ordered[start : start + share])), float(widths[start])


def _noise(values: np.ndarray, background: float) -> float:
    """Return the deviation of the pixels darker than the background: none is an object."""
    darker = background - values[values < background].astype(np.float64)
    spread = float(np.median(darker)) / MEDIAN_OF_NORMAL if darker.size else 0.0
    return max(spread, noise_floor(values), FLOOR_OF_FLOATS)


def noise_floor(values: np.ndarray) -> float:
    """Return the noise that rounding to integers or to float32 leaves."""
    whole = np.issubdtype(values.dtype, np.integer)
    return FLOOR_OF_INTEGERS if whole else FLOOR_OF_FLOATS * float(np.abs(values).max())


def _blobs(image: np.ndarray, units: Sequence[float]) -> np.ndarray:
    """Return diameters, light and weights of the blobs of a scale space of log light.

    `units` are those below which log light is flat, of each octave.

    The scale-normalised Laplacian of a Gaussian is maximal for a disc at sigma = diameter / sqrt 8.
    Lindeberg 1998, Int. J. Computer Vision 30:79.
    """
    pyramids = {
        unit: mean_pyramid(np.log1p(image / unit).astype(np.float32), OCTAVES)
        for unit in dict.fromkeys(units)
    }
    found = []
    for power, unit in enumerate(units):
        diameters, values, weights = _octave_blobs(pyramids[unit][power])
        found.append([diameters * 2**power, np.expm1(values) * unit, weights * 2**power])
    return np.concatenate(found, axis=1)


def _octave_blobs(image: np.ndarray) -> np.ndarray:
    """Return diameters, values and weights of the blobs of one octave, in its pixels."""
    scales = MIN_BLOB_PX * 2 ** (np.arange(-1, STEPS_PER_OCTAVE + 1) / STEPS_PER_OCTAVE)
    stack = np.stack([_laplacian(image, scale / sqrt(8)) for scale in scales])
    around = scipy.ndimage.maximum_filter1d(
        np.stack([cv2.dilate(x, NEIGHBOURS) for x in stack]), 3, 0
    )
    peaks = (stack == around) & (stack > MIN_BLOB_LIGHT)
    peaks[[0, -1]] = False  # these scales belong to the neighbouring octaves
    scale, row, column = np.nonzero(peaks)
    return np.stack([scales[scale], image[row, column], stack[peaks] * scales[scale]])


def _laplacian(image: np.ndarray, sigma: float) -> np.ndarray:
    smooth = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    return -(sigma**2) * cv2.Laplacian(smooth, cv2.CV_32F, borderType=cv2.BORDER_REPLICATE)


def typical_light(light: np.ndarray, area: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the brightness at half of all light, and which objects are not far below it."""
    typical = weighted_median(light, light * area, 0.0)
    return typical, light >= LIKELY_LIGHT * typical


def weighted_median(values: np.ndarray, weights: np.ndarray, default: float) -> float:
    """Return the first value that reaches half of the weight; the default if there is none."""
    return weighted_quantile(values, weights, 0.5) if values.size else default


def weighted_quantile(values: np.ndarray, weights: np.ndarray, quantile: float) -> float:
    """Return the first value that reaches a share of the weight."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) if weights.any() else np.arange(1.0, values.size + 1)
    return float(values[order][np.searchsorted(reached, reached[-1] * quantile)])
