"""Files of flat field and dark field: TIFF images of the size of a frame."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from config import ESTIMATE
from microscope.image_files import TIFF_SUFFIXES, examine, read_planes
from microscope.opening import Setup
from scan.correction import Correction
from scan.errors import InputError

NO_DARK = (
    "flat_field is estimated without a dark_field: what the camera shows without light counts as "
    "light, which in fluorescence costs several percent"
)


def with_fields(setup: Setup) -> Setup:
    """Return a setup with the fields that its settings name; InputError if one cannot be used."""
    settings = setup.settings
    flat_file = settings.flat_field if settings.flat_field != ESTIMATE else None
    flat = _read(flat_file, setup.plan.frame_shape) if flat_file else None
    dark = _read(settings.dark_field, setup.plan.frame_shape) if settings.dark_field else None
    if flat is not None and flat_file:
        flat = _normalised(flat, flat_file)
    named = {"flat_field": flat_file, "dark_field": settings.dark_field}
    absolute = {key: str(Path(name).absolute()) for key, name in named.items() if name}
    unknown = settings.flat_field == ESTIMATE and dark is None
    return replace(
        setup,
        settings=settings.model_copy(update=absolute),
        correction=Correction(flat, dark),
        warnings=(*setup.warnings, *[NO_DARK] * unknown),
    )


def _read(name: str, frame_shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels of a file, (y, x) float32."""
    path, expected = Path(name), "a TIFF image of {} x {} pixels, one channel".format(*frame_shape)
    hint = "save one plane of the camera's size, of the same binning and ROI"
    if path.suffix.lower() not in TIFF_SUFFIXES:
        raise InputError(name, expected, "a name that ends otherwise", hint)
    info = examine(path)
    if info.warnings:
        raise InputError(name, expected, "; ".join(info.warnings), hint)
    if (shape := (len(info.planes), *info.shape)) != (1, *frame_shape):
        raise InputError(name, expected, f"the shape {shape}", hint)
    return np.asarray(read_planes(path, [0])[0], np.float32)


def _normalised(flat: np.ndarray, name: str) -> np.ndarray:
    """Return a flat divided by its mean; InputError unless there is light everywhere."""
    dead = int(np.count_nonzero(~(flat > 0)))
    if dead:
        hint = "replace these pixels by their neighbours"
        raise InputError(name, "values above 0", f"{dead} pixels without light", hint)
    return np.asarray(flat / flat.mean(dtype=np.float64), np.float32)
