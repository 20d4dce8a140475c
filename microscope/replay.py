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
from pathlib import Path
from typing import NamedTuple, Self

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
    """

    path: Path
    fields: tuple[tuple[Path, ...], ...]
    frame_shape: tuple[int, int]
    dtype: np.dtype
    planes: int
    pixel_size_um: float
    z_step_um: float
    warnings: tuple[str, ...]

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        pixel_size_um: float | None = None,
        z_step_um: float | None = None,
    ) -> Self:
        """Read a recording through and keep what is known of it.

        Parameters
        ----------
        path : str or Path
            A TIFF, PNG or JPEG file (one field); a folder of single-plane images (one field); a
            folder of multi-plane images or of such folders (many fields); an OME-Zarr image.
        pixel_size_um, z_step_um : float, optional
            Used where the metadata are silent.

        Raises
        ------
        InputError
            Something in it cannot be used; the subject is the file.
        """
        path = Path(path)
        try:
            fields = _fields_in(path)
        except OSError as error:
            raise unreadable(path, error) from error
        _require_alike(fields)
        first, facts = fields[0][0], [facts for field in fields for facts in field]
        planes = sum(facts.shape[0] for facts in fields[0])
        pixel_um, pixel_warnings = _settle(
            "pixel size", [f.pixel_size_um for f in facts], pixel_size_um
        )
        step_um, step_warnings = _settle("z-step", [f.z_step_um for f in facts], z_step_um)
        return cls(
            path=path,
            fields=tuple(tuple(facts.path for facts in field) for field in fields),
            frame_shape=(first.shape[1], first.shape[2]),
            dtype=first.dtype,
            planes=planes,
            pixel_size_um=pixel_um,
            z_step_um=step_um,
            warnings=tuple(
                dict.fromkeys(
                    [warning for f in facts for warning in f.warnings]
                    + pixel_warnings
                    + (step_warnings if planes > 1 else [])
                )
            ),
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
        """Read one field, (z, y, x); InputError when its files have changed since the opening."""
        stack = np.concatenate([read_image(path).planes for path in self.fields[index]])
        if (stack.shape, stack.dtype) != ((self.planes, *self.frame_shape), self.dtype):
            raise InputError(
                str(self.fields[index][0]),
                f"{self.planes} planes of {self.frame_shape} {self.dtype} as when it was opened",
                f"{stack.shape} {stack.dtype}",
                "leave the recording alone while it is scanned",
            )
        return stack


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
        if not 0 < len(positions_um) <= recording.field_count:
            raise InputError(
                str(recording.path),
                f"{len(positions_um)} recorded fields as the scan has",
                str(recording.field_count),
                "set the numbers of stripes and fields to what was recorded",
            )
        self.recording = recording
        self.frame_shape = recording.frame_shape
        self.dtype = recording.dtype
        self._positions_um = np.asarray(positions_um, float).reshape(-1, 2)
        self._field = -1
        self._planes = np.empty((0, *self.frame_shape), self.dtype)

    def stack(self, x_um: float, y_um: float, z_um: Sequence[float]) -> ZStack:
        """Return the planes nearest to the heights, (z, y, x) in the recording's dtype.

        Raises
        ------
        CaptureError
            No field was recorded there, or no plane within half a step of a height.
        """
        planes = [self._plane_at(z) for z in z_um]
        field = self._field_at(x_um, y_um)
        if field != self._field:
            # A sweep and the capture after it ask for the same field again and again.
            self._planes, self._field = self.recording.read_field(field), field
        now_s = (time.time(),) * len(planes)
        return ZStack(self._planes[planes], now_s, now_s, time.time())

    def stop(self) -> None:
        """Do nothing: nothing moves."""

    def close(self) -> None:
        """Let the last field read go."""
        self._field, self._planes = -1, self._planes[:0]

    def _field_at(self, x_um: float, y_um: float) -> int:
        distance_um = np.hypot(*(self._positions_um - (x_um, y_um)).T)
        nearest = int(np.argmin(distance_um))
        if not distance_um[nearest] <= max(NEAR_UM, self.recording.pixel_size_um):
            raise CaptureError(
                f"replay of {self.recording.path}",
                f"a position recorded, such as {tuple(self._positions_um[nearest].tolist())} µm",
                f"({x_um:g}, {y_um:g}) µm",
                "scan the fields that were recorded",
            )
        return nearest

    def _plane_at(self, z_um: float) -> int:
        step_um, last = self.recording.z_step_um, self.recording.planes - 1
        plane = z_um / step_um
        if not -0.5 <= plane <= last + 0.5:
            raise CaptureError(
                f"replay of {self.recording.path}",
                f"z within half a step of 0 … {last * step_um:g} µm",
                f"z = {z_um:g} µm",
                "scan the planes that were recorded",
            )
        return min(max(round(plane), 0), last)


def natural_order(path: Path) -> tuple[list[str | int], str]:
    """Key that sorts names as people count: z2 before z10."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if odd % 2 else part.casefold() for odd, part in enumerate(parts)], path.name


def _fields_in(path: Path) -> list[list[Facts]]:
    """For each field the facts of the files that make it up."""
    if not path.exists():
        raise InputError(str(path), TAKES, "nothing of that name", "check the path")
    if path.is_file() or ngff_metadata(path):
        return [[_examine(path)]]
    images = _images_in(path)
    folders = [
        child for child in _children(path)
        if child.is_dir() and (ngff_metadata(child) or _images_in(child))
    ]  # fmt: skip
    if images and folders:
        raise InputError(
            str(path), "images either in the folder or in its sub-folders",
            f"both, such as {images[0].name} and {folders[0].name}/", "put them apart",
        )  # fmt: skip
    if not images and not folders:
        raise InputError(str(path), TAKES, "a folder without any of these", "check the path")
    return [_one_field(folder) for folder in folders] or _grouped(images)


def _children(folder: Path) -> list[Path]:
    visible = (child for child in folder.iterdir() if not child.name.startswith("."))
    return sorted(visible, key=natural_order)


def _images_in(folder: Path) -> list[Path]:
    files = (child for child in _children(folder) if not child.is_dir())
    return [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]


def _one_field(folder: Path) -> list[Facts]:
    if ngff_metadata(folder):
        return [_examine(folder)]
    fields = _grouped(_images_in(folder))
    if len(fields) > 1:
        raise InputError(
            str(folder), "one field, as a sub-folder holds",
            f"{len(fields)} files of several planes", "put them into one folder without others",
        )  # fmt: skip
    return fields[0]


def _grouped(images: Sequence[Path]) -> list[list[Facts]]:
    """Single planes make one field together, files of several planes one field each."""
    facts = [_examine(path) for path in images]
    single = [f for f in facts if f.shape[0] == 1]
    several = [f for f in facts if f.shape[0] > 1]
    if single and several:
        odd = min(single, several, key=len)[0]
        raise InputError(
            str(odd.path), "files all of one plane or all of several in a folder",
            f"{odd.shape[0]} planes beside a file that differs", "put them into separate folders",
        )  # fmt: skip
    return [single] if single else [[f] for f in several]


def _examine(path: Path) -> Facts:
    image = read_image(path)
    return Facts(path, image.planes.shape, image.planes.dtype, *image[1:])


def _require_alike(fields: Sequence[Sequence[Facts]]) -> None:
    """Raise the InputError of the first file that differs from those before it."""
    first = fields[0][0]
    planes = sum(f.shape[0] for f in fields[0])
    advice = f"compare it with {first.path.name}; record all fields alike"
    for field in fields:
        for f in field:
            subject, size, expected = str(f.path), f.shape[1:], first.shape[1:]
            if size != expected:
                raise InputError(subject, f"{expected} pixels (y, x)", str(size), advice)
            if f.dtype != first.dtype:
                raise InputError(subject, f"pixels of {first.dtype}", str(f.dtype), advice)
        count = sum(f.shape[0] for f in field)
        if count != planes:
            subject = str(field[0].path if len(field) == 1 else field[0].path.parent)
            raise InputError(subject, f"{planes} planes", str(count), advice)


def _settle(
    what: str, found_um: Sequence[float | None], given_um: float | None
) -> tuple[float, list[str]]:
    """The metadata's size, else the one given, else 1.0; and what there is to warn of."""
    known = [size for size in found_um if size is not None]
    if not known and given_um is None:
        unit = what.split("-")[-1].split()[0]
        return 1.0, [f"no {what} in the metadata or the settings: 1 µm a {unit} is assumed"]
    size_um = known[0] if known else float(given_um or 0)
    others = [*known, *([] if given_um is None else [given_um])]
    differing = [other for other in others if not math.isclose(other, size_um, rel_tol=1e-3)]
    return size_um, [
        f"{what} {size_um:g} µm of the metadata is used, not {other:g} µm" for other in differing
    ]
