"""Recorded images, and a microscope that replays them.

A recording is read completely when it is opened. Any fault (a truncated file, a plane of another
size, a value that is not a number) raises an InputError naming the file then, not during the scan.
A Recording holds paths and metadata but no pixels, so it is cheap to send to other processes.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Self
from zlib import crc32

import numpy as np

from microscope import ZStack
from microscope.image_files import IMAGE_SUFFIXES, TAKES, ngff_metadata, read_image, unreadable
from microscope.input_checks import require_regular
from scan.clock import now_s
from scan.errors import CaptureError, InputError

POSITION_TOLERANCE_UM = 1.0  # of a field's position; a pixel, if that is larger


class ImageInfo(NamedTuple):
    """What is kept of an image that was read and is valid."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    pixel_size_um: float | None
    z_step_um: float | None
    warnings: tuple[str, ...]
    checksum: int


@dataclass(frozen=True)
class Recording:
    """Recorded fields, all of one shape and dtype.

    Attributes
    ----------
    path : Path
        As opened.
    fields : tuple of tuple of Path
        For each field the files that hold its planes, in order.
    frame_shape : tuple of int
        (y, x) in pixels.
    dtype : numpy.dtype
        uint8, uint16 or float32.
    planes : int
        Number of planes of each field.
    pixel_size_um, z_step_um : float
        From the metadata, else from the settings, else 1.0 with a warning.
    warnings : tuple of str
        What was assumed or ignored.
    checksum : int
        crc32 of the pixels of all fields.
    """

    path: Path
    fields: tuple[tuple[Path, ...], ...]
    frame_shape: tuple[int, int]
    dtype: np.dtype
    planes: int
    pixel_size_um: float
    z_step_um: float
    warnings: tuple[str, ...]
    checksum: int

    @classmethod
    def open(
        cls, path: Path, *, pixel_size_um: float | None = None, z_step_um: float | None = None
    ) -> Self:
        """Read a recording completely and keep what describes it.

        Parameters
        ----------
        path : Path
            A TIFF, PNG or JPEG file (one field); a folder of single-plane images (one field); a
            folder of multi-plane images or of such folders (many fields); an OME-Zarr image.
        pixel_size_um, z_step_um : float, optional
            Used where the metadata lack them.

        Raises
        ------
        InputError
            A file cannot be used; it is the subject of the error.
        """
        try:
            fields = _fields_in(path)
        except (OSError, ValueError) as error:  # also a name that no file can have
            raise unreadable(path, error) from error
        _require_alike(fields)
        images = [images for field in fields for images in field]
        planes = sum(each.shape[0] for each in fields[0])
        warnings = [warning for each in images for warning in each.warnings]
        sizes, steps = [each.pixel_size_um for each in images], [each.z_step_um for each in images]
        pixel_um = _resolve_size("pixel size", [*sizes, pixel_size_um], warnings)
        step_um = _resolve_size("z-step", [*steps, z_step_um], warnings if planes > 1 else [])
        return cls(
            path=path,
            fields=tuple(tuple(each.path for each in field) for field in fields),
            frame_shape=(images[0].shape[1], images[0].shape[2]),
            dtype=images[0].dtype,
            planes=planes,
            pixel_size_um=pixel_um,
            z_step_um=step_um,
            warnings=tuple(dict.fromkeys(warnings)),
            checksum=crc32(repr([each.checksum for each in images]).encode()),
        )

    @property
    def field_count(self) -> int:
        """Number of fields recorded."""
        return len(self.fields)

    @property
    def z_um(self) -> tuple[float, ...]:
        """Height of each plane; the first lies at 0."""
        return tuple(plane * self.z_step_um for plane in range(self.planes))

    def read_field(self, index: int) -> np.ndarray:
        """Read one field, (z, y, x)."""
        return np.concatenate([read_image(path).planes for path in self.fields[index]])


class ReplayMicroscope:
    """Returns each recorded field at its planned position, without moving or waiting.

    Parameters
    ----------
    recording : Recording
        Plane k lies at the height k * z_step_um.
    positions_um : sequence of tuple of float
        (x, y) of the centre of each recorded field, in order; fewer than recorded is allowed.
    """

    def __init__(self, recording: Recording, positions_um: Sequence[tuple[float, float]]) -> None:
        self.recording = recording
        self.frame_shape = recording.frame_shape
        self.dtype = recording.dtype
        self._positions_um = np.asarray(positions_um, float)
        # A focus sweep and the capture after it read the same field repeatedly.
        self._read_field = lru_cache(maxsize=1)(recording.read_field)

    def stack(self, x_um: float, y_um: float, z_um: Sequence[float]) -> ZStack:
        """Return the planes nearest to the heights, (z, y, x) in the recording's dtype.

        Raises
        ------
        CaptureError
            No field was recorded at this position, or no plane within half a step of a height.
        """
        planes = [self._plane_at(z) for z in z_um]
        frames = self._read_field(self._field_at(x_um, y_um))[planes]
        read_s = (now_s(),) * len(planes)
        return ZStack(frames, read_s, read_s, now_s())

    def stop(self) -> None:
        """Do nothing: nothing moves."""

    def close(self) -> None:
        """Release the last field that was read."""
        self._read_field.cache_clear()

    def _field_at(self, x_um: float, y_um: float) -> int:
        distance_um = np.hypot(*(self._positions_um - (x_um, y_um)).T)
        nearest = int(np.argmin(distance_um))
        if not distance_um[nearest] <= max(POSITION_TOLERANCE_UM, self.recording.pixel_size_um):
            raise self._not_recorded(f"({x_um:g}, {y_um:g}) µm")
        return nearest

    def _plane_at(self, z_um: float) -> int:
        last = self.recording.planes - 1
        plane = z_um / self.recording.z_step_um
        if not -0.5 <= plane <= last + 0.5:
            raise self._not_recorded(f"z = {z_um:g} µm")
        return min(max(round(plane), 0), last)

    def _not_recorded(self, asked: str) -> CaptureError:
        subject = f"replay of {self.recording.path}"
        return CaptureError(subject, "a recorded position", asked, "scan recorded positions only")


def natural_order(path: Path) -> tuple[list[str | int], str]:
    """Return a key that sorts numbers in names by value: z2 before z10."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if odd % 2 else part.casefold() for odd, part in enumerate(parts)], path.name


def _fields_in(path: Path) -> list[list[ImageInfo]]:
    """Return, for each field, the images that hold its planes."""
    require_regular(path, TAKES)
    if path.is_file() or ngff_metadata(path):
        return [[_examine(path)]]
    images = _images_in(path)
    folders = [
        child for child in _children(path)
        if child.is_dir() and (ngff_metadata(child) or _images_in(child))
    ]  # fmt: skip
    if bool(images) == bool(folders):
        got = f"{len(images)} images and {len(folders)} sub-folders with images"
        hint = "separate them" if images else "check the path"
        raise InputError(str(path), f"{TAKES}, or sub-folders of these", got, hint)
    if images:
        return _grouped([_examine(image) for image in images])
    return [field for folder in folders for field in _fields_in(folder)]


def _children(folder: Path) -> list[Path]:
    visible = (child for child in folder.iterdir() if not child.name.startswith("."))
    return sorted(visible, key=natural_order)


def _images_in(folder: Path) -> list[Path]:
    files = (child for child in _children(folder) if not child.is_dir())
    return [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]


def _grouped(images: Sequence[ImageInfo]) -> list[list[ImageInfo]]:
    """Group images by field: single planes form one field, a multi-plane file is a field."""
    single = [image for image in images if image.shape[0] == 1]
    return [[image] for image in images if image.shape[0] > 1] + ([single] if single else [])


def _examine(path: Path) -> ImageInfo:
    image = read_image(path)
    return ImageInfo(
        path, image.planes.shape, image.planes.dtype, *image[1:], checksum=crc32(image.planes.data)
    )


def _require_alike(fields: Sequence[Sequence[ImageInfo]]) -> None:
    """Raise the InputError of the first file that differs from those before it."""
    first = fields[0][0]
    planes = sum(each.shape[0] for each in fields[0])
    hint = f"compare it with {first.path.name}; all fields must have the same format"
    for field in fields:
        for each in field:
            expected, got = (f"{f.shape[1:]} pixels (y, x) of {f.dtype}" for f in (first, each))
            if got != expected:
                raise InputError(str(each.path), expected, got, hint)
        count = sum(each.shape[0] for each in field)
        if count != planes:
            subject = str(field[0].path if len(field) == 1 else field[0].path.parent)
            raise InputError(subject, f"{planes} planes", str(count), hint)


def _resolve_size(what: str, sizes_um: Sequence[float | None], warnings: list[str]) -> float:
    """Return the first known size, else 1.0; append to the warnings."""
    known = [size for size in sizes_um if size is not None]
    if not known:
        warnings.append(f"no {what} in the metadata or the settings: 1 µm is assumed")
        return 1.0
    for size in known:
        if not math.isclose(size, known[0], rel_tol=1e-3):
            warnings.append(f"{what} {known[0]:g} µm of the metadata is used, not {size:g} µm")
    return known[0]
