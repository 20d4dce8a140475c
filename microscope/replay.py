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
from typing import Any, Self
from zlib import crc32

import numpy as np

from microscope import ZStack
from microscope.assembly import RecordedChannel, RecordedField
from microscope.coordinates import Label
from microscope.counting import counted
from microscope.image_files import read_planes
from microscope.image_info import LUMINANCE, ImageInfo, target_dtype, unreadable
from microscope.input_checks import require_memory
from microscope.recording import Gathered, gather
from scan.clock import now_s
from scan.errors import CaptureError, InputError

RGB = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}
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
    checksum, size_checksum : int
        Change with the size of any file and with the order of planes; the first with the time of
        any file, too.
    understood : str
        How many positions, planes, channels and time points there are, and what told that.
    caveats : tuple of str
        Warnings that concern the answer: what is not scanned, or was taken for something else.
    sized : bool
        Whether the pixel size is known.
    damaged : dict
        Why files could not be read when the recording was opened.
    channels : tuple of RecordedChannel
        If there are several; `planes` and `z_um` are those of the reference.
    reference : int
        Its number.
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
    size_checksum: int = 0
    understood: str = ""
    caveats: tuple[str, ...] = ()
    sized: bool = True
    damaged: Mapping[Path, InputError] = field(default_factory=dict)
    channels: tuple[RecordedChannel, ...] = ()
    reference: int = 0

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        pixel_size_um: float | None = None,
        z_step_um: float | None = None,
        name_pattern: str | None = None,
        channels: Sequence[Label] = (),
        reference: Label | None = None,
        colour: bool = False,
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
        channels, reference : optional
            Numbers or names of the channels to use, by default all, and of the one of these that
            focuses, by default the first.
        colour : bool
            Whether red, green and blue of colour images are channels, and not their luminance.

        Raises
        ------
        InputError
            A file cannot be used, or it is not clear where planes belong; the subject names it.
        """
        found = _gathered(path, name_pattern, () if colour else channels, reference)
        several, leading = _channels_of(path, found, channels, reference, colour=colour)
        _require_alike(images := found.images)
        planes = len(found.assembled.fields[0].planes)
        target = target_dtype(path, images[0].dtype)
        _require_room(path, planes * max(1, len(several)), images[0].shape, target)
        warnings = _warnings(found, LUMINANCE if colour else "")
        sizes = [*(i.pixel_size_um for i in images), pixel_size_um]
        steps = [*(i.z_step_um for i in images), found.assembled.z_step_um, z_step_um]
        pixel_um = _resolve_size("pixel size", sizes, warnings)
        step_um = _resolve_size("z-step", steps, warnings if planes > 1 else [])
        return cls(
            path=path,
            fields=found.assembled.fields,
            frame_shape=images[0].shape,
            dtype=target,
            planes=planes,
            pixel_size_um=pixel_um,
            z_step_um=step_um,
            warnings=tuple(dict.fromkeys(warnings)),
            **_checksums(images, found.assembled.fields),
            understood=found.understood,
            caveats=(*found.assembled.caveats, *found.caveats),
            sized=any(size is not None for size in sizes),
            damaged=found.damaged,
            channels=several,
            reference=leading,
        )

    @property
    def channels_in_words(self) -> str:
        """The names of several channels, and which one focuses; "" if there is one."""
        if not self.channels:
            return ""
        names = ", ".join(channel.name for channel in self.channels)
        return f"; channels {names}, focused by {self.channels[self.reference].name}"

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
        planes = (self.fields[index].planes, *self.fields[index].channels)
        return any(path in self.damaged for stack in planes for path, _ in stack)

    def read_middle(self, index: int) -> np.ndarray:
        """Read the middle plane of a field, (y, x); zeros if its file is damaged."""
        path, number = self.fields[index].planes[self.planes // 2]
        try:
            sample = self.channels[self.reference].sample if self.channels else None
            return self._read(path, [number], sample)[0]
        except InputError:
            return np.zeros(self.frame_shape, self.dtype)

    def read_field(self, index: int, channel: int | None = None) -> np.ndarray:
        """Read one field, (z, y, x), of a channel; InputError if a file of it is damaged."""
        recorded, sample = self.fields[index].planes, None
        if self.channels:
            number = self.reference if channel is None else channel
            sample = self.channels[number].sample
            recorded = recorded if sample is not None else self.fields[index].channels[number]
        planes = [
            self._read(path, [number for _, number in run], sample)
            for path, run in groupby(recorded, key=lambda plane: plane[0])
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
            results = pool.map(self._checked, range(self.field_count))
            for _ in counted(results, "reading fields", self.field_count):
                pass

    def _checked(self, index: int) -> None:
        for channel in range(max(1, len(self.channels))):
            self.read_field(index, channel)

    def _read(self, path: Path, numbers: Sequence[int], sample: int | None = None) -> np.ndarray:
        if path in self.damaged:
            raise self.damaged[path]
        return read_planes(path, numbers, sample)


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
        self._read_field = lru_cache(max(1, len(recording.channels)))(recording.read_field)

    def stack(self, x_um: float, y_um: float, z_um: Sequence[float], channel: int = 0) -> ZStack:
        """Return the planes nearest to the heights, (z, y, x) in the recording's dtype.

        Raises
        ------
        CaptureError
            No field was recorded at this position, no plane within half a step of a height, or a
            file of the field is damaged.
        """
        planes = [self._plane_at(z, channel) for z in z_um]
        try:
            frames = self._read_field(self._field_at(x_um, y_um), channel)[planes]
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

    def _plane_at(self, z_um: float, channel: int) -> int:
        last, plane = self.recording.planes - 1, z_um / self.recording.z_step_um
        if self.recording.channels:
            last = self.recording.channels[channel].planes - 1
            plane -= self.recording.channels[channel].first
        if not -0.5 <= plane <= last + 0.5:
            raise self._not_recorded(f"z = {z_um:g} µm")
        return min(max(round(plane), 0), last)

    def _not_recorded(self, asked: str) -> CaptureError:
        subject = f"replay of {self.recording.path}"
        return CaptureError(subject, "a recorded position", asked, "scan recorded positions only")


def _gathered(
    path: Path, name_pattern: str | None, channels: Sequence[Label], reference: Label | None
) -> Gathered:
    try:
        return gather(path, name_pattern=name_pattern, channels=channels, reference=reference)
    except (OSError, ValueError) as error:  # also a name that no file can have
        raise unreadable(path, error) from error


def _require_room(path: Path, planes: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    require_memory(path, planes * math.prod(shape) * dtype.itemsize)


def _warnings(found: Gathered, but: str) -> list[str]:
    """Return what files warn of, and which cannot be read, so that their fields will be lost."""
    damaged = [f"{path.name} cannot be read: {e.args[2]}" for path, e in found.damaged.items()]
    told = [warning for image in found.images for warning in image.warnings]
    return [each for each in (*found.assembled.warnings, *damaged, *told) if each != but]


def _checksums(images: Sequence[ImageInfo], fields: Sequence[RecordedField]) -> dict[str, int]:
    return {
        "checksum": _checksum({image.path: image.stamp for image in images}, fields),
        "size_checksum": _checksum({image.path: image.size_stamp for image in images}, fields),
    }


def _checksum(stamps: Mapping[Path, int], fields: Sequence[RecordedField]) -> int:
    stacks = [stack for f in fields for stack in (f.channels or (f.planes,))]
    found = [[(stamps.get(path), number) for path, number in stack] for stack in stacks]
    return crc32(repr(found).encode())


def _channels_of(
    path: Path,
    found: Gathered,
    channels: Sequence[Label],
    reference: Label | None,
    *,
    colour: bool,
) -> tuple[tuple[RecordedChannel, ...], int]:
    """Return the channels, if there are several, and which one focuses.

    Of colour images they are red, green and blue; green has most of the luminance, and focuses.
    """
    if not colour:
        return found.assembled.channels, found.assembled.reference
    if found.assembled.channels or not all(image.rgb for image in found.images):
        got = "several channels" if found.assembled.channels else "others"
        hint = 'leave colour = "channels" out'
        raise InputError(str(path), "images in red, green and blue, in one channel", got, hint)
    planes = len(found.assembled.fields[0].planes)
    every = [
        RecordedChannel(name, colour, planes, sample=sample)
        for sample, (name, colour) in enumerate(RGB.items())
    ]
    chosen = [c for name in channels for c in every if name in (c.name, c.sample)] or every
    if channels and len(chosen) < len(channels):
        expected, got = f"channels of {', '.join(RGB)}", ", ".join(map(str, channels))
        raise InputError("channels", expected, got, "correct the setting")
    leading = next((k for k, c in enumerate(chosen) if c.name == (reference or "green")), 0)
    return tuple(chosen), leading


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
