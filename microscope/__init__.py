"""Sources of images: the stage moves to a position, the camera captures the planes there.

Invariant: no knowledge of Ray, `results` or `imaging`. Positions are absolute, so a repeated call
captures the same z-stack again.

Positions are (x_um, y_um, z_um), arrays are (z, y, x). The position of a field is its centre: if
mosaic pixel i lies at i * pixel_size_um, the field of pixels first … first + width - 1 lies at
x_um = (first + (width - 1) / 2) * pixel_size_um.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class ZStack:
    """The planes of one field, and the times of their exposures.

    Attributes
    ----------
    frames : numpy.ndarray
        (z, y, x), C-contiguous, dtype of the microscope.
    due_s : tuple of float
        For each plane the wall-clock time (as now_s) at which the stage should have settled,
        so that the exposure could begin.
    began_s : tuple of float
        For each plane the wall-clock time at which exposure began; the slip is began - due.
    ended_s : float
        Wall-clock end of the last exposure.
    """

    frames: np.ndarray
    due_s: tuple[float, ...]
    began_s: tuple[float, ...]
    ended_s: float


class Microscope(Protocol):
    """A stage, a focus drive and a camera, used by one owner.

    Attributes
    ----------
    frame_shape : tuple of int
        (y, x) of one plane, in pixels.
    dtype : numpy.dtype
        Of the frames.
    """

    frame_shape: tuple[int, int]
    dtype: np.dtype

    def stack(self, x_um: float, y_um: float, z_um: Sequence[float], channel: int = 0) -> ZStack:
        """Capture one plane of a channel at each focus height, in this order; CaptureError on
        failure."""

    def stop(self) -> None:
        """Stop the stage; safe in any state."""

    def close(self) -> None:
        """Release the devices; may be called twice."""
