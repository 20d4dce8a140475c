"""The focus surface through the peaks of many sweeps.

The fit is robust: samples on dust or on the wrong side of the cover glass are dropped and reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from scan.focusing import surface_limits_um

Floats = NDArray[np.float64]

OUTLIER_UM = 4.0  # nearer samples are never outliers: bow and relief are real
OUTLIER_DEVIATIONS = 4.0
SUBSETS = 300  # with a fifth of the samples wrong, dozens of subsets have none
TERMS = {"plane": 3, "quadratic": 6}
# A bend of this much per squared extent, 5 um from the centre to an edge, costs a fit as much as a
# sample that is 1 um off. An unpenalised quadratic passes through the last of three stripes at any
# height: there two wrong samples of four would count as much as the two right ones.
BEND = 20.0
SMOOTHINGS = (1.0, 1e-1, 1e-2, 1e-3)  # of the thin-plate spline, for coordinates from 0 to 1
STIFFER_ERRORS = 1.0  # standard errors by which a stiffer surface may cross-validate worse
MIN_FOR_SPLINE = 6
MIN_FOR_QUADRATIC = 9  # 1.5 times its number of coefficients


@dataclass(frozen=True, eq=False)
class FocusSurface:
    """A surface of best focus through the kept samples: constant, plane, quadratic or spline.

    `points` are (x_um, y_um, z_um) rows, `kept` marks those that the fit uses, and `residual_um` is
    the median distance of a kept sample from the surface fitted without it.
    """

    points: Floats
    kept: NDArray[np.bool_]
    kind: str
    smoothing: float
    residual_um: float

    def heights(self, x_um: Sequence[float], y_um: Sequence[float]) -> Floats:
        """Return best focus in um at positions in um, limited to a margin around kept samples."""
        samples = self.points[self.kept]
        at = np.column_stack([x_um, y_um])
        heights = _evaluate(samples, at, self.kind, self.smoothing)
        return np.clip(heights, *surface_limits_um(samples[:, 2].tolist()))


def fit_surface(
    points: Sequence[tuple[float, float, float]], *, drop_outliers: bool = True
) -> FocusSurface:
    """Fit a robust surface to one or more samples (x_um, y_um, z_um).

    One sample gives a constant, up to five a plane; with more, cross-validation (leave one out)
    selects plane, quadratic or thin-plate spline. Outliers are dropped if there are enough samples
    to identify them; none is dropped of samples that are known to be right.
    """
    samples = np.asarray(points, np.float64)
    if len(samples) == 0:
        raise ValueError("expected at least one focus sample, got none; reject fewer samples")
    kept = _inliers(samples) if drop_outliers else np.ones(len(samples), bool)
    good = samples[kept]
    kind, smoothing = _best_smoothing(good)
    residual = float(np.median(_left_out(good, kind, smoothing)))
    return FocusSurface(samples, kept, kind, smoothing, residual)


def _inliers(samples: Floats) -> NDArray[np.bool_]:
    """Return which samples lie near the surface of the majority.

    Least quantile of squares over small subsets, then one refit (Rousseeuw & Leroy 1987, Robust
    Regression and Outlier Detection, chapters 3 and 5).
    """
    kind = "quadratic" if len(samples) >= MIN_FOR_QUADRATIC else "plane"
    terms = TERMS[kind]
    if len(samples) < max(MIN_FOR_SPLINE, terms + 2):
        return np.ones(len(samples), bool)
    majority = (len(samples) + terms + 1) // 2
    generator = np.random.default_rng(0)  # fixed seed: the same subsets each time
    subsets = (generator.choice(len(samples), terms, replace=False) for _ in range(SUBSETS))
    agreed = min(
        (_residuals(samples, subset, kind) for subset in subsets),
        key=lambda residuals: float(np.sort(residuals)[majority - 1]),
    )
    spread = 1.4826 * float(np.median(agreed))
    limit = max(OUTLIER_UM, OUTLIER_DEVIATIONS * spread)
    return _residuals(samples, np.flatnonzero(agreed <= limit), kind) <= limit


def _residuals(samples: Floats, subset: NDArray[np.intp], kind: str) -> Floats:
    """Return the distances of all samples from the surface through a subset."""
    return np.abs(samples[:, 2] - _evaluate(samples[subset], samples[:, :2], kind, 0.0))


def _best_smoothing(samples: Floats) -> tuple[str, float]:
    """Return the stiffest surface, and its smoothing, that cross-validates about as well as any."""
    if len(samples) == 1:
        return "constant", 0.0
    if len(samples) < MIN_FOR_SPLINE or _degenerate(samples):
        return "plane", 0.0
    # Slides sag, so a plane is chosen only with few samples.
    stiffest = "quadratic" if len(samples) >= MIN_FOR_QUADRATIC else "plane"
    choices = [(stiffest, 0.0), *(("spline", smoothing) for smoothing in SMOOTHINGS)]
    squares = [np.square(_left_out(samples, *choice)) for choice in choices]
    best = min(squares, key=lambda values: float(values.mean()))
    enough = best.mean() + STIFFER_ERRORS * best.std() / np.sqrt(len(samples))
    return next(c for c, values in zip(choices, squares, strict=True) if values.mean() <= enough)


def _degenerate(samples: Floats) -> bool:
    """Return whether samples lie on one line, which a spline cannot fit."""
    return bool(np.linalg.matrix_rank(samples[:, :2] - samples[0, :2], tol=1e-3) < 2)


def _left_out(samples: Floats, kind: str, smoothing: float) -> Floats:
    """Return for each sample its distance from the surface through all others."""
    if len(samples) < 2:
        return np.zeros(1)
    heights = [
        _evaluate(np.delete(samples, index, axis=0), samples[[index], :2], kind, smoothing)[0]
        for index in range(len(samples))
    ]
    return np.abs(samples[:, 2] - heights)


def _evaluate(samples: Floats, at: Floats, kind: str, smoothing: float) -> Floats:
    """Return heights at positions (n, 2); coordinates are scaled to the samples' extent."""
    origin = samples[:, :2].min(axis=0)
    extent = max(float(np.ptp(samples[:, :2], axis=0).max()), 1e-9)
    known, wanted = (samples[:, :2] - origin) / extent, (at - origin) / extent
    if kind == "spline" and not _degenerate(known):
        return np.asarray(
            scipy.interpolate.RBFInterpolator(known, samples[:, 2], smoothing=smoothing)(wanted)
        )
    bent = kind == "quadratic" and not _degenerate(known)
    return _least_squares(known, samples[:, 2], wanted, bent=bent)


def _least_squares(known: Floats, heights: Floats, wanted: Floats, *, bent: bool) -> Floats:
    """Fit by least squares about the mean; samples on a line give the flattest surface through it.

    Bends have a ridge penalty (Hoerl & Kennard 1970, Technometrics 12:55).
    """
    centre = known.mean(axis=0)
    basis = _terms(known - centre, bent=bent)
    mean = basis.mean(axis=0)
    unbent = np.eye(basis.shape[1])[known.shape[1] :] / BEND
    rows = np.vstack([basis - mean, unbent])
    values = np.r_[heights - heights.mean(), np.zeros(len(unbent))]
    slopes = np.linalg.lstsq(rows, values, rcond=1e-6)[0]
    return np.asarray(heights.mean() + (_terms(wanted - centre, bent=bent) - mean) @ slopes)


def _terms(at: Floats, *, bent: bool) -> Floats:
    x, y = at.T
    return np.column_stack([x, y, x * x, x * y, y * y]) if bent else at
