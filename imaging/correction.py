"""Correction of frames for the camera and the lamp: the dark first, then the flat, then defects.

A field that is evenly lit gives flat x light + dark. Corrected frames are (frame - dark) / flat in
the type of the frames and clipped to it. Defect pixels get the light of those around.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.defects import fill_defects, learn_defects
from imaging.focus import center_slice
from imaging.kernels import compiled
from imaging.shading import estimate_flat
from scan.correction import Correction, Learned
from scan.focusing import FocusJob, FocusPeak
from scan.plan import Field

Image = NDArray[Any]


def correct(frames: Image, correction: Correction) -> Image:
    """Return corrected frames in their type; pixels at its upper end stay there.

    Frames are returned as they are if there is nothing to correct.

    Parameters
    ----------
    frames : (z, y, x) or (y, x) uint8, uint16 or float32
        Not modified. Frames smaller than the fields are the centres of larger ones.
    correction : Correction
        Of their channel.
    """
    if not correction:
        return frames
    whole = next(field.shape for field in correction if field is not None)
    correction = correction.part(*map(center_slice, whole, frames.shape[-2:]))
    stack = frames.reshape(-1, *frames.shape[-2:])
    corrected = _lit_evenly(stack, correction)
    if correction.defects is not None:
        fill_defects(corrected, correction.defects)
    return corrected.reshape(frames.shape)


def _lit_evenly(stack: Image, correction: Correction) -> Image:
    """Return a stack (z, y, x) without dark and shading, always a copy."""
    if correction.flat is None and correction.dark is None:
        return stack.copy()
    one, none = np.ones(stack.shape[1:], np.float32), np.zeros(stack.shape[1:], np.float32)
    flat = one if correction.flat is None else correction.flat
    dark = none if correction.dark is None else correction.dark
    from imaging.stacking import read_only_contiguous, rounding  # takes long; most frames are even

    integer = np.issubdtype(stack.dtype, np.integer)
    least, top = (0, np.iinfo(stack.dtype).max) if integer else (-np.inf, np.inf)
    factor, shift = 1 / flat, rounding(stack) - dark / flat
    corrected = np.empty_like(stack)
    for plane, result in zip(read_only_contiguous(stack), corrected, strict=True):
        correct_plane(plane, factor, shift, (np.float32(least), np.float32(top)), result)
    return corrected


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


def correct_samples(
    peaks: Mapping[Field, FocusPeak], planes: Sequence[Image], correction: Correction
) -> list[Image]:
    """Return the corrected autofocus images of accepted peaks, which come first, or else all."""
    accepted = sum(peak.reason is None for peak in peaks.values())
    return [correct(plane, correction) for plane in planes[: accepted or None]]


def learn_correction(job: FocusJob, planes: Sequence[Image]) -> Learned:
    """Return the correction of a scan, from its files and from autofocus images.

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
    correction = job.correction
    facts: dict[str, Any] = {}
    if job.estimate_flat:
        fit = estimate_flat(planes, correction.dark)
        correction = correction._replace(flat=fit.flat)
        facts = {"flat": "estimate", "degree": fit.degree, "places": len(planes)}
        facts["scatter"] = round(fit.scatter, 5)
    elif correction.flat is not None:
        facts = {"flat": "file"}
    own = correction.of_channel(job.reference)
    defects = learn_defects([correct(plane, own) for plane in planes])
    if defects.share:
        facts |= {"specks": defects.specks, "defects": round(defects.share, 6)}
    if defects.mask is not None:  # of large frames, images may be the centres only
        mask = np.zeros(job.plan.frame_shape, bool)
        mask[tuple(map(center_slice, mask.shape, defects.mask.shape))] = defects.mask
        correction = correction._replace(defects=mask)
    return correction, facts
