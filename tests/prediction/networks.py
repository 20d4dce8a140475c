"""Tiny networks made by hand, slides for them, and model folders as BioImage.IO packs them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import yaml
from onnx import TensorProto, helper, numpy_helper
from scipy import ndimage

Node = tuple[str, list[str], str, dict[str, Any]]


def network(
    *nodes: Node,
    weights: dict[str, np.ndarray],
    size: Any = ("y", "x"),
    out: Any = None,
    maps: int = 2,
) -> bytes:
    """An ONNX network from `image` to `maps` as a file's content."""
    into = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, *size])
    shape = [1, maps, *(out or size)]
    out = helper.make_tensor_value_info("maps", TensorProto.FLOAT, shape)
    made = [helper.make_node(kind, names, [to], **facts) for kind, names, to, facts in nodes]
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(made, "tiny", [into], [out], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def kernel(size: int, gain: float, maps: int = 2) -> np.ndarray:
    """Weights that average `size` x `size` pixels; maps beyond the first are blank."""
    weights = np.zeros((maps, 1, size, size), np.float32)
    weights[0] = gain / size**2
    return weights


def bias(gain: float, threshold: float, maps: int = 2) -> np.ndarray:
    """What makes the first map 0.5 at the threshold and blank the others."""
    return np.array([-gain * threshold] + [-30.0] * (maps - 1), np.float32)


def smoothing(threshold: float = 0.25, size: Any = ("y", "x"), maps: int = 2) -> bytes:
    """Foreground where the mean of 5 x 5 pixels is above the threshold."""
    return network(
        ("Conv", ["image", "w", "b"], "raw", {"pads": [2] * 4}),
        ("Sigmoid", ["raw"], "maps", {}),
        weights={"w": kernel(5, 40, maps), "b": bias(40, threshold, maps)},
        size=size,
        maps=maps,
    )


def halving(times: int = 2) -> bytes:
    """The same on an image that is halved and doubled again."""
    scale = np.array([1, 1, 2**times, 2**times], np.float32)
    pool = {"kernel_shape": [2**times] * 2, "strides": [2**times] * 2}
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
               "nearest_mode": "floor"}  # fmt: skip
    return network(
        ("MaxPool", ["image"], "small", pool),
        ("Conv", ["small", "w", "b"], "raw", {"pads": [1] * 4}),
        ("Resize", ["raw", "", "s"], "large", nearest),
        ("Sigmoid", ["large"], "maps", {}),
        weights={"w": kernel(3, 40), "b": bias(40, 0.3), "s": scale},
    )


def all_over() -> bytes:
    """A network that subtracts the mean of the whole image."""
    return network(
        ("ReduceMean", ["image"], "mean", {"axes": [2, 3]}),
        ("Sub", ["image", "mean"], "rest", {}),
        ("Conv", ["rest", "w", "b"], "raw", {"pads": [2] * 4}),
        ("Sigmoid", ["raw"], "maps", {}),
        weights={"w": kernel(5, 40), "b": bias(40, 0.2)},
    )


def without_sigmoid() -> bytes:
    """A network that ends in logits."""
    return network(
        ("Conv", ["image", "w", "b"], "maps", {"pads": [2] * 4}),
        weights={"w": kernel(5, 40), "b": bias(40, 0.2)},
    )


def shrinking() -> bytes:
    """A network whose maps are smaller than its image."""
    return network(
        ("Conv", ["image", "w", "b"], "raw", {}),
        ("Sigmoid", ["raw"], "maps", {}),
        weights={"w": kernel(5, 40), "b": bias(40, 0.2)},
        out=("rows", "columns"),
    )


def slide(shape: tuple[int, int], count: int, seed: int = 1, diameter: float = 20) -> np.ndarray:
    """Soft discs on a noisy ground, uint16."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    light = np.zeros(shape)
    for row, column in rng.uniform((0, 0), shape, (count, 2)):
        rim = rng.uniform(0.4, 0.6) * diameter - np.hypot(rows - row, columns - column)
        light = np.maximum(light, rng.uniform(300, 600) * np.clip(rim + 0.5, 0, 1))
    return (100 + ndimage.gaussian_filter(light, 1) + rng.normal(0, 4, shape)).astype(np.uint16)


def outcome(content: bytes, image: np.ndarray) -> np.ndarray:
    """What onnxruntime makes of an image."""
    return onnxruntime.InferenceSession(content).run(None, {"image": image})[0]


def sha256(path: Path) -> str:
    """The hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


STANDARDISE = {"id": "zero_mean_unit_variance", "kwargs": {"axes": ["y", "x"]}}
PERCENTILES = {
    "id": "scale_range",
    "kwargs": {"axes": ["y", "x"], "min_percentile": 1, "max_percentile": 99},
}
SIZES = {"min": 64, "step": 16}


def described(folder: Path, preprocessing: Sequence[Any], size: Any, content: bytes) -> dict:
    """The files of a model, and its description of format 0.5."""
    folder.mkdir()
    image = slide((size, size) if isinstance(size, int) else (128, 96), 9).astype(np.float32)
    standard = image
    if STANDARDISE in preprocessing:
        standard = (image - image.mean()) / (image.std() + 1e-6)
    if PERCENTILES in preprocessing:
        low, high = np.percentile(image, (1, 99))
        standard = (image - low) / (high - low + 1e-6)
    np.save(folder / "input.npy", image[None, None])
    np.save(folder / "output.npy", outcome(content, standard[None, None].astype(np.float32)))
    (folder / "weights.onnx").write_bytes(content)
    (folder / "README.md").write_text("# Tiny model\n\n## Validation\n\nBy tests.\n")

    def part(name: str) -> dict[str, str]:
        return {"source": name, "sha256": sha256(folder / name)}

    def axes(channels: list[str], sizes: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
        space = [{"type": "space", "id": axis, "size": sizes[axis], **more} for axis in "yx"]
        return [{"type": "batch"}, {"type": "channel", "channel_names": channels}, *space]

    alike = {axis: {"tensor_id": "raw", "axis_id": axis} for axis in "yx"}
    return {
        "format_version": "0.5.4",
        "type": "model",
        "name": "Tiny smoothing network",
        "description": "Finds bright things.",
        "authors": [{"name": "Nobody", "github_user": "nobody-of-that-name"}],
        "cite": [{"text": "Nothing", "doi": "10.1234/nothing"}],
        "license": "MIT",
        "documentation": "README.md",
        "inputs": [
            {
                "id": "raw",
                "axes": axes(["light"], dict.fromkeys("yx", size)),
                "test_tensor": part("input.npy"),
                "data": {"type": "float32"},
                "preprocessing": list(preprocessing),
            }
        ],
        "outputs": [
            {
                "id": "maps",
                "axes": axes(["foreground", "boundary"], alike, halo=8),
                "test_tensor": part("output.npy"),
                "data": {"type": "float32"},
            }
        ],
        "weights": {"onnx": {**part("weights.onnx"), "opset_version": 17}},
    }


def model_folder(
    folder: Path,
    preprocessing: Sequence[Any] = (STANDARDISE,),
    size: Any = None,
    content: bytes | None = None,
    change: Any = lambda description: None,
) -> Path:
    """A model folder as a package of the zoo is unpacked, with a change to its description."""
    made = described(folder, preprocessing, size or SIZES, content or smoothing(0.9))
    change(made)
    (folder / "rdf.yaml").write_text(yaml.safe_dump(made, sort_keys=False))
    return folder


def old_model_folder(folder: Path) -> Path:
    """The same model described in format 0.4."""
    new = described(folder, (STANDARDISE,), SIZES, smoothing(0.9))
    shape = {"min": [1, 1, 64, 64], "step": [0, 0, 16, 16]}
    like = {"reference_tensor": "raw", "scale": [1, 0, 1, 1], "offset": [0, 1, 0, 0]}
    tensor = {"axes": "bcyx", "data_type": "float32"}
    old = {key: new[key] for key in ("type", "name", "description", "authors", "cite", "license",
                                     "documentation")}  # fmt: skip
    scale = {
        "name": "zero_mean_unit_variance",
        "kwargs": {"axes": "yx", "mode": "per_sample", "eps": 1e-6},
    }
    old |= {
        "format_version": "0.4.10",
        "inputs": [{"name": "raw", "shape": shape, "preprocessing": [scale], **tensor}],
        "outputs": [{"name": "maps", "shape": like, "halo": [0, 0, 8, 8], **tensor}],
        "test_inputs": ["input.npy"],
        "test_outputs": ["output.npy"],
        "timestamp": "2024-01-01T00:00:00",
        "weights": {"onnx": new["weights"]["onnx"]},
    }
    (folder / "rdf.yaml").write_text(yaml.safe_dump(old, sort_keys=False))
    return folder
