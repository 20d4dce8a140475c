"""Depth of each block of a z-stack from its focus energies."""

from math import ceil
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from imaging import kernels
from imaging.haze import outshining

DEPTH_SIGMA_BLOCKS = 1.0
BORROW_SIGMA_BLOCKS = (6.0, 24.0)  # range in which empty blocks find confident neighbours
COARSE = 4  # far neighbours are averaged on a grid this much coarser
CONFIDENCE_FLOOR = 0.3  # noise alone lets the best of 15 planes exceed their mean by about 0.2
CONFIDENCE_CAP = 8.0  # such a peak is certain; a bright rim has no more weight
# The light of a sharp object spreads in planes out of focus and has energy there: rarely more than
# this fraction of the object's, within so many times the visible reach of its blur.
HAZE, CONE = 0.1, 1.2
# A block with less certainty than this shows nothing of its own. It follows the stronger ones
# around it if they have this share of the strength of what outshines it; else that is far away.
HIDDEN, FOLLOW = 0.01, 0.1
# A step must be certain, since haze taken for a step gives halos: blocks are weighed so against all
# that the blur of any plane reaches, up to so many blocks.
STEP_HAZE, HAZE_REACH_BLOCKS = 0.6, 12
# Gaussian blur in px per plane that gives a curvature of log energy, on texture of all scales,
# measured for 0.7 to 2 px; two standard deviations contain the visible part.
MIN_BLUR_PX, BLUR_PX_PER_CURVATURE, BLUR_REACH = 0.25, 0.5, 2.0
TRUSTED_QUARTILE = 75  # the strongest quarter of the blocks gives the curvature
# In few planes the noise is at least this share of the energy of the emptiest blocks. All of it
# would leave nothing of some of them, whose logarithm is as good as infinite.
FEW_PLANES, EMPTY_PERCENTILE, EMPTY_SHARE = 4, 5, 0.5
SPARSE = (slice(None, None, 2),) * 2  # every fourth block suffices for a typical value
ENOUGH = 0.05  # confidence at which farther neighbours have equal weight

Blocks = NDArray[np.float32]


class BlockDepth(NamedTuple):
    """Depth and related values of each block (y, x) of 8x8 pixels.

    Attributes
    ----------
    depth : float32
        In planes, smooth.
    peak : float32
        The same before smoothing.
    confidence : float32
        0 (no contrast) to 64; low where the peak may be haze.
    step_confidence : float32
        The same for steps, low near anything stronger.
    floor : float32
        Minimum energy over planes: that of noise, where the block is out of focus.
    curvature : float
        Negative second difference of log energy over planes; 0 if unknown.
    """

    depth: Blocks
    peak: Blocks
    confidence: Blocks
    step_confidence: Blocks
    floor: Blocks
    curvature: float


def blur_reach(curvature: float, planes: Any) -> Any:
    """Return how far light spreads, in blocks, this many planes out of focus."""
    blur_px = MIN_BLUR_PX + BLUR_PX_PER_CURVATURE * curvature
    return BLUR_REACH * blur_px * planes / kernels.BLOCK_PX


def block_depth(energy: NDArray[np.float32]) -> BlockDepth:
    """Find the depth of each block from its energies.

    Parameters
    ----------
    energy : (z, y, x) float32
        Energies of two or more planes.
    """
    shape = energy.shape[1:]
    floor, mean, height = np.empty((3, *shape), np.float32)
    best, around = np.empty(shape, np.int32), np.empty((3, *shape), np.float32)
    kernels.peaks(energy, floor, mean, height, best, around)
    # Noise varies with saturation, so a block is compared with the typical floor, too.
    confidence = _confidence(height, np.maximum(mean, np.median(floor[SPARSE])))
    inner = (best > 0) & (best < len(energy) - 1)
    offset, bend = _parabola(around - _noise_below(floor, len(energy)))
    peak = np.asarray(best + np.where(inner, offset, 0), np.float32)
    signal = height - floor
    curvature = _typical(bend, signal, inner & (confidence > 0))
    wide = not_haze(signal, blur_reach(curvature, len(energy) - 1), STEP_HAZE)
    cone = outshining(signal, best, len(energy), CONE * blur_reach(curvature, 1))
    own = _certainty(signal, HAZE * cone)
    confidence *= own
    depth = _smooth(peak, confidence, len(energy))
    _follow_stronger(depth, own < HIDDEN, peak, confidence * signal, cone)
    depth = np.clip(depth, 0, len(energy) - 1)
    certain = confidence * wide
    return BlockDepth(depth.astype(np.float32), peak, confidence, certain, floor, curvature)


def _confidence(height: Blocks, mean: Blocks) -> Blocks:
    contrast = height / np.maximum(mean, 1e-6) - 1 - CONFIDENCE_FLOOR
    return np.asarray(np.square(np.clip(contrast, 0, CONFIDENCE_CAP)), np.float32)


def not_haze(signal: Blocks, reach: float, haze: float = 0.03, step: int = 1) -> Blocks:
    """Return 1 for blocks as strong as their surroundings, down to 0 for possible haze of these.

    `reach` is in blocks, `haze` the share of an object's energy that its haze may have; `step` is
    the number of elements of `signal` per block.
    """
    size = 2 * step * min(ceil(reach), HAZE_REACH_BLOCKS) + 1
    strongest = cv2.dilate(signal, np.ones((size, size), np.uint8))
    return _certainty(signal, haze * strongest)


def _certainty(signal: Blocks, haze: Any) -> Blocks:
    return np.asarray(np.square(signal / np.maximum(signal + haze, 1e-6)), np.float32)


def _noise_below(floor: Blocks, planes: int) -> Any:
    """Return what to subtract from the energies around the peak: that of noise.

    In few planes the least energy is mostly one of those around the peak, with the block's own
    signal in it: curvature would be many times too large. There the emptiest blocks show the noise.
    """
    if planes > FEW_PLANES:
        return floor
    return np.minimum(floor, EMPTY_SHARE * np.percentile(floor, EMPTY_PERCENTILE))


def _parabola(around: NDArray[np.float32]) -> tuple[Blocks, Blocks]:
    """Return vertex (within half a plane) and bend of the parabola through three log energies."""
    below, centre, above = np.log(np.maximum(around, 1e-3))
    bend = 2 * centre - below - above
    vertex = 0.5 * (above - below) / np.maximum(bend, 1e-6)
    return np.where(bend > 1e-6, np.clip(vertex, -0.5, 0.5), 0), bend


def _typical(bend: Blocks, signal: Blocks, known: NDArray[np.bool_]) -> float:
    known = known[SPARSE]
    if not known.any():
        return 0.0
    signal, bend = signal[SPARSE][known], bend[SPARSE][known]
    least = (signal.size - 1) * TRUSTED_QUARTILE // 100
    return max(0.0, float(np.median(bend[signal >= np.partition(signal, least)[least]])))


Weighted = tuple[NDArray[Any], NDArray[Any]]


def _smooth(peak: Blocks, confidence: Blocks, planes: int) -> Blocks:
    """Smooth the depth of each block; blocks with low confidence take that of farther ones."""
    weighted = np.stack([peak * confidence, confidence], axis=-1)
    depth = _mean(cv2.GaussianBlur(weighted, (5, 5), DEPTH_SIGMA_BLOCKS))
    rows, columns = peak.shape
    small = (-(-columns // COARSE), -(-rows // COARSE))
    coarse = cv2.resize(weighted, small, interpolation=cv2.INTER_AREA)
    for sigma in BORROW_SIGMA_BLOCKS:
        far = cv2.GaussianBlur(coarse.reshape(*small[::-1], 2), (0, 0), sigma / COARSE)
        depth = _mix(depth, _mean(cv2.resize(far, (columns, rows)).reshape(rows, columns, 2)))
    known = confidence.sum()
    middle = weighted[..., 0].sum() / known if known > 0 else (planes - 1) / 2
    return np.asarray(_mix(depth, (np.full_like(peak, middle), np.ones_like(peak)))[0])


def _follow_stronger(
    depth: Blocks, hidden: NDArray[np.bool_], peak: Blocks, strength: Blocks, cone: Blocks
) -> None:
    """Give hidden blocks the depth of the stronger ones around them; these have halos otherwise."""
    if hidden.any():
        weighted = np.stack([peak * strength, strength], axis=-1)
        stronger, known = _mean(cv2.GaussianBlur(weighted, (5, 5), DEPTH_SIGMA_BLOCKS))
        hidden &= known > FOLLOW * cone
        depth[hidden] = stronger[hidden]


def _mean(weighted: NDArray[Any]) -> Weighted:
    return weighted[..., 0] / np.maximum(weighted[..., 1], 1e-12), weighted[..., 1]


def _mix(near: Weighted, far: Weighted) -> Weighted:
    """Mix two depths: the near one where it has confidence, else the far one."""
    share = near[1] / (near[1] + ENOUGH)
    return share * near[0] + (1 - share) * far[0], share * near[1] + (1 - share) * far[1]
