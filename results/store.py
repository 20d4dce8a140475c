"""The OME-Zarr mosaics of a run: created once, then written core by core by many processes.

A core is made of whole chunks on every pyramid level, so writers never share a chunk: no locks, and
a repeated write gives the same bytes. Metadata follows OME-Zarr 0.5 (ngff.openmicroscopy.org/0.5).
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import ENOENT
from functools import cache, reduce
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from results.files import not_written
from results.places import Place, awaited, is_url, kvstore, read_bytes, unanswered, write_bytes
from scan.errors import StorageError
from scan.plan import ScanPlan

Array = NDArray[Any]

STACKED = "stacked.ome.zarr"
DEPTH = "depth.ome.zarr"
LABELS = "stacked.ome.zarr/labels/objects"
NGFF_VERSION = "0.5"


def create_mosaics(
    folder: Place, plan: ScanPlan, dtype: np.dtype[Any], label_dtype: np.dtype[Any]
) -> None:
    """Create the three mosaics, empty; those of the same plan that are there already stay."""
    _create_image(f"{folder}/{STACKED}", plan, dtype, {})
    _create_image(f"{folder}/{DEPTH}", plan, np.dtype(np.float32), {})
    _write_group(f"{folder}/{STACKED}/labels", {"version": NGFF_VERSION, "labels": ["objects"]})
    source = {"image-label": {"source": {"image": "../../"}}}
    _create_image(f"{folder}/{LABELS}", plan, label_dtype, source)


def _create_image(place: str, plan: ScanPlan, dtype: np.dtype[Any], extra: dict[str, Any]) -> None:
    _write_group(place, _multiscale(place.rpartition("/")[2], plan) | extra)
    for level in range(plan.levels):
        spec = _array_spec(f"{place}/{level}", plan, level, dtype)
        with _told(place, 0):
            try:
                awaited(ts.open(spec, create=True, open=True), place)
            except ValueError:  # its description is torn: only that is made anew, pixels stay
                Path(place, str(level), "zarr.json").unlink()
                ts.open(spec, create=True, open=True).result()


def _write_group(place: str, ome: dict[str, Any]) -> None:
    with _told(place, 0):
        if not is_url(place):
            Path(place).mkdir(parents=True, exist_ok=True)
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
    write_bytes(f"{place}/zarr.json", json.dumps(group, indent=2).encode())


@contextmanager
def _told(place: Place, needed_bytes: int) -> Iterator[None]:
    """Whatever keeps the store from writing is told as a StorageError."""
    try:
        yield
    except (OSError, ValueError) as error:  # tensorstore tells a full disk as a ValueError
        if is_url(place):
            raise unanswered(place, error) from error
        raise not_written(Path(place), needed_bytes, error) from error


def needed_bytes(plan: ScanPlan, dtype: np.dtype[Any], stacked: int) -> int:
    """Room that all but so many fields take at most: image and depth uncompressed, with pyramids.

    Labels shrink to a few percent; what they and the table take is a twentieth here.
    """
    rows, columns = plan.mosaic_shape
    whole = rows * columns * (dtype.itemsize + 4) * 4 / 3 * 1.05
    return int(whole * (1 - stacked / len(plan.fields)))


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


def _array_spec(place: str, plan: ScanPlan, level: int, dtype: np.dtype[Any]) -> dict[str, Any]:
    chunk = [edge >> level for edge in plan.chunk_shape]
    return _open_spec(place) | {
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


def _open_spec(place: str) -> dict[str, Any]:
    return {"driver": "zarr3", "kvstore": kvstore(place)}


@cache
def _levels(place: Place) -> tuple[Any, ...]:
    """The open arrays of an image, kept for the life of the process: opening costs time."""
    with _told(place, 0):
        if (group := read_bytes(f"{place}/zarr.json")) is None:
            raise FileNotFoundError(ENOENT, os.strerror(ENOENT))
    datasets = json.loads(group)["attributes"]["ome"]["multiscales"][0]["datasets"]
    opening = [ts.open(_open_spec(f"{place}/{dataset['path']}")) for dataset in datasets]
    with _told(place, 0):
        return tuple(awaited(future, place) for future in opening)


def write_core(place: Place, rows: slice, columns: slice, levels: Sequence[Array]) -> int:
    """Write a core to an image of the store, every level; returns when it is on disk.

    Returns the checksum of its pixels; StorageError when they cannot be written.

    Parameters
    ----------
    place : folder or URL of the image.
    rows, columns : the core in pixels of level 0.
    levels : the core's pixels, one array per level.
    """
    with _told(place, sum(pixels.nbytes for pixels in levels)):
        if not is_url(place):  # the store would make a new folder where the old one is gone
            Path(place, "zarr.json").stat()
        writing = [
            window.write(pixels)
            for window, pixels in zip(_windows(place, rows, columns), levels, strict=True)
        ]
        for future in writing:
            awaited(future, place)
    return _checksum(levels)


def _windows(place: Place, rows: slice, columns: slice) -> list[Any]:
    """A core in every level of an image."""
    levels = enumerate(_levels(place))
    return [array[_coarser(rows, level), _coarser(columns, level)] for level, array in levels]


def _coarser(span: slice, level: int) -> slice:
    return slice(span.start >> level, -(-span.stop >> level))


def _checksum(levels: Sequence[Array]) -> int:
    return reduce(lambda crc, pixels: crc32(np.ascontiguousarray(pixels).data, crc), levels, 0)


def checksum_of(place: Place, rows: slice, columns: slice) -> int | None:
    """The checksum of a core as it lies on disk; None where it cannot be read."""
    try:
        return _checksum([awaited(w.read(), place) for w in _windows(place, rows, columns)])
    except (StorageError, OSError, ValueError, KeyError):
        return None


def level_count(place: Place) -> int:
    """How many pyramid levels an image has."""
    return len(_levels(place))


def read_region(place: Place, rows: slice, columns: slice, level: int = 0) -> Array:
    """Pixels of a level of an image; what was never written is zero."""
    return np.asarray(awaited(_levels(place)[level][rows, columns].read(), place))


def shape_of(place: Place, level: int = 0) -> tuple[int, int]:
    """Rows and columns of a level of an image."""
    rows, columns = _levels(place)[level].shape
    return int(rows), int(columns)
