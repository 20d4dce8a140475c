"""Drift: planes of a z-stack that are shifted against each other by a few pixels."""

from typing import Any

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray

from imaging.stacking import check_frames

# What neighbouring planes share lies between their noise and their shading.
FINE_SIGMA_PX, COARSE_SIGMA_PX = 1.5, 8.0
UPSAMPLING = 20  # shifts are told in twentieths of a pixel
FARTHEST_PX = 16.0  # between neighbours: stages drift by less, and what is found beyond is chance
LEAST_CORRELATION = 0.2  # planes that share less, shifted, are noise to each other

Frames = NDArray[Any]


def align(frames: Frames) -> Frames:
    """Shift the planes of a z-stack so that they lie upon its middle one.

    Neighbours may lie up to 16 px apart; a plane that has nothing in common with the one before,
    such as a dropped frame, moves with it.

    Neighbouring planes, which differ least in focus, are registered by the cross-correlation of
    their Fourier transforms (Guizar-Sicairos et al. 2008, Opt. Lett. 33:156). What a plane does not
    show, shifted, repeats its edge.

    Parameters
    ----------
    frames : (z, y, x) uint8, uint16 or float32

    Returns
    -------
    (z, y, x) of the same dtype
    """
    return np.stack([_moved(p, shift) for p, shift in zip(frames, drift(frames), strict=True)])


def drift(frames: Frames) -> NDArray[np.float64]:
    """How far (y, x) in pixels each plane must move to lie upon the middle one, (z, 2)."""
    check_frames(frames)
    window = np.outer(np.hanning(frames.shape[1]), np.hanning(frames.shape[2])).astype(np.float32)
    views, middle = [_detail(plane) * window for plane in frames], len(frames) // 2
    path = np.zeros((len(frames), 2))
    for order in (range(middle, len(frames)), range(middle, -1, -1)):  # the middle is in focus
        placed = middle
        for plane in order:
            step = _step(views[placed], views[plane])
            path[plane] = path[placed] + (0 if step is None else step)
            placed = placed if step is None else plane  # what has no place gives none to others
    return path


def _step(before: NDArray[np.float32], view: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """How far `view` must move to lie upon `before`; None if they have too little in common."""
    size = float(np.linalg.norm(before) * np.linalg.norm(view))
    if not size:
        return None
    # Not whitened: planes out of focus have noise alone at high frequencies.
    step = skimage.registration.phase_cross_correlation(
        before, view, upsample_factor=UPSAMPLING, normalization=None
    )[0]
    shared = float((before * np.roll(view, np.rint(step).astype(int), (0, 1))).sum())
    near = np.abs(step).max() <= FARTHEST_PX and shared >= LEAST_CORRELATION * size
    return np.asarray(step) if near else None


def _detail(plane: Frames) -> NDArray[np.float32]:
    fine = cv2.GaussianBlur(plane.astype(np.float32), (0, 0), FINE_SIGMA_PX)
    return np.asarray(fine - cv2.GaussianBlur(fine, (0, 0), COARSE_SIGMA_PX))


def _moved(plane: Frames, shift: NDArray[np.float64]) -> Frames:
    if not shift.any():
        return plane
    move = np.array([[1, 0, shift[1]], [0, 1, shift[0]]], np.float32)
    shape, flags = plane.shape[::-1], cv2.INTER_LANCZOS4
    moved = cv2.warpAffine(plane, move, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.clip(moved, plane.min(), plane.max()))  # Lanczos overshoots
