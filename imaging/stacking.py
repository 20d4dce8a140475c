"""Focus stacking: one sharp image and its depth map from a z-stack.

Sharpness is judged on blocks, depth is smooth, and the image blends the two planes nearest to the
depth at each pixel. So every plane is read once for the energy and two are read for the blend.

1. energy   squared Laplacian of the 2x2-binned plane, summed over blocks of 8x8 pixels
2. depth    plane of greatest energy per block, refined by a parabola; empty blocks borrow
3. blend    depth interpolated to pixels, linear between the two nearest planes
4. sharpen  what blending two planes has blurred is given back, where it is not noise
5. steps    where depth leaps, one depth is wrong on both sides: a pyramid is fused there
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imaging import kernels
from imaging.depth import BlockDepth, block_depth, smooth_energy
from imaging.steps import fuse_steps

DTYPES = (np.uint8, np.uint16, np.float32)
GREATEST = 1e15  # whose squares, summed over blocks, float32 holds
LUMINANCE = (0.299, 0.587, 0.114)  # Rec. ITU-R BT.601
# A blend of planes p and 1 - p away from focus is blurred by p (1 - p) times the variance of one
# plane's defocus, which damps detail whose log energy has curvature c by exp(-RATE c p (1 - p)).
# A quarter would hold for the detail that the energy is judged on; finer detail is damped more.
RATE = 0.31
LEAST_RATE = 0.08  # below, nothing would change by more than a fiftieth
LAPLACIAN_NOISE = 1280.0  # of white noise of variance 1: 16 Laplacians (20) of 2x2 sums (4)
ROUNDING_VARIANCE = 1 / 12  # of whole numbers
BAND_NOISE = 48 / 49  # of the same in the band that is sharpened: pixels less the mean of 7x7

Frames = NDArray[Any]
Depth = NDArray[np.float32]


class FocusStack(NamedTuple):
    """A fused image (y, x) or (y, x, c) in the stack's dtype and its depth (y, x) in planes."""

    image: NDArray[np.generic]
    depth: Depth


def focus_stack(frames: Frames, channel: int | None = None) -> FocusStack:
    """Fuse a z-stack into the image that is sharp everywhere, and tell the depth of each pixel.

    Parameters
    ----------
    frames : (z, y, x) or (z, y, x, c) uint8, uint16 or float32
        The planes, in order of height and equally spaced. Not modified.
    channel : int, optional
        The channel that focus is judged on; else the luminance of three channels, or the mean of
        any other number. One depth fuses them all.

    Returns
    -------
    FocusStack
        The image keeps the dtype and lies within the stack's range in the surroundings of every
        pixel (24 px); depth is float32 and runs from 0 to z - 1.

    Raises
    ------
    ValueError
        If there is no plane or pixel, for another dtype or shape, a channel that is not there, and
        for what is not finite or above 1e15. Contrasts below 1e-4 are not seen in float32.
    """
    frames = frames.astype(frames.dtype.newbyteorder("="), copy=False)
    check_frames(frames, channel)
    if frames.ndim == 3:
        (image,), depth = _fuse([sealed(frames)])
        return FocusStack(image, depth)
    channels = [sealed(frames[..., c]) for c in range(frames.shape[3])]
    judged = channels[channel] if channel is not None else sealed(_judged(frames))
    (_, *images), depth = _fuse([judged, *channels])
    return FocusStack(np.stack(images, axis=-1), depth)


def check_frames(frames: Frames, channel: int | None = None) -> None:
    """Refuse what `focus_stack` cannot fuse, with a ValueError."""
    if frames.ndim not in (3, 4) or not frames.size:
        raise ValueError(f"frames: expected (z, y, x) or (z, y, x, c), got shape {frames.shape}")
    if frames.dtype not in DTYPES:
        raise ValueError(f"frames: expected uint8, uint16 or float32, got {frames.dtype}; convert")
    channels = frames.shape[3] if frames.ndim == 4 else 0
    if channel is not None and channel not in range(channels):
        raise ValueError(f"channel: expected one of {list(range(channels))}, got {channel}")
    if frames.dtype == np.float32 and not np.abs(frames).max() <= GREATEST:
        raise ValueError(f"frames: expected finite numbers up to {GREATEST:g}; replace the others")


def _judged(frames: Frames) -> Frames:
    """What focus is judged on, (z, y, x) in the same dtype."""
    channels = frames.shape[3]
    weights = LUMINANCE if channels == 3 else (1 / channels,) * channels
    mixed = frames @ np.array(weights, np.float32) + rounding(frames)
    return np.asarray(mixed.astype(frames.dtype))


def _fuse(stacks: list[Frames]) -> tuple[list[Frames], Depth]:
    """Fuse each of several stacks (z, y, x) by the depth of the first."""
    depth = np.zeros(stacks[0].shape[1:], np.float32)
    if len(stacks[0]) == 1:
        return [stack[0].copy() for stack in stacks], depth
    blocks = block_depth(block_energy(stacks[0]))
    images = [np.empty(stack.shape[1:], stack.dtype) for stack in stacks]
    for stack, image in zip(stacks, images, strict=True):
        kernels.blend(stack, blocks.depth, rounding(stack), image, depth)
        sharpen(image, blocks, depth)
    fuse_steps(stacks, blocks, images, depth)
    return images, depth


def block_energy(frames: Frames) -> NDArray[np.float32]:
    """Focus energy (z, ceil(y / 8), ceil(x / 8)): squared Laplacians summed over blocks."""
    rows, columns = (-(-size // kernels.BLOCK_PX) for size in frames.shape[1:])
    energy = np.empty((len(frames), rows, columns), np.float32)
    for plane, result in zip(sealed(frames), energy, strict=True):
        kernels.block_energy(plane, result)
        smooth_energy(result)
    if np.issubdtype(frames.dtype, np.integer):
        energy += LAPLACIAN_NOISE * ROUNDING_VARIANCE  # else a saturated block is certain of dust
    return energy


def sharpen(image: Frames, blocks: BlockDepth, depth: Depth) -> None:
    """Give back, in place, the detail that blending two planes has cost, where it is not noise."""
    rate = np.float32(RATE * blocks.curvature)
    if rate > LEAST_RATE:
        part = blocks.depth % 1
        mixed = np.square(part) + np.square(1 - part)  # of the noise power of both planes
        noise = np.asarray(BAND_NOISE / LAPLACIAN_NOISE * mixed * blocks.floor, np.float32)
        kernels.sharpen(image, depth, noise, rate, rounding(image))


def sealed(frames: Frames) -> Frames:
    """Frames in one piece that cannot be written to, as a batch from Ray's store is.

    Loops are compiled for such alone: so a rehearsal compiles what batches need, too.
    """
    view = np.ascontiguousarray(frames).view()
    view.setflags(write=False)
    return view


def rounding(pixels: Frames) -> np.float32:
    """What to add before decimals are cut off."""
    return np.float32(0.5 if np.issubdtype(pixels.dtype, np.integer) else 0)
