"""Focus stacking where depth leaps: a Laplacian pyramid in place of one depth per block.

At a step each depth is right on its own side only, and a silhouette spreads its blur over whatever
lies beside it. There every scale is taken from the plane in which it is strongest (Burt and Adelson
1983, IEEE Trans. Commun. 31:532). It costs ten times the blend and is done around steps alone.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging.depth import BlockDepth, blur_reach, not_haze
from imaging.kernels import BLOCK_PX

LEAST_STEP_PLANES = 2.0  # a smaller step is within the depth of focus of a block's two planes
CLEAR = 0.3  # confidence of blocks that may tell of a step
BANDS = 5
WINDOW_PX = 5  # on each scale
MARGIN_BLOCKS = 8  # the reach of five bands
RADII_BLOCKS = (1, 2, 4, 8)
RANGE_PX = 25  # surroundings whose range a pixel may not leave
DEPTH_BAND = 1  # on which depth is read: the finest is mostly noise
NOT_HAZE = 0.25
DEPTH_CONTRAST = 2.0  # over the mean of all planes, for a depth to be read there

Array = NDArray[Any]


def fuse_steps(
    stacks: Sequence[Array], blocks: BlockDepth, images: Sequence[Array], depth: Array
) -> None:
    """Fuse anew, in place, what lies around steps of more than two planes.

    Parameters
    ----------
    stacks : of (z, y, x)
        The first is the one that focus is judged on.
    blocks : BlockDepth
        Of the first stack.
    images : of (y, x)
        The blend of each stack.
    depth : (y, x) float32
        In planes.
    """
    reach = blur_reach(blocks.curvature, len(stacks[0]) - 1)
    for box, weight in _places(step_blocks(blocks), depth.shape):
        pyramids = _Pyramids([stack[:, *box] for stack in stacks], reach)
        for image, stack, fused in zip(images, stacks, pyramids.fused(), strict=True):
            _lay_over(image[box], fused, _range(stack[:, *box]), weight)
        read = (weight > 0.5) & pyramids.told
        depth[box][read] = pyramids.depth[read]


def step_blocks(blocks: BlockDepth) -> NDArray[np.bool_]:
    """Blocks (y, x) near enough to a step for its blur to reach them."""
    clear = blocks.confidence > CLEAR
    around = np.ones((3, 3), np.uint8)
    high = cv2.dilate(np.where(clear, blocks.peak, 0), around)
    low = cv2.erode(np.where(clear, blocks.peak, np.float32(np.inf)), around)
    spread = np.where(clear, high - low, 0)
    near: Array = np.zeros(spread.shape, np.uint8)
    if spread.max() <= LEAST_STEP_PLANES:
        return np.asarray(near, bool)
    reach = blur_reach(blocks.curvature, spread)
    for radius in RADII_BLOCKS:
        far = (spread > LEAST_STEP_PLANES) & (reach > radius / 2)
        disc = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        near = np.maximum(near, cv2.dilate(far.astype(np.uint8), disc))
    return np.asarray(near, bool)


Box = tuple[slice, slice]


def _places(near: NDArray[np.bool_], shape: tuple[int, ...]) -> Iterator[tuple[Box, Array]]:
    """Boxes of pixels around the steps, and how much the pyramid counts in each: 1 to 0."""
    if not near.any():
        return
    number, labels, boxes, _ = cv2.connectedComponentsWithStats(near.astype(np.uint8))
    left, top, width, height = boxes[1:, :4].T
    if ((width + 2 * MARGIN_BLOCKS) * (height + 2 * MARGIN_BLOCKS)).sum() > near.size:
        parts = [(near, (0, 0, *near.shape[::-1]))]
    else:
        parts = [(labels == part, tuple(boxes[part, :4])) for part in range(1, number)]
    for mask, (left, top, width, height) in parts:
        rows = slice(max(top - MARGIN_BLOCKS, 0), top + height + MARGIN_BLOCKS)
        columns = slice(max(left - MARGIN_BLOCKS, 0), left + width + MARGIN_BLOCKS)
        box = _pixels(rows, shape[0]), _pixels(columns, shape[1])
        yield box, _feathered(mask[rows, columns], box)


def _pixels(blocks: slice, size: int) -> slice:
    return slice(blocks.start * BLOCK_PX, min(blocks.stop * BLOCK_PX, size))


def _feathered(mask: NDArray[np.bool_], box: Box) -> Array:
    """Weights of pixels from a mask of blocks, falling to 0 over about two blocks."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7)
    wide = cv2.resize(soft, None, fx=BLOCK_PX, fy=BLOCK_PX, interpolation=cv2.INTER_LINEAR)
    rows, columns = (place.stop - place.start for place in box)
    return np.asarray(wide[:rows, :columns])


def _range(planes: Array) -> tuple[Array, Array]:
    """Least and greatest value of all planes in the surroundings of each pixel."""
    window = np.ones((RANGE_PX, RANGE_PX), np.uint8)
    return cv2.erode(planes.min(axis=0), window), cv2.dilate(planes.max(axis=0), window)


def _lay_over(image: Array, fused: Array, allowed: tuple[Array, Array], weight: Array) -> None:
    mixed = image + weight * (np.clip(fused, *allowed) - image)
    image[:] = np.rint(mixed) if np.issubdtype(image.dtype, np.integer) else mixed


class _Pyramids:
    """Laplacian pyramids fused plane by plane; the first stack decides for all.

    Attributes
    ----------
    depth : (y, x) float32
        Plane that is sharpest around each pixel.
    told : (y, x) bool
        Where that stands out of the other planes and of the haze of what is near.
    """

    def __init__(self, stacks: Sequence[Array], reach: float) -> None:
        self._shape = stacks[0].shape[1:]
        self._kept: list[list[Array]] = []
        self._best: list[Array] = []
        for plane in range(len(stacks[0])):
            self._add(plane, [_bands(stack[plane]) for stack in stacks])
        best, mean = self._best[DEPTH_BAND], self._sum / len(stacks[0])
        step = BLOCK_PX >> DEPTH_BAND
        told = (best > DEPTH_CONTRAST * mean) & (not_haze(best, reach, step) > NOT_HAZE)
        self.depth = self._wide(cv2.medianBlur(self._winner, WINDOW_PX))
        specks = np.ones((WINDOW_PX, WINDOW_PX), np.uint8)  # no larger than what was looked at
        told_about = cv2.morphologyEx(told.astype(np.uint8), cv2.MORPH_OPEN, specks)
        self.told = self._wide(told_about) > 0

    def _add(self, plane: int, pyramids: list[list[Array]]) -> None:
        """Take from one plane what is stronger in it than in all before."""
        energies = [_window(band) for band in pyramids[0][:-1]]
        energies.append(cv2.pyrDown(energies[-1]))  # the base goes with the coarsest band
        if not self._kept:
            self._kept, self._best = pyramids, energies
            self._winner = np.zeros_like(energies[DEPTH_BAND])
            self._sum = energies[DEPTH_BAND].copy()
            return
        self._sum += energies[DEPTH_BAND]
        for level, energy in enumerate(energies):
            stronger = energy > self._best[level]
            self._best[level] = np.maximum(energy, self._best[level])
            for kept, pyramid in zip(self._kept, pyramids, strict=True):
                np.copyto(kept[level], pyramid[level], where=stronger)
            if level == DEPTH_BAND:
                self._winner[stronger] = plane

    def _wide(self, level: Array) -> Array:
        rows, columns = self._shape
        return np.asarray(cv2.resize(level, (columns, rows), interpolation=cv2.INTER_NEAREST))

    def fused(self) -> list[Array]:
        """The fused image of each stack, float32, before it is kept within its range."""
        return [_collapsed(kept) for kept in self._kept]


def _bands(plane: Array) -> list[Array]:
    """Laplacian bands from fine to coarse and, last, what remains."""
    smooth: Array = plane.astype(np.float32)
    bands = []
    for _ in range(BANDS):
        small = cv2.pyrDown(smooth)
        bands.append(smooth - cv2.pyrUp(small, dstsize=smooth.shape[::-1]))
        smooth = small
    return [*bands, smooth]


def _window(band: Array) -> Array:
    return np.asarray(cv2.boxFilter(band * band, -1, (WINDOW_PX, WINDOW_PX)))


def _collapsed(bands: list[Array]) -> Array:
    image = bands[-1]
    for band in bands[-2::-1]:
        image = np.asarray(cv2.pyrUp(image, dstsize=band.shape[::-1]) + band)
    return image
