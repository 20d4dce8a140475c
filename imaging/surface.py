"""The focus surface through the peaks of many sweeps.

It is robust: a sample on dust or on the wrong side of the cover glass is dropped, and told.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float64]

OUTLIER_UM = 4.0  # a sample this near the plane is never an outlier: bow and relief are real
OUTLIER_DEVIATIONS = 4.0
SUBSETS = 300  # with a fifth of the samples wrong, dozens of subsets are all right
TERMS = {"plane": 3, "quadratic": 6}
# A bend of so much per squared extent, 5 um from the middle to an edge, costs a fit as much as a
# sample that is 1 um off. A quadratic that bends at will passes through the last of three stripes
# wherever that lies: there two wrong samples of four would count as much as the two right ones.
BEND = 20.0
SMOOTHINGS = (1.0, 1e-1, 1e-2, 1e-3)  # of the thin-plate spline, on coordinates within 0 to 1
STIFFER_ERRORS = 1.0  # standard errors by which a stiffer surface may leave one out less well
FEWEST_FOR_SPLINE = 6
FEWEST_FOR_QUADRATIC = 9  # half again as many samples as it has coefficients


@dataclass(frozen=True, eq=False)
class FocusSurface:
    """A surface of best focus through the kept samples: constant, plane, quadratic or spline.

    `points` are (x_um, y_um, z_um) rows, `kept` tells which of them the surface goes through, and
    `residual_um` is the median distance of a kept sample from the surface fitted without it.
    """

    points: Floats
    kept: NDArray[np.bool_]
    kind: str
    smoothing: float
    residual_um: float

    def heights(self, x_um: Sequence[float], y_um: Sequence[float]) -> Floats:
        """Best focus in um at positions in um, never far beyond the kept samples."""
        samples = self.points[self.kept]
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
    return FocusSurface(samples, kept, kind, smoothing, residual)


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
    generator = np.random.default_rng(0)  # any subsets do, as long as they are the same each time
    subsets = (generator.choice(len(samples), terms, replace=False) for _ in range(SUBSETS))
    agreed = min(
        (_residuals(samples, subset, kind) for subset in subsets),
        key=lambda residuals: float(np.sort(residuals)[majority - 1]),
    )
    spread = 1.4826 * float(np.median(agreed))
    limit = max(OUTLIER_UM, OUTLIER_DEVIATIONS * spread)
    return _residuals(samples, np.flatnonzero(agreed <= limit), kind) <= limit


def _residuals(samples: Floats, subset: NDArray[np.intp], kind: str) -> Floats:
    """Distances of all samples from the surface through some."""
    return np.abs(samples[:, 2] - _evaluate(samples[subset], samples[:, :2], kind, 0.0))


def _best_smoothing(samples: Floats) -> tuple[str, float]:
    """The stiffest kind of surface, and its smoothing, that leaves one out about as well as any."""
    if len(samples) == 1:
        return "constant", 0.0
    if len(samples) < FEWEST_FOR_SPLINE or _degenerate(samples):
        return "plane", 0.0
    # Slides sag, so a plane is a last resort.
    stiffest = "quadratic" if len(samples) >= FEWEST_FOR_QUADRATIC else "plane"
    choices = [(stiffest, 0.0), *(("spline", smoothing) for smoothing in SMOOTHINGS)]
    squares = [np.square(_left_out(samples, *choice)) for choice in choices]
    best = min(squares, key=lambda values: float(values.mean()))
    enough = best.mean() + STIFFER_ERRORS * best.std() / np.sqrt(len(samples))
    return next(c for c, values in zip(choices, squares, strict=True) if values.mean() <= enough)


def _degenerate(samples: Floats) -> bool:
    """Samples on one line, of which a spline knows nothing."""
    return bool(np.linalg.matrix_rank(samples[:, :2] - samples[0, :2], tol=1e-3) < 2)


def _left_out(samples: Floats, kind: str, smoothing: float) -> Floats:
    """For each sample, its distance from the surface through all others."""
    if len(samples) < 2:
        return np.zeros(1)
    heights = [
        _evaluate(np.delete(samples, index, axis=0), samples[[index], :2], kind, smoothing)[0]
        for index in range(len(samples))
    ]
    return np.abs(samples[:, 2] - heights)


def _evaluate(samples: Floats, at: Floats, kind: str, smoothing: float) -> Floats:
    """Heights at positions (n, 2); coordinates are scaled to the samples' extent."""
    origin = samples[:, :2].min(axis=0)
    extent = max(float(np.ptp(samples[:, :2], axis=0).max()), 1e-9)
    known, wanted = (samples[:, :2] - origin) / extent, (at - origin) / extent
    if kind == "spline" and not _degenerate(known):
        return np.asarray(
            scipy.interpolate.RBFInterpolator(known, samples[:, 2], smoothing=smoothing)(wanted)
        )
    bent = kind == "quadratic" and not _degenerate(known)
    return _least_squares(known, samples[:, 2], wanted, bent)


def _least_squares(known: Floats, heights: Floats, wanted: Floats, bent: bool) -> Floats:
    """Least squares about the mean; samples on one line give the flattest surface through it.

    Bends are held back as a ridge does (Hoerl & Kennard 1970, Technometrics 12:55).
    """
    centre = known.mean(axis=0)
    basis = _terms(known - centre, bent)
    mean = basis.mean(axis=0)
    unbent = np.eye(basis.shape[1])[known.shape[1] :] / BEND
    rows = np.vstack([basis - mean, unbent])
    values = np.r_[heights - heights.mean(), np.zeros(len(unbent))]
    slopes = np.linalg.lstsq(rows, values, rcond=1e-6)[0]
    return np.asarray(heights.mean() + (_terms(wanted - centre, bent) - mean) @ slopes)


def _terms(at: Floats, bent: bool) -> Floats:
    x, y = at.T
    return np.column_stack([x, y, x * x, x * y, y * y]) if bent else at
