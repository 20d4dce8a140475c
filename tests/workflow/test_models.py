"""A whole scan with a user's own model, and mistakes that are reported before one begins."""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

import main
from benchmarks.accuracy import accuracy_of
from config import validate
from driver import run
from imaging.ownership import region_with_halo
from microscope.opening import prepare
from tests.prediction import networks

SIZE = ["--plain", "--exposure-ms", "2", "--stripes", "2", "--fields", "2", "--field-px", "384"]


def scan(folder: Path, predictor: str) -> dict[str, Any]:
    """Scan a small slide; returns the first line of the journal."""
    code = main.main([*SIZE, "--planes", "11", "--predictor", predictor, "--out", str(folder)])
    assert code == 0
    with (folder / "events.jsonl").open() as journal:
        return json.loads(journal.readline())


def test_a_scan_with_a_network_tells_the_truth(local_ray: None, tmp_path: Path) -> None:
    """A smoothing network in ONNX finds the objects of the slide about as the default does."""
    file = tmp_path / "model.onnx"
    file.write_bytes(networks.smoothing(threshold=0.2))

    begun = scan(tmp_path / "run", f"onnx:{file}")

    accuracy = accuracy_of(tmp_path / "run")
    assert begun["identity"]["model_sha256"] == networks.sha256(file)
    assert accuracy.f1 >= 0.85
    with (tmp_path / "run" / "objects.csv").open(newline="") as rows:
        assert all(0 <= float(row["score"]) <= 1 for row in csv.DictReader(rows))


def test_a_scan_with_a_bioimageio_model(local_ray: None, tmp_path: Path) -> None:
    """An unmodified model folder finds most objects of the slide."""
    folder = networks.model_folder(tmp_path / "model")

    scan(tmp_path / "run", f"bioimageio:{folder}")

    assert accuracy_of(tmp_path / "run").f1 >= 0.7


def test_a_scan_with_own_python(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A factory in the folder where the program is started is found by the workers too."""
    (tmp_path / "own_model_of_a_scan.py").write_text(
        "from imaging.detection import detect, estimate_statistics\n"
        "def factory():\n"
        "    return lambda image: detect(image, estimate_statistics([image]))\n"
    )
    monkeypatch.chdir(tmp_path)

    begun = scan(tmp_path / "run", "own_model_of_a_scan:factory")

    assert begun["identity"]["predictor"] == "own_model_of_a_scan:factory"
    assert accuracy_of(tmp_path / "run").f1 >= 0.8


def test_a_model_that_fails_on_some_fields_loses_those(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What own Python raises on a field is that field's reason; all others are in the answer."""
    (tmp_path / "model_for_narrow_fields.py").write_text(
        "from imaging.detection import detect, estimate_statistics\n"
        "def find(image):\n"
        "    if image.shape[1] > image.shape[0]:\n"
        "        raise ValueError('too wide')\n"
        "    return detect(image, estimate_statistics([image]))\n"
        "find.halo_px = 32\n"
        "factory = lambda: find\n"
    )
    monkeypatch.chdir(tmp_path)
    predictor = ["--predictor", "model_for_narrow_fields:factory", "--fields", "3"]

    code = main.main([*SIZE, "--planes", "5", *predictor, "--out", str(tmp_path / "run")])

    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    lost = summary["fields"]["lost"]
    plan = prepare(validate(tomllib.loads((tmp_path / "run" / "scan.toml").read_text()))).plan
    views = {
        (f.stripe, f.field): region_with_halo(f, 32, plan.surroundings(f)) for f in plan.fields
    }
    wide = [at for at, (y, x) in views.items() if x.stop - x.start > y.stop - y.start]
    assert code == 3
    assert sorted((field["stripe"], field["field"]) for field in lost) == wide
    assert 0 < len(wide) < len(views)
    assert all("too wide (model_for_narrow_fields.py, line 4)" in f["reason"] for f in lost)
    assert summary["objects"] > 0


MISTAKES = {
    "unknown": "cellpose",
    "no file": "onnx:none.onnx",
    "no network": "onnx:mine.txt",
    "unknown maps": "onnx:mine.txt?maps=flows",
    "no folder": "bioimageio:none",
    "no module": "no_module_of_that_name:factory",
}


@pytest.mark.parametrize("predictor", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_end_early_in_one_line(
    predictor: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A predictor that cannot be used: exit code 2, one line on stderr, no Ray, nothing written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("kept")
    monkeypatch.setattr(run, "ray_running", None)

    code = main.main(["--predictor", predictor])

    output = capfd.readouterr()
    assert code == 2
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
