"""Several channels through the workflow: as sharp as the truth, registered, in every result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

import main
from config import validate
from microscope.opening import open_microscope, prepare
from results.summary import SUMMARY
from results.table import read_table
from tests.microscope.devices import ADAPTERS, STAINED, config_of
from tests.workflow.left import digest_of, events_in

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
