"""What docs/outputs.md asks of napari, without a display: layers as napari-ome-zarr makes them.

The plugin reads the same metadata: the first transformation of the first dataset, the unit of every
axis, and the label images below an image, which it hides at first.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ome_zarr.io import parse_url
from ome_zarr.reader import Label, Reader

Layer = SimpleNamespace


class Viewer:
    """Keeps the layers that it is given; the last one made is `shown`."""

    shown: Viewer

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        Viewer.shown = self

    def open(self, path: str, *, plugin: str) -> list[Layer]:
        """A layer for every image and label image, with the first transformation of its pixels."""
        assert plugin == "napari-ome-zarr"
        location = parse_url(Path(path))
        assert location is not None
        nodes = [node for node in Reader(location)() if node.data]
        self.layers += (layers := [_layer(node) for node in nodes])
        return layers

    def add_points(
        self, data: Any, *, features: dict[str, Any], size: float, face_color: str, units: Any
    ) -> Layer:
        """A layer of points in the unit of the images, coloured by one of their features."""
        points = np.asarray(data, dtype=np.float64)
        assert points.ndim == 2
        assert points.shape[1] == len(units) == 2
        assert {len(values) for values in features.values()} == {len(points)}
        assert face_color in features
        assert size > 0
        layer = Layer(kind="points", data=points, features=features, units=tuple(units))
        self.layers.append(layer)
        return layer


def _layer(node: Any) -> Layer:
    first, *others = node.metadata["coordinateTransformations"][0]
    assert all(not any(other["translation"]) for other in others)  # which the plugin passes over
    label = any(isinstance(spec, Label) for spec in node.specs)
    return Layer(
        kind="labels" if label else "image",
        data=node.data,
        scale=first["scale"],
        units=tuple(axis["unit"] for axis in node.metadata["axes"]),
        visible=not label,
    )


def run() -> None:
    """Nobody looks."""
