"""From the maps of a network to labelled objects, with a finite range on the pixels of the mosaic.

Invariant: a network runs in windows that begin on one grid of the mosaic, and its maps are rounded
before any decision. So a region with a halo gives the objects that the whole mosaic would give, as
long as the network depends on its receptive field only.
"""

from collections.abc import Callable

import cv2
import numpy as np
import scipy
import skimage

from imaging.detection import (
    DISTANCE_CAP,
    DISTANCE_WEIGHT,
    MIN_AREA,
    PEAK_DISTANCE,
    SEED_SIGMA,
    SEED_STEPS,
)
from imaging.statistics import CLUMP

Labels = np.ndarray

GRID_PX = 32  # windows begin at its multiples, for up to five halvings of the image
MAP_STEPS = 1024  # per unit of a map: hides the last bits, in which CPUs differ
MAX_DISTANCE = 4000.0  # keeps the landscape's integers exact in float32

# Range of the maps around its centroid on which an object's pixels depend, in diameters: its clump,
# and the neighbourhood that decides about seeds there.
REACH = CLUMP + DISTANCE_CAP / 2 + 3 * SEED_SIGMA + PEAK_DISTANCE


def in_windows(
    image: np.ndarray,
    origin: tuple[int, int],
    network: Callable[[np.ndarray], np.ndarray],
    window_of: Callable[[int], int],
    step_px: int,
    receptive_field_px: int,
) -> np.ndarray:
    """Compute the maps of a region window by window; beyond the region its edge is repeated.

    Parameters
    ----------
    image : ndarray, (y, x)
        Pixels of the region.
    origin : (int, int)
        Row and column in the mosaic of the region's first pixel.
    network : callable
        From pixels (y, x) to maps (channel, y, x).
    window_of : callable
        Returns the smallest window edge that the network accepts, of at least that many pixels.
    step_px, reach_px : int
        Distance of windows, a multiple of the grid, and the margin of a window in which its maps
        are not valid.

    Returns
    -------
    ndarray, (channel, y, x)
        The same as of one window over the whole region.
    """
    lead = [receptive_field_px + (start - receptive_field_px) % GRID_PX for start in origin]
    needed = [n + before - receptive_field_px for n, before in zip(image.shape, lead, strict=True)]
    parts = [[(at, min(step_px, n - at)) for at in range(0, n, step_px)] for n in needed]
    tail = window_of(step_px + 2 * receptive_field_px)  # no window extends further
    padded = np.pad(image, [(before, tail) for before in lead], mode="edge")

    def window(row: int, rows: int, column: int, columns: int) -> np.ndarray:
        bottom = row + window_of(rows + 2 * receptive_field_px)
        right = column + window_of(columns + 2 * receptive_field_px)
        maps = network(padded[row:bottom, column:right])
        return maps[
            :,
            receptive_field_px : receptive_field_px + rows,
            receptive_field_px : receptive_field_px + columns,
        ]

    maps = np.block([[window(*row, *column) for column in parts[1]] for row in parts[0]])
    top, left = (before - receptive_field_px for before in lead)
    return maps[:, top:, left:]


def instances(maps: np.ndarray, second_map: str, diameter_px: float) -> np.ndarray:
    """Label the objects in the maps of a network.

    Parameters
    ----------
    maps : ndarray, (channel, y, x), float32
        The probability that a pixel belongs to an object; the meaning of a second channel, if
        there is one, is given by `second_map`.
    second_map : str
        "boundary": the probability that a pixel lies on an object's rim; "distance": its distance
        from the rim, in any unit.
    diameter_px : float
        Typical diameter of objects.

    Returns
    -------
    ndarray, (y, x), int32
        0 is background; objects are 1 to n in the raster order of their first pixels.
    """
    steps = np.rint(np.clip(maps, 0, MAX_DISTANCE).astype(np.float64) * MAP_STEPS) / MAP_STEPS
    mask = steps[0] >= 0.5
    if len(steps) > 1 and second_map == "distance":
        ground = steps[1]
    else:
        inner = np.clip(steps[0] - steps[1:].sum(axis=0), 0, 1)  # without rim: the foreground
        ground = landscape(inner >= 0.5, inner, diameter_px)
    return raster_order(fill_holes_remove_small(flood(mask, ground, diameter_px), diameter_px))


def landscape(mask: np.ndarray, light: np.ndarray, diameter: float) -> np.ndarray:
    """Return the weighted mean of light and capped distance to the rim in object radii."""
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    depth = np.minimum(distance.astype(np.float64) / (diameter / 2), DISTANCE_CAP)
    return DISTANCE_WEIGHT * depth + (1 - DISTANCE_WEIGHT) * light


def flood(mask: np.ndarray, ground: np.ndarray, diameter: float) -> Labels:
    """Label a mask (y, x) by a watershed from the peaks of a landscape with values below 4096."""
    smooth = scipy.ndimage.gaussian_filter(
        ground, SEED_SIGMA * diameter, mode="nearest", truncate=3.0
    )
    height = np.rint(smooth * SEED_STEPS).astype(np.float32)  # integers below 2**24: exact
    peaks = mask & (height == cv2.dilate(height, _disc(PEAK_DISTANCE * diameter)))
    seeds, _ = scipy.ndimage.label(peaks, np.ones((3, 3)))
    return skimage.segmentation.watershed(-height, seeds, mask=mask).astype(np.int32)


def fill_holes_remove_small(labels: Labels, diameter: float) -> Labels:
    """Fill holes enclosed by a single object; remove objects far smaller than the typical one."""
    typical_area = np.pi / 4 * diameter**2
    patches, _ = scipy.ndimage.label(labels == 0)
    sizes = np.bincount(patches.ravel())
    sizes[0] = 0
    filled = labels.copy()
    boxes = scipy.ndimage.find_objects(patches)
    for patch in np.flatnonzero((sizes > 0) & (sizes <= typical_area)):  # bounds the range
        box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in boxes[patch - 1])
        hole = patches[box] == patch
        rim = np.unique(labels[box][scipy.ndimage.binary_dilation(hole) & ~hole])
        if rim.size == 1:
            filled[box][hole] = rim[0]
    keep = np.bincount(filled.ravel()) >= MIN_AREA * typical_area
    return np.where(keep[filled], filled, 0)


def raster_order(labels: Labels) -> Labels:
    """Number the objects 1 to n by their first pixels."""
    inside = np.flatnonzero(labels)[::-1]
    first = np.full(labels.max(initial=0) + 1, labels.size)
    first[labels.ravel()[inside]] = inside  # the last assignment wins: the first pixel
    first[0] = -1  # so that the background comes first
    return np.argsort(np.argsort(first)).astype(np.int32)[labels]


def _disc(radius: float) -> np.ndarray:
    size = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
