"""Autofocus: sharpness of planes, and the peak of a sweep.

A peak is accepted if it exceeds the noise, does not lie at the sweep's edge and has no secondary
peak: dirt on another plane may look as sharp as the specimen, and one field cannot distinguish
them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scan.focusing import FocusPeak

Floats = NDArray[np.float64]

MIN_CONTRAST = 6.0  # of an accepted peak above the sweep's floor, in noise deviations
PEAK_FLOOR = 0.2  # of the peak: lower planes contribute little to its position
SHORT_PEAK_FLOOR = 0.05  # of the peak, in a sweep that is too short for two planes
FAINTEST = 0.01  # of the peak: planes below count as much
SECONDARY_PEAK_SHARE = 1 / 3  # of the peak: a field with one plane stays below 0.3 elsewhere
SECONDARY_PEAK_UM = 10.0  # nearer peaks are relief, or contrast that reverses at focus
VOTING_DEVIATIONS = 8.0  # noise alone gives a vote in fewer than 1 of 1000 sweeps
FINE_VOTING_POWER = 3  # of 1 to 3 the nearest to the mean height of few cells
MAX_CROPS = 6
CROPPED_PIXELS = 2e6  # of all crops together
TILE_PX = 32  # of binned pixels: the size of a few cells


def sharpness(frames: NDArray[np.generic], *, fine: bool = False) -> tuple[Floats, float]:
    """Measure the sharpness of each plane: every tile with contrast votes for its best plane.

    Brenner's gradient (Brenner et al. 1976, J. Histochem. Cytochem. 24:100) of 2x2-binned planes,
    divided by the squared light above the darkest part, which cancels lamp flicker between planes.
    Each tile's curve is divided by its maximum, so one bright object does not outvote the rest of
    the field. Only the part above the curve's median counts, in a fine sweep above its minimum, as
    no plane is far from focus. Votes are weighted by the logarithm of the energy, so tiles that
    show only the glow of others do not outvote the few with objects; in a fine sweep by a power of
    it, since an object that lies on another plane is not sharp there.

    Parameters
    ----------
    frames : (z, y, x) array of any real dtype
        A focus sweep.
    fine : bool
        Whether the sweep covers the neighbourhood of the focus alone.

    Returns
    -------
    curve : (z,) float64
        0 to 1, without the expected contribution of noise; all zero if no tile has contrast.
    noise : float
        Standard deviation of the curve due to pixel noise.
    """
    energy, floor, pixels = _tile_energy(np.stack([_bin(plane) for plane in frames]))
    deviation = floor * np.sqrt(4 / pixels)  # chi-square; each pixel contributes to two differences
    energy = energy[:, energy.max(axis=0) > VOTING_DEVIATIONS * deviation]
    if not energy.size:
        return np.zeros(len(frames)), 1.0
    greatest = energy.max(axis=0)
    weight = np.log(greatest / deviation) ** (FINE_VOTING_POWER if fine else 1)
    weight /= weight.sum()  # each is at least log 8
    base = energy.min(axis=0) if fine else np.median(energy, axis=0)
    risen = np.maximum(energy - base, 0)
    curve = risen / greatest @ weight
    noise = float(np.linalg.norm(weight * deviation / greatest))
    return curve, max(noise, 1e-9)


def crops(planes: Sequence[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
    """Return the centres of some planes: enough to estimate statistics, few enough to be fast."""
    some = planes[:: -(-len(planes) // MAX_CROPS)]
    edge = int((CROPPED_PIXELS / len(some)) ** 0.5)
    return [
        plane[center_slice(plane.shape[0], edge), center_slice(plane.shape[1], edge)]
        for plane in some
    ]


def center_slice(length: int, wanted: int) -> slice:
    """Return a slice of the central `wanted` of `length` pixels, or of all if there are fewer."""
    start = max(0, length - wanted) // 2
    return slice(start, start + min(length, wanted))


def _tile_energy(binned: Floats) -> tuple[Floats, float, int]:
    """Return the energy (z, tile) above the noise floor, the floor, and the pixels of a tile."""
    light = _light(binned)
    noise = np.median([_noise_energy(plane) for plane in binned])
    floor = float(noise / np.median(light) ** 2) + 1e-12
    steps = np.square(binned[:, :, 2:] - binned[:, :, :-2]) / light[:, None, None] ** 2
    tile = min(TILE_PX, *steps.shape[1:])
    down, across = steps.shape[1] // tile, steps.shape[2] // tile
    tiles = steps[:, : down * tile, : across * tile].reshape(-1, down, tile, across, tile)
    return tiles.mean(axis=(2, 4)).reshape(len(binned), -1) - floor, floor, tile**2


def _light(binned: Floats) -> Floats:
    """Return the mean light (z,) of each plane without the camera's offset.

    A changing lamp moves a plane's mean and its first percentile along one line, which meets the
    identity line at the offset. With a steady lamp any offset is valid.
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
    """Return twice the noise variance, from second differences, where smooth structure is small."""
    second = plane[:, 2:] - 2 * plane[:, 1:-1] + plane[:, :-2]
    deviation = 1.4826 * np.median(np.abs(second)) / np.sqrt(6)
    return float(2 * deviation**2)


def find_peak(z_um: Sequence[float], curve: Sequence[float], noise: float) -> FocusPeak:
    """Find the height of greatest sharpness, between planes, or the reason to reject it.

    Parameters
    ----------
    z_um : sequence of float
        Rising heights of the sweep, in um.
    curve, noise :
        From `sharpness`.
    """
    heights, values = np.asarray(z_um, np.float64), np.asarray(curve, np.float64)
    best = int(np.argmax(values))
    contrast = (values[best] - np.median(values)) / noise
    if contrast < MIN_CONTRAST:
        reason = f"no contrast: {contrast:.1f} noise deviations, {MIN_CONTRAST:g} needed"
        return FocusPeak(z_um[best], reason=reason)
    if best in (0, len(values) - 1):
        return FocusPeak(z_um[best], at_edge=True, reason="sharpest at the edge of the sweep")
    rise, secondary = _secondary_peak(heights, values, best)
    if rise > max(SECONDARY_PEAK_SHARE * values[best], MIN_CONTRAST * noise):
        reason = f"two planes are sharp: {z_um[best]:g} um and {z_um[secondary]:g} um"
        return FocusPeak(z_um[best], at_edge=secondary in (0, len(values) - 1), reason=reason)
    return FocusPeak(_top(heights, values, best))


def _secondary_peak(z_um: Floats, values: Floats, best: int) -> tuple[float, int]:
    """Return how far the curve rises again beyond a valley, away from its peak, and its plane."""
    far = np.flatnonzero(np.abs(z_um - z_um[best]) > SECONDARY_PEAK_UM)
    valleys = [values[min(plane, best) : max(plane, best)].min() for plane in far]
    rises = [(values[plane] - low, int(plane)) for plane, low in zip(far, valleys, strict=True)]
    return max(rises, default=(0.0, best))


def _top(z_um: Floats, values: Floats, best: int) -> float:
    """Return the lowest point of a parabola through 1 / sqrt(sharpness) around the peak.

    A point that is blurred by a Gaussian of sigma has a gradient energy of sigma^-4 (its height
    falls as sigma^-2, its slope by one more, its area grows as sigma^2), and sigma^2 grows as the
    square of defocus. In a field with relief objects peak at different planes, and three planes
    would follow only the sharpest object.
    """
    short = z_um[-1] - z_um[0] < SECONDARY_PEAK_UM  # dirt on another plane is out of reach
    low = values < (SHORT_PEAK_FLOOR if short else PEAK_FLOOR) * values[best]
    first = min(best - 1, int(np.flatnonzero(low[:best]).max(initial=-1)) + 1)
    last = max(best + 1, best + int(np.argmax(np.r_[low[best:], True])) - 1)
    part = slice(first, last + 1)
    share = np.maximum(values[part] / values[best], FAINTEST)  # two of three planes may be at 0
    bend, slope, _ = np.polyfit(z_um[part] - z_um[best], share**-0.5, 2, w=share)
    center_um = z_um[best] - slope / (2 * bend) if bend > 0 else z_um[best]
    return float(np.clip(center_um, z_um[first], z_um[last]))
