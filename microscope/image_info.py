"""What one file or OME-Zarr image tells of itself, without its pixels."""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from microscope.coordinates import Coordinates
from microscope.input_checks import MAX_PLANES
from scan.errors import InputError
from scan.text import describe

TAKES = "a whole TIFF, PNG or JPEG file, a folder of them, or an OME-Zarr image"
LUMINANCE = "colour is converted to luminance"
MAX_FLOAT = 1e15  # larger values overflow float32 when squares are summed
PIXELS = f"integers within 0 … 65535 or finite floats up to {MAX_FLOAT:g}"

# Letters of axes, as tifffile and OME-Zarr have them. I and Q are axes without a name.
AXIS_OF_LETTER = {"T": "time", "C": "channel", "Z": "z", "P": "position", "R": "position",
                  "M": "position"}  # fmt: skip
UNNAMED = "IQ"


class ImageInfo(NamedTuple):
    """Metadata of one file or OME-Zarr image.

    Attributes
    ----------
    path : Path
    planes : tuple of (int, Coordinates)
        Number of each plane in the file, and what the file tells of where it belongs.
    shape : tuple of int
        (y, x) in pixels.
    dtype : numpy.dtype
        As stored.
    pixel_size_um, z_step_um : float or None
    by : str
        What told the coordinates.
    set_name : str or None
        Of the set of files for which the coordinates hold; None if they hold for the file alone.
    set_files : tuple of str
        Names of all its files in lower case, where they are told.
    channels, colours : tuple of str
        Names and colours (six hex digits) of channels, where there are any.
    warnings : tuple of str
    stamp, size_stamp : int
        Change with size and time of the file, or with its size alone.
    rgb : bool
        Whether pixels are red, green and blue.
    """

    path: Path
    planes: tuple[tuple[int, Coordinates], ...]
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    by: str = "order"
    set_name: str | None = None
    set_files: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    stamp: int = 0
    size_stamp: int = 0
    colours: tuple[str, ...] = ()
    rgb: bool = False


def unreadable(path: Path, error: Exception) -> InputError:
    """Return the InputError for an error of a decoder."""
    hint = "check the path, or export it once more"
    return InputError(str(path), TAKES, describe(error), hint)


def coordinates_of(letters: Sequence[str], counts: Sequence[int]) -> list[Coordinates]:
    """Return the coordinates of all planes of an array, in the order of its leading axes.

    ValueError if an axis has more than one plane and is none of a recording.
    """
    if math.prod(counts) > MAX_PLANES:
        raise ValueError(f"{math.prod(counts)} planes")
    named = [AXIS_OF_LETTER.get(letter) for letter in letters]
    for at, letter in enumerate(letters):
        if letter in UNNAMED and "z" not in named:
            named[at] = "z"  # unnamed pages are planes
    told = [(name, at) for at, name in enumerate(named) if counts[at] > 1]
    for name, at in told:
        if name is None or [each for each, _ in told].count(name) > 1:
            text = "".join(letters)
            raise ValueError(f"{counts[at]} planes along axis {letters[at]} of {text}YX")
    found = []
    for index in product(*map(range, counts)):
        values: dict[str, Any] = {str(name): index[at] for name, at in told}
        if "position" in values:
            values["position"] = (values["position"],)
        found.append(Coordinates(**values))
    return found


def target_dtype(path: Path, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in which pixels are passed on: uint8, uint16 or float32."""
    if dtype.kind == "f":
        return np.dtype(np.float32)
    if dtype.kind in "iu":
        return np.dtype(np.uint8 if dtype == np.uint8 else np.uint16)
    raise InputError(str(path), PIXELS, f"{dtype}", "rescale or convert it")
