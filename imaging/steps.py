"""Focus stacking at depth steps: a Laplacian pyramid in place of one depth per block.

At a step each depth is right on its own side only, and an edge spreads its blur over its
surroundings. There every scale is taken from the plane in which it is strongest (Burt and Adelson
1983, IEEE Trans. Commun. 31:532). This costs four times the blend and is done near steps only: on
the finest scale planes compete only in tiles in which they win on the next one.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging.depth import BlockDepth, blur_reach, not_haze
from imaging.detail import fuse_detail, keep_band, mix_clipped, reduce_plane
from imaging.kernels import BLOCK_PX

MIN_STEP_PLANES = 2.0  # smaller steps are within the depth of focus of two planes
CLEAR = 0.3  # confidence of blocks that may indicate a step
BANDS = 5
WINDOW_PX = 5  # on each scale
TILE_PX = 64  # smaller ones lose thin things, larger ones time
MARGIN_BLOCKS = 8  # the reach of five bands
RADII_BLOCKS = (1, 2, 4, 8)
RANGE_PX = 25  # window whose range a pixel may not leave
NOT_HAZE = 0.25
DEPTH_CONTRAST = 2.0  # over the mean of all planes, for a depth to be read there

FLOATS = np.finfo(np.float32)

Array = NDArray[Any]
Bands = list[Array]  # of a pyramid, from fine to coarse
Box = tuple[slice, slice]


class Decomposed:
    """The coarse pyramid of a part of a plane, over that of the last one: fresh memory is slow.

    Parameters
    ----------
    box : two slices
        The part, first row and column even.

    Attributes
    ----------
    fine : (y, x) float32
        The second level.
    coarse : (y, x) float32
        The third with one element around it.
    bands : of (y, x) float32
        The bands from the third level on with, last, the residual.
    energies : of (y, x) float32
        The local energy of each of these; the residual has that of the coarsest.
    """

    def __init__(self, box: Box) -> None:
        self._corner = box[0].start // 2, box[1].start // 2
        shapes = [(_span(box[0]), _span(box[1]))]
        for _ in range(BANDS):
            shapes.append(((shapes[-1][0] + 1) // 2, (shapes[-1][1] + 1) // 2))
        self.fine, *self._smooth = [np.empty(shape, np.float32) for shape in shapes[1:]]
        self.coarse = np.empty((shapes[2][0] + 2, shapes[2][1] + 2), np.float32)
        self._scratch, self.bands, self.energies = (
            [np.empty(shape, np.float32) for shape in shapes[2:]] for _ in range(3)
        )
        self._inner = (0, shapes[1][0], 0, shapes[1][1])

    def decompose(self, plane: Array) -> None:
        """Compute the pyramid of a plane, which is read-only and contiguous."""
        reduce_plane(plane, self._corner, self._inner, self.fine)
        for fine, small in pairwise([self.fine, *self._smooth]):
            cv2.pyrDown(fine, dst=small)
        _add_margin(self._smooth[0], self.coarse)
        for fine, small, up, band in zip(
            self._smooth, self._smooth[1:], self._scratch, self.bands, strict=False
        ):
            cv2.pyrUp(small, dst=up, dstsize=fine.shape[::-1])
            np.subtract(fine, up, out=band)
        self.bands[-1][:] = self._smooth[-1]
        for band, square, energy in zip(
            self.bands[:-1], self._scratch, self.energies, strict=False
        ):
            np.multiply(band, band, out=square)
            cv2.boxFilter(square, -1, (WINDOW_PX, WINDOW_PX), dst=energy)
        cv2.pyrDown(self.energies[-2], dst=self.energies[-1])


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
        pyramids, winners, reliable = _fused(stacks, planes, reach, box)
        runs = tile_runs(_wanted(winners, weight, len(stacks[0])), weight.shape)
        details = _fused_details(stacks, planes, box, runs)
        for image, bands, (detail, low, high) in zip(images, pyramids, details, strict=True):
            fused = _collapsed([detail, *bands])
            rounding = np.float32(0.5 if np.issubdtype(image.dtype, np.integer) else 0)
            mix_clipped(fused, low, high, weight, _corner(box), rounding, image)
        read = (weight > 0.5) & (_upsampled(reliable, weight.shape) > 0)
        smooth = cv2.medianBlur(winners, WINDOW_PX)
        depth[box][read] = _upsampled(smooth, weight.shape)[read]


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


def _fused(
    stacks: Sequence[Array], planes: Sequence[NDArray[np.intp]], reach: float, box: Box
) -> tuple[list[Bands], Array, Array]:
    """Fuse Laplacian pyramids plane by plane from their second level on; the first stack selects.

    A plane that stands for several of the first stack is decomposed once. Only one plane's bands
    are in memory at a time.

    Returns
    -------
    pyramids : of each stack
        Each coefficient is that of the plane in which it is strongest.
    winners : (y, x) int16
        This plane, on the second level: of the finest the depth is mostly noise.
    reliable : (y, x) uint8
        Where this plane exceeds the other planes and the haze of its surroundings.
    """
    last = [Decomposed(box) for _ in stacks]
    kept = [[np.zeros_like(band) for band in (each.fine, *each.bands)] for each in last]
    best = [np.full_like(band, -1) for band in kept[0]]
    winners, total = np.zeros(best[0].shape, np.int16), np.zeros(best[0].shape, np.float32)
    whole = (0, winners.shape[0], 0, winners.shape[1])
    for plane in range(len(stacks[0])):
        for each, stack, like in zip(last, stacks, planes, strict=True):
            if plane == 0 or like[plane] != like[plane - 1]:
                each.decompose(stack[like[plane]])
        for each, ours in zip(last, kept, strict=True):
            follow, results = np.bool_(each is not last[0]), (best[0], ours[0], winners)
            keep_band(each.fine, each.coarse, whole, (0, 0), plane, follow, results, total)
        _keep_stronger([ours[1:] for ours in kept], best[1:], last)
    reliable = best[0] > DEPTH_CONTRAST * (total / len(stacks[0]))
    reliable &= not_haze(best[0], reach, step=BLOCK_PX // 2) > NOT_HAZE
    specks = np.ones((WINDOW_PX, WINDOW_PX), np.uint8)  # no larger than the window of the energy
    without_specks = cv2.morphologyEx(reliable.astype(np.uint8), cv2.MORPH_OPEN, specks)
    return kept, winners, without_specks


def _keep_stronger(kept: list[Bands], best: Bands, plane: list[Decomposed]) -> None:
    """Keep the coefficients of a plane that are stronger than in all previous planes."""
    for level, energy in enumerate(plane[0].energies):
        mask = cv2.compare(energy, best[level], cv2.CMP_GT)
        cv2.max(energy, best[level], dst=best[level])
        for ours, each in zip(kept, plane, strict=True):
            cv2.copyTo(each.bands[level], mask, ours[level])


def _wanted(winners: Array, weight: Array, planes: int) -> NDArray[np.bool_]:
    """Return which planes (z, tile rows, tile columns) can win in which tiles of the finest band.

    These are those that win anywhere in the tile on the next level, 1 or 2 of 15 in the mean; none
    where there is no weight.
    """
    rows, columns = (-(-size // TILE_PX) for size in weight.shape)
    wanted = np.zeros((planes, rows, columns), np.bool_)
    tile_rows, tile_columns = (2 * np.arange(size) // TILE_PX for size in winners.shape)
    wanted[winners, tile_rows[:, None], tile_columns] = True
    pixels = ((0, rows * TILE_PX - weight.shape[0]), (0, columns * TILE_PX - weight.shape[1]))
    weighed = np.pad(weight > 0, pixels).reshape(rows, TILE_PX, columns, TILE_PX)
    return np.asarray(wanted & weighed.any(axis=(1, 3)))


def tile_runs(wanted: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return runs of tiles side by side, by rows of tiles.

    Parameters
    ----------
    wanted : (z, tile rows, tile columns) bool
        Which planes are wanted in which tiles.
    shape : tuple of int
        Rows and columns of pixels; the last tiles may be smaller.

    Returns
    -------
    (n, 5) int
        Plane, first and last row, first and last column of pixels.
    """
    beside = np.pad(wanted.transpose(1, 0, 2), ((0, 0), (0, 0), (1, 1))).astype(np.int8)
    change = np.diff(beside, axis=2)
    row, plane, first = np.nonzero(change > 0)
    last = np.nonzero(change < 0)[2]
    rows = np.minimum((row * TILE_PX, (row + 1) * TILE_PX), shape[0])
    columns = np.minimum((first * TILE_PX, last * TILE_PX), shape[1])
    return np.column_stack([plane, *rows, *columns])


def _fused_details(
    stacks: Sequence[Array],
    planes: Sequence[NDArray[np.intp]],
    box: Box,
    runs: NDArray[np.intp],
) -> Iterator[tuple[Array, Array, Array]]:
    """Yield the fused finest band of each stack, and the least and most of what is near it.

    Only the runs of planes in tiles are read; elsewhere the band is 0.
    """
    shape, window = (_span(box[0]), _span(box[1])), np.ones((RANGE_PX, RANGE_PX), np.uint8)
    best, winners = np.full(shape, -1, np.float32), np.zeros(shape, np.int16)
    for number, (stack, like) in enumerate(zip(stacks, planes, strict=True)):
        kept = np.zeros(shape, np.float32)
        limits = np.iinfo(stack.dtype) if np.issubdtype(stack.dtype, np.integer) else FLOATS
        low, high = np.full(shape, limits.max, stack.dtype), np.full(shape, limits.min, stack.dtype)
        follow = np.bool_(number > 0)
        results = (best, kept, winners)
        fuse_detail(stack, like, runs, _corner(box), follow, results, low, high)
        yield kept, cv2.erode(low, window), cv2.dilate(high, window)


def _upsampled(level: Array, shape: tuple[int, ...]) -> Array:
    return np.asarray(cv2.resize(level, shape[::-1], interpolation=cv2.INTER_NEAREST))


def _span(span: slice) -> int:
    return int(span.stop - span.start)


def _corner(box: Box) -> tuple[int, int]:
    return int(box[0].start), int(box[1].start)


def _add_margin(image: Array, wide: Array) -> None:
    """Write an image with a margin of a pixel, as pyrUp has it: mirrored before, repeated after."""
    wide[1:-1, 1:-1] = image
    wide[0, 1:-1], wide[-1, 1:-1] = image[min(1, len(image) - 1)], image[-1]
    wide[:, 0], wide[:, -1] = wide[:, min(2, wide.shape[1] - 2)], wide[:, -2]


def _collapsed(bands: Bands) -> Array:
    image = bands[-1]
    for band in bands[-2::-1]:
        image = np.asarray(cv2.pyrUp(image, dstsize=band.shape[::-1]) + band)
    return image
