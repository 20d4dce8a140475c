"""Pixels that stand out alone in every plane: those of the sensor, not of the specimen.

A hot or dead pixel is as sharp in each plane, so its noise decides which plane is sharpest. What is
the same in every plane says nothing about depth: it does not vote.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging import kernels
from imaging.kernels import BLOCK_PX, EIGHTH, compiled

MIN_PLANES = 3
MIN_EXCESS = 2.0  # of a block's least energy over that around it, to be looked at
MAX_SHARE = 4  # at most one in so many blocks is looked at, those with the greatest excess
STEADY = 0.5  # of what sets a pixel off in its weakest plane, over that in its strongest
MAX_SPREAD = 0.12  # of its light that the pixels around have each
MANY = 32  # from so many pixels on, all energies are computed again

STEPS = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
NEIGHBOURS = [step for step in STEPS if max(map(abs, step)) == 1]
RING = [step for step in STEPS if max(map(abs, step)) == 2]

Frames = NDArray[Any]
Energy = NDArray[np.float32]
Indices = NDArray[np.intp]


def leave_out_lone_pixels(frames: Frames, energy: Energy, floor: float) -> None:
    """Take from the energies, in place, what pixels have added that stand out alone in all planes.

    Parameters
    ----------
    frames : (z, y, x)
    energy : (z, y, x) float32
        Of blocks, as from `kernels.block_energy`, not smoothed.
    floor : float
        Energy that rounding alone gives.
    """
    if len(frames) < MIN_PLANES or min(frames.shape[1:]) <= BLOCK_PX:
        return
    rows, columns = _lone_pixels(frames, *_conspicuous(energy, floor))
    if not rows.size:
        return
    values = np.median(_around(frames, rows, columns, NEIGHBOURS), axis=0)  # (z, pixels)
    if rows.size < MANY:
        _measure_again(frames, energy, (rows, columns), values)
        return
    cleaned = frames.copy()
    cleaned[:, rows, columns] = values
    cleaned.setflags(write=False)
    for plane, result in zip(cleaned, energy, strict=True):
        kernels.block_energy(plane, result, np.empty((1, 1), np.float32))


def _conspicuous(energy: Energy, floor: float) -> tuple[Indices, Indices]:
    """Return rows and columns of blocks with more energy in every plane than those around have."""
    least = energy.min(axis=0)
    usual = cv2.medianBlur(least, 5)
    excess = (least / (usual + np.float32(floor + 1e-6))).ravel()
    found = np.flatnonzero(excess > MIN_EXCESS)
    most = -(-least.size // MAX_SHARE)
    if found.size > most:
        found = np.sort(found[np.argsort(-excess[found], kind="stable")[:most]])
    rows, columns = np.unravel_index(found, least.shape)
    return rows, columns


def _lone_pixels(
    frames: Frames, block_rows: Indices, block_columns: Indices
) -> tuple[Indices, Indices]:
    """Return rows and columns of the pixels in some blocks that stand out alone in all planes."""
    rows, columns = _lone_in_blocks(frames[0], block_rows, block_columns)
    for plane in (frames[-1], frames[len(frames) // 2]):  # few are left for all planes
        around = _around(plane, rows, columns, NEIGHBOURS)  # (8, pixels)
        alone = abs(plane[rows, columns] - around.mean(axis=0)) > np.ptp(around, axis=0)
        rows, columns = rows[alone], columns[alone]
    if not rows.size:
        return rows, columns
    around = _around(frames, rows, columns, NEIGHBOURS)  # (8, z, pixels)
    off = frames[:, rows, columns] - around.mean(axis=0)
    strength = abs(off)
    one_sided = abs(np.sign(off).sum(axis=0)) == len(frames)
    steady = strength.min(axis=0) > STEADY * strength.max(axis=0)
    alone = one_sided & steady & (strength > np.ptp(around, axis=0)).all(axis=0)
    rows, columns = rows[alone], columns[alone]
    sharp = _sharper_than_optics(frames, rows, columns)
    return rows[sharp], columns[sharp]


def _lone_in_blocks(
    plane: Frames, block_rows: Indices, block_columns: Indices
) -> tuple[Indices, Indices]:
    """Return the pixels in blocks of a plane that differ from their neighbours more than these."""
    found = np.empty((BLOCK_PX**2 * block_rows.size, 2), np.intp)
    number = find_lone(plane, block_rows, block_columns, found)
    return found[:number, 0], found[:number, 1]


@compiled
def find_lone(plane, block_rows, block_columns, found):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write rows and columns of such pixels, block by block; return how many they are."""
    patch = np.empty((BLOCK_PX + 2, BLOCK_PX + 2), np.float32)
    excess = np.empty(BLOCK_PX, np.float32)
    number = 0
    for k in range(block_rows.size):
        top, left = block_rows[k] * BLOCK_PX, block_columns[k] * BLOCK_PX
        load_patch(plane, top - 1, left - 1, patch)
        for y in range(min(BLOCK_PX, plane.shape[0] - top)):
            if excess_of_row(patch[y], patch[y + 1], patch[y + 2], excess) <= 0:
                continue
            for x in range(min(BLOCK_PX, plane.shape[1] - left)):
                if excess[x] > 0:
                    found[number, 0], found[number, 1] = top + y, left + x
                    number += 1
    return number


@compiled
def load_patch(plane, top, left, patch):  # type: ignore[no-untyped-def] # pragma: no cover
    """Copy a part of a plane; beyond the edges pixels are mirrored, or, farther, anything."""
    last, end = plane.shape[0] - 1, plane.shape[1] - 1
    for y in range(patch.shape[0]):
        row = plane[max(last - abs(last - abs(top + y)), 0)]
        for x in range(patch.shape[1]):
            patch[y, x] = np.float32(row[max(end - abs(end - abs(left + x)), 0)])


@compiled
def excess_of_row(above, here, below, excess):  # type: ignore[no-untyped-def] # pragma: no cover
    """Write by how much pixels differ from their neighbours more than these; return the most."""
    most = np.float32(-1)
    for x in range(BLOCK_PX):
        total, lowest, highest = above[x], above[x], above[x]
        for value in (
            above[x + 1],
            above[x + 2],
            here[x],
            here[x + 2],
            below[x],
            below[x + 1],
            below[x + 2],
        ):
            total += value
            lowest = value if value < lowest else lowest
            highest = value if value > highest else highest
        excess[x] = abs(here[x + 1] - total * EIGHTH) - (highest - lowest)
    for x in range(BLOCK_PX):
        most = excess[x] if excess[x] > most else most
    return most


def _mirrored(index: Indices, size: int) -> Indices:
    """Return indices within a size; those beyond its ends are mirrored there."""
    return np.asarray(size - 1 - abs(size - 1 - abs(index)))


def _around(
    frames: Frames, rows: Indices, columns: Indices, steps: list[tuple[int, int]]
) -> NDArray[np.float32]:
    """Return the pixels at some steps from others; beyond the edge they are mirrored."""
    height, width = frames.shape[-2:]
    around = [
        frames[..., _mirrored(rows + y, height), _mirrored(columns + x, width)] for y, x in steps
    ]
    return np.stack(around).astype(np.float32)


def _sharper_than_optics(frames: Frames, rows: Indices, columns: Indices) -> NDArray[np.bool_]:
    """Return which pixels have no light of their own in the pixels around, over all planes.

    Around the image of a point there is a seventh of it if its Gaussian is as narrow as 0.6 px.
    """
    if not rows.size:
        return np.zeros(0, bool)
    far = np.median(_around(frames, rows, columns, RING), axis=0).mean(axis=0)
    near = _around(frames, rows, columns, NEIGHBOURS).mean(axis=(0, 1))
    own = frames[:, rows, columns].mean(axis=0)
    return np.asarray(abs(near - far) < MAX_SPREAD * abs(own - far))


def _measure_again(
    frames: Frames, energy: Energy, lone: tuple[Indices, Indices], values: NDArray[np.float32]
) -> None:
    """Compute again, in place, the energies in which lone pixels have a part, by their new values.

    As `kernels.block_energy` does it: the Laplacian of 2x2 sums, over 12 x 12 pixels of each block.
    """
    blocks = np.unique(
        [
            (row, column)
            for at in zip(*lone, strict=True)
            for row in _blocks_near(at[0], energy.shape[1])
            for column in _blocks_near(at[1], energy.shape[2])
        ],
        axis=0,
    )
    rows, columns = (
        _pixels_of(blocks[:, axis], energy.shape[axis + 1], frames.shape[axis + 1])
        for axis in (0, 1)
    )
    patch = frames[:, rows[:, :, None], columns[:, None, :]].astype(np.float32)
    for row, column, value in zip(*lone, values.T, strict=True):
        here = (rows == row)[:, :, None] & (columns == column)[:, None, :]
        patch[:, here] = value[:, None]
    binned = patch.reshape(*patch.shape[:2], 6, 2, 6, 2).sum(axis=(3, 5))
    bend = 4 * binned[..., 1:-1, 1:-1] - binned[..., 1:-1, :-2] - binned[..., 1:-1, 2:]
    bend -= binned[..., :-2, 1:-1] + binned[..., 2:, 1:-1]
    energy[:, blocks[:, 0], blocks[:, 1]] = np.square(bend).sum(axis=(2, 3))


def _blocks_near(at: int, blocks: int) -> range:
    """Return the blocks along an axis in which a pixel has a part: a Laplacian reaches over 3."""
    return range(max(at - 3, 0) // BLOCK_PX, min((at + 3) // BLOCK_PX, blocks - 1) + 1)


def _pixels_of(blocks: Indices, count: int, size: int) -> Indices:
    """Return the pixels along an axis that each block needs (blocks, 12), repeated at the edges."""
    binned = np.clip(4 * blocks[:, None] + np.arange(-1, 5), 0, 4 * count - 1)
    pixels = np.stack([2 * binned, 2 * binned + 1], axis=-1).reshape(len(blocks), -1)
    return np.minimum(pixels, size - 1)
