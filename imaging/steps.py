"""Focus stacking at depth steps: a Laplacian pyramid in place of one depth per block.

At a step each depth is right on its own side only, and an edge spreads its blur over its
surroundings. There every scale is taken from the plane in which it is strongest (Burt and Adelson
1983, IEEE Trans. Commun. 31:532). This costs ten times the blend and is done near steps only.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging.depth import BlockDepth, blur_reach, not_haze
from imaging.kernels import BLOCK_PX

MIN_STEP_PLANES = 2.0  # smaller steps are within the depth of focus of two planes
CLEAR = 0.3  # confidence of blocks that may indicate a step
BANDS = 5
WINDOW_PX = 5  # on each scale
MARGIN_BLOCKS = 8  # the reach of five bands
RADII_BLOCKS = (1, 2, 4, 8)
RANGE_PX = 25  # window whose range a pixel may not leave
DEPTH_BAND = 1  # from which depth is read: the finest is mostly noise
NOT_HAZE = 0.25
DEPTH_CONTRAST = 2.0  # over the mean of all planes, for a depth to be read there

Array = NDArray[Any]
Bands = list[Array]  # of a pyramid, from fine to coarse


def fuse_steps(
    stacks: Sequence[Array],
    blocks: BlockDepth,
    images: Sequence[Array],
    depth: Array,
    planes: Sequence[NDArray[np.intp]] | None = None,
) -> None:
    """Fuse again, in place, the surroundings of steps of more than two planes.

    Parameters
    ----------
    stacks : of (z, y, x)
        Sharpness is measured on the first.
    blocks : BlockDepth
        Of the first stack.
    images : of (y, x)
        The blend of each stack.
    depth : (y, x) float32
        In planes.
    planes : sequence of int arrays, optional
        For each stack its planes that show what those of the first do; by default the same ones.
    """
    planes = planes or [np.arange(len(stacks[0]))] * len(stacks)
    reach = blur_reach(blocks.curvature, len(stacks[0]) - 1)
    for box, weight in _step_boxes(step_blocks(blocks), depth.shape):
        parts = [stack[:, *box] for stack in stacks]
        pyramids, sharpest, reliable = _fused(parts, planes, reach)
        for image, part, bands in zip(images, parts, pyramids, strict=True):
            _mix_into(image[box], _collapsed(bands), part, weight)
        read = (weight > 0.5) & (_upsampled(reliable, weight.shape) > 0)
        depth[box][read] = _upsampled(sharpest, weight.shape)[read]


def step_blocks(blocks: BlockDepth) -> NDArray[np.bool_]:
    """Return the blocks (y, x) that the blur of a step reaches."""
    clear = blocks.step_confidence > CLEAR
    around = np.ones((3, 3), np.uint8)
    high = cv2.dilate(np.where(clear, blocks.peak, 0), around)
    low = cv2.erode(np.where(clear, blocks.peak, np.float32(np.inf)), around)
    spread = np.where(clear, high - low, 0)
    near: Array = np.zeros(spread.shape, np.uint8)
    if spread.max() <= MIN_STEP_PLANES:
        return np.asarray(near, bool)
    reach = blur_reach(blocks.curvature, spread)
    for radius in RADII_BLOCKS:
        far = (spread > MIN_STEP_PLANES) & (reach > radius / 2)
        disc = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        near = np.maximum(near, cv2.dilate(far.astype(np.uint8), disc))
    return np.asarray(near, bool)


Box = tuple[slice, slice]


def _step_boxes(near: NDArray[np.bool_], shape: tuple[int, ...]) -> Iterator[tuple[Box, Array]]:
    """Yield boxes of pixels around steps, and the weight of the pyramid in each, 0 to 1."""
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
    """Return weights of pixels from a mask of blocks, falling to 0 over about two blocks."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7)
    wide = cv2.resize(soft, None, fx=BLOCK_PX, fy=BLOCK_PX, interpolation=cv2.INTER_LINEAR)
    rows, columns = (span.stop - span.start for span in box)
    return np.asarray(wide[:rows, :columns])


def _mix_into(image: Array, fused: Array, stack: Array, weight: Array) -> None:
    """Mix a fused image into the blend in place, clipped to the range of planes nearby."""
    window = np.ones((RANGE_PX, RANGE_PX), np.uint8)
    low, high = cv2.erode(stack.min(axis=0), window), cv2.dilate(stack.max(axis=0), window)
    mixed = image + weight * (np.clip(fused, low, high) - image)
    image[:] = np.rint(mixed) if np.issubdtype(image.dtype, np.integer) else mixed


def _fused(
    stacks: Sequence[Array], planes: Sequence[NDArray[np.intp]], reach: float
) -> tuple[list[Bands], Array, Array]:
    """Fuse Laplacian pyramids plane by plane; the first stack selects for all.

    A plane that stands for several of the first stack is decomposed once.

    Returns
    -------
    pyramids : of each stack
        Each coefficient is that of the plane in which it is strongest.
    sharpest : (y, x) float32
        This plane, on the band from which depth is read.
    reliable : (y, x) uint8
        Where this plane exceeds the other planes and the haze of its surroundings.
    """
    kept = [_bands(stack[like[0]]) for stack, like in zip(stacks, planes, strict=True)]
    last: list[Bands] = []
    best = _energies(kept[0])
    sharpest, total = np.zeros_like(best[DEPTH_BAND]), best[DEPTH_BAND].copy()
    for plane in range(1, len(stacks[0])):
        last = [
            last[k] if last and like[plane] == like[plane - 1] else _bands(stack[like[plane]])
            for k, (stack, like) in enumerate(zip(stacks, planes, strict=True))
        ]
        energy, stronger = _keep_stronger(kept, best, last)
        total += energy
        sharpest[stronger] = plane
    reliable = best[DEPTH_BAND] > DEPTH_CONTRAST * (total / len(stacks[0]))
    reliable &= not_haze(best[DEPTH_BAND], reach, step=BLOCK_PX >> DEPTH_BAND) > NOT_HAZE
    specks = np.ones((WINDOW_PX, WINDOW_PX), np.uint8)  # no larger than the window of the energy
    without_specks = cv2.morphologyEx(reliable.astype(np.uint8), cv2.MORPH_OPEN, specks)
    return kept, cv2.medianBlur(sharpest, WINDOW_PX), without_specks


def _keep_stronger(kept: list[Bands], best: Bands, plane: list[Bands]) -> tuple[Array, Array]:
    """Keep the coefficients of a plane that are stronger than in all previous planes.

    Returns its energy, and where it is stronger, on the band from which depth is read. Only one
    plane's bands are in memory at a time.
    """
    energies = _energies(plane[0])
    stronger = [energy > before for energy, before in zip(energies, best, strict=True)]
    for level, energy in enumerate(energies):
        np.maximum(energy, best[level], out=best[level])
        for ours, bands in zip(kept, plane, strict=True):
            np.copyto(ours[level], bands[level], where=stronger[level])
    return energies[DEPTH_BAND], stronger[DEPTH_BAND]


def _upsampled(level: Array, shape: tuple[int, ...]) -> Array:
    return np.asarray(cv2.resize(level, shape[::-1], interpolation=cv2.INTER_NEAREST))


def _bands(plane: Array) -> Bands:
    """Return the Laplacian bands and, last, the residual."""
    smooth: Array = plane.astype(np.float32)
    bands = []
    for _ in range(BANDS):
        small = cv2.pyrDown(smooth)
        bands.append(smooth - cv2.pyrUp(small, dstsize=smooth.shape[::-1]))
        smooth = small
    return [*bands, smooth]


def _energies(bands: Bands) -> Bands:
    """Return the local energy of each band; the residual gets that of the coarsest."""
    energies = [cv2.boxFilter(band * band, -1, (WINDOW_PX, WINDOW_PX)) for band in bands[:-1]]
    return [*energies, cv2.pyrDown(energies[-1])]


def _collapsed(bands: Bands) -> Array:
    image = bands[-1]
    for band in bands[-2::-1]:
        image = np.asarray(cv2.pyrUp(image, dstsize=band.shape[::-1]) + band)
    return image
