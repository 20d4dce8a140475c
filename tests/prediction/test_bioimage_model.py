"""Model folders of the BioImage.IO zoo: read as they are, verified, never fetched."""

from __future__ import annotations

import pickle
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bioimageio.core import create_prediction_pipeline
from bioimageio.core.digest_spec import get_test_input_sample
from bioimageio.spec import load_model_description

from prediction.opening import open_predictor
from scan.errors import UserMistake
from tests.prediction.networks import (
    PERCENTILES,
    STANDARDISE,
    model_folder,
    old_model_folder,
    sha256,
    slide,
)

UINT16 = np.dtype(np.uint16)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches the network; one that tries fails."""

    def refuse(*given: Any, **named: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "0.5": model_folder,
    "0.4": old_model_folder,
    "fixed size": lambda folder: model_folder(folder, size=192),
    "percentiles": lambda folder: model_folder(folder, [PERCENTILES]),
}


@pytest.mark.parametrize("make", FOLDERS.values(), ids=FOLDERS)
def test_the_maps_are_those_of_bioimageio(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """An unmodified folder that bioimageio accepts gives the maps of its own run."""
    folder = make(tmp_path / "model")
    description = load_model_description(folder, perform_io_checks=False)
    sample = get_test_input_sample(description)
    (image,) = (tensor.to_numpy()[0, 0] for tensor in sample.members.values())

    predictor = pickle.loads(pickle.dumps(open_predictor(f"bioimageio:{folder}", UINT16)))
    maps = predictor.maps(image, predictor.normalisation([image]))

    pipeline = create_prediction_pipeline(description, weights_format="onnx")
    (expected,) = pipeline.predict_sample_without_blocking(
        sample, skip_input_padding=True, skip_output_cropping=True
    ).members.values()
    assert description.validation_summary.status in ("passed", "valid-format")
    np.testing.assert_allclose(maps, expected.to_numpy()[0], rtol=1e-5, atol=1e-6)
    assert predictor.to_event()["model_sha256"] == sha256(folder / "weights.onnx")


@pytest.mark.parametrize("make", FOLDERS.values(), ids=FOLDERS)
def test_field_borders_leave_no_trace(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """Half a mosaic with its halo gives the labels of the whole, also where it is all dark."""
    predictor = open_predictor(f"bioimageio:{make(tmp_path / 'model')}", UINT16)
    mosaic = slide((300, 500), 30)
    mosaic[:, 260:] = slide((300, 240), 0, seed=3)
    statistics = predictor.estimate_statistics([mosaic], 20.0)

    whole = predictor.detect(mosaic, statistics, (0, 0))
    start = 250 - statistics.halo_px
    half = predictor.detect(mosaic[:, start:], statistics, (0, start))

    assert whole.max() > 3
    assert (whole[:, 290:] == 0).all()
    np.testing.assert_array_equal(half[:, statistics.halo_px :] > 0, whole[:, 250:] > 0)


def test_measures_of_a_sample_are_those_of_the_scan(tmp_path: Path) -> None:
    """What a description measures on one image is measured on all samples together."""
    predictor = open_predictor(f"bioimageio:{model_folder(tmp_path / 'm')}", UINT16)
    samples = [slide((100, 150), 3), slide((90, 60), 6, seed=2)]
    pixels = np.concatenate([sample.ravel() for sample in samples]).astype(np.float64)

    measured = predictor.estimate_statistics(samples, 20.0).normalisation

    assert sorted(measured) == pytest.approx(sorted((pixels.mean(), pixels.std())), rel=1e-4)


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    """A change to a description: the last of the path is put where the others lead."""

    def change(description: Any) -> None:
        *way, last, value = path
        for step in way:
            description = description[step]
        description[last] = value

    return change


URL = "https://example.org/weights.onnx"
TORCH = {"torchscript": {"source": "weights.onnx", "pytorch_version": "2.4"}}

WRONG = {
    "weights elsewhere": (put("weights", "onnx", "source", URL), f"in the folder, got {URL}"),
    "test elsewhere": (put("inputs", 0, "test_tensor", "source", URL), "all files in the folder"),
    "another hash": (put("weights", "onnx", "sha256", "0" * 64), "weights.onnx. Expected 00"),
    "another test": (put("outputs", 0, "test_tensor", "sha256", "1" * 64), ". Expected 1111"),
    "torn test": (put("inputs", 0, "test_tensor", {"source": "README.md"}), "a model that can be"),
    "lost weights": (put("weights", "onnx", "source", "lost.onnx"), "got FileNotFoundError: /"),
    "no ONNX": (put("weights", TORCH), "expected ONNX weights, got torchscript"),
    "torn": (put("inputs", []), "Invalid model description: inputs"),
    "not reproduced": (put("inputs", 0, "preprocessing", []), "expected its own test output"),
    "colour": (put("inputs", 0, "axes", 1, "channel_names", list("rgb")), "one grey image"),
    "measures its output": (put("outputs", 0, "postprocessing", [STANDARDISE]), "of the output"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_folder_fails_in_one_line(tmp_path: Path, change: Any, said: str) -> None:
    """A folder that cannot be used is refused when it is opened, in one line, offline."""
    folder = model_folder(tmp_path / "model", change=change)

    with pytest.raises(UserMistake) as refused:
        open_predictor(f"bioimageio:{folder}", UINT16)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("place", ["none", "."])
def test_a_folder_without_a_model_is_named(tmp_path: Path, place: str) -> None:
    """A missing folder, or one without a model, is named by its path."""
    with pytest.raises(UserMistake, match=rf"{place}: expected .* got (FileNotFound|Value)Error"):
        open_predictor(f"bioimageio:{tmp_path / place}", UINT16)


@pytest.mark.parametrize("package", ["bioimageio.spec", "bioimageio.core.proc_setup"])
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """Without bioimageio the message names it and the file that installs it."""
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(UserMistake, match=rf"package {package}, got none; pip install -r req"):
        open_predictor(f"bioimageio:{model_folder(tmp_path / 'm')}", UINT16)
