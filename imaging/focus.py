"""Autofocus: how sharp a plane is, where a sweep peaks, and the surface through many peaks.

A peak is only believed when it stands out of the noise and does not lie at the sweep's edge. The
surface is robust: a sample on dust or on the wrong side of the cover glass is dropped, and told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

Floats = NDArray[np.float64]

LEAST_CONTRAST = 6.0  # a believed peak rises this many noise deviations above the sweep's floor
VOTING_DEVIATIONS = 8.0  # a tile that noise alone lets vote is rarer than one in a thousand sweeps
TILE_PX = 32  # of binned pixels: the size of a few cells
OUTLIER_UM = 4.0  # a sample this near the plane is never an outlier: bow and relief are real
OUTLIER_DEVIATIONS = 4.0
SUBSETS = 300  # with a fifth of the samples wrong, dozens of subsets are all right
TERMS = {"plane": 3, "quadratic": 6}
SMOOTHINGS = (1.0, 1e-1, 1e-2, 1e-3)  # of the thin-plate spline, on coordinates within 0 to 1
STIFFER_ERRORS = 1.0  # standard errors by which a stiffer surface may leave one out less well
FEWEST_FOR_SPLINE = 6
FEWEST_FOR_QUADRATIC = 9  # half again as many samples as it has coefficients


def sharpness(frames: NDArray[np.generic]) -> tuple[Floats, float]:
    """How sharp each plane is: every tile that shows anything votes for its own best plane.

    Brenner's gradient (Brenner et al. 1976, J. Histochem. Cytochem. 24:100) of 2x2-binned planes,
    over the squared light above the darkest part, so that a lamp that flickers between planes does
    no harm. Each tile's curve is divided by its greatest value, so that one bright object does not
    outvote the rest of the field.

    Parameters
    ----------
    frames : (z, y, x) array of any real dtype
        A focus sweep.

    Returns
    -------
    curve : (z,) float64
        0 to 1, without the part that noise alone would give; all zero where no tile shows anything.
    noise : float
        Standard deviation of the curve that the noise of single pixels explains.
    """
    energy, floor, pixels = _tile_energy(np.stack([_bin(plane) for plane in frames]))
    deviation = floor * np.sqrt(4 / pixels)  # chi-square; each pixel takes part in two steps
    greatest = energy.max(axis=0)
    votes = greatest > VOTING_DEVIATIONS * deviation
    if not votes.any():
        return np.zeros(len(frames)), 1.0
    curve = np.maximum(energy[:, votes] / greatest[votes], 0).mean(axis=1)
    noise = np.sqrt(np.square(deviation / greatest[votes]).sum()) / votes.sum()
    return curve, float(max(noise, 1e-9))


def _tile_energy(binned: Floats) -> tuple[Floats, float, int]:
    """Energy (z, tile) above the noise floor, the floor, and how many pixels a tile has."""
    light = _light(binned)
    noise = np.median([_noise_energy(plane) for plane in binned])
    floor = float(noise / np.median(light) ** 2) + 1e-12
    steps = np.square(binned[:, :, 2:] - binned[:, :, :-2]) / light[:, None, None] ** 2
    tile = min(TILE_PX, *steps.shape[1:])
    down, across = steps.shape[1] // tile, steps.shape[2] // tile
    tiles = steps[:, : down * tile, : across * tile].reshape(-1, down, tile, across, tile)
    return tiles.mean(axis=(2, 4)).reshape(len(binned), -1) - floor, floor, tile**2


def _light(binned: Floats) -> Floats:
    """Mean light (z,) of each plane without the camera's offset.

    A lamp that changes moves a plane's mean and its darkest hundredth along one line, which meets
    the line of equality at the offset. With a steady lamp any offset will do.
    """
    mean, dark = binned.mean(axis=(1, 2)), np.percentile(binned, 1, axis=(1, 2))
    change, dark_change = np.diff(mean), np.diff(dark)
    slope = np.clip(change @ dark_change / (change @ change + 1e-9), 0, 0.95)
    offset = np.clip(np.median((dark - slope * mean) / (1 - slope)), 0, max(0, dark.min()))
    return np.maximum(mean - offset, 1e-6 + 1e-3 * np.abs(mean))


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
    """A surface of best focus through the kept samples: constant, plane, quadratic or spline.

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

    One sample gives a constant, up to five a plane; with more, leaving one out decides between
    plane, quadratic and thin-plate splines. Outliers are dropped when there are samples enough to
    tell.
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
    """Samples near the surface that most of them agree on.

    Least quantile of squares over small subsets, then one refit (Rousseeuw & Leroy 1987, Robust
    Regression and Outlier Detection, chapters 3 and 5).
    """
    kind = "quadratic" if len(samples) >= FEWEST_FOR_QUADRATIC else "plane"
    terms = TERMS[kind]
    if len(samples) < max(FEWEST_FOR_SPLINE, terms + 2):
        return np.ones(len(samples), bool)
    majority = (len(samples) + terms + 1) // 2
    agreed = min(
        (_residuals(samples, subset, kind) for subset in _subsets(len(samples), terms)),
        key=lambda residuals: float(np.sort(residuals)[majority - 1]),
    )
    spread = 1.4826 * float(np.median(agreed))
    limit = max(OUTLIER_UM, OUTLIER_DEVIATIONS * spread)
    return _residuals(samples, np.flatnonzero(agreed <= limit), kind) <= limit


def _subsets(count: int, size: int) -> list[NDArray[np.intp]]:
    generator = np.random.default_rng(0)  # any subsets do, as long as they are the same each time
    return [generator.choice(count, size, replace=False) for _ in range(SUBSETS)]


def _residuals(samples: Floats, subset: NDArray[np.intp], kind: str) -> Floats:
    """Distances of all samples from the surface through some."""
    return np.abs(samples[:, 2] - _evaluate(samples[subset], samples[:, :2], kind, 0.0))


def _best_smoothing(samples: Floats) -> tuple[str, float]:
    if len(samples) == 1:
        return "constant", 0.0
    if len(samples) < FEWEST_FOR_SPLINE or _degenerate(samples):
        return "plane", 0.0
    choices = _choices(samples)
    squares = [np.square(_left_out(samples, *choice)) for choice in choices]
    best = min(squares, key=lambda values: float(values.mean()))
    enough = best.mean() + STIFFER_ERRORS * best.std() / np.sqrt(len(samples))
    return next(c for c, values in zip(choices, squares, strict=True) if values.mean() <= enough)


def _choices(samples: Floats) -> list[tuple[str, float]]:
    """Kinds of surface and their smoothing, the stiffest first; slides sag, so a plane is a last
    resort."""
    stiffest = "quadratic" if len(samples) >= FEWEST_FOR_QUADRATIC else "plane"
    return [(stiffest, 0.0), *(("spline", smoothing) for smoothing in SMOOTHINGS)]


def _degenerate(samples: Floats) -> bool:
    """Samples on one line, of which a spline knows nothing."""
    return bool(np.linalg.matrix_rank(samples[:, :2] - samples[0, :2], tol=1e-3) < 2)


def _left_out(samples: Floats, kind: str, smoothing: float) -> Floats:
    """For each sample, its distance from the surface through all others."""
    if len(samples) < 2:
        return np.zeros(1)
    others = [np.delete(samples, index, axis=0) for index in range(len(samples))]
    return np.array(
        [
            abs(sample[2] - _evaluate(rest, sample[None, :2], kind, smoothing)[0])
            for sample, rest in zip(samples, others, strict=True)
        ]
    )


def _evaluate(samples: Floats, at: Floats, kind: str, smoothing: float) -> Floats:
    """Heights at positions (n, 2); coordinates are scaled to the samples' extent."""
    if kind == "constant":
        return np.full(len(at), samples[0, 2])
    origin = samples[:, :2].min(axis=0)
    extent = max(float(np.ptp(samples[:, :2], axis=0).max()), 1e-9)
    known, wanted = (samples[:, :2] - origin) / extent, (at - origin) / extent
    if kind == "plane" or _degenerate(known):
        return _least_squares(known, samples[:, 2], wanted, _linear)
    if kind == "quadratic":
        return _least_squares(known, samples[:, 2], wanted, _quadratic)
    return np.asarray(RBFInterpolator(known, samples[:, 2], smoothing=smoothing)(wanted))


def _least_squares(
    known: Floats, heights: Floats, wanted: Floats, terms: Callable[[Floats], Floats]
) -> Floats:
    """Least squares about the mean; samples on one line give the flattest surface through it."""
    centre = known.mean(axis=0)
    basis = terms(known - centre)
    mean = basis.mean(axis=0)
    slopes = np.linalg.lstsq(basis - mean, heights - heights.mean(), rcond=1e-6)[0]
    return np.asarray(heights.mean() + (terms(wanted - centre) - mean) @ slopes)


def _linear(at: Floats) -> Floats:
    return at


def _quadratic(at: Floats) -> Floats:
    x, y = at.T
    return np.column_stack([x, y, x * x, x * y, y * y])
