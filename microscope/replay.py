"""Images recorded earlier, and a microscope that shows them again.

A recording is read through once when it is opened: whatever is wrong with it (a truncated file, a
plane of another size, a value that is no number) is told then, as an InputError that names the
file, and not in the middle of a scan. A recording holds paths and facts, no pixels, so it travels.
"""

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Self
from zlib import crc32

import numpy as np

from microscope import ZStack
from microscope.image_files import IMAGE_SUFFIXES, TAKES, ngff_metadata, read_image, unreadable
from scan.errors import CaptureError, InputError

NEAR_UM = 1.0  # a field counts as recorded at a place this near to it, or nearer than a pixel


class Facts(NamedTuple):
    """What is kept of an image once it has been read and found sound."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    pixel_size_um: float | None
    z_step_um: float | None
    warnings: tuple[str, ...]
    checksum: int


@dataclass(frozen=True)
class Recording:
    """Fields recorded earlier, all of one shape and dtype.

    Attributes
    ----------
    path : Path
        As opened.
    fields : tuple of tuple of Path
        For each field the files whose planes make it up, in order.
    frame_shape : tuple of int
        (y, x) in pixels.
    dtype : numpy.dtype
        uint8, uint16 or float32.
    planes : int
        Of each field.
    pixel_size_um, z_step_um : float
        From the metadata, else as given, else 1.0 with a warning.
    warnings : tuple of str
        What was assumed or left out.
    checksum : int
        crc32 over the pixels of all fields.
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
        """Read a recording through and keep what is known of it.

        Parameters
        ----------
        path : Path
            A TIFF, PNG or JPEG file (one field); a folder of single-plane images (one field); a
            folder of multi-plane images or of such folders (many fields); an OME-Zarr image.
        pixel_size_um, z_step_um : float, optional
            Used where the metadata are silent.

        Raises
        ------
        InputError
            Something in it cannot be used; the subject is the file.
        """
        try:
            fields = _fields_in(path)
        except OSError as error:
            raise unreadable(path, error) from error
        _require_alike(fields)
        facts = [facts for field in fields for facts in field]
        planes = sum(each.shape[0] for each in fields[0])
        warnings = [warning for each in facts for warning in each.warnings]
        sizes, steps = [each.pixel_size_um for each in facts], [each.z_step_um for each in facts]
        pixel_um = _settle("pixel size", [*sizes, pixel_size_um], warnings)
        step_um = _settle("z-step", [*steps, z_step_um], warnings if planes > 1 else [])
        return cls(
            path=path,
            fields=tuple(tuple(each.path for each in field) for field in fields),
            frame_shape=(facts[0].shape[1], facts[0].shape[2]),
            dtype=facts[0].dtype,
            planes=planes,
            pixel_size_um=pixel_um,
            z_step_um=step_um,
            warnings=tuple(dict.fromkeys(warnings)),
            checksum=crc32(repr([each.checksum for each in facts]).encode()),
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
    """Shows each recorded field at the position given for it, without moving or waiting.

    Parameters
    ----------
    recording : Recording
        Whose plane k lies at the height k * z_step_um.
    positions_um : sequence of tuple of float
        (x, y) of the centre of each recorded field, in order; fewer than recorded is allowed.
    """

    def __init__(self, recording: Recording, positions_um: Sequence[tuple[float, float]]) -> None:
        self.recording = recording
        self.frame_shape = recording.frame_shape
        self.dtype = recording.dtype
        self._positions_um = np.asarray(positions_um, float)
        # A sweep and the capture after it ask for the same field again and again.
        self._read_field = lru_cache(maxsize=1)(recording.read_field)

    def stack(self, x_um: float, y_um: float, z_um: Sequence[float]) -> ZStack:
        """Return the planes nearest to the heights, (z, y, x) in the recording's dtype.

        Raises
        ------
        CaptureError
            No field was recorded there, or no plane within half a step of a height.
        """
        planes = [self._plane_at(z) for z in z_um]
        frames = self._read_field(self._field_at(x_um, y_um))[planes]
        now_s = (time.time(),) * len(planes)
        return ZStack(frames, now_s, now_s, time.time())

    def stop(self) -> None:
        """Do nothing: nothing moves."""

    def close(self) -> None:
        """Let the last field read go."""
        self._read_field.cache_clear()

    def _field_at(self, x_um: float, y_um: float) -> int:
        distance_um = np.hypot(*(self._positions_um - (x_um, y_um)).T)
        nearest = int(np.argmin(distance_um))
        if not distance_um[nearest] <= max(NEAR_UM, self.recording.pixel_size_um):
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
        return CaptureError(subject, "a place that was recorded", asked, "scan what was recorded")


def natural_order(path: Path) -> tuple[list[str | int], str]:
    """Key that sorts names as people count: z2 before z10."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if odd % 2 else part.casefold() for odd, part in enumerate(parts)], path.name


def _fields_in(path: Path) -> list[list[Facts]]:
    """For each field the facts of the files that make it up."""
    if path.is_file() or ngff_metadata(path):
        return [[_examine(path)]]
    images = _images_in(path)
    folders = [
        child for child in _children(path)
        if child.is_dir() and (ngff_metadata(child) or _images_in(child))
    ]  # fmt: skip
    if bool(images) == bool(folders):
        came = f"{len(images)} images and {len(folders)} sub-folders with images"
        advice = "put them apart" if images else "check the path"
        raise InputError(str(path), f"{TAKES}, or sub-folders of these", came, advice)
    if images:
        return _grouped([_examine(image) for image in images])
    return [field for folder in folders for field in _fields_in(folder)]


def _children(folder: Path) -> list[Path]:
    visible = (child for child in folder.iterdir() if not child.name.startswith("."))
    return sorted(visible, key=natural_order)


def _images_in(folder: Path) -> list[Path]:
    files = (child for child in _children(folder) if not child.is_dir())
    return [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]


def _grouped(images: Sequence[Facts]) -> list[list[Facts]]:
    """Single planes make one field together, files of several planes one field each."""
    single = [image for image in images if image.shape[0] == 1]
    return [[image] for image in images if image.shape[0] > 1] + ([single] if single else [])


def _examine(path: Path) -> Facts:
    image = read_image(path)
    return Facts(
        path, image.planes.shape, image.planes.dtype, *image[1:], checksum=crc32(image.planes.data)
    )


def _require_alike(fields: Sequence[Sequence[Facts]]) -> None:
    """Raise the InputError of the first file that differs from those before it."""
    first = fields[0][0]
    planes = sum(each.shape[0] for each in fields[0])
    advice = f"compare it with {first.path.name}; record all fields alike"
    for field in fields:
        for each in field:
            expected, came = (f"{f.shape[1:]} pixels (y, x) of {f.dtype}" for f in (first, each))
            if came != expected:
                raise InputError(str(each.path), expected, came, advice)
        count = sum(each.shape[0] for each in field)
        if count != planes:
            subject = str(field[0].path if len(field) == 1 else field[0].path.parent)
            raise InputError(subject, f"{planes} planes", str(count), advice)


def _settle(what: str, sizes_um: Sequence[float | None], warnings: list[str]) -> float:
    """The first size that is told, else 1.0; adds what there is to warn of."""
    known = [size for size in sizes_um if size is not None]
    if not known:
        warnings.append(f"no {what} in the metadata or the settings: 1 µm is assumed")
        return 1.0
    for size in known:
        if not math.isclose(size, known[0], rel_tol=1e-3):
            warnings.append(f"{what} {known[0]:g} µm of the metadata is used, not {size:g} µm")
    return known[0]
