"""Files of flat field and dark field: TIFF images of the size of a frame, flats by channel."""

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
    if settings.flat_field == ESTIMATE and setup.channels.several:
        hint = "give a TIFF with a flat for each"
        raise InputError("flat_field", "a file with several channels", ESTIMATE, hint)
    shape, count = setup.plan.frame_shape, len(setup.channels.each) or 1
    flat = _normalised(_read(flat_file, shape, count), flat_file) if flat_file else None
    dark = _read(settings.dark_field, shape)[0] if settings.dark_field else None
    named = {"flat_field": flat_file, "dark_field": settings.dark_field}
    absolute = {key: str(Path(name).absolute()) for key, name in named.items() if name}
    unknown = settings.flat_field == ESTIMATE and dark is None
    return replace(
        setup,
        settings=settings.model_copy(update=absolute),
        correction=Correction(flat if flat is None or count > 1 else flat[0], dark),
        warnings=(*setup.warnings, *[NO_DARK] * unknown),
    )


def _read(name: str, frame_shape: tuple[int, int], channels: int = 1) -> np.ndarray:
    """Return the planes of a file, (c, y, x) float32."""
    path, several = (
        Path(name),
        f"{channels} images, one a channel," if channels > 1 else "one image",
    )
    expected = "a TIFF file with {} of {} x {} pixels".format(several, *frame_shape)
    hint = "save planes of the camera's size, of the same binning and ROI"
    if path.suffix.lower() not in TIFF_SUFFIXES:
        raise InputError(name, expected, "a name that ends otherwise", hint)
    info = examine(path)
    if info.warnings:
        raise InputError(name, expected, "; ".join(info.warnings), hint)
    if (shape := (len(info.planes), *info.shape)) != (channels, *frame_shape):
        raise InputError(name, expected, f"the shape {shape}", hint)
    return np.asarray(read_planes(path, range(channels)), np.float32)


def _normalised(flats: np.ndarray, name: str) -> np.ndarray:
    """Return flats divided by their means; InputError unless there is light everywhere."""
    dead = int(np.count_nonzero(~(flats > 0)))
    if dead:
        hint = "replace these pixels by their neighbours"
        raise InputError(name, "values above 0", f"{dead} pixels without light", hint)
    mean = flats.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    return np.asarray(flats / mean, np.float32)
