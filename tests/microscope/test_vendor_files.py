"""Files of microscope makers, through BioIO's interface."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from microscope.image_files import examine, read_planes
from microscope.recording import gather
from scan.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 4000, (2, 3, 2, 4, 6, 8)).astype(np.uint16)


@dataclass
class Lazy:
    """An array that is computed when it is asked for."""

    pixels: np.ndarray

    def compute(self, scheduler: str) -> np.ndarray:
        """The pixels; threads of their own would compete with the scan's."""
        assert scheduler == "synchronous"
        return self.pixels


class FakeImage:
    """`bioio.BioImage` of two scenes of three tiles, two channels and four planes."""

    pixels, order = PIXELS, "MTCZYX"
    scenes = ("A1", "B1")
    channel_names = ("DAPI", "FITC")
    physical_pixel_sizes = SimpleNamespace(X=0.5, Y=0.5, Z=2.0)
    dtype = np.dtype(np.uint16)

    def __init__(self, path: Path) -> None:
        self._scene = 0

    @property
    def dims(self) -> SimpleNamespace:
        """Sizes by axis."""
        tiles, channels, planes, rows, columns = self.pixels[self._scene].shape[:5]
        sizes = {"M": tiles, "T": 1, "C": channels, "Z": planes, "Y": rows, "X": columns, "S": 3}
        return SimpleNamespace(order=self.order, **{axis: sizes[axis] for axis in self.order})

    def set_scene(self, scene: int) -> None:
        """Select a scene."""
        self._scene = scene

    def get_image_dask_data(self, letters: str, **at: int) -> Lazy:
        """A plane of the selected scene."""
        assert letters == "YXS" if "S" in self.order else "YX"
        assert set(at) == set(self.order) - set(letters)
        return Lazy(self.pixels[self._scene][at.get("M", 0), at["C"], at["Z"]])


class FakeColour(FakeImage):
    """The same in colour, without tiles."""

    pixels, order = np.stack([PIXELS[:, :1]] * 3, axis=-1), "TCZYXS"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file whose bytes nobody reads."""
    path = tmp_path / "slide.czi"
    path.touch()
    return path


def install(monkeypatch: pytest.MonkeyPatch, opening: Any) -> None:
    """Let BioIO open files so."""
    module = ModuleType("bioio")
    module.BioImage = opening  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bioio", module)


def test_scenes_and_tiles_are_positions(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tile of every scene is a position; sizes and channels are those that BioIO tells."""
    install(monkeypatch, FakeImage)

    gathered = gather(file)
    info = gathered.images[0]

    assert gathered.assembled.counts == {"position": 6, "z": 4, "channel": 2, "time": 1}
    assert gathered.understood.endswith("by BioIO (CZI)")
    assert (info.shape, info.dtype) == ((6, 8), np.uint16)
    assert (info.pixel_size_um, info.z_step_um, info.channels) == (0.5, 2.0, ("DAPI", "FITC"))


def test_planes_are_read_by_number(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any planes, of several scenes and in any order, are those that their coordinates say."""
    install(monkeypatch, FakeImage)
    planes = dict(examine(file).planes)
    numbers = [47, 0, 13, 30]

    pixels = read_planes(file, numbers)

    for number, plane in zip(numbers, pixels, strict=True):
        at = planes[number]
        scene, tile = at.position
        np.testing.assert_array_equal(plane, PIXELS[scene, tile, at.channel, at.z])


def test_colour_becomes_luminance(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour is told of, and read as the light that it stands for."""
    install(monkeypatch, FakeColour)

    info, pixels = examine(file), read_planes(file, [5])

    assert info.warnings == ("colour is converted to luminance",)
    np.testing.assert_allclose(pixels[0], PIXELS[0, 0, 1, 1], atol=1)


class UnsupportedFileFormatError(Exception):
    """As BioIO raises it."""


def unsupported(path: Path) -> None:
    """Open nothing."""
    raise UnsupportedFileFormatError("no reader")


@pytest.mark.parametrize("kind", ["not installed", "no reader"])
def test_what_cannot_be_opened_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Without BioIO, or without its reader for a file, one line says what to install."""
    if kind == "no reader":
        install(monkeypatch, unsupported)
    else:
        monkeypatch.setitem(sys.modules, "bioio", None)

    with pytest.raises(InputError, match=r"slide\.czi: expected .*; (pip )?install") as refused:
        gather(file)

    assert "\n" not in str(refused.value)


def test_scenes_of_several_sizes_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenes that do not fit one camera are not cut or padded."""

    class Uneven(FakeImage):
        pixels = (PIXELS[0], PIXELS[1, ..., :5])  # type: ignore[assignment]

    install(monkeypatch, Uneven)

    with pytest.raises(InputError, match="scenes of 2 sizes or types"):
        gather(file)


def test_other_images_beside_them_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the original and an export of it would hold all fields twice."""
    install(monkeypatch, FakeImage)
    (file.parent / "export.tif").touch()

    with pytest.raises(InputError, match=r"1 images beside slide\.czi"):
        gather(file.parent)
