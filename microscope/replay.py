"""Recorded images, and a microscope that replays them.

When a recording is opened, metadata of all its files are read, and no pixel. What is wrong with
the recording as a whole (files of different sizes, planes without a place) raises an InputError
then; a damaged file costs its field during the scan. A Recording holds paths and metadata, so it is
cheap to send to other processes.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Self
from zlib import crc32

import numpy as np

from microscope import ZStack
from microscope.assembly import RecordedField
from microscope.coordinates import Label
from microscope.image_files import read_planes
from microscope.image_info import ImageInfo, target_dtype, unreadable
from microscope.input_checks import require_memory
from microscope.recording import Gathered, gather
from scan.clock import now_s
from scan.errors import CaptureError, InputError

CHECKED_AT_ONCE = 4  # fields, which are in memory then
POSITION_TOLERANCE_UM = 1.0  # of a field's position; a pixel, if that is larger


@dataclass(frozen=True)
class Recording:
    """Recorded fields, all of one shape and dtype.

    Attributes
    ----------
    path : Path
        As opened.
    fields : tuple of RecordedField
        Files and numbers of the planes of each field, in order.
    frame_shape : tuple of int
        (y, x) in pixels.
    dtype : numpy.dtype
        uint8, uint16 or float32.
    planes : int
        Number of planes of each field.
    pixel_size_um, z_step_um : float
        From the metadata, else from the names (heights) or the settings, else 1.0 with a warning.
    warnings : tuple of str
        What was assumed or ignored.
    checksum : int
        Changes with the size and the time of any file, and with the order of planes.
    understood : str
        How many positions, planes, channels and time points there are, and what told that.
    caveats : tuple of str
        Warnings that concern the answer: what is not scanned, or was taken for something else.
    sized : bool
        Whether the pixel size is known.
    damaged : dict
        Why files could not be read when the recording was opened.
    """

    path: Path
    fields: tuple[RecordedField, ...]
    frame_shape: tuple[int, int]
    dtype: np.dtype
    planes: int
    pixel_size_um: float
    z_step_um: float
    warnings: tuple[str, ...]
    checksum: int
    understood: str = ""
    caveats: tuple[str, ...] = ()
    sized: bool = True
    damaged: Mapping[Path, InputError] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        pixel_size_um: float | None = None,
        z_step_um: float | None = None,
        name_pattern: str | None = None,
        channel: Label | None = None,
    ) -> Self:
        """Read the metadata of a recording.

        Parameters
        ----------
        path : Path
            An image file, an OME-Zarr image, or a folder of these, perhaps in sub-folders.
        pixel_size_um, z_step_um : float, optional
            Used where the metadata lack them.
        name_pattern : str, optional
            What names of files tell, see `microscope.file_names`.
        channel : int or str, optional
            Number or name of the channel to use; by default the first.

        Raises
        ------
        InputError
            A file cannot be used, or it is not clear where planes belong; the subject names it.
        """
        try:
            found = gather(path, name_pattern=name_pattern, channel=channel)
        except (OSError, ValueError) as error:  # also a name that no file can have
            raise unreadable(path, error) from error
        images, fields = found.images, found.assembled.fields
        _require_alike(images)
        planes = len(fields[0].planes)
        target = target_dtype(path, images[0].dtype)
        require_memory(path, planes * math.prod(images[0].shape) * target.itemsize)
        warnings = [*found.assembled.warnings, *_damaged(found)]
        warnings += [warning for image in images for warning in image.warnings]
        sizes, steps = [i.pixel_size_um for i in images], [i.z_step_um for i in images]
        steps += [found.assembled.z_step_um, z_step_um]
        sized = any(size is not None for size in [*sizes, pixel_size_um])
        pixel_um = _resolve_size("pixel size", [*sizes, pixel_size_um], warnings)
        step_um = _resolve_size("z-step", steps, warnings if planes > 1 else [])
        return cls(
            path=path,
            fields=fields,
            frame_shape=images[0].shape,
            dtype=target,
            planes=planes,
            pixel_size_um=pixel_um,
            z_step_um=step_um,
            warnings=tuple(dict.fromkeys(warnings)),
            checksum=_checksum(images, fields),
            understood=found.understood,
            caveats=(*found.assembled.caveats, *found.caveats),
            sized=sized,
            damaged=found.damaged,
        )

    @property
    def field_count(self) -> int:
        """Number of fields recorded."""
        return len(self.fields)

    @property
    def z_um(self) -> tuple[float, ...]:
        """Height of each plane; the first lies at 0."""
        return tuple(plane * self.z_step_um for plane in range(self.planes))

    def is_damaged(self, index: int) -> bool:
        """Whether a file of a field could not be read when the recording was opened."""
        return any(path in self.damaged for path, _ in self.fields[index].planes)

    def read_middle(self, index: int) -> np.ndarray:
        """Read the middle plane of a field, (y, x); zeros if its file is damaged."""
        path, number = self.fields[index].planes[self.planes // 2]
        try:
            return self._read(path, [number])[0]
        except InputError:
            return np.zeros(self.frame_shape, self.dtype)

    def read_field(self, index: int) -> np.ndarray:
        """Read one field, (z, y, x); InputError if a file of it is damaged."""
        planes = [
            self._read(path, [number for _, number in run])
            for path, run in groupby(self.fields[index].planes, key=lambda plane: plane[0])
        ]
        frames = np.concatenate(planes)
        if frames.shape[1:] != self.frame_shape or frames.dtype != self.dtype:
            expected, got = (
                f"{shape} pixels (y, x) of {dtype}"
                for shape, dtype in (
                    (self.frame_shape, self.dtype), (frames.shape[1:], frames.dtype))
            )  # fmt: skip
            subject = str(self.fields[index].planes[0][0])
            raise InputError(subject, expected, got, "all fields must have the same format")
        return frames

    def require_readable(self) -> None:
        """Read every field, several at a time; InputError of the first that cannot be read."""
        with ThreadPoolExecutor(CHECKED_AT_ONCE) as pool:
            for _ in pool.map(self._checked, range(self.field_count)):
                pass

    def _checked(self, index: int) -> None:
        self.read_field(index)

    def _read(self, path: Path, numbers: Sequence[int]) -> np.ndarray:
        if path in self.damaged:
            raise self.damaged[path]
        return read_planes(path, numbers)


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

    def stack(self, x_um: float, y_um: float, z_um: Sequence[float], channel: int = 0) -> ZStack:
        """Return the planes nearest to the heights, (z, y, x) in the recording's dtype.

        Raises
        ------
        CaptureError
            No field was recorded at this position, no plane within half a step of a height, or a
            file of the field is damaged.
        """
        planes = [self._plane_at(z) for z in z_um]
        try:
            frames = self._read_field(self._field_at(x_um, y_um))[planes]
        except InputError as damaged:  # costs this field alone
            raise CaptureError(*damaged.args) from None
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


def _damaged(found: Gathered) -> list[str]:
    """Say which files cannot be read, so that their fields will be lost."""
    return [f"{path.name} cannot be read: {error.args[2]}" for path, error in found.damaged.items()]


def _checksum(images: Sequence[ImageInfo], fields: Sequence[RecordedField]) -> int:
    stamps = {image.path: image.stamp for image in images}
    found = [[(stamps.get(path), number) for path, number in f.planes] for f in fields]
    return crc32(repr(found).encode())


def _require_alike(images: Sequence[ImageInfo]) -> None:
    """Raise the InputError of the first file that differs from those before it."""
    first = images[0]
    hint = f"compare it with {first.path.name}; all fields must have the same format"
    for each in images:
        expected, got = (
            f"{i.shape} pixels (y, x) of {target_dtype(i.path, i.dtype)}" for i in (first, each)
        )
        if got != expected:
            raise InputError(str(each.path), expected, got, hint)


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
