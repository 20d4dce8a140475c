"""Correction of frames for the camera and the lamp: the dark first, then the flat.

A field that is evenly lit gives flat x light + dark. Corrected frames are (frame - dark) / flat in
the type of the frames and clipped to it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.focus import center_slice
from imaging.kernels import compiled
from imaging.shading import estimate_flat
from imaging.stacking import read_only_contiguous, rounding
from scan.correction import Correction, Learned
from scan.focusing import FocusJob

Image = NDArray[Any]


def correct(frames: Image, correction: Correction) -> Image:
    """Return corrected frames in their type; pixels at its upper end stay there.

    Frames are returned as they are if there is nothing to correct.

    Parameters
    ----------
    frames : (z, y, x) or (y, x) uint8, uint16 or float32
        Not modified. Frames smaller than the fields are the centres of larger ones.
    correction : Correction
    """
    if not correction:
        return frames
    stack = read_only_contiguous(frames.reshape(-1, *frames.shape[-2:]))
    flat, dark = _fields(correction, stack.shape[1:])
    integer = np.issubdtype(stack.dtype, np.integer)
    least, top = (0, np.iinfo(stack.dtype).max) if integer else (-np.inf, np.inf)
    factor, shift = 1 / flat, rounding(stack) - dark / flat
    corrected = np.empty_like(stack)
    for plane, result in zip(stack, corrected, strict=True):
        correct_plane(plane, factor, shift, (np.float32(least), np.float32(top)), result)
    return corrected.reshape(frames.shape)


def _fields(correction: Correction, shape: tuple[int, ...]) -> tuple[Image, Image]:
    """Return flat and dark for frames of a shape."""
    whole = next(field.shape for field in correction if field is not None)
    rows, columns = map(center_slice, whole, shape)
    flat, dark = correction.part(rows, columns)
    return (
        np.ones(shape, np.float32) if flat is None else flat,
        np.zeros(shape, np.float32) if dark is None else dark,
    )


@compiled
def correct_plane(plane, factor, shift, bounds, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Multiply and shift each pixel within bounds; values at the upper one stay there."""
    least, top = bounds
    for y in range(plane.shape[0]):
        row, scale, added, wide = plane[y], factor[y], shift[y], out[y]
        for x in range(row.size):
            value = np.float32(row[x])
            scaled = scale[x] * value + added[x]
            scaled = scaled if scaled > least else least
            scaled = scaled if value < top and scaled < top else top
            wide[x] = scaled


def learn_correction(job: FocusJob, planes: Sequence[Image]) -> Learned:
    """Return the correction of a scan from its files and, if asked for, from autofocus images.

    Parameters
    ----------
    job : FocusJob
    planes : sequence of (y, x)
        The sharpest plane of each sample field, not corrected.

    Raises
    ------
    ShadingError
        If the flat is to be estimated, and the images do not tell it.
    """
    flat, dark = job.correction
    if not job.estimate_flat:
        return job.correction, {"flat": "file"} if flat is not None else {}
    fit = estimate_flat(planes, dark)
    facts = {"flat": "estimate", "degree": fit.degree, "scatter": round(fit.scatter, 5)}
    return Correction(fit.flat, dark), facts | {"places": len(planes)}
