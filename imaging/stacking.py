"""Focus stacking: one sharp image and its depth map from a z-stack.

Sharpness is judged on blocks, depth is smooth, and the image blends the two planes nearest to the
depth at each pixel. So every plane is read once for the energy, two are read for the blend, and the
result stays within the range of the stack.

1. energy   squared Laplacian of the 2x2-binned plane, summed over blocks of 8x8 pixels
2. depth    plane of greatest energy per block, refined by a parabola through the log energies
3. smooth   a Gaussian weighted by confidence: empty blocks borrow their neighbours' depth
4. blend    depth interpolated to pixels, linear between the two nearest planes
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numba
import numpy as np
from numpy.typing import NDArray

BLOCK_PX = 8  # small enough for cell-sized relief, large enough to average shot noise
ENERGY_SIGMA_BLOCKS = 1.0  # steadies single blocks; wider would smear steps
DEPTH_SIGMA_BLOCKS = 1.5
BORROW_SIGMA_BLOCKS = (6.0, 24.0)  # how far empty blocks look for a confident neighbour
CONFIDENCE_FLOOR = 0.3  # noise alone lets the best of 15 planes exceed their mean by about 0.2
CONFIDENCE_CAP = 8.0  # a peak this much above the mean is certain; a bright rim counts no more

Depth = NDArray[np.float32]


class FocusStack(NamedTuple):
    """A fused image (y, x) in the stack's dtype and its depth map (y, x) float32 in planes."""

    image: NDArray[np.generic]
    depth: Depth


def focus_stack(frames: NDArray[np.generic]) -> FocusStack:
    """Fuse a z-stack into the image that is sharp everywhere, and tell the depth of each pixel.

    Parameters
    ----------
    frames : (z, y, x) uint8, uint16 or float32
        The planes, in order of height. Not modified.

    Returns
    -------
    FocusStack
        The image keeps the dtype and lies within the stack's range at every pixel; depth runs from
        0 to z - 1.
    """
    frames = np.ascontiguousarray(frames)
    if len(frames) == 1:
        return FocusStack(frames[0].copy(), np.zeros(frames.shape[1:], np.float32))
    grid = depth_grid(block_energy(frames))
    depth = np.empty(frames.shape[1:], np.float32)
    image = np.empty(frames.shape[1:], frames.dtype)
    rounding = np.float32(0.5 if np.issubdtype(frames.dtype, np.integer) else 0)
    _blend(frames, grid, rounding, image, depth)
    return FocusStack(image, depth)


def block_energy(frames: NDArray[np.generic]) -> NDArray[np.float32]:
    """Focus energy (z, ceil(y / 8), ceil(x / 8)): squared Laplacians summed over blocks."""
    height, width = frames.shape[1:]
    blocks = (-(-height // BLOCK_PX), -(-width // BLOCK_PX))
    energy = np.empty((len(frames), *blocks), np.float32)
    binned = np.empty((blocks[0] * BLOCK_PX // 2, blocks[1] * BLOCK_PX // 2), np.float32)
    for plane, result in zip(frames, energy, strict=True):
        _bin_twice(plane, binned)
        _laplacian_energy(binned, result)
        cv2.GaussianBlur(result, (0, 0), ENERGY_SIGMA_BLOCKS, dst=result)
    return energy


def depth_grid(energy: NDArray[np.float32]) -> Depth:
    """Depth in planes per block, from its energy (z, y, x)."""
    peak = np.argmax(energy, axis=0)
    depth = peak + _sub_plane_offset(energy, peak)
    confidence = _confidence(energy)
    smooth = _weighted_blur(depth, confidence, DEPTH_SIGMA_BLOCKS)
    for sigma in BORROW_SIGMA_BLOCKS:
        wide = _weighted_blur(depth, confidence, sigma)
        smooth = _mix(smooth, wide)
    mean = np.average(depth, weights=confidence) if confidence.any() else (len(energy) - 1) / 2
    depth = _mix(smooth, (np.full_like(depth, mean), np.ones_like(depth)))[0]
    return np.asarray(np.clip(depth, 0, len(energy) - 1), np.float32)


def _sub_plane_offset(energy: NDArray[np.float32], peak: NDArray[np.intp]) -> NDArray[np.float32]:
    """Vertex of the parabola through three log energies, within half a plane of the peak."""
    inner = np.clip(peak, 1, max(1, len(energy) - 2))[None]
    if len(energy) < 3:
        return np.zeros(peak.shape, np.float32)
    below, centre, above = (
        np.log(np.take_along_axis(energy, inner + step, 0)[0] + 1e-6) for step in (-1, 0, 1)
    )
    bend = below - 2 * centre + above
    offset = np.where(bend < -1e-6, (below - above) / np.where(bend < -1e-6, 2 * bend, 1), 0)
    return np.asarray(np.where(peak == inner[0], np.clip(offset, -0.5, 0.5), 0), np.float32)


def _confidence(energy: NDArray[np.float32]) -> NDArray[np.float32]:
    contrast = energy.max(axis=0) / (energy.mean(axis=0) + 1e-6) - 1 - CONFIDENCE_FLOOR
    return np.asarray(np.square(np.clip(contrast, 0, CONFIDENCE_CAP)), np.float32)


Weighted = tuple[NDArray[Any], NDArray[Any]]


def _weighted_blur(
    depth: NDArray[np.float32], weight: NDArray[np.float32], sigma: float
) -> Weighted:
    """Normalised convolution: the blurred depth, and the blurred weight behind it."""
    behind = cv2.GaussianBlur(weight, (0, 0), sigma)
    blurred = cv2.GaussianBlur(depth.astype(np.float32) * weight, (0, 0), sigma)
    return blurred / np.maximum(behind, 1e-12), behind


def _mix(near: Weighted, far: Weighted) -> Weighted:
    """The near depth where it has weight behind it, the far one where it has none."""
    share = near[1] / (near[1] + 0.05)
    return share * near[0] + (1 - share) * far[0], share * near[1] + (1 - share) * far[1]


@numba.njit(cache=True, nogil=True)
def _bin_twice(plane, binned):  # type: ignore[no-untyped-def] # pragma: no cover
    """Sums of 2x2 pixels; beyond the plane's edge its last row and column go on."""
    height, width = plane.shape
    whole = min(width // 2, binned.shape[1])
    for row in range(binned.shape[0]):
        upper = plane[min(2 * row, height - 1)]
        lower = plane[min(2 * row + 1, height - 1)]
        out = binned[row]
        for column in range(whole):
            out[column] = (
                np.float32(upper[2 * column])
                + np.float32(upper[2 * column + 1])
                + np.float32(lower[2 * column])
                + np.float32(lower[2 * column + 1])
            )
        for column in range(whole, binned.shape[1]):
            left, right = min(2 * column, width - 1), min(2 * column + 1, width - 1)
            out[column] = (
                np.float32(upper[left])
                + np.float32(upper[right])
                + np.float32(lower[left])
                + np.float32(lower[right])
            )


@numba.njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _laplacian_energy(binned, energy):  # type: ignore[no-untyped-def] # pragma: no cover
    """Squared 4-neighbour Laplacian summed over blocks of 4x4 binned pixels."""
    height, width = binned.shape
    row_energy = np.empty(width, np.float32)
    for block_row in range(energy.shape[0]):
        row_energy[:] = 0
        for row in range(block_row * 4, block_row * 4 + 4):
            here, above = binned[row], binned[max(row - 1, 0)]
            below = binned[min(row + 1, height - 1)]
            for column in range(1, width - 1):
                bend = (
                    4 * here[column]
                    - here[column - 1]
                    - here[column + 1]
                    - above[column]
                    - below[column]
                )
                row_energy[column] += bend * bend
        row_energy[0], row_energy[width - 1] = row_energy[1], row_energy[width - 2]
        for block in range(energy.shape[1]):
            energy[block_row, block] = (
                row_energy[4 * block]
                + row_energy[4 * block + 1]
                + row_energy[4 * block + 2]
                + row_energy[4 * block + 3]
            )


@numba.njit(cache=True, nogil=True)
def _blend(frames, grid, rounding, image, depth):  # type: ignore[no-untyped-def] # pragma: no cover
    """Interpolate the depth grid to pixels and blend the two planes around it."""
    height, width = image.shape
    rows, columns = grid.shape
    last = frames.shape[0] - 1
    line = np.empty(columns, np.float32)
    for y in range(height):
        place = min(max((y + 0.5) / BLOCK_PX - 0.5, 0.0), rows - 1.0)
        top = min(int(place), rows - 1)
        share = np.float32(place - top)
        bottom = min(top + 1, rows - 1)
        for column in range(columns):
            line[column] = grid[top, column] + share * (grid[bottom, column] - grid[top, column])
        for x in range(width):
            across = min(max((x + 0.5) / BLOCK_PX - 0.5, 0.0), columns - 1.0)
            left = int(across)
            right = min(left + 1, columns - 1)
            z = line[left] + np.float32(across - left) * (line[right] - line[left])
            lower = min(int(z), last - 1)
            part = z - np.float32(lower)
            value = (
                np.float32(frames[lower, y, x]) * (np.float32(1) - part)
                + np.float32(frames[lower + 1, y, x]) * part
            )
            depth[y, x] = z
            image[y, x] = value + rounding
