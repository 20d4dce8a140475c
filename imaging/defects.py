"""What the camera shows at the same pixels of every field: hot pixels, and dust on the sensor.

It is learned from frames of several places, where the specimen differs. In frames of the scan such
pixels get the light of those around, so that nothing is counted there.
"""

from collections.abc import Sequence
from math import comb
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

FAR = 1.5  # deviations from the ground around
MIN_CONTRAST = 0.03  # of the ground: pixels differ by less in any camera
SHARE_OF_PLACES = 0.8  # in which a pixel is so, or more:
BY_CHANCE = 1e-9  # probability that as many places have specimen there
CLUSTERED = 1.5  # specimen may be denser at a pixel than on the whole
WINDOW_PX = 33  # of the ground, in binned pixels; specks are smaller
MAX_SHARE = 0.02  # of the frame: more is no dirt
NORMAL = 1.4826  # deviation of a normal distribution over its median of |x|
SPARSE = (slice(None, None, 4),) * 2  # enough pixels for a deviation

Image = NDArray[Any]
Mask = NDArray[np.bool_]


class Defects(NamedTuple):
    """Pixels (y, x) that are defect, None if there are none; the number of specks that they form,
    and their share of the frame.

    Where the share is larger than that of dirt can be, there is neither mask nor number.
    """

    mask: Mask | None = None
    specks: int = 0
    share: float = 0.0


def learn_defects(planes: Sequence[Image]) -> Defects:
    """Find what stands out at the same pixels of nearly all frames.

    Parameters
    ----------
    planes : sequence of (y, x) arrays of any real dtype
        One frame of each place, all of one shape. The more of a frame is specimen, the more places
        are needed; if there are too few, nothing is found.
    """
    if not planes or min(planes[0].shape) < 2 * WINDOW_PX:
        return Defects()
    bright, dark = (np.sum(side, axis=0) for side in zip(*map(_sides, planes), strict=True))
    small = np.asarray(_often(bright, len(planes)) | _often(dark, len(planes)), np.uint8)
    if small.mean() > MAX_SHARE:
        return Defects(share=float(small.mean()))
    specks = _compact(small)
    if not specks:
        return Defects()
    wide = cv2.dilate(small, np.ones((3, 3), np.uint8))
    mask = np.zeros(planes[0].shape, bool)
    mask[: 2 * wide.shape[0], : 2 * wide.shape[1]] = wide.repeat(2, axis=0).repeat(2, axis=1)
    return Defects(mask, specks, float(mask.mean()))


def _often(count: NDArray[Any], places: int) -> Mask:
    """Return where as many places are so as chance does not explain, given how often any pixel is.

    Chance has a binomial distribution.
    """
    share = min(1.0, CLUSTERED * float(count.mean()) / places)
    terms = [comb(places, k) * share**k * (1 - share) ** (places - k) for k in range(places + 1)]
    tails = np.cumsum(terms[::-1])[::-1]  # of k places or more
    needed = int(np.count_nonzero(tails >= BY_CHANCE))
    return np.asarray(count >= max(needed, SHARE_OF_PLACES * places))


def _compact(small: NDArray[np.uint8]) -> int:
    """Clear in place parts that are wide or at the rim, as those of shading; count the others."""
    number, labels, boxes, _ = cv2.connectedComponentsWithStats(small)
    left, top, width, height = boxes[:, :4].T
    rim = (left == 0) | (top == 0)
    rim |= (left + width == small.shape[1]) | (top + height == small.shape[0])
    kept = ~rim & (np.maximum(width, height) < WINDOW_PX)
    kept[0] = False  # the ground
    small[:] = kept[labels]
    return int(kept[:number].sum())


def _sides(plane: Image) -> tuple[Mask, Mask]:
    """Return which 2x2-binned pixels are brighter than the ground around them, and darker."""
    rows, columns = plane.shape
    even = np.ascontiguousarray(plane[: rows // 2 * 2, : columns // 2 * 2], np.float32)
    small = cv2.resize(even, (columns // 2, rows // 2), interpolation=cv2.INTER_AREA)
    ground = cv2.blur(small, (WINDOW_PX, WINDOW_PX))
    off = small - ground
    some = off[SPARSE]
    deviation = NORMAL * float(np.median(np.abs(some - np.median(some))))
    least = np.maximum(FAR * deviation, MIN_CONTRAST * np.abs(ground))
    return off > least, off < -least


def fill_defects(frames: Image, mask: Mask) -> None:
    """Give defect pixels, in place, the light of the nearest others in four directions.

    Parameters
    ----------
    frames : (z, y, x)
    mask : (y, x) bool
    """
    rows, columns = np.nonzero(mask)
    total = np.zeros((len(frames), rows.size), np.float32)
    weights = np.zeros(rows.size, np.float32)
    for step in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        distance, inside = _nearest(mask, rows, columns, step)
        weight = np.where(inside, 1 / distance, 0).astype(np.float32)
        y, x = rows + step[0] * distance * inside, columns + step[1] * distance * inside
        total += weight * frames[:, y, x]
        weights += weight
    known = weights > 0
    filled = total[:, known] / weights[known]
    added = np.float32(0.5 if np.issubdtype(frames.dtype, np.integer) else 0)
    frames[:, rows[known], columns[known]] = filled + added


def _nearest(
    mask: Mask, rows: NDArray[np.intp], columns: NDArray[np.intp], step: tuple[int, int]
) -> tuple[NDArray[np.intp], Mask]:
    """Return how far the nearest pixel is that is not masked, and whether it is in the frame."""
    distance, left = np.ones(rows.size, np.intp), np.arange(rows.size)
    inside = np.ones(rows.size, bool)
    while left.size:
        y, x = rows[left] + step[0] * distance[left], columns[left] + step[1] * distance[left]
        beyond = (y < 0) | (x < 0) | (y >= mask.shape[0]) | (x >= mask.shape[1])
        inside[left[beyond]] = False
        left, y, x = left[~beyond], y[~beyond], x[~beyond]
        left = left[mask[y, x]]
        distance[left] += 1
    return distance, inside
