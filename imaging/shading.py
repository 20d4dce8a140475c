"""Shading: how unevenly a field is lit, estimated from frames of several places.

The logarithm of each frame is fitted as a level of its own plus a polynomial that all frames share.
Levels and robust weights together keep the specimen out of it; a mean or a median over as few
frames does not. The dark must be known: an offset that is left in costs more than any estimator.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray

from scan.errors import ShadingError

AREA_PX = 16  # areas of this width are read by their median, free of noise and small things
MIN_AREAS = 16  # along the shorter side; smaller frames have smaller areas
MIN_PLACES = 6  # with fewer, the specimen shows through
DEGREES = (2, 4, 6)  # of the polynomial
MANY_PLACES = 12  # with fewer, the highest degree follows the specimen
FOLDS = 3  # of the places, each left out once
SAME_LOSS = 1.003  # a higher degree must predict places that were left out better than this
MAX_SCATTER = 0.03  # between a flat of two thirds of the places and one of the others
MIN_LIGHT = 1.0  # above the dark, in deviations of a pixel's noise
MIN_LEVELS = 50.0  # above the dark, where noise does not hide rounding: that is 1 % of it
ROUNDS = 30  # of reweighting
FAR = 2.0  # residual, in deviations, at which an area has a quarter of its weight
MIN_DEVIATION = 1e-4  # of residuals of log light
NORMAL = 1.4826  # deviation of a normal distribution over its median of |x|

Image = NDArray[Any]
Floats = NDArray[np.float64]


class FlatFit(NamedTuple):
    """A flat (y, x) float32 of mean 1, its polynomial's degree and its scatter.

    The scatter is the relative difference, root mean square, between flats of two thirds of the
    places and of the others: about twice the error of a flat of all places.
    """

    flat: NDArray[np.float32]
    degree: int
    scatter: float


def estimate_flat(planes: Sequence[Image], dark: Image | None = None) -> FlatFit:
    """Estimate how light is spread over the field from frames of several places.

    Parameters
    ----------
    planes : sequence of (y, x) arrays of any real dtype
        One frame of each place, all of one shape.
    dark : (y, x) array, optional
        The camera's signal without light, in grey levels; by default 0.

    Raises
    ------
    ShadingError
        If the frames do not tell: too few places, no light over the dark, light that is rounded
        away, or flats of different places that differ by more than `MAX_SCATTER`.
    """
    if len(planes) < MIN_PLACES:
        raise _refusal(f"at least {MIN_PLACES} places", f"{len(planes)}")
    light = np.stack([_area_medians(plane - _or_zero(dark)) for plane in planes])
    _require_light(light, planes)
    logs = np.log(np.maximum(light, 1e-3 * np.median(light))).reshape(len(planes), -1)
    degree = _best_degree(logs, light.shape[1:])
    basis = _basis(light.shape[1:], degree)
    scatter = _scatter(logs, basis)
    if scatter > MAX_SCATTER:
        expected = f"places that agree within {100 * MAX_SCATTER:g} %"
        raise _refusal(expected, f"a scatter of {100 * scatter:.1f} % between them")
    flat = _flat(_fit(logs, basis).shared, degree, planes[0].shape)
    return FlatFit(flat, degree, scatter)


def _or_zero(dark: Image | None) -> Any:
    return np.float32(0) if dark is None else dark.astype(np.float32)


def _refusal(expected: str, got: str) -> ShadingError:
    hint = "measure a flat and name its file, or leave flat_field out"
    return ShadingError('flat_field = "estimate"', expected, got, hint)


def _area_medians(plane: Image) -> Floats:
    """Return medians (rows, columns) of square areas; what is left at the rims is ignored."""
    edge = max(1, min(AREA_PX, min(plane.shape) // MIN_AREAS))
    rows, columns = (size // edge for size in plane.shape)
    areas = plane[: rows * edge, : columns * edge].reshape(rows, edge, columns, edge)
    pixels = np.moveaxis(areas, 2, 1).reshape(rows, columns, edge * edge)
    return np.asarray(np.median(pixels, axis=2), np.float64)


def _require_light(light: Floats, planes: Sequence[Image]) -> None:
    level = float(np.median(light))
    noise = float(np.median([_noise(plane) for plane in planes]))
    rounded = np.issubdtype(planes[0].dtype, np.integer) and noise < 1
    if level <= 0 or level < MIN_LIGHT * noise or (rounded and level < MIN_LEVELS):
        got = f"{level:.3g} grey levels, with noise of {noise:.3g}"
        raise _refusal("light over the dark", got)


def _noise(plane: Image) -> float:
    """Return the deviation of a pixel's noise, from second differences along rows."""
    row = plane[::4].astype(np.float32)
    second = row[:, 2:] - 2 * row[:, 1:-1] + row[:, :-2]
    return float(NORMAL * np.median(np.abs(second)) / np.sqrt(6))


def _powers(degree: int) -> tuple[NDArray[np.intp], ...]:
    """Return the powers of y and of x of all terms up to a total degree but the constant one."""
    y, x = np.indices((degree + 1, degree + 1))
    return np.nonzero((y + x > 0) & (y + x <= degree))


def _legendre(size: int, degree: int) -> Floats:
    """Return Legendre polynomials (pixels, degree + 1) at pixel centres, from -1 to 1."""
    return np.asarray(legvander(np.linspace(-1 + 1 / size, 1 - 1 / size, size), degree))


@lru_cache(maxsize=8)
def _basis(shape: tuple[int, ...], degree: int) -> Floats:
    """Return the terms of the polynomial (pixels, terms)."""
    along_y, along_x = (_legendre(size, degree) for size in shape)
    terms = [np.outer(along_y[:, y], along_x[:, x]) for y, x in zip(*_powers(degree), strict=True)]
    return np.stack([term.ravel() for term in terms], axis=1)


class _Fit(NamedTuple):
    shared: Floats  # coefficients of the polynomial
    deviation: float  # of residuals


def _fit(logs: Floats, basis: Floats) -> _Fit:
    """Fit a level for each place and one polynomial by reweighted least squares.

    Weights are those of Geman and McClure, 1/(1 + u²)². The deviation is that of the narrower side
    of the residuals, since objects lie on one side of their ground.
    """
    level, shared = np.median(logs, axis=1), np.zeros(basis.shape[1])
    deviation = 0.0
    for _ in range(ROUNDS):
        rest = logs - level[:, None] - basis @ shared
        deviation = max(NORMAL * _narrower_side(rest), MIN_DEVIATION)
        weight = 1 / np.square(1 + np.square(rest / (FAR * deviation)))
        total = weight.sum(axis=1)
        mean_log, mean_basis = (weight * logs).sum(axis=1) / total, weight @ basis / total[:, None]
        # Normal equations of the polynomial, with each place's level eliminated.
        squares = (basis * weight.sum(axis=0)[:, None]).T @ basis
        squares -= (mean_basis * total[:, None]).T @ mean_basis
        both = basis.T @ (weight * logs).sum(axis=0) - mean_basis.T @ (total * mean_log)
        ridge = 1e-9 * np.trace(squares) * np.eye(len(squares))
        shared = np.linalg.solve(squares + ridge, both)
        level = mean_log - mean_basis @ shared
    return _Fit(shared, deviation)


def _narrower_side(rest: Floats) -> float:
    """Return the median distance from 0 of the residuals above it, or of those below, if less."""
    sides = [np.abs(rest[side]) for side in (rest > 0, rest < 0) if side.any()]
    return min((float(np.median(side)) for side in sides), default=0.0)


def _folds(places: int) -> list[NDArray[np.bool_]]:
    return [np.arange(places) % FOLDS == fold for fold in range(FOLDS)]


def _best_degree(logs: Floats, shape: tuple[int, ...]) -> int:
    """Return the lowest degree that predicts places that were left out about as well as any."""
    degrees = DEGREES if len(logs) >= MANY_PLACES else DEGREES[:-1]
    deviation = _fit(logs, _basis(shape, degrees[-1])).deviation
    losses = [_left_out_loss(logs, _basis(shape, degree), deviation) for degree in degrees]
    best = min(losses)
    return next(d for d, loss in zip(degrees, losses, strict=True) if loss <= SAME_LOSS * best)


def _left_out_loss(logs: Floats, basis: Floats, deviation: float) -> float:
    """Return the bounded loss of places predicted by the polynomial of the others."""
    total = 0.0
    for out in _folds(len(logs)):
        rest = logs[out] - basis @ _fit(logs[~out], basis).shared
        rest -= np.median(rest, axis=1)[:, None]
        far = np.square(rest / (FAR * deviation))
        total += float((far / (1 + far)).sum())
    return total


def _scatter(logs: Floats, basis: Floats) -> float:
    """Return how much flats of a third of the places differ from those of the others."""
    apart = [
        basis @ (_fit(logs[out], basis).shared - _fit(logs[~out], basis).shared)
        for out in _folds(len(logs))
    ]
    return float(np.sqrt(np.mean([np.var(difference) for difference in apart])))


def _flat(shared: Floats, degree: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    factors = np.zeros((degree + 1, degree + 1))
    factors[_powers(degree)] = shared
    along_y, along_x = (_legendre(size, degree) for size in shape)
    flat = np.exp(along_y @ factors @ along_x.T)
    return np.asarray(flat / flat.mean(), np.float32)
