"""Focus stacking at depth steps: a Laplacian pyramid in place of one depth per block.

At a step each depth is right on its own side only, and an edge spreads its blur over its
surroundings. There every scale is taken from the plane in which it is strongest (Burt and Adelson
1983, IEEE Trans. Commun. 31:532). This costs ten times the blend and is done near steps only.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging.depth import BlockDepth, blur_reach, not_haze
from imaging.detail import keep_detail
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

TILE_ROWS = 32
DETAIL_MARGIN_PX = 4  # two for the energy's window, two for the interpolation of the coarser level

Array = NDArray[Any]
Bands = list[Array]  # of a pyramid, from fine to coarse
Box = tuple[slice, slice]


class Decomposed:
    """The pyramid of a plane, over that of the last one: fresh memory costs as much as the work.

    Attributes
    ----------
    pixels : (y, x)
        The plane.
    wide : (y, x) float32
        Its next level with a margin of one pixel.
    coarse : of (y, x) float32
        The bands from there on with, last, the residual.
    energies : of (y, x) float32
        The local energy of each of these; the residual has that of the coarsest.
    """

    def __init__(self, plane: Array) -> None:
        shapes = [plane.shape]
        for _ in range(BANDS):
            shapes.append(((shapes[-1][0] + 1) // 2, (shapes[-1][1] + 1) // 2))
        self.wide = np.empty((shapes[1][0] + 2, shapes[1][1] + 2), np.float32)
        self._smooth, self._scratch, self.coarse, self.energies = (
            [np.empty(shape, np.float32) for shape in levels]
            for levels in (shapes, shapes, shapes[1:], shapes[1:])
        )
        self.decompose(plane)

    def decompose(self, plane: Array) -> None:
        """Compute the pyramid of another plane of this shape."""
        self.pixels = np.ascontiguousarray(plane).view()
        self.pixels.setflags(write=False)  # as all kernels get them
        self._smooth[0][:] = plane
        for fine, small in pairwise(self._smooth):
            cv2.pyrDown(fine, dst=small)
        for level in range(BANDS - 1):
            fine, up = self._smooth[level + 1], self._scratch[level + 1]
            cv2.pyrUp(self._smooth[level + 2], dst=up, dstsize=fine.shape[::-1])
            np.subtract(fine, up, out=self.coarse[level])
        self.coarse[-1][:] = self._smooth[-1]
        _add_margin(self._smooth[1], self.wide)
        self._measure()

    def _measure(self) -> None:
        for band, square, energy in zip(
            self.coarse[:-1], self._scratch[1:], self.energies, strict=False
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
        tiles = _tiles(weight > 0)
        parts = [stack[:, *box] for stack in stacks]
        pyramids, sharpest, reliable = _fused(parts, planes, reach, tiles)
        for image, part, bands in zip(images, parts, pyramids, strict=True):
            _mix_into(image[box], _collapsed(bands), part, weight, tiles)
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


def _mix_into(
    image: Array, fused: Array, stack: Array, weight: Array, tiles: Sequence[Box]
) -> None:
    """Mix a fused image into the blend in place, clipped to the range of planes nearby."""
    window = np.ones((RANGE_PX, RANGE_PX), np.uint8)
    for tile in tiles:
        wide, inner = _widened(tile, RANGE_PX // 2, weight.shape)
        part, blend = stack[:, *wide], image[tile]
        low = cv2.erode(part.min(axis=0), window)[inner]
        high = cv2.dilate(part.max(axis=0), window)[inner]
        mixed = blend + weight[tile] * (np.clip(fused[tile], low, high) - blend)
        blend[:] = np.rint(mixed) if np.issubdtype(image.dtype, np.integer) else mixed


def _fused(
    stacks: Sequence[Array],
    planes: Sequence[NDArray[np.intp]],
    reach: float,
    tiles: Sequence[Box],
) -> tuple[list[Bands], Array, Array]:
    """Fuse Laplacian pyramids plane by plane; the first stack selects for all.

    A plane that stands for several of the first stack is decomposed once. The finest band is made
    in the tiles alone, and 0 elsewhere.

    Returns
    -------
    pyramids : of each stack
        Each coefficient is that of the plane in which it is strongest.
    sharpest : (y, x) float32
        This plane, on the band from which depth is read.
    reliable : (y, x) uint8
        Where this plane exceeds the other planes and the haze of its surroundings.
    """
    last = [Decomposed(stack[like[0]]) for stack, like in zip(stacks, planes, strict=True)]
    shape, measured = stacks[0].shape[1:], last[0]
    kept = [[np.zeros(shape, np.float32), *map(np.copy, each.coarse)] for each in last]
    best = [np.full(shape, -1, np.float32), *map(np.copy, measured.energies)]
    _keep_stronger_detail(kept, best[0], last, tiles)
    sharpest, total = np.zeros_like(best[DEPTH_BAND]), best[DEPTH_BAND].copy()
    for plane in range(1, len(stacks[0])):
        for each, stack, like in zip(last, stacks, planes, strict=True):
            if like[plane] != like[plane - 1]:
                each.decompose(stack[like[plane]])
        _keep_stronger_detail(kept, best[0], last, tiles)
        stronger = _keep_stronger(kept, best, last)
        total += measured.energies[DEPTH_BAND - 1]
        sharpest[stronger] = plane
    reliable = best[DEPTH_BAND] > DEPTH_CONTRAST * (total / len(stacks[0]))
    reliable &= not_haze(best[DEPTH_BAND], reach, step=BLOCK_PX >> DEPTH_BAND) > NOT_HAZE
    specks = np.ones((WINDOW_PX, WINDOW_PX), np.uint8)  # no larger than the window of the energy
    without_specks = cv2.morphologyEx(reliable.astype(np.uint8), cv2.MORPH_OPEN, specks)
    return kept, cv2.medianBlur(sharpest, WINDOW_PX), without_specks


def _keep_stronger(kept: list[Bands], best: Bands, plane: list[Decomposed]) -> NDArray[np.bool_]:
    """Keep the coarse coefficients of a plane that are stronger than in all previous planes.

    Returns where they are, on the band from which depth is read. Only one plane's bands are in
    memory at a time.
    """
    masks = []
    for level, energy in enumerate(plane[0].energies, 1):
        masks.append(cv2.compare(energy, best[level], cv2.CMP_GT))
        cv2.max(energy, best[level], dst=best[level])
        for ours, bands in zip(kept, plane, strict=True):
            cv2.copyTo(bands.coarse[level - 1], masks[-1], ours[level])
    return masks[DEPTH_BAND - 1] > 0


def _keep_stronger_detail(
    kept: list[Bands], best: Array, plane: list[Decomposed], tiles: Sequence[Box]
) -> None:
    """Do the same with the finest band, tile by tile: what one needs stays in the cache."""
    first, *others = plane
    stronger = np.empty(best.shape, np.uint8)
    for tile in tiles:
        ends = (tile[0].start, tile[0].stop, tile[1].start, tile[1].stop)
        keep_detail(first.pixels, first.wide, ends, best, kept[0][0], stronger)
        for ours, other in zip(kept[1:], others, strict=True):
            wide, inner = _widened(tile, DETAIL_MARGIN_PX, best.shape)
            cv2.copyTo(_finest(other, wide)[inner], stronger[tile], ours[0][tile])


def _finest(plane: Decomposed, box: Box) -> Array:
    """Return the finest band of a box that begins at even pixels."""
    rows, columns = (slice(span.start // 2, (span.stop + 1) // 2) for span in box)
    pixels, small = plane.pixels[box].astype(np.float32), plane.wide[1:-1, 1:-1][rows, columns]
    return np.asarray(pixels - cv2.pyrUp(small, dstsize=pixels.shape[::-1]))


def _tiles(wanted: NDArray[np.bool_]) -> list[Box]:
    """Return strips that hold all wanted pixels (y, x), each from the first to the last one.

    A strip with all that is computed in it stays in a processor's cache.
    """
    found = []
    for start in range(0, wanted.shape[0], TILE_ROWS):
        rows = slice(start, min(start + TILE_ROWS, wanted.shape[0]))
        columns = np.flatnonzero(wanted[rows].any(axis=0))
        if columns.size:
            found.append((rows, slice(int(columns[0]) // 4 * 4, int(columns[-1]) + 1)))
    return found


def _widened(box: Box, margin: int, shape: tuple[int, ...]) -> tuple[Box, Box]:
    """Return a box with a margin, as far as there are pixels, and where the box is within that."""
    spans = [
        slice(max(span.start - margin, 0), min(span.stop + margin, size))
        for span, size in zip(box, shape, strict=True)
    ]
    inner = [
        slice(span.start - wide.start, span.stop - wide.start)
        for span, wide in zip(box, spans, strict=True)
    ]
    return (spans[0], spans[1]), (inner[0], inner[1])


def _upsampled(level: Array, shape: tuple[int, ...]) -> Array:
    return np.asarray(cv2.resize(level, shape[::-1], interpolation=cv2.INTER_NEAREST))


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
