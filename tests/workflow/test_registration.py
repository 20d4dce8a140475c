"""Registration through the workflow: the stage misses its targets, and the mosaic is true."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import tifffile
import zarr

import main
import tasks
from benchmarks.tile_scenes import (
    BORDER_PX,
    GAIN,
    READ_NOISE,
    Stage,
    cut_tiles,
    slide,
    slide_shape,
)
from config import read_toml, validate
from imaging.registration import core_at
from imaging.stacking import focus_stack
from microscope.opening import Setup, errors_of, open_microscope, prepare
from results.journal import JOURNAL, read_journal
from results.verification import differences
from scan.focusing import stack_heights
from scan.registration import PlaceJob, PlaceRecord
from tests.workflow.left import digest_of, events_in, summary_of

SLIDE = {
    "stripes": 3, "fields": 4, "field_px": 256, "planes": 5, "exposure_ms": 20.0, "settle_ms": 0.0,
    "focus_samples": 2, "stage_error_um": 1.0, "register_fields": True,
}  # fmt: skip
COUNT = 12


def scan(folder: Path, **values: Any) -> int:
    """Run the program; returns its exit code."""
    file = folder.with_suffix(".toml")
    file.write_text(validate(SLIDE | values).to_toml())
    return main.main(["--plain", "--config", str(file), "--out", str(folder)])


@pytest.fixture(scope="module")
def done(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a registered scan."""
    folder = tmp_path_factory.mktemp("registered") / "run"
    assert scan(folder) == 0
    return folder


def setup_of(folder: Path) -> Setup:
    """What was scanned into a folder."""
    return prepare(validate(read_toml(folder / "scan.toml")))


def offsets_of(folder: Path) -> dict[tuple[int, int], list[float]]:
    """Where the fields of a run were placed."""
    return {(e["stripe"], e["field"]): e["offset_px"] for e in events_in(folder, "placed")}


def seam_errors(folder: Path) -> np.ndarray:
    """How far neighbours side by side are displaced against each other, in pixels."""
    setup = setup_of(folder)
    errors, pixel_um = errors_of(setup), setup.plan.pixel_size_um
    true = {
        field.place: np.array(errors.at(field.x_um, field.y_um))[::-1] / pixel_um
        for field in setup.plan.fields
    }
    found = offsets_of(folder)
    wrong = {place: np.subtract(found[place], true[place]) for place in true}
    return np.array(
        [
            np.hypot(*(wrong[other] - wrong[s, f]))
            for s, f in wrong
            for other in ((s + 1, f), (s, f + 1))
            if other in wrong
        ]
    )


def test_seams_are_right_below_the_pixel(done: Path) -> None:
    """With a stage error of three pixels, all fields lie within half a pixel of each other."""
    assert len(events_in(done, "placed")) == COUNT
    assert seam_errors(done).max() < 0.5


def test_cores_hold_the_pixels_of_their_place(done: Path) -> None:
    """Each core of image and depth is cut out of the focus stack at the journal's offset."""
    setup = setup_of(done)
    microscope = open_microscope(setup)
    focus = {(s, f): z for s, f, z in events_in(done, "focused")[0]["centres_um"]}
    image, depth = (
        np.asarray(zarr.open_group(done / f"{name}.ome.zarr", mode="r")["0"][:])
        for name in ("stacked", "depth")
    )
    for event in events_in(done, "placed"):
        field = setup.plan.stripes[event["stripe"]][event["field"]]
        z_um = stack_heights(focus[field.place], 5, 1.0)
        stacked = focus_stack(microscope.stack(field.x_um, field.y_um, z_um).frames)
        core = slice(*field.rows), slice(*field.columns)
        planes = core_at(stacked.depth, field, tuple(event["written_px"]))

        assert (image[core] == core_at(stacked.image, field, tuple(event["written_px"]))).all()
        assert np.allclose(depth[core], z_um[0] + planes, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_was_killed_is_resumed(done: Path, tmp_path: Path, seed: int) -> None:
    """Cut at a byte, as by SIGKILL, the run resumes to the same digest; fields that were written
    are not captured again."""
    journal = (done / JOURNAL).read_bytes()
    length = random.Random(seed).randrange(journal.index(b"focused"), len(journal) - 1)
    folder = tmp_path / "run"
    shutil.copytree(done, folder)
    (folder / JOURNAL).write_bytes(journal[:length])
    whole = [json.loads(line) for line in journal[:length].rpartition(b"\n")[0].splitlines()]
    written = sum(event["event"] == "stacked" for event in whole)

    assert main.main(["--plain", "--resume", str(folder)]) == 0
    assert digest_of(folder) == digest_of(done)
    assert differences(folder, read_journal(folder / JOURNAL)) == []
    assert summary_of(folder)["fields"]["resumed"] == written
    captured = sum(event["event"] == "captured" for event in whole)
    assert len(events_in(folder, "captured")) - captured == COUNT - written


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """A Ray of which one CPU is left."""
    more = int(ray.cluster_resources()["CPU"]) - 1
    occupied = ray.util.placement_group([{"CPU": 1}] * more)
    ray.get(occupied.ready())
    yield
    ray.util.remove_placement_group(occupied)


def test_one_cpu_and_one_camera_give_the_same_digest(
    done: Path, one_cpu: None, tmp_path: Path
) -> None:
    """One stripe after the other on one CPU, or three side by side on two: fields lie at the same
    places."""
    assert scan(tmp_path / "run", cameras=1) == 0

    assert digest_of(tmp_path / "run") == digest_of(done)
    assert offsets_of(tmp_path / "run") == offsets_of(done)


def killed_at_first(mark: Path) -> None:
    """End the worker if the mark is not there."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@ray.remote(num_cpus=1, max_retries=0)
def dying_place(job: PlaceJob, stacked: Any) -> PlaceRecord:
    """Placing whose worker is killed after it wrote all there is to write."""
    record = tasks.place_field._function(job, stacked)
    if job.field.place == (1, 2):
        killed_at_first(Path(job.folder).parent / "place")
    return record


def test_workers_that_die_change_nothing(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A placing task whose worker is killed is submitted again, to the same digest, also with
    one camera in the place of three."""
    monkeypatch.setattr(tasks, "place_field", dying_place)

    assert scan(tmp_path / "run", cameras=1) == 0
    assert digest_of(tmp_path / "run") == digest_of(done)
    assert [e["step"] for e in events_in(tmp_path / "run", "retried")] == ["place"]
    assert len(events_in(tmp_path / "run", "captured")) == COUNT


def test_channels_follow_the_same_offset(local_ray: None, tmp_path: Path) -> None:
    """Of several channels the reference decides where a field lies, and all are written there."""
    folder = tmp_path / "run"
    channels = [{"name": "FITC"}, {"name": "DAPI", "reference": True}]

    assert scan(folder, channels=channels, stripes=2, fields=3) == 0
    assert np.median(seam_errors(folder)) < 0.5
    setup = setup_of(folder)
    focus = {(s, f): z for s, f, z in events_in(folder, "focused")[0]["centres_um"]}
    mosaic = np.asarray(zarr.open_group(folder / "stacked.ome.zarr", mode="r")["0"][:])
    event, microscope = events_in(folder, "placed")[-1], open_microscope(setup)
    field = setup.plan.stripes[event["stripe"]][event["field"]]
    z_um = stack_heights(focus[field.place], 5, 1.0)
    stacked = focus_stack(microscope.stack(field.x_um, field.y_um, z_um, 1).frames)
    core = mosaic[:, slice(*field.rows), slice(*field.columns)]

    assert (core[1] == core_at(stacked.image, field, tuple(event["written_px"]))).all()
    assert core[0].any()


def test_fields_that_do_not_overlap_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an overlap there is nothing to register by: one line, and nothing is written."""
    assert scan(tmp_path / "run", overlap_px=0) == 2
    said = capsys.readouterr().err.strip().splitlines()

    assert len(said) == 1
    assert "register_fields: expected fields that overlap by 16 pixels or more, got 0" in said[0]
    assert not (tmp_path / "run").exists()


def test_a_recording_is_true_to_the_slide(local_ray: None, tmp_path: Path) -> None:
    """Recorded fields that lie off by 3 px are joined as in the slide: what remains is noise."""
    light = slide("dense", 3, slide_shape((2, 3), 256, 48))
    tiles = cut_tiles(light, (2, 3), Stage(3.0, whole=True), field_px=256, overlap_px=48, seed=1)
    (tmp_path / "fields").mkdir()
    for s, f in np.ndindex(2, 3):
        tifffile.imwrite(tmp_path / "fields" / f"r{s}_c{f}.tif", tiles.images[s, f])
    values = {
        "microscope": "replay", "replay_path": str(tmp_path / "fields"), "overlap_px": 48,
        "pixel_size_um": 0.5, "z_step_um": 1.0, "name_pattern": "r{row}_c{column}",
        "register_fields": True,
    }  # fmt: skip
    file = tmp_path / "scan.toml"
    file.write_text(validate(values).to_toml())

    assert main.main(["--plain", "--config", str(file), "--out", str(tmp_path / "run")]) == 0
    mosaic = zarr.open_group(tmp_path / "run" / "stacked.ome.zarr", mode="r")["0"][:].astype(float)
    rows, columns = mosaic.shape
    errors = [
        np.square(mosaic - tiles.slide[y : y + rows, x : x + columns]).mean()
        for y in range(BORDER_PX + 16, BORDER_PX + 33)
        for x in range(BORDER_PX + 16, BORDER_PX + 33)
    ]
    noise = np.mean(GAIN**2 * (light + READ_NOISE**2))

    assert min(errors) < 1.2 * noise
