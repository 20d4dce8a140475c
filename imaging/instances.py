"""From the maps of a network to labelled objects, with a finite reach on the pixels of the mosaic.

The law of this module: a network is asked in windows that begin on one grid of the mosaic, and its
maps are rounded to whole steps before anything is decided by them. So a region with a halo gives
the objects which the whole mosaic would, as long as the network itself keeps to its reach.
"""

from collections.abc import Callable

import numpy as np

from imaging.detection import (
    DISTANCE_CAP,
    PEAK_DISTANCE,
    SEED_SIGMA,
    flood,
    landscape,
    raster_order,
    tidied,
)
from imaging.statistics import CLUMP

GRID_PX = 32  # windows begin at its multiples: five halvings of the image, more are not in use
MAP_STEPS = 1024  # per unit of a map: hides the last bits, in which CPUs may differ
LARGEST_DISTANCE = 4000.0  # keeps the landscape's whole numbers exact in float32

# How far an object's pixels depend on the maps around its centroid, in diameters: its clump, and
# what decides about the seeds in there.
REACH = CLUMP + DISTANCE_CAP / 2 + 3 * SEED_SIGMA + PEAK_DISTANCE


def in_windows(
    image: np.ndarray,
    origin: tuple[int, int],
    network: Callable[[np.ndarray], np.ndarray],
    window_of: Callable[[int], int],
    step_px: int,
    reach_px: int,
) -> np.ndarray:
    """Maps of a region, asked for window by window; beyond the region its edge is repeated.

    Parameters
    ----------
    image : ndarray, (y, x)
        Pixels of the region.
    origin : (int, int)
        Row and column in the mosaic of the region's first pixel.
    network : callable
        From pixels (y, x) to maps (channel, y, x).
    window_of : callable
        The smallest edge of a window that the network takes, of at least so many pixels.
    step_px, reach_px : int
        How far windows lie apart, a multiple of the grid, and how far from the edge of a window
        its maps cannot be trusted.

    Returns
    -------
    ndarray, (channel, y, x)
        What one window over the whole region would give.
    """
    lead = [reach_px + (start - reach_px) % GRID_PX for start in origin]
    needed = [n + before - reach_px for n, before in zip(image.shape, lead, strict=True)]
    parts = [[(at, min(step_px, n - at)) for at in range(0, n, step_px)] for n in needed]
    tail = window_of(step_px + 2 * reach_px)  # no window ends further out
    padded = np.pad(image, [(before, tail) for before in lead], mode="edge")

    def asked(row: int, rows: int, column: int, columns: int) -> np.ndarray:
        bottom = row + window_of(rows + 2 * reach_px)
        right = column + window_of(columns + 2 * reach_px)
        maps = network(padded[row:bottom, column:right])
        return maps[:, reach_px : reach_px + rows, reach_px : reach_px + columns]

    maps = np.block([[asked(*row, *column) for column in parts[1]] for row in parts[0]])
    top, left = (before - reach_px for before in lead)
    return maps[:, top:, left:]


def instances(maps: np.ndarray, second: str, diameter_px: float) -> np.ndarray:
    """Label the objects that the maps of a network show.

    Parameters
    ----------
    maps : ndarray, (channel, y, x), float32
        The probability that a pixel belongs to an object and, where there is a second channel,
        what `second` says.
    second : str
        "boundary": the probability that a pixel lies on an object's rim; "distance": how far it
        lies from the rim, in any unit.
    diameter_px : float
        Typical diameter of objects.

    Returns
    -------
    ndarray, (y, x), int32
        0 is background; objects are 1 to n in the raster order of their first pixels.
    """
    steps = np.rint(np.clip(maps, 0, LARGEST_DISTANCE).astype(np.float64) * MAP_STEPS) / MAP_STEPS
    mask = steps[0] >= 0.5
    if len(steps) > 1 and second == "distance":
        ground = steps[1]
    else:
        inner = np.clip(steps[0] - steps[1:].sum(axis=0), 0, 1)  # without rim: the foreground
        ground = landscape(inner >= 0.5, inner, diameter_px)
    return raster_order(tidied(flood(mask, ground, diameter_px), diameter_px))
