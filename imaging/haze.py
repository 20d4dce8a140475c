"""Which blocks may show only the haze of stronger ones: light spreads in planes out of focus.

Light of a sharp object reaches as far as its blur does in the plane looked at, so it fills a cone
above and one below the object. A block whose own peak lies inside a cone is weighed against the
object; beside the cone it keeps its peak, however strong the object is.
"""

from typing import Any

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
    growth = np.array((MARGIN, reach), np.float32)
    sources: Any = np.where(signal >= SOURCE * strongest, signal, np.float32(0))
    around = np.zeros_like(signal)
    for upward in (1, -1):
        sweep_cone(sources, best, upward * planes, growth, around)
    return around


@compiled
def dilate_row(above, row, below, corners, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write the maximum of 3x3 elements, or of the cross without corners, of a padded row."""
    for x in range(out.size):
        middle = row[x + 1]
        middle = row[x] if row[x] > middle else middle
        middle = row[x + 2] if row[x + 2] > middle else middle
        middle = above[x + 1] if above[x + 1] > middle else middle
        out[x] = below[x + 1] if below[x + 1] > middle else middle
    if corners:
        for x in range(out.size):
            middle = above[x] if above[x] > above[x + 2] else above[x + 2]
            middle = below[x] if below[x] > middle else middle
            middle = below[x + 2] if below[x + 2] > middle else middle
            out[x] = middle if middle > out[x] else out[x]


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

    `planes` is negative from the last to the first, `reach` is that on the first plane and what
    each plane adds. Squares and crosses in turn make octagons.
    """
    rows, columns = sources.shape
    lit = np.zeros((rows + 2, columns + 2), np.float32)
    spare = np.zeros((rows + 2, columns + 2), np.float32)
    most, grown = max(rows, columns), 0
    for step in range(abs(planes)):
        plane = step if planes > 0 else -planes - 1 - step
        while grown < min(int(reach[0] + np.float32(step) * reach[1]), most):
            grown += 1
            for y in range(1, rows + 1):
                out = spare[y, 1 : columns + 1]
                dilate_row(lit[y - 1], lit[y], lit[y + 1], grown % 2 == 0, out)
            lit, spare = spare, lit
        for y in range(rows):
            read_and_add(best[y], plane, sources[y], lit[y + 1, 1 : columns + 1], around[y])
