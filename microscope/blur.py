"""Blur of single objects by defocus: all light is kept, and a wide blur costs as little as a narrow
one.

A Gaussian blur is a product of one of the rows and one of the columns, and so two products of
matrices: of a small patch that is several times as fast as a filter.
"""

import math
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

REACH = 3.5  # standard deviations to which a blur is drawn; beyond lies 0.05 % of the light
STEP_PX = 0.02  # of standard deviations, so that objects and planes share matrices
FINE_PX = 8.0  # wider blurs hold no detail: the light of several pixels is spread as that of one
MAX_PRODUCTS = 2**18  # in OpenBLAS, interface/gemm.c: 4 times SMP_THRESHOLD_MIN

Floats = NDArray[Any]


def coarseness(sigma_px: float) -> int:
    """Return the number of pixels along each axis whose light a blur of this width may take as
    one."""
    return 1 << max(0, math.floor(math.log2(2 * sigma_px / FINE_PX)))


def coarser(patch: Floats, factor: int) -> Floats:
    """Average a square patch of an odd number of pixels with a rim of zeros; what was in the middle
    stays there in `add_blurred`."""
    middle = len(patch) // 2
    before = factor + -middle % factor
    wide = cv2.copyMakeBorder(patch, *(before, before - 1) * 2, cv2.BORDER_CONSTANT, value=0)
    small = (len(wide) // factor,) * 2
    return cv2.resize(wide, small, interpolation=cv2.INTER_AREA)


def add_blurred(
    light: Floats, patch: Floats, centre_px: tuple[int, int], sigma_px: float, factor: int
) -> None:
    """Spread the light of a square patch by a Gaussian and add it in place.

    Parameters
    ----------
    light : (y, x) float32
        The frame; what falls beyond its borders is not computed.
    patch : (n, n) float32
        At 1 / factor of the resolution, see `coarser`.
    centre_px : (int, int)
        The pixel (y, x) of the frame on which the middle of the patch falls, inside or outside.
    sigma_px : float
        Standard deviation at full resolution.
    factor : int
        As `coarseness` says.
    """
    pixels = len(patch)
    spread = _spread(-(-pixels // 64) * 64, round(sigma_px / STEP_PX), factor)
    size = len(spread) - factor * (spread.shape[1] - pixels)
    (top, up, down), (left, near, far) = (
        _seen(centre - size // 2, size, edge)
        for centre, edge in zip(centre_px, light.shape, strict=True)
    )
    if up < down and near < far:
        rows, columns = spread[up:down, :pixels], spread[near:far, :pixels]
        seen = light[top + up : top + down, left + near : left + far]
        seen += _product(rows, _product(patch, columns.T))


def _product(left: Floats, right: Floats) -> Floats:
    """The product of two matrices in pieces so small that OpenBLAS starts no threads for them: its
    threads would take the cores that stacking needs, and longer."""
    rows = max(1, MAX_PRODUCTS // right.size)
    if rows >= len(left):
        return np.asarray(left @ right)
    return np.concatenate([left[k : k + rows] @ right for k in range(0, len(left), rows)])


def _seen(first: int, size: int, edge: int) -> tuple[int, int, int]:
    """Where a patch begins along an axis of the frame, and its part that lies in the frame."""
    return first, max(-first, 0), min(size, edge - first)


@lru_cache(maxsize=256)
def _spread(pixels: int, steps: int, factor: int) -> Floats:
    """Where the light of each pixel along an axis comes to lie, (m, pixels) float32; its first rows
    and columns are those of fewer pixels.

    What is averaged over factor pixels is as wide as they are: that variance, factor² / 12, is
    taken off, less the 1 / 12 of a pixel itself.
    """
    variance = (STEP_PX * steps) ** 2 - (factor**2 - 1) / 12
    reach = math.ceil(REACH * math.sqrt(variance))
    span, last = 2 * reach + factor, factor * (pixels - 1)
    distance = np.arange(span, dtype=np.float32) - np.float32((span - 1) / 2)
    profile = np.exp(distance * distance * np.float32(-0.5 / variance))
    line = np.zeros(2 * last + span, np.float32)  # each column of the matrix is a piece of it
    line[last : last + span] = profile * np.float32(factor / profile.sum())
    shape, size = (last + span, pixels), line.itemsize
    return np.ndarray(shape, line.dtype, line, last * size, (size, -factor * size)).copy()
