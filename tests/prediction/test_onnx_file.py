"""A user's ONNX file: its properties are measured, and faults are errors in one line."""

from __future__ import annotations

import pickle
import sys
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from imaging.instances import in_windows, instances
from prediction import Predictor
from prediction.opening import open_predictor
from scan.errors import UserMistake
from tests.prediction import networks
from tests.prediction.networks import slide

UINT16 = np.dtype(np.uint16)


def opened(folder: Path, content: bytes, options: str = "") -> Predictor:
    """The predictor of a file with this content."""
    file = folder / "model.onnx"
    file.write_bytes(content)
    return open_predictor(f"onnx:{file}{options}", UINT16)


NETWORKS = {
    "smoothing": networks.smoothing(),
    "of fixed size": networks.smoothing(size=(160, 160)),
    "foreground alone": networks.smoothing(maps=1),
    "halving twice": networks.halving(2),
    "halving thrice": networks.halving(3),
}


@pytest.mark.parametrize("content", NETWORKS.values(), ids=NETWORKS)
def test_field_borders_leave_no_trace(tmp_path: Path, content: bytes) -> None:
    """Cores with their halo, of any size, give the labels of the whole mosaic."""
    mosaic = slide((420, 500), 25)
    predictor = pickle.loads(pickle.dumps(opened(tmp_path, content)))
    statistics = predictor.estimate_statistics([mosaic], 20.0)
    whole = predictor.detect(mosaic, statistics, (0, 0))
    assert whole.max() > 10

    for tall, wide in ((150, 170), (97, 300), (420, 33)):
        for top, left in product(range(0, 420, tall), range(0, 500, wide)):
            core = np.s_[top : top + tall, left : left + wide]
            origin = [max(0, start - statistics.halo_px) for start in (top, left)]
            ends = [s.stop + statistics.halo_px for s in core]
            seen = mosaic[origin[0] : ends[0], origin[1] : ends[1]]
            labels = predictor.detect(seen, statistics, tuple(origin))
            part = labels[top - origin[0] :, left - origin[1] :][:tall, :wide]
            pairs = set(zip(part.ravel().tolist(), whole[core].ravel().tolist(), strict=False))
            assert part.shape == whole[core].shape
            assert len(pairs) == len(np.unique(part)) == len(np.unique(whole[core]))
            assert all((here == 0) == (there == 0) for here, there in pairs)


@pytest.mark.parametrize("origin", [(57, 83), (30, 10), (128, 200)])
@pytest.mark.parametrize("times", range(1, 6))
def test_a_region_has_the_maps_of_the_mosaic(
    tmp_path: Path, times: int, origin: tuple[int, int]
) -> None:
    """Where a region begins changes no map by more than rounding, inside the margin."""
    predictor, mosaic = opened(tmp_path, networks.halving(times)), slide((420, 500), 60)
    normalisation = predictor.normalisation([mosaic])

    def maps_from(top: int, left: int) -> np.ndarray:
        network = partial(predictor.maps, normalisation=normalisation)
        windows = (network, predictor.window_of, predictor.step_px, predictor.receptive_field_px)
        return in_windows(mosaic[top:, left:], (top, left), *windows)

    inner = np.s_[:, predictor.receptive_field_px :, predictor.receptive_field_px :]
    whole = maps_from(0, 0)[:, origin[0] :, origin[1] :]
    np.testing.assert_allclose(maps_from(*origin)[inner], whole[inner], rtol=0, atol=1e-5)


FIELDS = {"5 x 5 pixels": (networks.smoothing(), 32), "halved": (networks.halving(4), 32),
           "far": (networks.halving(5), 64)}  # fmt: skip


@pytest.mark.parametrize(("content", "receptive_field_px"), FIELDS.values(), ids=FIELDS)
def test_the_receptive_field_is_measured(
    tmp_path: Path, content: bytes, receptive_field_px: int
) -> None:
    """The radius of the receptive field, in whole steps of the grid."""
    assert opened(tmp_path, content).receptive_field_px == receptive_field_px


def test_labels_follow_the_maps_of_the_network(tmp_path: Path) -> None:
    """The labels are those of the network's formula with percentiles 1 and 99.8."""
    image = slide((300, 300), 12)
    predictor = opened(tmp_path, networks.smoothing())
    low, high = np.percentile(image, (1, 99.8))
    mean = ndimage.uniform_filter((image - low) / (high - low), 5, mode="nearest")
    maps = np.stack([1 / (1 + np.exp(-40 * (mean - 0.25))), np.zeros(image.shape)])

    labels = predictor.detect(image, predictor.estimate_statistics([image], 20.0), (0, 0))

    expected = instances(maps.astype(np.float32), "boundary", 20.0)
    assert labels.dtype == np.int32
    assert labels.max() == expected.max()
    assert np.mean((labels > 0) != (expected > 0)) < 1e-3


def test_normalisation_is_that_of_the_scan(tmp_path: Path) -> None:
    """The normalisation is that of all samples; an empty field stays empty."""
    predictor = opened(tmp_path, networks.smoothing())
    samples = [slide((200, 200), 12), slide((150, 300), 20, seed=2)]
    statistics = predictor.estimate_statistics(samples, 20.0)
    low, high = np.percentile(np.concatenate([s.ravel() for s in samples]), (1, 99.8))

    assert statistics.normalisation == pytest.approx((low, high - low))
    assert predictor.detect(slide((200, 200), 0), statistics, (0, 0)).max() == 0


def test_provenance_is_written_to_the_journal(tmp_path: Path) -> None:
    """The journal holds the setting and the hash of the weights."""
    predictor = opened(tmp_path, networks.smoothing(), "?maps=distance")

    assert predictor.second_map == "distance"
    assert predictor.to_event() == {
        "predictor": f"onnx:{tmp_path / 'model.onnx'}?maps=distance",
        "model_sha256": networks.sha256(tmp_path / "model.onnx"),
    }


WRONG = {
    "no network": (b"what is this", "expected a model that can be used, got InvalidProtobuf"),
    "whole image": (networks.all_over(), "expected a receptive field of less than 208 pixels"),
    "logits": (networks.without_sigmoid(), "expected probabilities from 0 to 1"),
    "smaller maps": (networks.shrinking(), "expected one or two maps of 512 x 512 pixels, got 2 x"),
    "three maps": (networks.smoothing(maps=3), "expected one or two maps"),
    "six halvings": (networks.halving(6), "the same maps when an image is shifted by 32 pixels"),
    "tiny": (networks.smoothing(size=(64, 64)), "expected windows of at least 96 pixels"),
    "oblong": (networks.smoothing(size=(64, 96)), "index: 3 Got: 64 Expected: 96"),
}


@pytest.mark.parametrize(("content", "said"), WRONG.values(), ids=WRONG)
def test_a_network_that_would_show_borders_is_refused(
    tmp_path: Path, content: bytes, said: str
) -> None:
    """A network that depends on more than a bounded neighbourhood fails when it is opened."""
    with pytest.raises(UserMistake) as refused:
        opened(tmp_path, content)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A missing file is named by its path."""
    with pytest.raises(UserMistake, match=r"none\.onnx: expected .* got no regular file"):
        open_predictor(f"onnx:{tmp_path / 'none.onnx'}", UINT16)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without onnxruntime the message names it and the file that installs it."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    content = networks.smoothing(threshold=0.123)  # of no session that is built already

    with pytest.raises(UserMistake, match=r"package onnxruntime, got none; pip install -r req"):
        opened(tmp_path, content)
