"""Focus stacking: one sharp image and its depth map from a z-stack.

Sharpness is measured in blocks, depth is smooth, and each pixel blends the two planes nearest to
its depth. So every plane is read once for the energy, and two are read for the blend.

0. light    planes that flicker are brought to one light; others are used as they are
1. energy   squared Laplacian of the 2x2-binned plane, summed over blocks of 8x8 pixels
2. depth    plane of greatest energy per block, refined by a parabola; empty blocks interpolate
3. blend    depth interpolated to pixels, linear between the two nearest planes
4. sharpen  detail lost by blending two planes is restored where it is not noise
5. steps    at depth steps one depth is wrong on both sides: a pyramid is fused there
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imaging import kernels
from imaging.depth import BlockDepth, block_depth
from imaging.flicker import AREAS, Flicker, even_out, find_flicker
from imaging.lone_pixels import leave_out_lone_pixels
from imaging.steps import fuse_steps

DTYPES = (np.uint8, np.uint16, np.float32)
MAX_VALUE = 1e15  # float32 holds the sum of such squares over blocks
LUMINANCE = (0.299, 0.587, 0.114)  # Rec. ITU-R BT.601
# A blend of planes p and 1 - p away from focus is blurred by p (1 - p) times the variance of one
# plane's defocus, which damps detail whose log energy has curvature c by exp(-RATE c p (1 - p)).
# A quarter holds for the detail that the energy measures; finer detail is damped more.
RATE = 0.31
MIN_RATE = 0.08  # below, nothing changes by more than 2 %
LAPLACIAN_NOISE = 1280.0  # of white noise of variance 1: 16 Laplacians (20) of 2x2 sums (4)
ROUNDING_VARIANCE = 1 / 12  # of integers
BAND_NOISE = 48 / 49  # of the same in the sharpened band: pixels minus the mean of 7x7

Frames = NDArray[Any]
Depth = NDArray[np.float32]


class FocusStack(NamedTuple):
    """A fused image (y, x) or (y, x, c) in the stack's dtype and its depth (y, x) in planes.

    `flicker` is how much the planes differed in light before they were brought to one light, root
    mean square; 0 if they were used as they are.
    """

    image: NDArray[np.generic]
    depth: Depth
    flicker: float = 0.0


def focus_stack(frames: Frames, channel: int | None = None) -> FocusStack:
    """Fuse a z-stack into an image that is sharp everywhere, and the depth of each pixel.

    Parameters
    ----------
    frames : (z, y, x) or (z, y, x, c) uint8, uint16 or float32
        Equally spaced planes in order of height. Not modified.
    channel : int, optional
        Channel on which sharpness is measured; by default the luminance of three channels, or the
        mean of any other number. All channels share one depth.

    Returns
    -------
    FocusStack
        The image keeps the dtype and stays within the stack's range around every pixel (24 px),
        after planes that flicker were brought to one light;
        depth is float32 from 0 to z - 1.

    Raises
    ------
    ValueError
        For an empty stack, another dtype or shape, a missing channel, and values that are not
        finite or above 1e15. In float32, contrasts below 1e-4 are ignored.
    """
    frames = frames.astype(frames.dtype.newbyteorder("="), copy=False)
    check_frames(frames, channel)
    if frames.ndim == 3:
        (image,), depth, flicker = _fuse([read_only_contiguous(frames)])
        return FocusStack(image, depth, flicker)
    channels = [read_only_contiguous(frames[..., c]) for c in range(frames.shape[3])]
    focus_channel = (
        channels[channel] if channel is not None else read_only_contiguous(_focus_channel(frames))
    )
    (_, *images), depth, flicker = _fuse([focus_channel, *channels])
    return FocusStack(np.stack(images, axis=-1), depth, flicker)


def check_frames(frames: Frames, channel: int | None = None) -> None:
    """Raise ValueError for frames that `focus_stack` cannot fuse."""
    if frames.ndim not in (3, 4) or not frames.size:
        raise ValueError(f"frames: expected (z, y, x) or (z, y, x, c), got shape {frames.shape}")
    if frames.dtype not in DTYPES:
        raise ValueError(f"frames: expected uint8, uint16 or float32, got {frames.dtype}; convert")
    channels = frames.shape[3] if frames.ndim == 4 else 0
    if channel is not None and channel not in range(channels):
        raise ValueError(f"channel: expected one of {list(range(channels))}, got {channel}")
    if frames.dtype == np.float32 and not np.abs(frames).max() <= MAX_VALUE:
        raise ValueError(f"frames: expected finite numbers up to {MAX_VALUE:g}; replace the others")


def _focus_channel(frames: Frames) -> Frames:
    """Return the channel on which sharpness is measured, (z, y, x) in the same dtype."""
    channels = frames.shape[3]
    weights = LUMINANCE if channels == 3 else (1 / channels,) * channels
    mixed = frames @ np.array(weights, np.float32) + rounding(frames)
    return np.asarray(mixed.astype(frames.dtype))


def _fuse(stacks: list[Frames]) -> tuple[list[Frames], Depth, float]:
    """Fuse several stacks (z, y, x) by the depth of the first; all with its flicker."""
    shape = stacks[0].shape[1:]
    if len(stacks[0]) == 1:
        return [stack[0].copy() for stack in stacks], np.zeros(shape, np.float32), 0.0
    blocks, flicker = measured_depth(stacks[0])
    if flicker:
        stacks = [read_only_contiguous(even_out(stack, flicker)) for stack in stacks]
    images, depth = [np.empty(shape, stack.dtype) for stack in stacks], np.empty(shape, np.float32)
    for stack, image in zip(stacks, images, strict=True):
        kernels.blend(stack, blocks.depth, rounding(stack), image, depth)
        sharpen(image, blocks, depth)
    fuse_steps(stacks, blocks, images, depth)
    return images, depth, flicker.amount if flicker else 0.0


def measured_depth(frames: Frames) -> tuple[BlockDepth, Flicker | None]:
    """Return the depth of the blocks of a stack, and the flicker without which it is measured."""
    energy, light = _measured(frames)
    flicker = find_flicker(frames, light)
    if flicker:
        energy *= np.square(flicker.gain)[:, None, None]
    return block_depth(_with_rounding(energy, frames.dtype)), flicker


def block_energy(frames: Frames) -> NDArray[np.float32]:
    """Return the focus energy (z, ceil(y / 8), ceil(x / 8)): squared Laplacians by block."""
    return _with_rounding(_measured(frames)[0], frames.dtype)


def _measured(frames: Frames) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the energy of blocks and the light of areas, in one pass over the pixels.

    Pixels that stand out alone in every plane have no part in the energy.
    """
    frames = read_only_contiguous(frames)
    rows, columns = (-(-size // kernels.BLOCK_PX) for size in frames.shape[1:])
    energy = np.empty((len(frames), rows, columns), np.float32)
    light = np.empty((len(frames), AREAS, AREAS), np.float32)
    for plane, result, areas in zip(frames, energy, light, strict=True):
        kernels.block_energy(plane, result, areas)
    leave_out_lone_pixels(frames, energy, rounding_energy(frames.dtype))
    for result in energy:
        kernels.smooth_energy(result)
    return energy, light


def _with_rounding(energy: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[np.float32]:
    """Add the noise of rounding in place; else dust in a saturated block is certain."""
    if np.issubdtype(dtype, np.integer):
        energy += np.float32(rounding_energy(dtype))
    return energy


def rounding_energy(dtype: np.dtype[Any]) -> float:
    """Return the energy that rounding to a type gives to a block."""
    return LAPLACIAN_NOISE * ROUNDING_VARIANCE if np.issubdtype(dtype, np.integer) else 0.0


def sharpen(image: Frames, blocks: BlockDepth, depth: Depth) -> None:
    """Restore in place the detail lost by blending two planes, where it is not noise."""
    rate = np.float32(RATE * blocks.curvature)
    if rate > MIN_RATE:
        part = blocks.depth % 1
        mixed = np.square(part) + np.square(1 - part)  # of both planes' noise power
        noise = np.asarray(BAND_NOISE / LAPLACIAN_NOISE * mixed * blocks.floor, np.float32)
        kernels.sharpen(image, depth, noise, rate, rounding(image))


def read_only_contiguous(frames: Frames) -> Frames:
    """Return a contiguous read-only view, the memory layout of a batch from Ray's store.

    Kernels are compiled for this layout only, so a warm-up compiles what batches need.
    """
    view = np.ascontiguousarray(frames).view()
    view.setflags(write=False)
    return view


def rounding(pixels: Frames) -> np.float32:
    """Return what to add so that truncation rounds."""
    return np.float32(0.5 if np.issubdtype(pixels.dtype, np.integer) else 0)
