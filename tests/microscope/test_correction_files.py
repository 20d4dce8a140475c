"""Files of flat and dark field are used as they are meant, or refused in one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from config import validate
from microscope.correction_files import NO_DARK, with_fields
from microscope.opening import Setup, prepare
from scan.errors import InputError

PIXELS = np.random.default_rng(1).integers(500, 900, (64, 64))
Write = Callable[[Path], None]


def setup_with(**settings: object) -> Setup:
    """A setup of frames of 64 x 64 pixels, with its fields."""
    small = {"stripes": 1, "fields": 2, "field_px": 64}
    return with_fields(prepare(validate(small | settings)))


def write(pixels: np.ndarray, **options: object) -> Write:
    """Write a TIFF file."""
    return lambda path: tifffile.imwrite(path, pixels, photometric="minisblack", **options)


TAKEN: dict[str, Write] = {
    "integers": write(PIXELS.astype(np.uint16)),
    "float32": write(PIXELS.astype(np.float32)),
    "float64": write(PIXELS / 7),
    "one channel": write(PIXELS[None].astype(np.uint16), ome=True, metadata={"axes": "CYX"}),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_flat_is_normalised_and_a_dark_is_not(tmp_path: Path, name: str) -> None:
    """A flat of any unit has mean 1; the dark stays in grey levels."""
    file = tmp_path / "a.tif"
    TAKEN[name](file)

    flat, dark, _ = setup_with(flat_field=str(file), dark_field=str(file)).correction

    assert flat is not None
    assert dark is not None
    assert flat.dtype == dark.dtype == np.float32
    np.testing.assert_allclose(flat, PIXELS / PIXELS.mean(), rtol=1e-5)
    np.testing.assert_allclose(dark, tifffile.imread(file).reshape(64, 64), rtol=1e-6)


REFUSED: dict[str, tuple[Write, str]] = {
    "another size": (write(np.ones((64, 32), np.uint16)), r"64 x 64 pixels.*\(1, 64, 32\)"),
    "several channels": (
        write(np.ones((3, 64, 64), np.uint16), ome=True, metadata={"axes": "CYX"}),
        r"one image of 64 x 64 pixels, got the shape \(3, 64, 64\)",
    ),
    "several planes": (write(np.ones((3, 64, 64), np.uint16)), r"got the shape \(3, 64, 64\)"),
    "no TIFF": (lambda path: path.write_bytes(b"flat"), "expected a whole TIFF"),
    "not a number": (write(np.full((64, 64), np.nan, np.float32)), "expected integers within"),
    "dead pixels": (write(np.eye(64, dtype=np.uint16)), "above 0, got 4032 pixels without light"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_flat_that_cannot_be_used_is_refused(tmp_path: Path, name: str) -> None:
    """One line names the file, what was expected and what was found."""
    make, said = REFUSED[name]
    file = tmp_path / "a.tif"
    make(file)

    with pytest.raises(InputError, match=said) as refusal:
        setup_with(flat_field=str(file))

    assert str(refusal.value).startswith(str(file))
    assert "\n" not in str(refusal.value)


TWO: list[dict[str, object]] = [{"name": "DAPI"}, {"name": "FITC"}]


def test_each_channel_has_a_flat(tmp_path: Path) -> None:
    """A file has a flat for each channel, of which each has mean 1; one for all is refused."""
    file, flats = tmp_path / "a.tif", np.stack([PIXELS, 3 * PIXELS[::-1]])
    write(flats.astype(np.uint16))(file)

    found = setup_with(flat_field=str(file), channels=TWO).correction

    for number, flat in enumerate(flats):
        expected = flat / flat.mean()
        np.testing.assert_allclose(found.of_channel(number).flat, expected, rtol=1e-5)
    write(PIXELS.astype(np.uint16))(file)
    with pytest.raises(InputError, match=r"2 images, one a channel, of 64 x 64 pixels"):
        setup_with(flat_field=str(file), channels=TWO)


@pytest.mark.parametrize("name", ["missing.tif", "picture.png"])
def test_a_name_that_is_no_tiff_is_refused(tmp_path: Path, name: str) -> None:
    """A file that is not there, or that holds something else, ends the run early."""
    with pytest.raises(InputError, match=name):
        setup_with(dark_field=str(tmp_path / name))


def test_pixels_identify_a_field_not_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may have moved; other pixels, no file, or an estimate are another run."""
    monkeypatch.chdir(tmp_path)
    for name, pixels in {"a.tif": PIXELS, "b.tif": PIXELS, "c.tif": PIXELS + 1}.items():
        write(pixels.astype(np.uint16))(tmp_path / name)
    chosen = ({}, {"flat_field": "estimate"}, {"flat_field": "a.tif"}, {"flat_field": "c.tif"},
              {"dark_field": "a.tif"})  # fmt: skip

    setups = [setup_with(**settings) for settings in chosen]

    assert len({tuple(setup.fields.values()) for setup in setups}) == len(chosen)
    assert setup_with(flat_field="b.tif").fields == setups[2].fields
    assert setups[2].settings.flat_field == str(tmp_path / "a.tif")
    assert pickle.loads(pickle.dumps(setups[2])).correction.flat is not None


def test_an_unknown_dark_is_told(tmp_path: Path) -> None:
    """An estimate without a dark field is warned of, because the camera's offset spoils it."""
    write(PIXELS.astype(np.uint16))(tmp_path / "a.tif")

    assert NO_DARK in setup_with(flat_field="estimate").warnings
    assert not setup_with(flat_field="estimate", dark_field=str(tmp_path / "a.tif")).warnings
    assert not setup_with().warnings
