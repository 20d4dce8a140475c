"""Flicker of the lamp: planes of one stack that differ in light are brought to one light.

Blur keeps the mean light of a field, so a plane's mean tells its light whatever is in focus. Real
stacks change their light with depth, too, but smoothly; flicker is rough. Only that is taken out.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging.kernels import BLOCK_PX, compiled

AREAS = 8  # along each side of the field: far wider than any blur
MIN_PLANES, MIN_SIZE_PX = 4, 144  # below, roughness and areas tell nothing
MIN_FLICKER = 0.004  # of the light, root mean square; less costs nothing
# Von Neumann's ratio: 2 for white flicker, below 1 for light that changes smoothly with depth.
MIN_ROUGHNESS = 1.2
TREND_F = 8.0  # F statistic from which a straight line along z is a real change with depth
MIN_FIT = 0.9  # r squared of light against contrast, for an offset to be read from it
FEW_ROWS = 18  # eight pixels apart in the smallest field
SAMPLED = (slice(None), slice(None, None, 16))
SATURATED_PIXELS = 4  # so many of the greatest value, of those sampled, are no chance

Floats = NDArray[np.float64]


class Flicker(NamedTuple):
    """What to do with each plane: multiply the light above `offset` by `gain` (z,).

    `amount` is the flicker that was found, root mean square relative to the light.
    """

    gain: NDArray[np.float32]
    offset: float
    amount: float


def find_flicker(frames: NDArray[Any], light: NDArray[np.float32]) -> Flicker | None:
    """Find how much the light of the planes flickers; None if it does not, or cannot be known.

    Parameters
    ----------
    frames : (z, y, x)
    light : (z, AREAS, AREAS) float32
        Sums of 2x2 pixels over areas of each plane, as from `kernels.block_energy`.
    """
    if len(frames) < MIN_PLANES or min(frames.shape[1:]) < MIN_SIZE_PX:
        return None
    areas = light.astype(np.float64) / _sizes(frames.shape[1:])
    return _flicker_of(frames, areas.mean(axis=(1, 2)))


def flicker_of_channel(frames: NDArray[Any]) -> Flicker | None:
    """Find the same where no energy is measured: a few rows show whether it is worth a look."""
    if len(frames) < MIN_PLANES or min(frames.shape[1:]) < MIN_SIZE_PX:
        return None
    rows = frames[:, :: frames.shape[1] // FEW_ROWS]
    return _flicker_of(frames, rows.mean(axis=(1, 2), dtype=np.float64))


def _flicker_of(frames: NDArray[Any], mean: Floats) -> Flicker | None:
    if mean.min() <= 0 or not _is_rough(_rest(mean)):
        return None
    areas = _exact_means(frames)
    mean = areas.mean(axis=(1, 2))
    if not _is_rough(_rest(mean)):
        return None
    offset = float(np.clip(_offset(areas, mean), 0, max(0.0, float(frames[SAMPLED].min()))))
    rest = _rest(np.maximum(mean - offset, 1e-3 * mean))
    amount = float(np.sqrt(np.square(rest).mean()))
    return Flicker(np.exp(-rest).astype(np.float32), offset, amount)


def _sizes(shape: tuple[int, ...]) -> Floats:
    """Return the number of pixels that were added up in each area."""
    blocks = [-(-size // BLOCK_PX) for size in shape]
    counts = [np.bincount(np.arange(n) * AREAS // n, minlength=AREAS) for n in blocks]
    return np.asarray(2 * BLOCK_PX * np.outer(*counts), np.float64)


def _exact_means(frames: NDArray[Any]) -> Floats:
    """Return the mean light (z, AREAS, AREAS) of all pixels of areas.

    Small bright things come between sampled rows and onto them as they blur, which looks rough.
    """
    size, means = (AREAS, AREAS), []
    for plane in frames:
        pixels = np.asarray(plane, np.float32)
        means.append(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    return np.asarray(means, np.float64)


def _rest(mean: Floats) -> Floats:
    """Return the logarithm of the light, without its mean or, where that is real, its trend."""
    logs = np.log(mean) - np.log(mean).mean()
    z = np.arange(len(mean)) - (len(mean) - 1) / 2
    straight = logs - z * (logs @ z) / (z @ z)
    left = straight @ straight
    trend = (logs @ logs - left) * (len(mean) - 2) > TREND_F * left
    return np.asarray(straight if trend else logs)


def _is_rough(rest: Floats) -> bool:
    power = rest @ rest
    if power < MIN_FLICKER**2 * len(rest):
        return False
    steps = np.diff(rest)
    return bool(steps @ steps / power * len(rest) / len(steps) >= MIN_ROUGHNESS)


def _offset(areas: Floats, mean: Floats) -> float:
    """Return the camera's offset: what of the light does not change with the areas' contrast.

    Changes from plane to plane are compared, since contrast itself changes smoothly with focus.
    """
    typical = areas.mean(axis=0) - areas.mean()
    contrast = np.tensordot(areas, typical, 2) / max(np.square(typical).sum(), 1e-12)
    steps, contrast = np.diff(mean / mean.mean()), np.diff(contrast)
    both, each = steps @ contrast, contrast @ contrast
    if both**2 < MIN_FIT * each * (steps @ steps) or each == 0:
        return 0.0
    return float(mean.mean() * (1 - both / each))


def even_out(frames: NDArray[Any], flicker: Flicker) -> NDArray[Any]:
    """Return the planes at one light, rounded; saturated pixels stay so."""
    evened = np.empty_like(frames)
    some = frames[SAMPLED]
    top = some.max()
    integer = np.issubdtype(frames.dtype, np.integer)
    if not integer:
        top = np.float32(np.inf)
    elif np.count_nonzero(some == top) < SATURATED_PIXELS:
        top = np.iinfo(frames.dtype).max
    offset = np.float32(min(flicker.offset, float(some.min())))
    bounds = np.float32(0 if integer else -np.inf), np.float32(top)
    added = np.float32(0.5 if integer else 0)
    for plane, gain, out in zip(frames, flicker.gain, evened, strict=True):
        scale_plane(plane, gain, offset, bounds, added, out)
    return evened


@compiled
def scale_plane(plane, gain, offset, bounds, rounding, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Multiply what is above the offset; values at the top stay there, none exceeds it."""
    least, top = bounds
    shift = offset - gain * offset + rounding
    for y in range(plane.shape[0]):
        row, wide = plane[y], out[y]
        for x in range(row.size):
            value = np.float32(row[x])
            scaled = gain * value + shift
            scaled = scaled if scaled > least else least
            scaled = scaled if value < top and scaled < top else top
            wide[x] = scaled
