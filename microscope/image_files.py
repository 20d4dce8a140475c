"""Reading of one image file or OME-Zarr image: everything that differs between formats.

Any failure is an InputError naming the file. Decoders that fill in what a truncated file lacks are
not trusted: truncation is checked here.
"""

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import cv2
import imagecodecs
import numpy as np
import tifffile

from microscope.input_checks import (
    picture_bytes,
    require_memory,
    require_regular,
    require_regular_below,
    require_sound_structure,
)
from scan.errors import InputError
from scan.text import describe

MAX_CHUNKS = 10**6  # of an image; each is looked for on disk
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
IMAGE_SUFFIXES = (".tif", ".tiff", ".btf", ".tf2", ".tf8", *PICTURE_SUFFIXES)
TAKES = "a whole TIFF, PNG or JPEG file, a folder of them, or an OME-Zarr image"
OME_SIZES = ("PhysicalSizeX", "PhysicalSizeZ")
AXES = {"T": "timepoints", "C": "channels", "P": "positions"}
UM_PER_UNIT = {
    **dict.fromkeys(("Å", "angstrom"), 1e-4),
    **dict.fromkeys(("nm", "nanometer"), 1e-3),
    # Two code points, the micro sign and the Greek letter, look alike; both are in use.
    **dict.fromkeys(("\u00b5m", "\u03bcm", "um", "micron", "microns", "micrometer"), 1.0),
    **dict.fromkeys(("mm", "millimeter"), 1e3),
    **dict.fromkeys(("cm", "centimeter"), 1e4),
    **dict.fromkeys(("m", "meter"), 1e6),
}


class Image(NamedTuple):
    """Content of one file: (z, y, x) uint8, uint16 or float32, and the sizes in its metadata."""

    planes: np.ndarray
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    warnings: tuple[str, ...] = ()


def read_image(path: Path) -> Image:
    """Read one file or OME-Zarr image; any failure is an InputError naming it."""
    try:
        require_regular(path, TAKES)
        if path.is_dir():
            return _read_ngff(path)
        with _log_of("imagecodecs", logging.WARNING):
            is_picture = path.suffix.lower() in PICTURE_SUFFIXES
            return _read_picture(path) if is_picture else _read_tiff(path)
    except InputError:
        raise
    except Exception as error:  # decoders of damaged files raise almost anything
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> InputError:
    """Return the InputError for an error of a decoder."""
    hint = "check the path, or export it once more"
    return InputError(str(path), TAKES, describe(error), hint)


def _read_tiff(path: Path) -> Image:
    # A file of a multi-file set describes the whole set; only its own planes are read.
    with (
        _log_of("tifffile", logging.ERROR) as errors,
        tifffile.TiffFile(path, _multifile=False, is_mmstack=False) as tiff,
    ):
        require_sound_structure(path, tiff)
        _require_whole(path, tiff)
        array, axes, warnings = _first_series(path, tiff)
        image = _image(path, array, axes, warnings)
        sizes = _ome_sizes(tiff) if tiff.is_ome else _imagej_sizes(tiff)
        if errors:
            raise ValueError("; ".join(record.getMessage() for record in errors))
    return image._replace(pixel_size_um=sizes[0], z_step_um=sizes[1])


@contextmanager
def _log_of(library: str, level: int) -> Iterator[list[logging.LogRecord]]:
    """Collect what a library logs, such as a missing page, instead of printing it."""
    logger = logging.getLogger(library)
    handler = BufferingHandler(capacity=10**6)  # a full one is emptied
    handler.setLevel(level)
    logger.addHandler(handler)
    try:
        yield handler.buffer
    finally:
        logger.removeHandler(handler)


def _require_whole(path: Path, tiff: Any) -> None:
    """Raise ValueError for a truncated file: tifffile zeroes or drops what is missing."""
    size = tiff.filehandle.size
    for number, page in enumerate(tiff.pages):
        itemsize = page.dtype.itemsize if page.dtype else 1
        require_memory(path, math.prod(page.chunks) * itemsize)  # of one strip or tile
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=False))
        short = len(page.dataoffsets) < math.prod(page.chunked)  # of strips or tiles
        if short or max(ends, default=size + 1) > size:
            raise ValueError(f"the file ends before plane {number} does")


def _first_series(path: Path, tiff: Any) -> tuple[np.ndarray, str, list[str]]:
    series = tiff.series[0]
    own = [page for page in series if page is not None]
    require_memory(path, series.size // max(1, len(series)) * len(own) * series.dtype.itemsize)
    if len(own) < len(series):
        if "FileName=" not in (tiff.ome_metadata or ""):
            raise ValueError(f"{len(own)} of {len(series)} planes")
        planes = np.stack([page.asarray() for page in own])
        return planes, "Z" + own[0].axes, ["one of several files of a set, read by itself"]
    if len(tiff.series) == 1:
        return series.asarray(), series.axes, []
    if series.kind in ("generic", "shaped"):  # one page may be damaged, perhaps the first
        sizes = f"{series.keyframe.shape} and {tiff.series[1].keyframe.shape}"
        raise ValueError(f"planes of different size or type, {sizes}")
    return series.asarray(), series.axes, [f"{len(tiff.series)} images, only the first is used"]


def _ome_sizes(tiff: Any) -> tuple[float | None, float | None]:
    pixels = ElementTree.fromstring(tiff.ome_metadata).find(".//{*}Pixels")
    metadata = {} if pixels is None else pixels.attrib
    sizes = [(metadata.get(name), metadata.get(f"{name}Unit", "µm")) for name in OME_SIZES]
    return _um(*sizes[0]), _um(*sizes[1])


def _imagej_sizes(tiff: Any) -> tuple[float | None, float | None]:
    metadata = tiff.imagej_metadata or {}
    unit = str(metadata.get("unit")).replace("\\u00B5", "µ")
    resolution = tiff.pages.first.tags.get("XResolution")
    pixels, units = resolution.value if resolution else (0, 0)
    return _um(units / pixels if pixels else None, unit), _um(metadata.get("spacing"), unit)


def _um(value: Any, unit: Any) -> float | None:
    """Return a size in µm; None if it is missing or not a positive length."""
    try:
        size_um = float(value) * UM_PER_UNIT[unit]
    except (TypeError, ValueError, KeyError):
        return None
    return size_um if 0 < size_um < math.inf else None


def _read_picture(path: Path) -> Image:
    require_memory(path, path.stat().st_size)
    data = path.read_bytes()
    require_memory(path, picture_bytes(data))
    picture = _decoded(data)
    return _image(path, picture, "YXS"[: picture.ndim], [])


def _decoded(data: bytes) -> np.ndarray:
    if data.startswith(b"\x89PNG"):
        return imagecodecs.png_decode(data)
    # The end-of-image marker must follow the last scan (ITU-T T.81, B.1); decoders fill gaps.
    if b"\xff\xd9" not in data[data.rfind(b"\xff\xda") :]:
        raise ValueError("neither a PNG nor a whole JPEG")
    return imagecodecs.jpeg8_decode(data)


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
                return {**images[0], "driver": driver} if images else {}
            except Exception as error:  # JSON may be of any shape
                raise unreadable(file, error) from error
    return {}


def _read_ngff(path: Path) -> Image:
    import tensorstore  # takes up to half a second, and few processes read Zarr

    metadata = ngff_metadata(path)
    dataset = metadata["datasets"][0]
    array = path / dataset["path"]
    if not array.resolve().is_relative_to(path.resolve()):
        raise ValueError(f"pixels outside of it, at {dataset['path']}")
    require_regular_below(array, TAKES)
    spec = {"driver": metadata["driver"], "kvstore": {"driver": "file", "path": str(array)}}
    store = tensorstore.open(spec, open=True, read=True).result()
    scale = np.ones(store.ndim)
    transforms = [
        *dataset["coordinateTransformations"],
        *metadata.get("coordinateTransformations", ()),
    ]
    for transform in transforms:
        scale = scale * transform.get("scale", 1)
    names = [axis["name"] for axis in metadata["axes"]]
    units = [axis.get("unit") for axis in metadata["axes"]]
    sizes = dict(zip(names, map(_um, scale, units), strict=True))
    if len(names) != store.ndim:
        raise ValueError(f"{len(names)} axes of an array of {store.ndim} dimensions")
    letters = "".join(name[0].upper() for name in names)
    used, kept, warnings = _first_of_others(store, letters)
    _require_memory_for(path, store, used)
    image = _image(path, used, kept, warnings)
    return image._replace(pixel_size_um=sizes["x"], z_step_um=sizes.get("z"))


def _require_memory_for(path: Path, store: Any, used: Any) -> None:
    """Raise InputError unless the pixels that are used, a chunk and its index fit into memory."""
    chunk, shard = store.chunk_layout.read_chunk.shape, store.chunk_layout.write_chunk.shape
    index_bytes = 16 * math.prod(shard) // max(1, math.prod(chunk))  # offset and length of a chunk
    pixels = max(math.prod(used.shape), math.prod(chunk))
    require_memory(path, max(pixels * store.dtype.numpy_dtype.itemsize, index_bytes))
    edges = zip(used.shape, used.chunk_layout.read_chunk.shape, strict=True)
    chunks = math.prod(-(-edge // max(1, size)) for edge, size in edges)
    if chunks > MAX_CHUNKS:
        raise ValueError(f"{chunks} chunks, of {chunk} pixels")


def _first_of_others(array: Any, axes: str) -> tuple[Any, str, list[str]]:
    """Take the first index of every axis other than z, y, x and colour, with warnings."""
    letters, found = list(axes), []
    if letters.count("Y") != 1 or letters.count("X") != 1:
        raise ValueError(f"axes {axes}, not one x and one y")
    for at in reversed(range(len(letters))):
        if letters[at] in "IQ" and "Z" not in letters:
            letters[at] = "Z"  # unnamed pages are planes
        elif letters[at] not in "ZYXS":
            letter, count = letters.pop(at), array.shape[at]
            array = array[(slice(None),) * at + (0,)]
            if count > 1:
                name = AXES.get(letter, f"along axis {letter}")
                found.append(f"{count} {name}, only the first is used")
    return array, "".join(letters), found


def _image(path: Path, array: Any, axes: str, warnings: list[str]) -> Image:
    """Convert the pixels of an array to those of an image."""
    array, letters, more = _first_of_others(array, axes)
    found = [*warnings, *more]
    pixels = np.asarray(array).transpose([letters.index(a) for a in "ZYXS" if a in letters])
    pixels = _to_supported_dtype(path, pixels if "Z" in letters else pixels[None])
    if "S" in letters:
        pixels = _luminance(pixels)
        found.append("colour is converted to luminance")
    return Image(np.ascontiguousarray(pixels), warnings=tuple(found))


MAX_FLOAT = 1e15  # larger values overflow float32 when squares are summed


def _to_supported_dtype(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Return the same values as uint8, uint16 or float32 in native byte order."""
    if pixels.dtype.kind == "f":
        with np.errstate(over="ignore"):
            converted = pixels.astype(np.float32, copy=False)
        if np.abs(converted).max() <= MAX_FLOAT:
            return converted
    elif pixels.dtype.kind in "iu":
        wide = np.uint8 if pixels.dtype == np.uint8 else np.uint16
        if pixels.min() >= 0 and pixels.max() <= np.iinfo(wide).max:
            return pixels.astype(wide, copy=False)
    got = f"{pixels.min()} … {pixels.max()} as {pixels.dtype}"
    expected = f"integers within 0 … 65535 or finite floats up to {MAX_FLOAT:g}"
    raise InputError(str(path), expected, got, "rescale or convert it")


def _luminance(pixels: np.ndarray) -> np.ndarray:
    """Return the luminance (z, y, x) of RGB or RGBA (z, y, x, c); the dtype is kept (BT.601)."""
    rgb = np.ascontiguousarray(pixels[..., :3])
    return np.stack([cv2.cvtColor(plane, cv2.COLOR_RGB2GRAY) for plane in rgb])
