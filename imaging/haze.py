"""Which blocks may show only the haze of stronger ones: light spreads in planes out of focus.

Light of a sharp object reaches as far as its blur does in the plane looked at, so it fills a cone
above and one below the object. A block whose own peak lies inside a cone is weighed against the
object; beside the cone it keeps its peak, however strong the object is.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging.kernels import compiled

SOURCE = 0.3  # of the strongest block in 5x5: weaker ones owe their energy to their neighbour
MARGIN = 0.75  # blocks: an object's edge lies anywhere in its block
SOURCE_WINDOW = np.ones((5, 5), np.uint8)

Blocks = NDArray[np.float32]


def outshining(signal: Blocks, best: NDArray[np.int32], planes: int, reach: float) -> Blocks:
    """Return the energy of the strongest block in whose light cone each block's peak lies, else 0.

    Parameters
    ----------
    signal : (y, x) float32
        Energy of each block at its peak, without its floor.
    best : (y, x) int32
        The plane of the peak, below `planes`.
    reach : float
        How far light spreads in blocks, for each plane out of focus.
    """
    strongest = cv2.dilate(signal, SOURCE_WINDOW)
    inside = (slice(1, -1), slice(1, -1))
    sources, around = np.zeros((2, *(size + 2 for size in signal.shape)), np.float32)
    peaks = np.full(sources.shape, -1, np.int32)
    np.copyto(sources[inside], signal, where=signal >= SOURCE * strongest)
    peaks[inside] = best
    growth = np.array((MARGIN, reach), np.float32)
    for upward in (1, -1):
        sweep_cone(sources, peaks, upward * planes, growth, around)
    return around[inside]


@compiled
def dilate(light, corners, width, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write the maximum of 3x3 elements, or of the cross without corners.

    All rows are one run, of `width` elements each; the frame around them, of one element, stays 0.
    """
    size = light.size - 2 * width - 2
    row, result = light[width : width + size + 2], out[width + 1 : width + 1 + size]
    above, below = light[: size + 2], light[2 * width : 2 * width + size + 2]
    for x in range(size):
        most = row[x + 1]
        most = row[x] if row[x] > most else most
        most = row[x + 2] if row[x + 2] > most else most
        most = above[x + 1] if above[x + 1] > most else most
        result[x] = below[x + 1] if below[x + 1] > most else most
    if corners:
        for x in range(size):
            most = above[x] if above[x] > above[x + 2] else above[x + 2]
            most = below[x] if below[x] > most else most
            most = below[x + 2] if below[x + 2] > most else most
            result[x] = most if most > result[x] else result[x]
    for end in range(width, out.size, width):
        out[end - 1] = out[end] = 0


@compiled
def read_and_add(best, plane, source, lit, around):  # type: ignore[no-untyped-def] # pragma: no cover
    """Read the light on a plane where its blocks peak, then add what these send out."""
    for x in range(best.size):
        here = best[x] == plane
        seen = lit[x] if here else np.float32(0)
        sent = source[x] if here else np.float32(0)
        around[x] = seen if seen > around[x] else around[x]
        lit[x] = sent if sent > lit[x] else lit[x]


@compiled
def sweep_cone(sources, best, planes, reach, around):  # type: ignore[no-untyped-def] # pragma: no cover
    """Spread the strongest light from plane to plane, and note it where blocks peak.

    Arrays have a frame of one element. `planes` is negative from the last to the first, `reach` is
    that on the first plane and what each plane adds. Squares and crosses in turn make octagons.
    """
    lit, spare = np.zeros(sources.size, np.float32), np.zeros(sources.size, np.float32)
    width, most, grown = sources.shape[1], max(sources.shape), 0
    for step in range(abs(planes)):
        plane = step if planes > 0 else -planes - 1 - step
        while grown < min(int(reach[0] + np.float32(step) * reach[1]), most):
            grown += 1
            dilate(lit, grown % 2 == 0, width, spare)
            lit, spare = spare, lit
        read_and_add(best.ravel(), plane, sources.ravel(), lit, around.ravel())
