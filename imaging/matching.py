"""How far two fields lie apart, other than the stage says: the shift that their overlap shows.

1. search   normalised correlation (NCC) of the smoothed overlaps at all whole shifts: five peaks
2. judge    the same from the pixels themselves at each peak, climbed to its summit
3. accept   if the summit is high, is within reach, stands alone, and its predicted scatter is small

The NCC of what both show, at each shift, also finds what lies at the border of an overlap, which a
phase correlation under a window does not see (Lewis 1995, "Fast normalized cross-correlation").

An overlap in which there is nothing to see fails the third step by itself, so no mask is needed.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from scan.matches import Match

Array = NDArray[Any]
Floats = NDArray[np.float32]
Region = tuple[slice, slice]

SMOOTHING_PX = 1.5  # before pixels are compared; 1 loses a fifth of noisy matches
BINNED_FROM_PX = 96  # wider overlaps are compared in bins of 2 x 2: a quarter of the time
BINNED_SMOOTHING = 0.75  # in bins
MARGIN = 2.5  # smoothing sigmas at the border, where the filter lacks pixels
PEAKS = 5  # of the search that are judged
APART = 3  # peaks closer than that are one
MIN_SPREAD = 1e-3  # of the contrast of the strips: less in common is noise, and of transforms too
REACH = 0.6  # of the overlap: a larger shift leaves too little in common
MAX_REACH_PX = 80
MIN_SIDE = 6  # of what two fields have in common
MIN_NCC = 0.3
MIN_LEAD = 0.15  # of the summit over the next, as a difference of atanh(NCC)
MAX_SCATTER_PX = 0.3
DECIMALS = 4  # of a match: the journal has the very numbers by which positions are found

STEPS = (-1, 0, 1)
_Y, _X = np.repeat(STEPS, 3).astype(float), np.tile(STEPS, 3).astype(float)
# least squares of c + d y + e x + f y^2 + g x^2 + h y x at nine points
PARABOLOID = np.linalg.pinv(np.stack([np.ones(9), _Y, _X, _Y**2, _X**2, _Y * _X], axis=1))


class Strip(NamedTuple):
    """The part of a field that its neighbour may see: pixels, and where the first lies in it."""

    pixels: Array
    corner: tuple[int, int]


class _View(NamedTuple):
    """A strip as it is compared: binned, smoothed, without the margins of the filter.

    `corner` is where its first pixel lies from the first pixel of the first field if the stage is
    right, in bins.
    """

    pixels: Floats
    corner: tuple[int, int]


def reach_of(overlap_px: int) -> int:
    """Return by how many pixels two fields may be displaced that overlap by so many."""
    return min(int(REACH * overlap_px), MAX_REACH_PX)


def overlap_of(shape: tuple[int, int], step: tuple[int, int]) -> tuple[int, int]:
    """Return how many rows and columns two frames have in common which lie `step` apart."""
    return shape[0] - abs(step[0]), shape[1] - abs(step[1])


def strip_of_first(shape: tuple[int, int], step: tuple[int, int]) -> Region:
    """Return the part of a frame that another may show whose first pixel lies `step` from its own.

    It is the overlap, and inwards as much more as the fields may be closer than they should.
    """
    reach = reach_of(min(overlap_of(shape, step)))
    rows, columns = (_span(size, move, reach) for size, move in zip(shape, step, strict=True))
    return rows, columns


def _span(size: int, move: int, reach: int) -> slice:
    if move > 0:
        return slice(max(move - reach, 0), size)
    return slice(0, min(size + move + reach, size))


def cut(image: Array, step: tuple[int, int]) -> Strip:
    """Cut the strip out of a field (y, x) that the field `step` away may show."""
    rows, columns = strip_of_first(image.shape, step)
    return Strip(image[rows, columns], (rows.start, columns.start))


def match(
    first: Strip, second: Strip, step: tuple[int, int], shape: tuple[int, int]
) -> Match | None:
    """Return the shift that two strips show; None if they do not show enough.

    Parameters
    ----------
    first, second : Strip
        Cut out of the two fields by `cut`, (y, x) of any real dtype.
    step : (int, int)
        From the first pixel of the first field to that of the second, as the stage says.
    shape : (int, int)
        Of the frames.
    """
    overlap = min(overlap_of(shape, step))
    bins = 2 if overlap >= BINNED_FROM_PX else 1
    reach = reach_of(overlap) // bins
    corner = second.corner[0] + step[0], second.corner[1] + step[1]
    a, b = _view(first, bins), _view(Strip(second.pixels, corner), bins)
    if not (a and b and reach):
        return None
    pair = _Pair(a, b, reach)
    (ncc, best), *rivals = pair.summits()
    if max(map(abs, best)) >= reach:  # it may rise beyond
        return None
    if ncc < MIN_NCC or not all(_leads(ncc, rival) for rival, _ in rivals):
        return None
    covariance = bins**2 * pair.covariance(best, _sigma(bins))
    if not np.linalg.eigvalsh(covariance)[-1] <= MAX_SCATTER_PX**2:
        return None
    down, across = (round(float(value), DECIMALS) for value in bins * pair.refined(best))
    down2, across2, both = (round(float(covariance[k]), 8) for k in ((0, 0), (1, 1), (0, 1)))
    return Match((down, across), (down2, across2, both), round(ncc, DECIMALS))


def _leads(best: float, rival: float) -> bool:
    """Whether a correlation is clearly higher than another."""
    return math.atanh(min(best, 1 - 1e-6)) - math.atanh(min(max(rival, 0), 1 - 1e-6)) > MIN_LEAD


def _sigma(bins: int) -> float:
    """The smoothing in bins."""
    return SMOOTHING_PX if bins == 1 else BINNED_SMOOTHING


def _view(strip: Strip, bins: int) -> _View | None:
    """Bin and smooth a strip; None if nothing is left of it."""
    first = tuple(-corner % bins for corner in strip.corner)  # bins of both fields coincide
    pixels = strip.pixels[first[0] :, first[1] :]
    rows, columns = (size // bins for size in pixels.shape)
    margin = math.ceil(MARGIN * _sigma(bins))
    if min(rows, columns) < 2 * margin + MIN_SIDE:
        return None
    pixels = pixels[: rows * bins, : columns * bins].astype(np.float32)
    if bins > 1:
        pixels = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_AREA)
    pixels = cv2.GaussianBlur(pixels, (0, 0), _sigma(bins))[margin:-margin, margin:-margin]
    corner = [(c + f) // bins + margin for c, f in zip(strip.corner, first, strict=True)]
    return _View(pixels - pixels.mean(), (corner[0], corner[1]))


class _Pair:
    """Two views and their correlation at whole shifts up to a reach."""

    def __init__(self, a: _View, b: _View, reach: int) -> None:
        self._views, self._reach = (a, b), reach
        self._integrals = [cv2.integral2(view.pixels, sdepth=cv2.CV_64F) for view in (a, b)]
        self._known: dict[tuple[int, int], float] = {}

    def summits(self) -> list[tuple[float, tuple[int, int]]]:
        """The summit of the NCC at the best peak of the search, then what rivals it."""
        best, *others = sorted(self._search(), key=self.ncc, reverse=True) or [(0, 0)]
        best = self._climbed(best)
        summits = {best}
        for peak in others:  # what is clearly lower needs no climb
            high = _leads(self.ncc(best), self.ncc(peak))
            summits.add(peak if high else self._climbed(peak))
        return sorted(((self.ncc(summit), summit) for summit in summits), reverse=True)

    def ncc(self, shift: tuple[int, int]) -> float:
        """Normalised cross-correlation of what the views have in common; -1 if that is nothing."""
        if shift not in self._known:
            self._known[shift] = self._ncc(shift)
        return self._known[shift]

    def refined(self, best: tuple[int, int]) -> NDArray[np.float64]:
        """The summit of a paraboloid through the NCC around its greatest whole shift."""
        y, x = best
        around = np.array([[self.ncc((y + v, x + u)) for u in STEPS] for v in STEPS])
        _, down, across, down2, across2, both = PARABOLOID @ around.ravel()
        curvature = np.array([[2 * down2, both], [both, 2 * across2]])
        if around.min() < 0 or np.linalg.det(curvature) <= 0:
            return np.array(best, float)
        return best + np.clip(np.linalg.solve(curvature, [-down, -across]), -1, 1)

    def covariance(self, shift: tuple[int, int], sigma: float) -> NDArray[np.float64]:
        """The least covariance (2, 2) that noise allows: Cramér-Rao, for smoothed noise.

        Gradients are those that both views share, so those of noise have no part in it.
        """
        parts = self._parts(shift)
        seen = [view.pixels[part] for view, part in zip(self._views, parts, strict=True)]
        slopes_a, slopes_b = map(_slopes, seen)
        shared = np.array([[np.einsum("ij,ij", p, q) for q in slopes_b] for p in slopes_a], float)
        sums, count = map(_sums, self._integrals, parts), seen[0].size
        own, other = (_spread(total, squares, count) / count for total, squares in sums)
        shared = (shared + shared.T) / 2 / math.sqrt(own * other)
        noise = 2 * max(1 - self.ncc(shift), 1e-6) * 4 * math.pi * sigma**2
        if np.linalg.eigvalsh(shared)[0] <= 0:
            return np.diag([1e6, 1e6])
        return noise * np.linalg.inv(shared)

    def _ncc(self, shift: tuple[int, int]) -> float:
        if max(map(abs, shift)) > self._reach:
            return -1.0
        parts = self._parts(shift)
        a, b = (view.pixels[part] for view, part in zip(self._views, parts, strict=True))
        if min(a.shape) < MIN_SIDE:
            return -1.0
        (sum_a, squares_a), (sum_b, squares_b) = map(_sums, self._integrals, parts)
        both = float(np.einsum("ij,ij", a, b)) - sum_a * sum_b / a.size
        own, other = _spread(sum_a, squares_a, a.size), _spread(sum_b, squares_b, a.size)
        return both / math.sqrt(own * other) if min(own, other) > 0 else -1.0

    def _parts(self, shift: tuple[int, int]) -> tuple[Region, Region]:
        """Where in each view lies what both show if the second is farther away by a shift."""
        bounds = [self._bounds(axis, self._apart(axis) + shift[axis]) for axis in (0, 1)]
        first, second = ([slice(*bound[k]) for bound in bounds] for k in (0, 1))
        return (first[0], first[1]), (second[0], second[1])

    def _apart(self, axis: int) -> int:
        """From the first pixel of the first view to that of the second if the stage is right."""
        return self._views[1].corner[axis] - self._views[0].corner[axis]

    def _bounds(self, axis: int, apart: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Where in each view, along an axis, begins and ends what both show."""
        first, second = (view.pixels.shape[axis] for view in self._views)
        start, stop = max(apart, 0), min(first, second + apart)
        if stop <= start:
            return (0, 0), (0, 0)
        return (start, stop), (start - apart, stop - apart)

    def _search(self) -> list[tuple[int, int]]:
        """The highest peaks of the NCC, as whole shifts."""
        reach = self._reach
        return [(y - reach, x - reach) for y, x in _peaks(self._surface())]

    def _surface(self) -> Floats:
        """The NCC at all whole shifts up to the reach, in single precision; -1 if little is common.

        Products are summed by Fourier transform, the sums of parts come from integral images.
        """
        shifts = np.arange(-self._reach, self._reach + 1)
        apart = [self._apart(axis) + shifts for axis in (0, 1)]
        bounds = [np.array([self._bounds(k, a) for a in apart[k].tolist()]) for k in (0, 1)]
        sides = [each[:, 0, 1] - each[:, 0, 0] for each in bounds]
        size = np.maximum(np.outer(*sides), 1)
        sums, spreads = [], []
        for k, integrals in enumerate(self._integrals):
            rows, columns = (each[:, k] for each in bounds)
            total, squares = (_sums_of(each, rows, columns) for each in integrals)
            sums.append(total)
            spreads.append(np.maximum(_spread(total, squares, size), 0))
        spread = np.sqrt(spreads[0] * spreads[1])
        least = MIN_SPREAD * math.sqrt(math.prod(i[1][-1, -1] for i in self._integrals))
        seen = (np.minimum.outer(*sides) >= MIN_SIDE) & (spread > least)
        both = self._products(*apart) - sums[0] * sums[1] / size
        return np.asarray(np.where(seen, both / np.where(seen, spread, 1), -1), np.float32)

    def _products(self, *apart: Array) -> Floats:
        """Sums of the products of pixels, at all whole steps (y, x) from view to view."""
        views, size = self._views, []
        for axis, steps in enumerate(apart):
            first, second = (view.pixels.shape[axis] for view in views)
            least = max(first - steps[0], second + steps[-1])  # or both ends would meet
            size.append(fft.next_fast_len(int(least), real=True))
        rows = (fft.rfft(view.pixels, n=size[1]) for view in views)
        one, other = (fft.fft(each, n=size[0], axis=0) for each in rows)
        # a negative step counts from the end
        sums = fft.ifft(one * np.conj(other), axis=0)[apart[0]]
        return np.asarray(fft.irfft(sums, n=size[1])[:, apart[1]])

    def _climbed(self, shift: tuple[int, int]) -> tuple[int, int]:
        """The summit of the NCC uphill from a shift."""
        while True:
            y, x = shift
            around = [(y + v, x + u) for v in STEPS for u in STEPS]
            ncc, best = max((self.ncc(each), each) for each in around)
            if ncc <= self.ncc(shift):
                return shift
            shift = best


def _sums_of(integral: Array, rows: Array, columns: Array) -> Array:
    """Sums over parts of a view: each (first, last + 1) of the rows with each of the columns."""
    along = integral[rows[:, 1]] - integral[rows[:, 0]]
    return np.asarray(along[:, columns[:, 1]] - along[:, columns[:, 0]])


def _sums(integrals: Sequence[Array], part: Region) -> list[float]:
    """Sums of pixels and of their squares over a part of a view."""
    top, bottom, left, right = part[0].start, part[0].stop, part[1].start, part[1].stop
    return [
        float(i[bottom, right] - i[top, right] - i[bottom, left] + i[top, left]) for i in integrals
    ]


def _spread(total: Any, squares: Any, count: Any) -> Any:
    """Sum of squares about the mean, from the sums of numbers and of their squares."""
    return squares - total**2 / count


def _peaks(surface: Floats) -> list[tuple[int, int]]:
    """The highest local maxima, (row, column)."""
    side = 2 * APART + 1
    highest = cv2.dilate(surface, np.ones((side, side), np.uint8))
    rows, columns = np.nonzero((surface == highest) & (surface > 0))
    order = np.argsort(-surface[rows, columns], kind="stable")[:PEAKS]
    return [(int(rows[k]), int(columns[k])) for k in order]


def _slopes(pixels: Floats) -> list[Floats]:
    """Derivatives along y and x by central differences, without the border."""
    half = np.float32(0.5)
    down = half * (pixels[2:, 1:-1] - pixels[:-2, 1:-1])
    across = half * (pixels[1:-1, 2:] - pixels[1:-1, :-2])
    return [np.asarray(down, np.float32), np.asarray(across, np.float32)]
