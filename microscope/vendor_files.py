"""Files of microscope makers (CZI, ND2, LIF …), read by the readers of BioIO.

BioIO and its readers are optional (`requirements-formats.txt`). Scenes are positions, and so are
the tiles of a scene. Stage positions are not used: readers do not agree on their unit.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microscope.coordinates import Coordinates
from microscope.image_info import LUMINANCE, ImageInfo
from microscope.input_checks import require_memory
from scan.errors import InputError

SUFFIXES = (".czi", ".dv", ".lif", ".nd2", ".oib", ".oif", ".oir", ".r3d", ".sldy", ".vsi")
AXES = "MTCZ"  # of the planes of a scene, in this order; M are its tiles


def examine_vendor_file(path: Path) -> ImageInfo:
    """Return what a file tells of itself; no pixel is read.

    InputError if BioIO is not installed; ValueError if its scenes differ in size or type.
    """
    image = _open(path)
    planes, kinds = [], set()
    for scene, counts in _scenes(image):
        kinds.add(((image.dims.Y, image.dims.X), np.dtype(image.dtype)))
        require_memory(path, math.prod((counts[-1], image.dims.Y, image.dims.X)) * 8)
        for tile, time, channel, z in product(*map(range, counts)):
            position = (scene, tile) if counts[0] > 1 else (scene,)
            at = Coordinates(position, channel, time, z)
            planes.append(at)
    if len(kinds) > 1:
        raise ValueError(f"scenes of {len(kinds)} sizes or types: export those of one kind")
    ((shape, dtype),) = kinds
    sizes = image.physical_pixel_sizes
    rgb = "S" in image.dims.order
    return ImageInfo(
        path=path,
        planes=tuple(enumerate(planes)),
        shape=shape,
        dtype=dtype,
        pixel_size_um=sizes.X,
        z_step_um=sizes.Z,
        by=f"BioIO ({path.suffix[1:].upper()})",
        channels=tuple(map(str, image.channel_names or ())),
        warnings=(LUMINANCE,) * rgb,
        rgb=rgb,
    )


def read_vendor_planes(path: Path, numbers: Sequence[int]) -> NDArray[Any]:
    """Return planes by their number, (n, y, x); of colour (n, y, x, 3)."""
    image = _open(path)
    first, found = 0, {}
    for _, counts in _scenes(image):
        own = [number for number in numbers if 0 <= number - first < math.prod(counts)]
        for number in own:
            index = np.unravel_index(number - first, counts)
            chosen = dict(zip(AXES, map(int, index), strict=True))
            letters = "YXS" if "S" in image.dims.order else "YX"
            chosen = {axis: at for axis, at in chosen.items() if axis in image.dims.order}
            plane = image.get_image_dask_data(letters, **chosen)
            found[number] = plane.compute(scheduler="synchronous")
        first += math.prod(counts)
    return np.stack([found[number] for number in numbers])


def _scenes(image: Any) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Select each scene in turn; its number, and how many planes it has along each axis."""
    for scene in range(len(image.scenes)):
        image.set_scene(scene)
        yield scene, tuple(getattr(image.dims, axis, 1) or 1 for axis in AXES)


def _open(path: Path) -> Any:
    try:
        from bioio import BioImage
    except ImportError:
        hint = "pip install -r requirements-formats.txt"
        raise InputError(str(path), "BioIO, which reads such files", "none", hint) from None
    try:
        return BioImage(path)
    except Exception as error:
        if type(error).__name__ == "UnsupportedFileFormatError":
            expected, got = "a file that a reader of BioIO opens", "none that can"
            hint = "install the reader for it, or export it as OME-TIFF"
            raise InputError(str(path), expected, got, hint) from None
        raise
