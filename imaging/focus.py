"""Autofocus: how sharp a plane is, where a sweep peaks, and the surface through many peaks.

A peak is only believed when it stands out of the noise and does not lie at the sweep's edge. The
surface is robust: a sample on dust or on the wrong side of the cover glass is dropped, and told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

Floats = NDArray[np.float64]

LEAST_CONTRAST = 6.0  # a believed peak rises this many noise deviations above the sweep's floor
OUTLIER_UM = 4.0  # a sample this near the plane is never an outlier: bow and relief are real
OUTLIER_DEVIATIONS = 4.0
MOST_TRIPLES = 300  # least median of squares: enough to hit three good samples among half bad ones
SMOOTHINGS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the thin-plate spline, on coordinates within 0 to 1
FEWEST_FOR_SPLINE = 6


def sharpness(frames: NDArray[np.generic]) -> tuple[Floats, float]:
    """Brenner's gradient of each plane over the squared light above its darkest part.

    Planes are binned 2x2 first, against shot noise. Brenner et al. 1976, J. Histochem. Cytochem.
    24:100. Dividing by light makes a lamp that flickers between planes harmless; the darkest
    hundredth stands for the camera's offset.

    Parameters
    ----------
    frames : (z, y, x) array of any real dtype
        A focus sweep.

    Returns
    -------
    curve : (z,) float64
        Relative units, without the part that noise alone would give.
    noise : float
        Standard deviation of the curve that the noise of neighbouring pixels explains.
    """
    binned = np.stack([_bin(plane) for plane in frames])
    dark = np.percentile(binned, 1)
    light = np.maximum(binned.mean(axis=(1, 2)) - dark, 1e-6 + 1e-3 * abs(dark))
    steps = binned[:, :, 2:] - binned[:, :, :-2]
    energy = np.square(steps).mean(axis=(1, 2)) / light**2
    floor = np.median([_noise_energy(plane) for plane in binned]) / np.median(light) ** 2
    spread = floor * np.sqrt(4 / max(1, steps[0].size))  # chi-square, each pixel in two steps
    return energy - floor, float(max(spread, 1e-12))


def _bin(plane: NDArray[np.generic]) -> Floats:
    even = plane[: plane.shape[0] // 2 * 2, : plane.shape[1] // 2 * 2].astype(np.float64)
    return (even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]) / 4


def _noise_energy(plane: Floats) -> float:
    """Twice the noise variance, from second differences, which smooth structure hardly has."""
    second = plane[:, 2:] - 2 * plane[:, 1:-1] + plane[:, :-2]
    deviation = 1.4826 * np.median(np.abs(second)) / np.sqrt(6)
    return float(2 * deviation**2)


@dataclass(frozen=True)
class FocusPeak:
    """Where a sweep is sharpest; `reason` says why it must not be believed, if so."""

    z_um: float
    at_edge: bool
    reason: str | None = None


def find_peak(z_um: Sequence[float], curve: Sequence[float], noise: float) -> FocusPeak:
    """The height of greatest sharpness, refined by a parabola through three logarithms.

    Parameters
    ----------
    z_um : rising heights of the sweep, in um.
    curve, noise : as `sharpness` gives them.
    """
    values = np.asarray(curve, np.float64)
    best = int(np.argmax(values))
    at_edge = best in (0, len(values) - 1)
    contrast = (values[best] - np.median(values)) / noise
    if contrast < LEAST_CONTRAST:
        reason = f"no contrast: {contrast:.1f} noise deviations, {LEAST_CONTRAST:g} needed"
        return FocusPeak(z_um[best], False, reason)
    if at_edge:
        return FocusPeak(z_um[best], True, "sharpest at the edge of the sweep")
    logs = np.log(np.maximum(values[best - 1 : best + 2], values[best] * 1e-3))
    bend = logs[0] - 2 * logs[1] + logs[2]
    offset = 0.5 * (logs[0] - logs[2]) / bend if bend < 0 else 0.0
    step = (z_um[best + 1] - z_um[best - 1]) / 2
    return FocusPeak(z_um[best] + float(np.clip(offset, -0.5, 0.5)) * step, False)


@dataclass(frozen=True)
class FocusSurface:
    """A surface of best focus: a plane, or a thin-plate spline through the kept samples.

    `points` are (x_um, y_um, z_um) rows, `kept` tells which of them the surface goes through, and
    `residual_um` is the median distance of a kept sample from the surface fitted without it.
    """

    points: tuple[tuple[float, float, float], ...]
    kept: tuple[bool, ...]
    kind: str
    smoothing: float
    residual_um: float

    def heights(self, x_um: Sequence[float], y_um: Sequence[float]) -> Floats:
        """Best focus in um at positions in um, never far beyond the kept samples."""
        samples = np.asarray(self.points)[np.asarray(self.kept)]
        at = np.column_stack([x_um, y_um])
        margin = 0.25 * np.ptp(samples[:, 2]) + 1.0
        heights = _evaluate(samples, at, self.kind, self.smoothing)
        return np.clip(heights, samples[:, 2].min() - margin, samples[:, 2].max() + margin)


def fit_surface(points: Sequence[tuple[float, float, float]]) -> FocusSurface:
    """A robust surface through samples (x_um, y_um, z_um); at least one is needed.

    One sample gives a constant, up to five a plane, more a thin-plate spline as smooth as leaving
    one out says; outliers are dropped when there are samples enough to tell.
    """
    samples = np.asarray(points, np.float64)
    if len(samples) == 0:
        raise ValueError("expected at least one focus sample, got none; reject no more than all")
    kept = _inliers(samples)
    good = samples[kept]
    kind, smoothing = _best_smoothing(good)
    residual = float(np.median(_left_out(good, kind, smoothing)))
    rows = tuple((float(x), float(y), float(z)) for x, y, z in samples)
    return FocusSurface(rows, tuple(bool(k) for k in kept), kind, smoothing, residual)


def _inliers(samples: Floats) -> NDArray[np.bool_]:
    """Samples near the plane of least median residual (Rousseeuw 1984)."""
    if len(samples) < FEWEST_FOR_SPLINE:
        return np.ones(len(samples), bool)
    residuals = min(_plane_residuals(samples), key=lambda values: float(np.median(values)))
    spread = 1.4826 * float(np.median(residuals))
    return residuals <= max(OUTLIER_UM, OUTLIER_DEVIATIONS * spread)


def _plane_residuals(samples: Floats) -> Iterator[Floats]:
    triples = list(combinations(range(len(samples)), 3))
    step = max(1, len(triples) // MOST_TRIPLES)
    for triple in islice(triples, 0, None, step):
        heights = _evaluate(samples[list(triple)], samples[:, :2], "plane", 0.0)
        yield np.abs(samples[:, 2] - heights)


def _best_smoothing(samples: Floats) -> tuple[str, float]:
    if len(samples) == 1:
        return "constant", 0.0
    if len(samples) < FEWEST_FOR_SPLINE or _degenerate(samples):
        return "plane", 0.0
    choices = [("plane", 0.0), *(("spline", smoothing) for smoothing in SMOOTHINGS)]
    return min(choices, key=lambda choice: float(np.square(_left_out(samples, *choice)).mean()))


def _degenerate(samples: Floats) -> bool:
    """Samples on one line, of which a spline knows nothing."""
    return bool(np.linalg.matrix_rank(samples[:, :2] - samples[0, :2], tol=1e-3) < 2)


def _left_out(samples: Floats, kind: str, smoothing: float) -> Floats:
    """For each sample, its distance from the surface through all others."""
    if len(samples) < 2:
        return np.zeros(1)
    others = [np.delete(samples, index, axis=0) for index in range(len(samples))]
    return np.array([
        abs(sample[2] - _evaluate(rest, sample[None, :2], kind, smoothing)[0])
        for sample, rest in zip(samples, others, strict=True)
    ])


def _evaluate(samples: Floats, at: Floats, kind: str, smoothing: float) -> Floats:
    """Heights at positions (n, 2); coordinates are scaled to the samples' extent."""
    if kind == "constant":
        return np.full(len(at), samples[0, 2])
    origin = samples[:, :2].min(axis=0)
    extent = max(float(np.ptp(samples[:, :2], axis=0).max()), 1e-9)
    known, wanted = (samples[:, :2] - origin) / extent, (at - origin) / extent
    if kind == "plane" or _degenerate(np.column_stack([known, samples[:, 2]])):
        return _plane(known, samples[:, 2], wanted)
    return np.asarray(RBFInterpolator(known, samples[:, 2], smoothing=smoothing)(wanted))


def _plane(known: Floats, heights: Floats, wanted: Floats) -> Floats:
    """Least squares around the mean; samples on one line give the flattest plane through it."""
    centre = known.mean(axis=0)
    slope = np.linalg.lstsq(known - centre, heights - heights.mean(), rcond=1e-6)[0]
    return np.asarray(heights.mean() + (wanted - centre) @ slope)
