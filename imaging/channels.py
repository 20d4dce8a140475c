"""Focus stacking of several channels by the depth of one.

The depth is searched in the reference alone, so that all channels show the same surface and lie on
each other. Of another channel only what it blends is read, and one plane more for its noise.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging import kernels
from imaging.alignment import drift, moved
from imaging.depth import BlockDepth
from imaging.flicker import AREAS, even_out, flicker_of_channel
from imaging.stacking import (
    FocusStack,
    check_frames,
    measured_depth,
    read_only_contiguous,
    rounding,
    rounding_energy,
    sharpen,
)
from imaging.steps import fuse_steps

Frames = NDArray[Any]


def stack_channels(
    stacks: Sequence[Frames], reference: int, shifts: Sequence[float], *, align: bool
) -> FocusStack:
    """Fuse the z-stacks of channels into one image (c, y, x).

    Parameters
    ----------
    stacks : sequence of (z, y, x) uint8, uint16 or float32
        Of one type and size; their numbers of planes may differ, the distance of planes may not.
    reference : int
        The channel whose depth all others have.
    shifts : sequence of float
        For each channel the plane, perhaps between two, that shows what the reference's first
        plane does. Where the depth lies beyond a stack, its last plane is taken.
    align : bool
        Correct the lateral drift of the reference's planes, in all channels alike.

    Returns
    -------
    FocusStack
        Its depth is in planes of the reference; its flicker is the greatest of all channels.

    Raises
    ------
    ValueError
        For stacks that `imaging.stacking.focus_stack` cannot fuse.
    """
    for frames in stacks:
        check_frames(frames)
    if align:
        stacks = _aligned(stacks, reference, shifts)
    if len(stacks[reference]) == 1:
        images = [
            stack[_like(stack, shift, 1)[0]] for stack, shift in zip(stacks, shifts, strict=True)
        ]
        return FocusStack(np.stack(images), np.zeros(stacks[0].shape[1:], np.float32))
    return _fused([read_only_contiguous(stack) for stack in stacks], reference, shifts)


def _aligned(stacks: Sequence[Frames], reference: int, shifts: Sequence[float]) -> list[Frames]:
    """Move all planes as those of the reference at their height drifted: the stage did."""
    path = drift(stacks[reference])
    return [
        moved(stack, path[_like(path, -shift, len(stack))])
        for stack, shift in zip(stacks, shifts, strict=True)
    ]


def _like(frames: Frames, shift: float, planes: int) -> NDArray[np.intp]:
    """Return the planes nearest to so many others, of which the first is like plane `shift`."""
    nearest = np.rint(np.arange(planes) + shift).astype(np.intp)
    return np.clip(nearest, 0, len(frames) - 1)


def _fused(stacks: Sequence[Frames], reference: int, shifts: Sequence[float]) -> FocusStack:
    blocks, flicker = measured_depth(stacks[reference])
    flickers = [
        flicker if k == reference else flicker_of_channel(stack) for k, stack in enumerate(stacks)
    ]
    stacks = [
        read_only_contiguous(even_out(stack, found)) if found else stack
        for stack, found in zip(stacks, flickers, strict=True)
    ]
    own, depth = stacks[reference], np.empty(stacks[reference].shape[1:], np.float32)
    image = np.empty((len(stacks), *depth.shape), own.dtype)
    order = sorted(range(len(stacks)), key=lambda k: k != reference)  # the reference first
    for k in reversed(order):  # so that its depth remains
        floor = blocks.floor
        if k != reference:
            above = blocks.depth.mean() + shifts[k] > (len(stacks[k]) - 1) / 2
            floor = _noise_energy(stacks[k][0 if above else -1])
        _blend(stacks[k], blocks._replace(floor=floor), shifts[k], image[k], depth)
    thick = [k for k in order if len(stacks[k]) > 1]
    planes = [_like(stacks[k], shifts[k], len(own)) for k in thick]
    fuse_steps([stacks[k] for k in thick], blocks, [image[k] for k in thick], depth, planes)
    return FocusStack(image, depth, max(found.amount if found else 0.0 for found in flickers))


def _blend(
    frames: Frames, blocks: BlockDepth, shift: float, image: Frames, depth: NDArray[np.float32]
) -> None:
    """Write one channel's image and, in its own planes, the depth by which it was blended."""
    if len(frames) == 1:
        image[:] = frames[0]
        return
    at = np.clip(blocks.depth + np.float32(shift), 0, len(frames) - 1)
    kernels.blend(frames, at, rounding(frames), image, depth)
    sharpen(image, blocks._replace(depth=at), depth)


def _noise_energy(plane: Frames) -> NDArray[np.float32]:
    """Return the energy of blocks in the outer plane that is farther from the surface.

    Where it is in focus all the same, less detail is restored, never noise.
    """
    rows, columns = (-(-size // kernels.BLOCK_PX) for size in plane.shape)
    energy = np.empty((rows, columns), np.float32)
    kernels.block_energy(plane, energy, np.empty((AREAS, AREAS), np.float32))
    kernels.smooth_energy(energy)
    return np.asarray(energy + np.float32(rounding_energy(plane.dtype)))
