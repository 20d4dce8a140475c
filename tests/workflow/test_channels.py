"""Several channels through the workflow: as sharp as the truth, registered, in every result."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

import main
from benchmarks.chaos import WORKERS, kill_worker, struck
from config import validate
from microscope.opening import open_microscope, prepare
from results.summary import SUMMARY
from results.table import read_table
from tests.microscope.devices import ADAPTERS, STAINED, config_of
from tests.workflow.left import digest_of, events_in, summary_of

CHANNELS = [
    {"name": "DAPI"},
    {"name": "FITC", "exposure_ms": 40.0, "z_offset_um": 0.8, "colour": "00FFFF"},
    {"name": "Cy5", "planes": 5, "z_offset_um": -1.5},
]
SMALL = {
    "stripes": 2, "fields": 3, "planes": 15, "exposure_ms": 20.0,
    "settle_ms": 0.0, "focus_samples": 3, "channels": CHANNELS,
}  # fmt: skip


def as_toml(values: dict[str, Any]) -> str:
    """Settings as TOML, complete."""
    return validate(values).to_toml()


def scan(folder: Path, *more: str, **values: Any) -> int:
    file = folder.with_suffix(".toml")
    file.write_text(as_toml(values if "microscope" in values else SMALL | values))
    return main.main(["--plain", "--config", str(file), "--out", str(folder), *more])


@pytest.fixture(scope="module")
def done(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a scan of three channels."""
    folder = tmp_path_factory.mktemp("channels") / "run"
    assert scan(folder) == 0
    return folder


def mosaic_of(folder: Path) -> np.ndarray:
    return np.asarray(zarr.open_group(folder / "stacked.ome.zarr", mode="r")["0"][:])


@pytest.mark.parametrize("channel", range(3), ids=[str(c["name"]) for c in CHANNELS])
def test_every_channel_shows_its_truth(done: Path, channel: int) -> None:
    """Each channel correlates with its stain in focus by 0.99 or more, and lies on it to a tenth of
    a pixel, so that channels lie on each other; also one that is in focus elsewhere, and one of
    which few planes were captured."""
    setup = prepare(validate(SMALL))
    microscope, mosaic = open_microscope(setup), mosaic_of(done)

    for field in setup.plan.fields:
        truth = microscope.truth(field.x_um, field.y_um, channel)[field.core_in_frame()]
        got = mosaic[channel, slice(*field.rows), slice(*field.columns)].astype(np.float32)
        shift, _ = cv2.phaseCorrelate(truth, got)
        assert np.corrcoef(truth.ravel(), got.ravel())[0, 1] >= 0.99
        assert max(map(abs, shift)) < 0.1


def test_the_reference_is_scanned_as_if_it_were_alone(done: Path, tmp_path: Path) -> None:
    """Labels, depth and the image of the reference are those of a scan of that channel alone, whose
    files have no axis of channels; so are rows, whose light has the plain name there."""
    assert scan(tmp_path / "alone", channels=[]) == 0

    alone = mosaic_of(tmp_path / "alone")
    np.testing.assert_array_equal(mosaic_of(done)[0], alone)
    for name in ("depth.ome.zarr", "stacked.ome.zarr/labels/objects"):
        each = [zarr.open_group(f / name, mode="r")["0"][:] for f in (done, tmp_path / "alone")]
        np.testing.assert_array_equal(*each)
    here, there = (
        read_table(done, ["label", "intensity_mean-0"]),
        read_table(tmp_path / "alone", ["label", "intensity_mean"]),
    )
    np.testing.assert_array_equal(here["label"], there["label"])
    np.testing.assert_allclose(here["intensity_mean-0"], there["intensity_mean"], rtol=1e-6)


def test_readers_see_colours_and_windows(done: Path) -> None:
    """The reader of ome-zarr gets names, colours and windows of all channels, and their pixels."""
    (image, *_) = Reader(parse_url(done / "stacked.ome.zarr"))()
    shown, mosaic = image.metadata, mosaic_of(done)

    assert [axis["name"] for axis in shown["axes"]] == ["c", "y", "x"]
    assert shown["channel_names"] == ["DAPI", "FITC", "Cy5"]
    assert [ramp[-1] for ramp in shown["colormap"]] == [[0, 0, 1], [0, 1, 1], [1, 0, 1]]
    for (start, end), channel in zip(shown["contrast_limits"], mosaic, strict=True):
        assert abs(start - np.percentile(channel, 0.5)) < 0.1 * np.ptp(channel)
        assert np.percentile(channel, 98) < end < 1.5 * channel.max()
    np.testing.assert_array_equal(image.data[0].compute(), mosaic)


def test_every_plane_counts(done: Path) -> None:
    """Exposures, the size of a batch and the summary are those of all channels."""
    summary = json.loads((done / SUMMARY).read_text())
    (ray,) = events_in(done, "ray")
    planes = 15 + 15 + 5

    assert {len(event["slips_ms"]) for event in events_in(done, "captured")} == {planes}
    assert ray["batch_bytes"] == planes * 512 * 512 * 2
    assert [each["name"] for each in summary["channels"]] == ["DAPI", "FITC", "Cy5"]
    assert [each["reference"] for each in summary["channels"]] == [True, False, False]


def test_one_changed_pixel_of_any_channel_is_found(done: Path, tmp_path: Path) -> None:
    """What is on disk is compared for all channels: a pixel of the last one counts."""
    assert scan(tmp_path / "run") == 0
    assert main.main(["--verify", str(tmp_path / "run")]) == 0

    zarr.open_group(tmp_path / "run" / "stacked.ome.zarr")["0"][2, 5, 5] += 1

    assert main.main(["--verify", str(tmp_path / "run")]) == 1
    assert main.main(["--plain", "--resume", str(tmp_path / "run")]) == 0
    assert main.main(["--verify", str(tmp_path / "run")]) == 0
    assert digest_of(tmp_path / "run") == digest_of(done)


def test_presets_of_micromanager_are_channels(local_ray: None, tmp_path: Path) -> None:
    """A microscope takes all channels of a field in one visit, each with its exposure; the demo
    camera shows the same beads in each, so that the fused channels are alike."""
    values = {
        "microscope": "micromanager", "mm_config": str(config_of(tmp_path, *STAINED)),
        "adapters": str(ADAPTERS), "stripes": 1, "fields": 2, "planes": 5, "exposure_ms": 2.0,
        "settle_ms": 0.0, "roi_px": [0, 0, 256, 256], "focus_range_um": 44.0,
        "focus_center_um": 1.0, "focus_samples": 2,
        "channels": [{"name": "green", "preset": "FITC"},
                     {"name": "DAPI", "exposure_ms": 9.0, "planes": 3}],
    }  # fmt: skip

    assert scan(tmp_path / "run", **values) == 0

    green, blue = mosaic_of(tmp_path / "run").astype(float)
    for captured in events_in(tmp_path / "run", "captured"):
        assert len(captured["slips_ms"]) == 5 + 3
        assert captured["ended_s"] - captured["began_s"] > (5 * 2 + 3 * 9) / 1e3
    assert np.corrcoef(green.ravel(), blue.ravel())[0, 1] > 0.9


def recorded(folder: Path) -> Path:
    """A recording of two fields of two channels, as an OME-TIFF each, with names and colours."""
    setup = prepare(validate(SMALL | {"stripes": 1, "fields": 2, "channels": CHANNELS[:1]}))
    microscope = open_microscope(setup)
    folder.mkdir()
    for number, field in enumerate(setup.plan.fields):
        z_um = float(microscope.specimen.focus_surface_um(field.x_um, field.y_um))
        frames = microscope.stack(field.x_um, field.y_um, [z_um + k - 4 for k in range(9)]).frames
        metadata = {
            "axes": "CZYX", "PhysicalSizeX": 0.325, "PhysicalSizeZ": 1.0,
            "Channel": {"Name": ["GFP", "DAPI"], "Color": [0x00FF00FF, 0x0000FFFF]},
        }  # fmt: skip
        both = np.stack([frames // 2, frames])
        tifffile.imwrite(folder / f"pos{number}.ome.tif", both, metadata=metadata)
    return folder


def test_a_recording_of_two_channels(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All channels of a recording are scanned, counted and opened by readers in their colours; the
    printed line names them and the one that focuses."""
    values = {
        "microscope": "replay",
        "replay_path": str(recorded(tmp_path / "files")),
        "stripes": 1,
    }
    values |= {
        "channels": [{"name": "GFP", "colour": "FFFF00"}, {"name": "DAPI", "reference": True}]
    }

    assert scan(tmp_path / "run", **values) == 0
    assert "channels GFP, DAPI, focused by DAPI" in "".join(capsys.readouterr())
    assert scan(tmp_path / "all", **(values | {"channels": []})) == 0
    assert scan(tmp_path / "one", **(values | {"channels": [], "channel": "DAPI"})) == 0

    (image, *_) = Reader(parse_url(tmp_path / "run" / "stacked.ome.zarr"))()
    assert image.metadata["channel_names"] == ["GFP", "DAPI"]
    assert [ramp[-1] for ramp in image.metadata["colormap"]] == [[1, 1, 0], [0, 0, 1]]
    (image, *_) = Reader(parse_url(tmp_path / "all" / "stacked.ome.zarr"))()
    assert [ramp[-1] for ramp in image.metadata["colormap"]] == [[0, 1, 0], [0, 0, 1]]
    half, whole = mosaic_of(tmp_path / "run").astype(float)
    np.testing.assert_allclose(2 * half, whole, atol=0.02 * whole.max())
    np.testing.assert_array_equal(mosaic_of(tmp_path / "one"), mosaic_of(tmp_path / "run")[1])
    counts = [len(read_table(tmp_path / name, ["label"])["label"]) for name in ("run", "one")]
    assert counts[0] == counts[1] > 0
    assert summary_of(tmp_path / "all")["channels"][0] == {
        "name": "GFP", "colour": "00FF00", "reference": True
    }  # fmt: skip
    assert main.main(["--plain", "--resume", str(tmp_path / "all")]) == 0


def test_colour_images_are_fused_in_colour(local_ray: None, tmp_path: Path) -> None:
    """Where the input has colours, so has the mosaic: red, green and blue as they were lit."""
    with tifffile.TiffFile(recorded(tmp_path / "grey") / "pos0.ome.tif") as file:
        grey = file.asarray()[1]
    parts = [grey // share for share in (4, 1, 2)]
    tifffile.imwrite(tmp_path / "rgb.tif", np.stack(parts, -1), photometric="rgb")
    values = {"microscope": "replay", "replay_path": str(tmp_path / "rgb.tif"), "stripes": 1,
              "colour": "channels"}  # fmt: skip

    assert scan(tmp_path / "run", **values) == 0

    red, green, blue = mosaic_of(tmp_path / "run").astype(float)
    np.testing.assert_allclose(4 * red, green, atol=0.03 * green.max())
    np.testing.assert_allclose(2 * blue, green, atol=0.03 * green.max())
    assert [each["colour"] for each in summary_of(tmp_path / "run")["channels"]] == [
        "FF0000", "00FF00", "0000FF"
    ]  # fmt: skip
    assert events_in(tmp_path / "run", "begun")[0]["channels"][1]["reference"]


def test_an_interrupted_scan_of_channels_is_resumed(done: Path, tmp_path: Path) -> None:
    """A run that goes on from half of its fields, one of them damaged in its last channel, has the
    digest of the undisturbed one."""
    folder = tmp_path / "run"
    shutil.copytree(done, folder)
    lines = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    stacked = [k for k, line in enumerate(lines) if '"event": "stacked"' in line]
    (folder / "events.jsonl").write_text("".join(lines[: stacked[3] + 1]))
    zarr.open_group(folder / "stacked.ome.zarr")["0"][2] = 0

    assert main.main(["--plain", "--resume", str(folder)]) == 0

    assert digest_of(folder) == digest_of(done)
    assert main.main(["--verify", str(folder)]) == 0


def test_a_killed_worker_changes_nothing(done: Path, tmp_path: Path) -> None:
    """A stacking worker that is killed is replaced: the batch of all channels is still there, no
    field is exposed again, and the digest stays."""
    settings = tmp_path / "run.toml"
    settings.write_text(as_toml(SMALL | {"stress_seconds": 0.5, "stress": False}))
    generator = random.Random(1)
    for attempt in range(5):  # a task may be over before it is found
        folder = tmp_path / str(attempt)
        with struck(folder, 20, lambda: kill_worker(WORKERS["stacking worker"], generator)) as hit:
            assert main.main(["--plain", "--config", str(settings), "--out", str(folder)]) == 0
        assert digest_of(folder) == digest_of(done)
        assert len(events_in(folder, "captured")) == 6
        if hit.victim:
            return
    pytest.fail("no stacking worker was met in 5 scans")
