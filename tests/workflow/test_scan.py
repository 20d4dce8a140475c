"""The whole scan on a local Ray: against the truth, in any order, at borders, when things fail."""

from __future__ import annotations

import csv
import json
import random
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr
from ome_zarr_models import open_ome_zarr
from ray.exceptions import RaySystemError

import main
import report
import tasks
from benchmarks.accuracy import accuracy_of
from config import Settings, validate
from driver import run, setup
from imaging.alignment import align
from imaging.detection import detect
from imaging.stacking import focus_stack
from microscope.opening import open_microscope, prepare, specimen_of
from microscope.simulated import SimulatedMicroscope
from prediction import statistics_from
from prediction.classic import Classic
from prediction.scan_predictor import ScanPredictor
from results.journal import JOURNAL, read_journal
from results.store import create_mosaics
from results.verification import differences
from scan.errors import StorageError
from scan.focusing import stack_heights
from scan.records import DetectionJob, StackJob
from tests.workflow import viewer
from tests.workflow.left import events_in, summary_of

ROOT = Path(__file__).parents[2]
SMALL = ["--plain", "--exposure-ms", "2"]
RUN_FOLDER = {
    "scan.toml",
    "events.jsonl",
    "stacked.ome.zarr",
    "depth.ome.zarr",
    "objects.csv",
    "summary.json",
    "report.html",
    "trace.json",
}


def scan(folder: Path, *options: str, **settings: Any) -> tuple[int, dict[str, Any]]:
    """Run the program in this process; returns exit code and summary."""
    file = folder.with_suffix(".toml")
    file.write_text("\n".join(f"{key} = {value}" for key, value in settings.items()))
    code = main.main([*SMALL, "--config", str(file), "--out", str(folder), *options])
    return code, json.loads((folder / "summary.json").read_text())


def objects_in(folder: Path) -> list[dict[str, float]]:
    """The rows of the object table."""
    with (folder / "objects.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def slide(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a simulated scan, 3 stripes of 3 fields."""
    folder = tmp_path_factory.mktemp("scan") / "run"
    code, _ = scan(folder, "--fields", "3", "--field-px", "384", "--planes", "11")
    assert code == 0
    return folder


def test_a_run_leaves_what_the_design_promises(slide: Path) -> None:
    """The run folder holds the promised files and nothing else, and the summary says complete."""
    summary = json.loads((slide / "summary.json").read_text())

    assert {path.name for path in slide.iterdir()} == RUN_FOLDER
    assert summary["status"] == "complete"
    assert summary["fields"] == {
        "planned": 9,
        "captured": 9,
        "stacked": 9,
        "detected": 9,
        "lost": [],
        "resumed": 0,
    }
    assert summary["objects"] == len(objects_in(slide))
    assert differences(slide, read_journal(slide / JOURNAL)) == []
    assert summary["timing"]["ratio"] > 1
    assert summary["memory"]["spilled_mb"] == 0


def test_the_trace_agrees_with_ray(slide: Path) -> None:
    """Every capture, stack and detection is in the trace once by our stamps, and once by Ray's but
    for a few that Ray reports too late; ours lies within Ray's."""
    trace = json.loads((slide / "trace.json").read_text())["traceEvents"]
    (ray,) = (e["pid"] for e in trace if str(e["args"].get("name", "")).startswith("Ray: node"))
    by_us, by_ray = (
        {
            e["name"]: (e["ts"], e["ts"] + e["dur"])
            for e in trace
            if e["ph"] == "X" and (e["pid"] == ray) == rays and " stripe " in e["name"]
        }
        for rays in (False, True)
    )

    assert len(by_us) == 3 * 9
    assert by_ray.keys() <= by_us.keys()
    assert len(by_ray) > 2 * 9
    for name, (began_us, ended_us) in by_ray.items():
        assert began_us <= by_us[name][0] <= by_us[name][1] <= ended_us


@pytest.fixture
def shown(slide: Path, monkeypatch: pytest.MonkeyPatch) -> list[viewer.Layer]:
    """The layers that the documentation's lines show of a run: image, labels, depth, points."""
    (lines,) = re.findall(
        r"```python\n(import napari\n.*?)```", (ROOT / "docs" / "outputs.md").read_text(), re.S
    )
    monkeypatch.setitem(sys.modules, "napari", viewer)
    exec(re.sub(r"^folder = .*$", f"folder = {str(slide)!r}", lines, flags=re.M), {})
    return viewer.Viewer.shown.layers


def test_the_documentation_shows_a_run_in_napari(slide: Path, shown: list[viewer.Layer]) -> None:
    """Image, labels, depth and objects are shown at one scale and in one unit."""
    plan = prepare(validate(tomllib.loads((slide / "scan.toml").read_text()))).plan

    *images, points = shown
    assert [layer.kind for layer in shown] == ["image", "labels", "image", "points"]
    assert all(layer.data[0].shape == plan.mosaic_shape for layer in images)
    assert all(len(layer.data) == plan.levels for layer in images)
    assert all(layer.scale == [plan.pixel_size_um] * 2 for layer in images)
    assert {layer.units for layer in shown} == {("micrometer", "micrometer")}
    assert all(layer.visible for layer in images)
    assert len(points.data) == len(objects_in(slide))


def test_points_lie_on_their_labels(shown: list[viewer.Layer]) -> None:
    """In napari's coordinates each object's point lies on the pixels of its label, and its height
    is that of the depth there, to half a plane."""
    _, labels, depth, points = shown
    rows, columns = np.rint(points.data / labels.scale).astype(int).T

    found = np.asarray(labels.data[0])[rows, columns]
    off = np.abs(np.asarray(depth.data[0])[rows, columns] - points.features["z_um"])
    np.testing.assert_array_equal(found, points.features["label"])
    assert off.max() < 0.5


TINY = ["--stripes", "1", "--fields", "2", "--planes", "3", "--field-px", "128"]


@pytest.mark.parametrize("error", [RaySystemError("gone"), TimeoutError(), ValueError("damaged")])
@pytest.mark.views
def test_a_trace_without_rays_events(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A Ray that does not report its tasks costs the trace its events, and nothing else."""

    def refuse() -> None:
        raise error

    monkeypatch.setattr(main.ray, "timeline", refuse)

    code, summary = scan(tmp_path / "run", *TINY)

    trace = json.loads((tmp_path / "run" / "trace.json").read_text())["traceEvents"]
    assert (code, summary["status"]) == (0, "complete")
    assert sum(e["name"] == "stack stripe 0 field 0" for e in trace) == 1


@pytest.mark.views
def test_a_trace_that_cannot_be_written_fails_no_scan(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk fills up with the last file, the answer that is there counts."""

    def refuse(folder: Path, ray_events: list[Any]) -> None:
        raise StorageError(str(folder), "room", "none", "make some")

    monkeypatch.setattr(report, "write_trace", refuse)

    code, summary = scan(tmp_path / "run", *TINY)

    assert (code, summary["status"]) == (0, "complete")
    assert {path.name for path in (tmp_path / "run").iterdir()} == RUN_FOLDER - {"trace.json"}


def test_the_scan_tells_the_truth(slide: Path) -> None:
    """Against the slide's truth: focus within 0.5 um, objects with F1 of 0.90 and within 5 % of
    their number, their height within half a plane, all in the median."""
    accuracy = accuracy_of(slide)

    assert accuracy.focus_um < 0.5
    assert accuracy.f1 >= 0.90
    assert abs(accuracy.found_objects / accuracy.true_objects - 1) <= 0.05
    assert accuracy.object_height_um < 0.5


@pytest.mark.parametrize(
    "name", ["stacked.ome.zarr", "stacked.ome.zarr/labels/objects", "depth.ome.zarr"]
)
def test_the_mosaics_are_valid(slide: Path, name: str) -> None:
    """Image, labels and depth of a run are OME-Zarr that both validators accept."""
    yaozarrs.validate_zarr_store(str(slide / name))
    assert open_ome_zarr(zarr.open_group(slide / name, mode="r"))


def test_labels_and_rows_are_the_same_objects(slide: Path) -> None:
    """Each row's label is in the label image with the area of the row."""
    labels = zarr.open_group(slide / "stacked.ome.zarr/labels/objects", mode="r")["0"][:]
    numbers, areas = np.unique(labels[labels > 0], return_counts=True)

    assert {row["label"]: row["area"] for row in objects_in(slide)} == dict(
        zip(numbers, areas, strict=True)
    )


def test_saved_settings_repeat_the_run_in_any_order(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's own scan.toml gives a run with the same digest, however the driver hears of what
    has finished, and with one camera for all stripes."""
    generator, wait = random.Random(0), main.Workflow.wait

    def some_of_them(flow: main.Workflow, references: list[Any], timeout_s: float) -> list[Any]:
        ready = wait(flow, references, timeout_s)
        return generator.sample(ready, generator.randint(0, len(ready)))

    monkeypatch.setattr(main.Workflow, "wait", some_of_them)
    again, settings = tmp_path / "again", tmp_path / "again.toml"
    settings.write_text("cameras = 1\n" + (slide / "scan.toml").read_text())

    code = main.main(["--plain", "--config", str(settings), "--out", str(again)])

    assert code == 0
    assert summary_of(again)["digest"] == summary_of(slide)["digest"]
    assert differences(again, read_journal(again / JOURNAL)) == []


def test_tasks_may_finish_in_any_order(slide: Path, tmp_path: Path) -> None:
    """Stacking and detection run one by one in a shuffled order, without Ray, give the digest."""
    setup = prepare(validate(tomllib.loads((slide / "scan.toml").read_text())))
    ((focused,), (described,)) = events_in(slide, "focused"), events_in(slide, "described")
    centres = {(stripe, field): z_um for stripe, field, z_um in focused["centres_um"]}
    plan, microscope = setup.plan, open_microscope(setup)
    create_mosaics(tmp_path, plan, setup.dtype)
    shuffled = random.Random(0).sample(plan.fields, len(plan.fields))

    sums, written = {}, {}
    for field in shuffled:
        z_um = stack_heights(centres[field.stripe, field.field], 11, 1.0)
        frames = microscope.stack(field.x_um, field.y_um, z_um).frames
        job = StackJob(str(tmp_path), field, z_um, align=False)
        sums[field] = tasks.stack_batch._function(job, frames).checksums
    for field in reversed(shuffled):
        job = DetectionJob(str(tmp_path), field, plan.surroundings(field), plan.pixel_size_um)
        record = tasks.detect_objects._function(job, Classic(), statistics_from(described))
        written[field.stripe, field.field] = (*sums[field], *record.checksums)
    answer = tasks.predict_scan._function(str(tmp_path), written, ScanPredictor(None))

    assert answer.digest == summary_of(slide)["digest"]


def recorded(folder: Path, seed: int = 5) -> list[np.ndarray]:
    """Six recorded fields (z, y, x) of a slide, cut edge to edge, as TIFF stacks in a folder."""
    setup = prepare(
        validate({"stripes": 1, "fields": 1, "field_px": 720, "seed": seed, "exposure_ms": 20})
    )
    microscope = SimulatedMicroscope(
        specimen_of(setup),
        frame_shape=(480, 720),
        pixel_size_um=0.325,
        exposure_ms=20,
        seed=seed,
        clock=lambda: 0.0,
        sleep=lambda seconds: None,
    )
    whole = microscope.stack(120.0, 80.0, [float(z) for z in range(-12, 13, 2)]).frames
    fields = [whole[:, y : y + 240, x : x + 240] for y in (0, 240) for x in (0, 240, 480)]
    folder.mkdir()
    for index, frames in enumerate(fields):
        tifffile.imwrite(folder / f"field{index}.tif", frames, photometric="minisblack")
    return fields


def in_one_piece(folder: Path) -> np.ndarray:
    """The labels of the run's mosaic, searched in one piece with the run's own statistics."""
    mosaic = zarr.open_group(folder / "stacked.ome.zarr", mode="r")["0"][:]
    (described,) = events_in(folder, "described")
    return detect(mosaic, statistics_from(described))


def test_overlapping_borders_leave_no_trace(slide: Path) -> None:
    """With an overlap of two diameters, field by field gives just the objects of one piece."""
    labels = zarr.open_group(slide / "stacked.ome.zarr/labels/objects", mode="r")["0"][:]
    expected = in_one_piece(slide)

    np.testing.assert_array_equal(labels > 0, expected > 0)
    assert len(objects_in(slide)) == expected.max()
    assert len(set(zip(labels.ravel(), expected.ravel(), strict=True))) == expected.max() + 1


@pytest.mark.parametrize("aligned", [False, True])
def test_a_recording_is_stacked_and_searched_as_it_is(
    local_ray: None, tmp_path: Path, aligned: bool
) -> None:
    """The mosaic of a recording is the focus stack of each field, aligned where that is asked; its
    fields without overlap give the count of their mosaic searched in one piece."""
    fields = recorded(tmp_path / "fields", seed=6 if aligned else 5)
    folder = tmp_path / "run"
    options = ["--microscope", "replay", "--stripes", "2", *["--align"] * aligned]

    code, summary = scan(folder, *options, replay_path=f'"{tmp_path / "fields"}"')

    mosaic = zarr.open_group(folder / "stacked.ome.zarr", mode="r")["0"][:]
    one, six = (focus_stack(align(f) if aligned else f).image for f in (fields[1], fields[5]))
    assert code == 0
    np.testing.assert_array_equal(mosaic[:240, 240:480], one)
    np.testing.assert_array_equal(mosaic[240:, 480:], six)
    assert summary["objects"] == in_one_piece(folder).max()


def test_a_sweep_that_misses_the_focus_is_widened(local_ray: None, tmp_path: Path) -> None:
    """A first sweep that ends short of the specimen peaks at its edge and is widened once."""
    code, summary = scan(
        tmp_path / "run",
        "--stripes",
        "1",
        "--fields",
        "3",
        "--field-px",
        "256",
        "--planes",
        "9",
        focus_center_um=10,
        focus_range_um=16,
    )

    assert code == 0
    assert summary["z_positions"]["kept"] == 3
    assert summary["objects"] > 0


def test_a_slide_out_of_reach_ends_the_scan(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no sample has contrast the scan fails, says what to do, and claims nothing."""
    code, summary = scan(
        tmp_path / "run",
        "--stripes",
        "1",
        "--fields",
        "2",
        "--field-px",
        "128",
        focus_center_um=150,
        focus_range_um=8,
    )

    assert code == 1
    assert summary["status"] == "failed"
    assert summary["fields"]["captured"] == 0
    assert "set focus_center_um and focus_range_um" in capsys.readouterr().err


def test_a_field_that_cannot_be_captured_is_lost_by_name(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A field that fails beyond its retries is lost with its reason; the rest is in the answer."""
    recorded(tmp_path / "fields")
    victim = tmp_path / "fields" / "field4.tif"

    def then_damage(settings: Settings) -> Any:
        prepared = prepare(settings)
        victim.write_bytes(victim.read_bytes()[:1000])
        return prepared

    monkeypatch.setattr(setup, "prepare", then_damage)
    folder = tmp_path / "run"
    code, summary = scan(
        folder,
        "--microscope",
        "replay",
        "--stripes",
        "2",
        focus_samples=1,
        replay_path=f'"{tmp_path / "fields"}"',
        retries=1,
    )

    (lost,) = summary["fields"]["lost"]
    assert code == 3
    assert summary["status"] == "partial"
    assert (lost["stripe"], lost["field"]) == (1, 1)
    assert "field4.tif" in lost["reason"]
    assert summary["fields"]["detected"] == 5
    assert summary["retries"]["capture"] == 1
    assert differences(folder, read_journal(folder / JOURNAL)) == []


MISTAKES = {
    "setting": ["--stripes", "0"],
    "recording": ["--microscope", "replay", "--replay-path", "no such folder"],
    "option": ["--stripe", "3"],
    "slide": ["--pixel-size-um", "1000"],
    "full folder": ["--out", "."],
}


@pytest.mark.parametrize("options", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_end_early_in_one_line(
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Wrong settings or input: exit code 2, one line on stderr, no Ray, nothing written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("kept")
    monkeypatch.setattr(run, "ray_running", None)

    code = main.main(options)

    output = capsys.readouterr()
    assert code == 2
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
