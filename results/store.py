"""The OME-Zarr mosaics of a run: created once, then written core by core by many processes.

A core is made of whole chunks on every pyramid level, so writers never share a chunk: no locks, and
a repeated write gives the same bytes. Metadata follows OME-Zarr 0.5 (ngff.openmicroscopy.org/0.5).
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from scan.plan import ScanPlan

Array = NDArray[Any]

STACKED = "stacked.ome.zarr"
DEPTH = "depth.ome.zarr"
LABELS = "stacked.ome.zarr/labels/objects"
NGFF_VERSION = "0.5"


def create_mosaics(
    folder: Path, plan: ScanPlan, dtype: np.dtype[Any], label_dtype: np.dtype[Any]
) -> None:
    """Create the three mosaics, empty; nothing may be there before."""
    _create_image(folder / STACKED, plan, dtype, {})
    _create_image(folder / DEPTH, plan, np.dtype(np.float32), {})
    _write_group(folder / STACKED / "labels", {"version": NGFF_VERSION, "labels": ["objects"]})
    source = {"image-label": {"source": {"image": "../../"}}}
    _create_image(folder / LABELS, plan, label_dtype, source)


def _create_image(path: Path, plan: ScanPlan, dtype: np.dtype[Any], extra: dict[str, Any]) -> None:
    _write_group(path, _multiscale(path.name, plan) | extra)
    for level in range(plan.levels):
        ts.open(_array_spec(path / str(level), plan, level, dtype), create=True).result()


def _write_group(path: Path, ome: dict[str, Any]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
    (path / "zarr.json").write_text(json.dumps(group, indent=2))


def _multiscale(name: str, plan: ScanPlan) -> dict[str, Any]:
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    datasets = [_dataset(level, plan.pixel_size_um) for level in range(plan.levels)]
    multiscale = {"name": name.split(".")[0], "axes": axes, "datasets": datasets}
    return {"version": NGFF_VERSION, "multiscales": [multiscale]}


def _dataset(level: int, pixel_um: float) -> dict[str, Any]:
    """A level's place: its first pixel is the mean of 2^level, so its centre lies further in."""
    scale, shift = pixel_um * 2**level, pixel_um * (2**level - 1) / 2
    transformations = [
        {"type": "scale", "scale": [scale, scale]},
        {"type": "translation", "translation": [shift, shift]},
    ]
    return {"path": str(level), "coordinateTransformations": transformations}


def _array_spec(path: Path, plan: ScanPlan, level: int, dtype: np.dtype[Any]) -> dict[str, Any]:
    chunk = [edge >> level for edge in plan.chunk_shape]
    return _open_spec(path) | {
        "metadata": {
            "shape": [-(-edge >> level) for edge in plan.mosaic_shape],
            "data_type": dtype.name,
            "dimension_names": ["y", "x"],
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                # smaller and faster than zstd on camera data
                {
                    "name": "blosc",
                    "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle"},
                },
            ],
        }
    }


def _open_spec(path: Path) -> dict[str, Any]:
    return {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path.resolve())}}


@cache
def _levels(path: Path) -> tuple[Any, ...]:
    """The open arrays of an image, kept for the life of the process: opening costs time."""
    group = json.loads((path / "zarr.json").read_text())
    datasets = group["attributes"]["ome"]["multiscales"][0]["datasets"]
    opening = [ts.open(_open_spec(path / dataset["path"])) for dataset in datasets]
    return tuple(future.result() for future in opening)


def write_core(path: Path, rows: slice, columns: slice, levels: Sequence[Array]) -> None:
    """Write a core to an image of the store, every level; returns when it is on disk.

    Parameters
    ----------
    path : folder of the image.
    rows, columns : the core in pixels of level 0.
    levels : the core's pixels, one array per level.
    """
    writing = []
    for level, (array, pixels) in enumerate(zip(_levels(path), levels, strict=True)):
        top, left = rows.start >> level, columns.start >> level
        window = array[top : top + pixels.shape[0], left : left + pixels.shape[1]]
        writing.append(window.write(pixels))
    for future in writing:
        future.result()


def level_count(path: Path) -> int:
    """How many pyramid levels an image has."""
    return len(_levels(path))


def read_region(path: Path, rows: slice, columns: slice) -> Array:
    """Pixels of level 0 of an image; what was never written is zero."""
    return np.asarray(_levels(path)[0][rows, columns].read().result())


def shape_of(path: Path) -> tuple[int, int]:
    """Rows and columns of an image's level 0."""
    rows, columns = _levels(path)[0].shape
    return int(rows), int(columns)
