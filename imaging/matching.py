"""How far two fields lie apart, other than the stage says: the shift that their overlap shows.

1. search   cross-correlation of the overlaps, Laplacian of Gaussian, half whitened: five peaks
2. judge    normalised correlation (NCC) of the smoothed pixels at each peak, climbed to its summit
3. accept   if the summit is high, stands alone, and its predicted scatter is small

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
        parts = zip(self._views, self._parts(shift), strict=True)
        a, b = (_scaled(view.pixels[part]) for view, part in parts)
        slopes_a, slopes_b = _slopes(a), _slopes(b)
        shared = np.array([[np.einsum("ij,ij", p, q) for q in slopes_b] for p in slopes_a], float)
        shared = (shared + shared.T) / 2
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
        own, other = squares_a - sum_a**2 / a.size, squares_b - sum_b**2 / a.size
        return both / math.sqrt(own * other) if min(own, other) > 0 else -1.0

    def _parts(self, shift: tuple[int, int]) -> tuple[Region, Region]:
        """Where in each view lies what both show if the second is farther away by a shift."""
        a, b = [], []
        for axis in (0, 1):
            first, second = (view.pixels.shape[axis] for view in self._views)
            apart = self._views[1].corner[axis] + shift[axis] - self._views[0].corner[axis]
            start = max(apart, 0)
            stop = max(min(first, second + apart), start)
            a.append(slice(start, stop))
            b.append(slice(start - apart, stop - apart))
        return (a[0], a[1]), (b[0], b[1])

    def _search(self) -> list[tuple[int, int]]:
        """The highest peaks of the correlation, as whole shifts."""
        reach = self._reach
        first = np.min([view.corner for view in self._views], axis=0)
        last = np.max([np.add(view.corner, view.pixels.shape) for view in self._views], axis=0)
        size = [fft.next_fast_len(int(n) + reach, real=True) for n in last - first]
        spectra = []
        for view in self._views:
            canvas = np.zeros(size, np.float32)
            y, x = np.subtract(view.corner, first)
            rows, columns = view.pixels.shape
            canvas[y : y + rows, x : x + columns] = _edges(view.pixels)
            spectra.append(fft.rfft2(canvas))
        product = spectra[0] * np.conj(spectra[1])
        product /= np.sqrt(np.abs(product)) + np.float32(1e-12)  # half whitened
        surface = fft.irfft2(product, s=size)
        rolled = np.roll(surface, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
        return [(y - reach, x - reach) for y, x in _peaks(rolled)]

    def _climbed(self, shift: tuple[int, int]) -> tuple[int, int]:
        """The summit of the NCC uphill from a shift."""
        while True:
            y, x = shift
            around = [(y + v, x + u) for v in STEPS for u in STEPS]
            ncc, best = max((self.ncc(each), each) for each in around)
            if ncc <= self.ncc(shift):
                return shift
            shift = best


def _sums(integrals: Sequence[Array], part: Region) -> list[float]:
    """Sums of pixels and of their squares over a part of a view."""
    top, bottom, left, right = part[0].start, part[0].stop, part[1].start, part[1].stop
    return [
        float(i[bottom, right] - i[top, right] - i[bottom, left] + i[top, left]) for i in integrals
    ]


def _scaled(pixels: Floats) -> Floats:
    """Pixels in units of their standard deviation."""
    return np.asarray(pixels / (float(pixels.std()) or 1.0), np.float32)


def _edges(pixels: Floats) -> Floats:
    """The Laplacian under a window that fades towards the borders."""
    edges = cv2.Laplacian(pixels, cv2.CV_32F, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(edges * np.outer(*(_hann(size) for size in pixels.shape)), np.float32)


def _hann(size: int) -> Floats:
    return np.hanning(size + 2)[1:-1].astype(np.float32)


def _peaks(surface: Floats) -> list[tuple[int, int]]:
    """The highest local maxima, (row, column)."""
    side = 2 * APART + 1
    highest = cv2.dilate(surface, np.ones((side, side), np.uint8))
    rows, columns = np.nonzero((surface == highest) & (surface > 0))
    order = np.argsort(-surface[rows, columns], kind="stable")[:PEAKS]
    return [(int(rows[k]), int(columns[k])) for k in order]


def _slopes(pixels: Floats) -> list[Floats]:
    """Derivatives along y and x by central differences, without the border."""
    down = (pixels[2:, 1:-1] - pixels[:-2, 1:-1]) / 2
    across = (pixels[1:-1, 2:] - pixels[1:-1, :-2]) / 2
    return [np.asarray(down, np.float32), np.asarray(across, np.float32)]
