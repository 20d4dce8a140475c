"""Correction of lateral drift: shifts of a few pixels between the planes of a z-stack."""

from typing import Any

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray

from imaging.stacking import check_frames

# Band that neighbouring planes share: coarser than noise, finer than shading.
FINE_SIGMA_PX, COARSE_SIGMA_PX = 1.5, 8.0
UPSAMPLING = 20  # shifts are measured in twentieths of a pixel
MAX_SHIFT_PX = 16.0  # between neighbours: stages drift less, larger peaks are chance
MIN_CORRELATION = 0.2  # of shifted planes; less is noise

Frames = NDArray[Any]


def align(frames: Frames) -> Frames:
    """Shift the planes of a z-stack onto its central plane.

    Neighbouring planes, which differ least in focus, are registered by the cross-correlation of
    their Fourier transforms (Guizar-Sicairos et al. 2008, Opt. Lett. 33:156). They may be up to
    16 px apart; a plane that has nothing in common with the previous one, such as a dropped frame,
    is shifted like it. Pixels shifted in from outside repeat the edge.

    Parameters
    ----------
    frames : (z, y, x) uint8, uint16 or float32

    Returns
    -------
    (z, y, x) of the same dtype
    """
    return moved(frames, drift(frames))


def moved(frames: Frames, shifts: NDArray[np.float64]) -> Frames:
    """Return planes (z, y, x) moved by shifts (z, 2), as `drift` returns them."""
    return np.stack([_shifted(p, shift) for p, shift in zip(frames, shifts, strict=True)])


def drift(frames: Frames) -> NDArray[np.float64]:
    """Return the shift (y, x) in pixels of each plane onto the central one, (z, 2)."""
    check_frames(frames)
    window = np.outer(np.hanning(frames.shape[1]), np.hanning(frames.shape[2])).astype(np.float32)
    views, center = [_band_pass(plane) * window for plane in frames], len(frames) // 2
    path = np.zeros((len(frames), 2))
    for order in (range(center, len(frames)), range(center, -1, -1)):  # the centre is in focus
        anchor = center
        for plane in order:
            step = _step(views[anchor], views[plane])
            path[plane] = path[anchor] + (0 if step is None else step)
            anchor = anchor if step is None else plane  # an unregistered plane is no anchor
    return path


def _step(before: NDArray[np.float32], view: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """Return the shift of `view` onto `before`; None if they have too little in common."""
    size = float(np.linalg.norm(before) * np.linalg.norm(view))
    if not size:
        return None
    # Not whitened: planes out of focus have only noise at high frequencies.
    step = skimage.registration.phase_cross_correlation(
        before, view, upsample_factor=UPSAMPLING, normalization=None
    )[0]
    shared = float((before * np.roll(view, np.rint(step).astype(int), (0, 1))).sum())
    near = np.abs(step).max() <= MAX_SHIFT_PX and shared >= MIN_CORRELATION * size
    return np.asarray(step) if near else None


def _band_pass(plane: Frames) -> NDArray[np.float32]:
    fine = cv2.GaussianBlur(plane.astype(np.float32), (0, 0), FINE_SIGMA_PX)
    return np.asarray(fine - cv2.GaussianBlur(fine, (0, 0), COARSE_SIGMA_PX))


def _shifted(plane: Frames, shift: NDArray[np.float64]) -> Frames:
    if not shift.any():
        return plane
    move = np.array([[1, 0, shift[1]], [0, 1, shift[0]]], np.float32)
    shape, flags = plane.shape[::-1], cv2.INTER_LANCZOS4
    moved = cv2.warpAffine(plane, move, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.clip(moved, plane.min(), plane.max()))  # Lanczos interpolation overshoots
