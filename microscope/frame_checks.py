"""Checks of the frames of a live camera."""

import numpy as np

from scan.errors import CaptureError


def require_valid_frames(
    frames: np.ndarray,
    shape: tuple[int, ...],
    dtype: np.dtype,
    saturated_limit: float,
    bits: int | None = None,
) -> None:
    """Raise the CaptureError of the first frame that is missing, blank, repeated or saturated.

    Parameters
    ----------
    frames : numpy.ndarray
        (z, y, x) as the camera delivered them.
    shape, dtype :
        As requested.
    saturated_limit : float
        Fraction of a plane's pixels that may be saturated; floats are never saturated.
    bits : int, optional
        Bits of a pixel that carry light; by default all bits of its type.
    """
    if frames.shape != shape or frames.dtype != dtype:
        raise _damaged(f"frames {shape} of {dtype}", f"{frames.shape} of {frames.dtype}")
    for number, plane in enumerate(frames):
        if not plane.any():
            raise _damaged("light in every plane", f"plane {number} all zero")
        if number and _equal(frames[number - 1], plane):
            got = f"plane {number} equal to the one before, pixel by pixel"
            hint = "check its connection, and bursts = false if its focus drive does not follow"
            raise CaptureError("camera", "a new image in every plane", got, hint)
        if (fraction := _saturated(plane, bits)) > saturated_limit:
            got = f"{fraction:.0%} of plane {number}"
            raise _damaged(f"at most {saturated_limit:.0%} saturated pixels", got)


def _equal(before: np.ndarray, plane: np.ndarray) -> bool:
    """Return whether two planes are equal; with noise most differ in the first row already."""
    return np.array_equal(before[0], plane[0]) and np.array_equal(before, plane)


def _saturated(plane: np.ndarray, bits: int | None) -> float:
    if plane.dtype.kind == "f":
        return 0.0
    full = 2**bits - 1 if bits else np.iinfo(plane.dtype).max
    return float(np.count_nonzero(plane >= full) / plane.size) if plane.max() >= full else 0.0


def _damaged(expected: str, got: str) -> CaptureError:
    return CaptureError("camera", expected, got, "check its connection, exposure and shutter")
