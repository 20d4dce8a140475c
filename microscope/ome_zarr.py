"""OME-Zarr images (0.4 and 0.5): metadata, and planes by their number along the leading axes."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from microscope.coordinates import Coordinates
from microscope.image_info import TAKES, ImageInfo, coordinates_of, unreadable
from microscope.input_checks import require_memory, require_regular_below
from microscope.lengths import place_um, size_um

MAX_CHUNKS = 10**6  # of an image; each is looked for on disk


def ngff_metadata(folder: Path) -> dict[str, Any]:
    """Return the metadata of an OME-Zarr image (0.4 or 0.5) and its Zarr driver; {} if none."""
    for name, driver in (("zarr.json", "zarr3"), (".zattrs", "zarr")):
        file = folder / name
        if file.is_file():
            try:
                metadata = json.loads(file.read_bytes())
                if driver == "zarr3":
                    metadata = metadata.get("attributes", {}).get("ome", {})
                images = metadata.get("multiscales")
                shown = metadata.get("omero") or {}
                return {**images[0], "driver": driver, "omero": shown} if images else {}
            except Exception as error:  # JSON may be of any shape
                raise unreadable(file, error) from error
    return {}


def examine_zarr(path: Path) -> ImageInfo:
    """Return what an OME-Zarr image tells of itself; no pixel is read."""
    metadata = ngff_metadata(path)
    store = _open(path, metadata)
    names = [str(axis["name"]) for axis in metadata["axes"]]
    if len(names) != store.ndim:
        raise ValueError(f"{len(names)} axes of an array of {store.ndim} dimensions")
    letters = "".join(name[0].upper() for name in names)
    leading = _leading(letters)
    units = [axis.get("unit") for axis in metadata["axes"]]
    scale, offset = _transforms(metadata, store.ndim)
    sizes = dict(zip(names, map(size_um, scale, units), strict=True))
    places = dict(zip(names, map(place_um, offset, units), strict=True))
    shape = dict(zip(letters, store.shape, strict=True))
    counts = [shape[letter] for letter in leading]
    told = any("translation" in transform for transform in _all_transforms(metadata))
    stamp, size_stamp = _stamps(path)
    stage = [
        _centre(places[axis], sizes[axis], shape[axis.upper()]) if told else None
        for axis in ("x", "y")
    ]
    _require_memory_for(
        path, store, math.prod(shape[letter] for letter in "ZYX" if letter in shape)
    )
    return ImageInfo(
        path=path,
        planes=tuple(enumerate(_placed(coordinates_of(leading, counts), stage))),
        shape=(shape["Y"], shape["X"]),
        dtype=store.dtype.numpy_dtype,
        pixel_size_um=sizes.get("x"),
        z_step_um=sizes.get("z"),
        by="OME-Zarr",
        channels=_channels(metadata, "label"),
        colours=_channels(metadata, "color"),
        stamp=stamp,
        size_stamp=size_stamp,
    )


def read_zarr_planes(path: Path, numbers: Sequence[int]) -> NDArray[Any]:
    """Return planes by their number along the leading axes, (n, y, x)."""
    metadata = ngff_metadata(path)
    store = _open(path, metadata)
    letters = "".join(str(axis["name"])[0].upper() for axis in metadata["axes"])
    leading = _leading(letters)
    counts = [store.shape[letters.index(letter)] for letter in leading]
    order = [letters.index(letter) for letter in (*leading, "Y", "X")]
    array = store.transpose(order)
    indices = np.unravel_index(list(numbers), counts) if counts else ()
    if not counts:
        return np.asarray(array)[None]
    pending = [array[tuple(int(i) for i in at)].read() for at in zip(*indices, strict=True)]
    return np.stack([each.result() for each in pending])


def _open(path: Path, metadata: dict[str, Any]) -> Any:
    import tensorstore  # takes up to half a second, and few processes read Zarr

    dataset = metadata["datasets"][0]
    array = path / dataset["path"]
    if not array.resolve().is_relative_to(path.resolve()):
        raise ValueError(f"pixels outside of it, at {dataset['path']}")
    require_regular_below(array, TAKES)
    spec = {"driver": metadata["driver"], "kvstore": {"driver": "file", "path": str(array)}}
    return tensorstore.open(spec, open=True, read=True).result()


def _leading(letters: str) -> list[str]:
    if letters.count("Y") != 1 or letters.count("X") != 1:
        raise ValueError(f"axes {letters}, not one x and one y")
    return [letter for letter in letters if letter not in "YX"]


def _transforms(metadata: dict[str, Any], axes: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return scale and translation of the first level."""
    scale, offset = np.ones(axes), np.zeros(axes)
    for transform in _all_transforms(metadata):
        factor = np.asarray(transform.get("scale", 1), float)
        scale, offset = scale * factor, offset * factor
        offset = offset + np.asarray(transform.get("translation", 0), float)
    return scale, offset


def _all_transforms(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        *metadata["datasets"][0]["coordinateTransformations"],
        *metadata.get("coordinateTransformations", ()),
    ]


def _centre(first_um: float | None, size: float | None, pixels: int) -> float | None:
    """Return the middle of an axis whose first pixel lies at a translation."""
    return None if first_um is None or size is None else first_um + (pixels - 1) / 2 * size


def _placed(planes: Sequence[Coordinates], stage: Sequence[float | None]) -> list[Coordinates]:
    x_um, y_um = stage
    where = None if x_um is None or y_um is None else (x_um, y_um)
    return [plane._replace(stage_um=where) for plane in planes]


def _channels(metadata: dict[str, Any], key: str) -> tuple[str, ...]:
    return tuple(str(each.get(key) or "") for each in metadata["omero"].get("channels", ()))


def _require_memory_for(path: Path, store: Any, pixels: int) -> None:
    """Raise InputError unless a z-stack, a chunk and its index fit into memory."""
    chunk, shard = store.chunk_layout.read_chunk.shape, store.chunk_layout.write_chunk.shape
    index_bytes = 16 * math.prod(shard) // max(1, math.prod(chunk))  # offset and length of a chunk
    pixels = max(pixels, math.prod(chunk))
    require_memory(path, max(pixels * store.dtype.numpy_dtype.itemsize, index_bytes))
    edges = zip(store.shape, chunk, strict=True)
    chunks = math.prod(-(-edge // max(1, size)) for edge, size in edges)
    if chunks > MAX_CHUNKS:
        raise ValueError(f"{chunks} chunks, of {chunk} pixels")


def _stamps(path: Path) -> tuple[int, int]:
    """Return checksums of the sizes and times of all files of an image, and of the sizes."""
    found = []
    for parent, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            status = Path(parent, name).stat()
            found.append((name, status.st_size, status.st_mtime_ns))
    sizes = [(name, size) for name, size, _ in found]
    return crc32(repr(found).encode()), crc32(repr(sizes).encode())
