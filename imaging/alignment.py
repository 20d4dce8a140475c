"""Drift: planes of a z-stack that are shifted against each other by a few pixels."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation

# What neighbouring planes share lies between their noise and their shading.
FINE_SIGMA_PX, COARSE_SIGMA_PX = 1.5, 8.0
STEPS_PER_PX = 20

Frames = NDArray[Any]


def align(frames: Frames) -> Frames:
    """Shift the planes of a z-stack so that they lie upon its middle one.

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
    window = np.outer(np.hanning(frames.shape[1]), np.hanning(frames.shape[2])).astype(np.float32)
    views = (_detail(plane) * window for plane in frames)
    steps = [np.zeros(2)]
    before = next(views)
    for view in views:
        # Not whitened: planes out of focus have noise alone at high frequencies.
        found = phase_cross_correlation(
            before, view, upsample_factor=STEPS_PER_PX, normalization=None
        )
        steps.append(found[0])
        before = view
    path = np.cumsum(steps, axis=0)
    return np.asarray(path - path[len(path) // 2])


def _detail(plane: Frames) -> NDArray[np.float32]:
    fine = cv2.GaussianBlur(plane.astype(np.float32), (0, 0), FINE_SIGMA_PX)
    return np.asarray(fine - cv2.GaussianBlur(fine, (0, 0), COARSE_SIGMA_PX))


def _moved(plane: Frames, shift: NDArray[np.float64]) -> Frames:
    if not shift.any():
        return plane
    move = np.array([[1, 0, shift[1]], [0, 1, shift[0]]], np.float32)
    return np.asarray(
        cv2.warpAffine(
            plane,
            move,
            plane.shape[::-1],
            flags=cv2.INTER_LANCZOS4,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )
