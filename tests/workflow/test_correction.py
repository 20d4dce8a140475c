"""A scan whose fields are lit unevenly is corrected, and stays the same when it is resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

import main
from microscope.simulated import OFFSET_LEVELS, vignetted
from results.journal import JOURNAL, read_journal
from results.verification import differences
from tests.workflow.left import summary_of

SIZE, SHARE = 192, 0.45


def scan(folder: Path, **settings: Any) -> tuple[int, dict[str, Any]]:
    """Run the program in this process; returns exit code and summary.

    Fields have one plane: in empty ground depth is a guess, and the haze of another plane would be
    compared in the place of the light.
    """
    file = folder.with_suffix(".toml")
    values = {"field_px": SIZE, "planes": 1, "stripes": 2, "fields": 4, "vignetting": SHARE}
    lines = (f"{key} = {value!r}" for key, value in (values | settings).items())
    file.write_text("\n".join(lines))
    code = main.main(
        ["--plain", "--exposure-ms", "10", "--config", str(file), "--out", str(folder)]
    )
    return code, json.loads((folder / "summary.json").read_text())


def mosaic(folder: Path) -> np.ndarray:
    """The focus-stacked mosaic."""
    return np.asarray(zarr.open_group(folder / "stacked.ome.zarr", mode="r")["0"][:])


@pytest.fixture(scope="module")
def dark(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with the offset of the simulated camera."""
    file = tmp_path_factory.mktemp("fields") / "dark.tif"
    tifffile.imwrite(file, np.full((SIZE, SIZE), OFFSET_LEVELS, np.uint16))
    return str(file)


@pytest.fixture(scope="module")
def estimated(
    local_ray: None, dark: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The folder and the summary of a scan whose flat is estimated."""
    folder = tmp_path_factory.mktemp("estimated") / "run"
    code, summary = scan(folder, flat_field="estimate", dark_field=dark)
    assert code == 0
    return folder, summary


def test_the_estimated_flat_is_kept_and_told(
    estimated: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The run folder has the flat, near to the truth; the summary says what it is from."""
    folder, summary = estimated
    truth = vignetted((SIZE, SIZE), SHARE)

    flat = tifffile.imread(folder / "flat_field.tif")

    np.testing.assert_allclose(flat, truth / truth.mean(), rtol=0.06)  # eight small fields
    assert summary["correction"]["flat"] == "estimate"
    assert summary["correction"]["places"] == 8
    assert summary["correction"]["dark"]


def test_a_corrected_mosaic_is_evenly_lit(
    estimated: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """The mosaic is that of a microscope without fall-off, but for a factor and the offset."""
    even = tmp_path / "even"
    assert scan(even, vignetting=0.0)[0] == 0
    size = 48  # wide areas, so that noise and sharpness do not matter
    areas = [
        m[: m.shape[0] // size * size, : m.shape[1] // size * size].astype(float)
        for m in (mosaic(estimated[0]), mosaic(even) - OFFSET_LEVELS)
    ]
    lights = [m.reshape(len(m) // size, size, -1, size).mean(axis=(1, 3)) for m in areas]

    ratio = lights[0] / lights[1]

    np.testing.assert_allclose(ratio, np.median(ratio), rtol=0.06)


def test_a_resumed_run_uses_the_flat_that_it_began_with(
    estimated: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Without the line of the specimen autofocus sweeps again, but the flat stays; same digest."""
    folder = tmp_path / "run"
    shutil.copytree(estimated[0], folder)
    lines = (folder / "events.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["event"] in ("begun", "ray", "focused")]
    (folder / "events.jsonl").write_text("\n".join(kept) + "\n")
    before = (folder / "flat_field.tif").stat().st_mtime_ns

    code = main.main(["--plain", "--resume", str(folder)])

    assert code == 0
    assert (folder / "flat_field.tif").stat().st_mtime_ns == before
    assert summary_of(folder)["digest"] == estimated[1]["digest"]
    assert differences(folder, read_journal(folder / JOURNAL)) == []


def test_the_flat_of_a_run_serves_another(
    estimated: tuple[Path, dict[str, Any]], dark: str, tmp_path: Path
) -> None:
    """The kept file, named in the settings, gives the same answer."""
    flat = str(estimated[0] / "flat_field.tif")

    code, summary = scan(tmp_path / "run", flat_field=flat, dark_field=dark)

    assert code == 0
    assert summary["correction"] == {"flat": "file", "dark": True, "specks": 0, "defects": 0.0}
    assert summary["digest"] == estimated[1]["digest"]


def test_each_channel_has_a_flat_of_its_own(local_ray: None, dark: str, tmp_path: Path) -> None:
    """Of two channels, both lit unevenly, the one whose flat says so is corrected; the reference is
    corrected wherever it stands."""
    flats = [np.ones((SIZE, SIZE)), vignetted((SIZE, SIZE), SHARE)]
    tifffile.imwrite(tmp_path / "flats.tif", np.stack(flats).astype(np.float32))
    channels = "[{name = 'FITC'}, {name = 'DAPI', reference = true}]"
    lines = [
        f"channels = {channels}", f"field_px = {SIZE}", "planes = 5", "stripes = 1", "fields = 2",
        f"vignetting = {SHARE}", "exposure_ms = 10.0", f"dark_field = {dark!r}",
        f"flat_field = {str(tmp_path / 'flats.tif')!r}",
    ]  # fmt: skip
    (tmp_path / "a.toml").write_text("\n".join(lines))
    command = ["--plain", "--config", str(tmp_path / "a.toml"), "--out", str(tmp_path / "run")]

    assert main.main(command) == 0

    corner, centre = (slice(0, 24), slice(0, 24)), (slice(84, 108), slice(84, 108))
    uncorrected, corrected = (
        np.median(channel[corner]) / np.median(channel[centre])
        for channel in mosaic(tmp_path / "run").astype(float)
    )
    assert uncorrected < 1 - SHARE / 2
    assert abs(corrected - 1) < 0.1


def test_too_few_places_end_the_scan_with_the_reason(
    local_ray: None, dark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flat that cannot be estimated is not made up."""
    settings = {"stripes": 1, "flat_field": "estimate", "dark_field": dark}

    code, summary = scan(tmp_path / "run", **settings)

    assert code == 1
    assert summary["fields"]["captured"] == 0
    assert "expected at least 6 places, got" in capsys.readouterr().err


def test_what_lies_on_the_sensor_is_told_and_not_counted(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 18 recorded fields with two discs each and one that all show, 36 objects are counted."""
    y, x = np.mgrid[:128, :128]
    (tmp_path / "fields").mkdir()
    for number, generator in enumerate(np.random.default_rng(5).spawn(18)):
        light = np.full((128, 128), 200.0)
        ground = [(16, 96), (96, 16), (96, 60), (96, 96), (56, 16)]
        for at in [(36, 40), *generator.permutation(ground)[:2]]:
            light += 1500 * np.clip(7 - np.hypot(y - at[0], x - at[1]), 0, 1)
        frames = generator.poisson(np.stack([light] * 3)).astype(np.uint16)
        file = tmp_path / "fields" / f"{number:02d}.tif"
        tifffile.imwrite(file, frames, photometric="minisblack")
    folder = tmp_path / "run"

    options = ["--microscope", "replay", "--replay-path", str(tmp_path / "fields")]
    code = main.main(["--plain", *options, "--stripes", "3", "--out", str(folder)])

    summary = json.loads((folder / "summary.json").read_text())
    assert code == 0
    assert summary["objects"] == 36
    assert summary["correction"]["specks"] == 1
    assert "the camera shows 1 specks or hot pixels" in capsys.readouterr().out


def test_a_flat_of_another_size_is_a_mistake(
    dark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 2, nothing written."""
    file, folder = tmp_path / "a.toml", tmp_path / "run"
    file.write_text(f'flat_field = "{dark}"')

    code = main.main(["--plain", "--config", str(file), "--out", str(folder)])

    assert code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not folder.exists()
