"""From the maps of a network to labelled objects, with a finite reach on the pixels of the mosaic.

The law of this module: a network is asked in windows of one size that begin on one grid of the
mosaic, and its maps are rounded to whole steps before anything is decided by them. So a region
with a halo gives the objects which the whole mosaic would, as long as the network itself keeps to
its reach.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import numpy as np

from imaging.detection import (
    DISTANCE_CAP,
    DISTANCE_WEIGHT,
    PEAK_DISTANCE,
    SEED_SIGMA,
    depth_in,
    drop_small,
    fill_holes,
    flood,
    raster_order,
)
from imaging.statistics import CLUMP

__all__ = ["GRID_PX", "REACH", "in_windows", "instances", "step_of"]

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
    window_px: int,
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
        From pixels (window_px, window_px) to maps (channel, window_px, window_px).
    window_px, reach_px : int
        Edge of a window, and how far from its edge its maps cannot be trusted.

    Returns
    -------
    ndarray, (channel, y, x)
        What one window over the whole region would give.
    """
    step = step_of(window_px, reach_px)
    lead = [reach_px + (start - reach_px) % GRID_PX for start in origin]
    needed = [n + before - reach_px for n, before in zip(image.shape, lead, strict=True)]
    ends = [ceil(n / step) * step for n in needed]
    tail = [end - n + reach_px + window_px for end, n in zip(ends, needed, strict=True)]
    padded = np.pad(image, list(zip(lead, tail, strict=True)), mode="edge")
    inner = slice(reach_px, reach_px + step)
    maps = np.block(
        [
            [
                network(padded[row : row + window_px, column : column + window_px])[:, inner, inner]
                for column in range(0, ends[1], step)
            ]
            for row in range(0, ends[0], step)
        ]
    )
    top, left = (before - reach_px for before in lead)
    return maps[:, top : top + image.shape[0], left : left + image.shape[1]]


def step_of(window_px: int, reach_px: int) -> int:
    """How far windows lie apart; 0 or less where a window is all rim."""
    return (window_px - 2 * reach_px) // GRID_PX * GRID_PX


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
        landscape = steps[1]
    else:
        inner = np.clip(steps[0] - steps[1:].sum(axis=0), 0, 1)  # without rim: the foreground
        depth = depth_in(inner >= 0.5, diameter_px)
        landscape = DISTANCE_WEIGHT * depth + (1 - DISTANCE_WEIGHT) * inner
    labels = flood(mask, landscape, diameter_px)
    return raster_order(drop_small(fill_holes(labels, diameter_px), diameter_px))
