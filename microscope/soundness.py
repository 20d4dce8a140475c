"""Whether the frames of a live camera are what was asked for."""

import numpy as np

from scan.errors import CaptureError


def require_sound(
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
        (z, y, x) as they came.
    shape, dtype : of what was asked for.
    saturated_limit : float
        Part of a plane's pixels that may hold the greatest value; of floats, all may.
    bits : int, optional
        Of a pixel that carry light; by default all that its type has.
    """
    if frames.shape != shape or frames.dtype != dtype:
        raise _damaged(f"frames {shape} of {dtype}", f"{frames.shape} of {frames.dtype}")
    for number, plane in enumerate(frames):
        if not plane.any():
            raise _damaged("light in every plane", f"plane {number} all zero")
        if number and _equal(frames[number - 1], plane):
            came = f"plane {number} equal to the one before, pixel by pixel"
            advice = "check its connection, and bursts = false if its focus drive does not follow"
            raise CaptureError("camera", "a new image in every plane", came, advice)
        if (part := _saturated(plane, bits)) > saturated_limit:
            came = f"{part:.0%} of plane {number}"
            raise _damaged(f"at most {saturated_limit:.0%} saturated pixels", came)


def _equal(before: np.ndarray, plane: np.ndarray) -> bool:
    """Whether two planes are the same; noise tells most of them apart in the first row."""
    return np.array_equal(before[0], plane[0]) and np.array_equal(before, plane)


def _saturated(plane: np.ndarray, bits: int | None) -> float:
    if plane.dtype.kind == "f":
        return 0.0
    full = 2**bits - 1 if bits else np.iinfo(plane.dtype).max
    return float(np.count_nonzero(plane >= full) / plane.size) if plane.max() >= full else 0.0


def _damaged(expected: str, came: str) -> CaptureError:
    return CaptureError("camera", expected, came, "check its connection, exposure and shutter")
