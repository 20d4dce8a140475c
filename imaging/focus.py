"""Autofocus: how sharp a plane is, and where a sweep peaks.

A peak is only believed when it stands out of the noise, does not lie at the sweep's edge, and has
no rival: dirt on another plane may look as sharp as the specimen, and a field by itself cannot tell
which is which.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAST_CONTRAST = 6.0  # a believed peak rises this many noise deviations above the sweep's floor
PEAK_FLOOR = 0.2  # of the peak: lower planes say little about where its top is
RIVAL_SHARE = 1 / 3  # of the peak: with one plane in the field, what rises elsewhere is below 0.3
RIVAL_UM = 10.0  # nearer, it is relief, or contrast that reverses on its way through focus
VOTING_DEVIATIONS = 8.0  # a tile that noise alone lets vote is rarer than one in a thousand sweeps
MOST_CROPS = 6
CROPPED_PIXELS = 2e6  # of all crops together
TILE_PX = 32  # of binned pixels: the size of a few cells


def sharpness(frames: NDArray[np.generic]) -> tuple[Floats, float]:
    """How sharp each plane is: every tile that shows anything votes for its own best plane.

    Brenner's gradient (Brenner et al. 1976, J. Histochem. Cytochem. 24:100) of 2x2-binned planes,
    over the squared light above the darkest part, so that a lamp that flickers between planes does
    no harm. Each tile's curve is divided by its greatest value, so that one bright object does not
    outvote the rest of the field; only what rises above the curve's median counts, and the vote
    weighs as the logarithm of the energy, so that tiles which only see the glow of others do not
    outvote the few that hold something.

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
    energy = energy[:, energy.max(axis=0) > VOTING_DEVIATIONS * deviation]
    if not energy.size:
        return np.zeros(len(frames)), 1.0
    greatest = energy.max(axis=0)
    weight = np.log(greatest / deviation)
    weight /= weight.sum()  # each is at least log 8
    risen = np.maximum(energy - np.median(energy, axis=0), 0)
    curve = risen / greatest @ weight
    noise = float(np.linalg.norm(weight * deviation / greatest))
    return curve, max(noise, 1e-9)


def crops(planes: Sequence[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
    """The middles of some planes: enough to know the specimen, few enough to look at soon."""
    some = planes[:: -(-len(planes) // MOST_CROPS)]
    edge = int((CROPPED_PIXELS / len(some)) ** 0.5)
    return [plane[middle(plane.shape[0], edge), middle(plane.shape[1], edge)] for plane in some]


def middle(length: int, wanted: int) -> slice:
    """The middle `wanted` places of `length`, or all if there are fewer."""
    start = max(0, length - wanted) // 2
    return slice(start, start + min(length, wanted))


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
    """Where a sweep is sharpest; `reason` says why it must not be believed, if so.

    `at_edge` tells that the sweep ends where it is sharp, so that a longer one may know better.
    """

    z_um: float
    at_edge: bool
    reason: str | None = None


def find_peak(z_um: Sequence[float], curve: Sequence[float], noise: float) -> FocusPeak:
    """The height of greatest sharpness, between the planes, or why it must not be believed.

    Parameters
    ----------
    z_um : rising heights of the sweep, in um.
    curve, noise : as `sharpness` gives them.
    """
    heights, values = np.asarray(z_um, np.float64), np.asarray(curve, np.float64)
    best = int(np.argmax(values))
    contrast = (values[best] - np.median(values)) / noise
    if contrast < LEAST_CONTRAST:
        reason = f"no contrast: {contrast:.1f} noise deviations, {LEAST_CONTRAST:g} needed"
        return FocusPeak(z_um[best], False, reason)
    if best in (0, len(values) - 1):
        return FocusPeak(z_um[best], True, "sharpest at the edge of the sweep")
    rise, rival = _rival(heights, values, best)
    if rise > max(RIVAL_SHARE * values[best], LEAST_CONTRAST * noise):
        reason = f"two planes are sharp: {z_um[best]:g} um and {z_um[rival]:g} um"
        return FocusPeak(z_um[best], rival in (0, len(values) - 1), reason)
    return FocusPeak(_top(heights, values, best), False)


def _rival(z_um: Floats, values: Floats, best: int) -> tuple[float, int]:
    """How far the curve rises again beyond a valley, far from its peak, and at which plane."""
    far = np.flatnonzero(np.abs(z_um - z_um[best]) > RIVAL_UM)
    valleys = [values[min(place, best) : max(place, best)].min() for place in far]
    rises = [(values[place] - low, int(place)) for place, low in zip(far, valleys, strict=True)]
    return max(rises, default=(0.0, best))


def _top(z_um: Floats, values: Floats, best: int) -> float:
    """The middle of the Gaussian through the planes around the peak.

    A parabola through their logarithms, which weigh as much as their values are large: Guo 2011,
    IEEE Signal Processing Magazine 28(5):134, equation 9. Where a field has relief, its objects
    peak at different planes, and three planes would follow the sharpest object alone.
    """
    low = values < PEAK_FLOOR * values[best]
    first = min(best - 1, int(np.flatnonzero(low[:best]).max(initial=-1)) + 1)
    last = max(best + 1, best + int(np.argmax(np.r_[low[best:], True])) - 1)
    part = slice(first, last + 1)
    floored = np.maximum(values[part], 1e-3 * values[best])  # of three planes two may be at 0
    bend, slope, _ = np.polyfit(z_um[part] - z_um[best], np.log(floored), 2, w=floored)
    middle_um = z_um[best] - slope / (2 * bend) if bend < 0 else z_um[best]
    return float(np.clip(middle_um, z_um[first], z_um[last]))
