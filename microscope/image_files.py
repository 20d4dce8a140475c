"""One image file, or one OME-Zarr image, as planes: everything that differs between formats.

Whatever fails is an InputError that names the file: no decoder's own error or log line gets out,
and no decoder that fills in what a truncated file lacks is believed.
"""

import json
import logging
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
import tifffile

from scan.errors import InputError

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf2", ".tf8")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
IMAGE_SUFFIXES = TIFF_SUFFIXES + PICTURE_SUFFIXES
TAKES = "a TIFF, PNG or JPEG file, a folder of them, or an OME-Zarr image"
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
    """What one file holds: (z, y, x) uint8, uint16 or float32, and the sizes that it tells."""

    planes: np.ndarray
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    warnings: tuple[str, ...] = ()


def read_image(path: Path) -> Image:
    """Read one file or OME-Zarr image; any failure is an InputError that names it."""
    try:
        if path.is_dir():
            return _read_ngff(path)
        suffix = path.suffix.lower()
        if suffix in TIFF_SUFFIXES:
            return _read_tiff(path)
        if suffix in PICTURE_SUFFIXES:
            return _read_picture(path)
    except InputError:
        raise
    except Exception as error:  # decoders of damaged files raise almost anything
        raise unreadable(path, error) from error
    raise InputError(str(path), TAKES, f"a file named {suffix or 'without suffix'}", "convert it")


def unreadable(path: Path, error: Exception) -> InputError:
    """The InputError to raise when reading raised something else."""
    came = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    if isinstance(error, PermissionError):
        return InputError(str(path), "permission to read it", came, "change its permissions")
    return _damaged(path, came)


def _damaged(path: Path, came: str) -> InputError:
    return InputError(str(path), "a whole, readable image", came, "copy or export it once more")


def _read_tiff(path: Path) -> Image:
    # A file of a set describes the whole set; each is taken for the planes it holds itself.
    with (
        _complaints() as complaints,
        tifffile.TiffFile(path, _multifile=False, is_mmstack=False) as tiff,
    ):
        _require_whole(tiff, path)
        array, axes, warnings = _first_series(tiff, path)
        if tiff.pages.first.photometric == tifffile.PHOTOMETRIC.SEPARATED:
            raise InputError(str(path), "grey or RGB", "CMYK", "convert it")
        if tiff.pages.first.photometric == tifffile.PHOTOMETRIC.PALETTE:
            warnings.append("a palette is left out: its indices are taken as grey values")
        image = _image(path, array, axes, warnings)
        sizes = _ome_sizes(tiff) if tiff.is_ome else _imagej_sizes(tiff)
        if complaints:
            raise _damaged(path, "; ".join(complaints))
    return image._replace(pixel_size_um=sizes[0], z_step_um=sizes[1])


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Keep tifffile's log off the screen; what it calls an error, such as a lost page, is one."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tifffile")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _require_whole(tiff: Any, path: Path) -> None:
    """Follow the chain of pages to its end: tifffile zeroes or drops what lies past the end."""
    size = tiff.filehandle.size
    for number, page in enumerate(tiff.pages):
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=False))
        if max(ends, default=size + 1) > size:
            raise _damaged(path, f"a file that ends before plane {number} does")


def _first_series(tiff: Any, path: Path) -> tuple[np.ndarray, str, list[str]]:
    series = tiff.series[0]
    own = [page for page in series if page is not None]
    if len(own) < len(series):
        if not re.search(r"FileName=", tiff.ome_metadata or ""):
            raise _damaged(path, f"{len(own)} of {len(series)} planes")
        planes = np.stack([page.asarray() for page in own])
        return planes, "Z" + own[0].axes, ["one of several files of a set, read by itself"]
    if len(tiff.series) == 1:
        return series.asarray(), series.axes, []
    if series.kind in ("generic", "shaped"):
        sizes = f"{series.keyframe.shape} and {tiff.series[1].keyframe.shape}"
        raise InputError(str(path), "planes of one size and type", sizes, "put them apart")
    return series.asarray(), series.axes, [f"{len(tiff.series)} images, only the first is used"]


def _ome_sizes(tiff: Any) -> tuple[float | None, float | None]:
    pixels = ElementTree.fromstring(tiff.ome_metadata).find(".//{*}Pixels")
    told = {} if pixels is None else pixels.attrib
    pixel_size_um, z_step_um = (
        _um(told.get(f"PhysicalSize{axis}"), told.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "XZ"
    )
    return pixel_size_um, z_step_um


def _imagej_sizes(tiff: Any) -> tuple[float | None, float | None]:
    told = tiff.imagej_metadata or {}
    unit = str(told.get("unit")).replace("\\u00B5", "µ")
    resolution = tiff.pages.first.tags.get("XResolution")
    pixels, units = resolution.value if resolution else (0, 0)
    return _um(units / pixels if pixels else None, unit), _um(told.get("spacing"), unit)


def _um(value: Any, unit: Any) -> float | None:
    """Size in µm; None where it is not told, or told as no length."""
    try:
        size_um = float(value) * UM_PER_UNIT[unit]
    except (TypeError, ValueError, KeyError):
        return None
    return size_um if 0 < size_um < math.inf else None


def _read_picture(path: Path) -> Image:
    data = path.read_bytes()
    whole = _png_is_whole(data) if data[:4] == b"\x89PNG" else _jpeg_is_whole(data)
    if not whole:
        raise _damaged(path, "a truncated or damaged file")
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if picture is None:
        raise _damaged(path, "a file that OpenCV cannot decode")
    if picture.ndim == 2:
        return _image(path, picture, "YX", [])
    return _image(path, picture[..., 2::-1], "YXS", [])  # BGR, perhaps with alpha, to RGB


def _png_is_whole(data: bytes) -> bool:
    """Whether every chunk up to the last has the checksum it should (PNG specification, 5.3)."""
    position = 8
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4])
        if zlib.crc32(data[position + 4 : end]).to_bytes(4) != data[end : end + 4]:
            return False
        if data[position + 4 : position + 8] == b"IEND":
            return True
        position = end + 4
    return False


def _jpeg_is_whole(data: bytes) -> bool:
    """Whether the markers lead to an end of image (ITU-T T.81, B.1); a decoder fills in grey."""
    position = 2
    while data[:2] == b"\xff\xd8" and data[position : position + 1] == b"\xff":
        marker = data[position + 1 : position + 2]
        if marker == b"\xd9":
            return True
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
        if marker == b"\xda":  # coded data follow, up to a marker that is no restart
            found = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]").search(data, position)
            position = found.start() if found else len(data)
    return False


def ngff_metadata(folder: Path) -> dict[str, Any]:
    """Metadata of an OME-Zarr image (0.5 or earlier) and its Zarr driver; empty for none."""
    for name, driver in (("zarr.json", "zarr3"), (".zattrs", "zarr")):
        file = folder / name
        if file.is_file():
            try:
                told = json.loads(file.read_bytes())
                if driver == "zarr3":
                    told = told.get("attributes", {}).get("ome", {})
                images = told.get("multiscales")
                return {**images[0], "driver": driver} if images else {}
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise unreadable(file, error) from error
    return {}


def _read_ngff(path: Path) -> Image:
    import tensorstore  # up to half a second, spared to every process that reads no Zarr

    told = ngff_metadata(path)
    dataset = told["datasets"][0]
    kvstore = {"driver": "file", "path": str(path / dataset["path"])}
    spec = {"driver": told["driver"], "kvstore": kvstore}
    store = tensorstore.open(spec, open=True, read=True).result()
    axes = told.get("axes") or list("tczyx"[-store.ndim :])  # 0.1 and 0.2 have no axes
    names = [axis if isinstance(axis, str) else axis["name"] for axis in axes]
    units = {n: a.get("unit") for n, a in zip(names, axes, strict=True) if isinstance(a, dict)}
    scale = np.ones(store.ndim)
    for transform in [*dataset.get("coordinateTransformations", ()),
                      *told.get("coordinateTransformations", ())]:  # fmt: skip
        scale = scale * transform.get("scale", 1)
    sizes = {name: _um(size, units.get(name)) for name, size in zip(names, scale, strict=True)}
    letters = "".join(name[0].upper() for name in names)
    return _image(path, store, letters, [])._replace(
        pixel_size_um=sizes["x"], z_step_um=sizes.get("z")
    )


def _image(path: Path, array: Any, axes: str, warnings: Sequence[str]) -> Image:
    """Take the first of every axis that is not z, y, x or colour, and make the pixels plain."""
    found = list(warnings)
    depth = axes.find("Z")
    if depth < 0:  # pages that nobody named are planes
        depth = max(axes.rfind(letter) for letter in "IQ")
    letters = [*axes]
    if depth >= 0:
        letters[depth] = "Z"
    for position in reversed(range(len(letters))):
        if letters[position] not in "YXS" and position != depth:
            letter, count = letters.pop(position), array.shape[position]
            array = array[(slice(None),) * position + (0,)]
            if count > 1:
                name = AXES.get(letter, f"along axis {letter}")
                found.append(f"{count} {name}, only the first is used")
    pixels = np.asarray(array).transpose([letters.index(a) for a in "ZYXS" if a in letters])
    pixels = _plain(path, pixels if "Z" in letters else pixels[None])
    if "S" in letters:
        pixels = _luminance(path, pixels)
        found.append("colour is turned into luminance")
    return Image(np.ascontiguousarray(pixels), warnings=tuple(found))


def _plain(path: Path, pixels: np.ndarray) -> np.ndarray:
    """The same values as uint8, uint16 or float32 in the order of bytes of this machine."""
    if not pixels.size:
        raise _damaged(path, f"no pixels, shape {pixels.shape}")
    if pixels.dtype.kind == "f":
        with np.errstate(over="ignore"):
            pixels = pixels.astype(np.float32, copy=False)
        if not np.isfinite(pixels).all():
            raise InputError(str(path), "finite values", "NaN or infinity", "mask or fill them")
        return pixels
    if pixels.dtype.kind not in "iu":
        raise InputError(str(path), "integers or floats", str(pixels.dtype), "convert it")
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.min() < 0 or pixels.max() > np.iinfo(np.uint16).max:
        came = f"{pixels.min()} … {pixels.max()} as {pixels.dtype}"
        raise InputError(str(path), "values within 0 … 65535", came, "rescale or convert it")
    return pixels.astype(np.uint16, copy=False)


def _luminance(path: Path, pixels: np.ndarray) -> np.ndarray:
    """(z, y, x) luminance of (z, y, x, 3 or 4) RGB or RGBA, dtype kept (Rec. ITU-R BT.601)."""
    if pixels.shape[-1] not in (3, 4):
        came = f"{pixels.shape[-1]} samples a pixel"
        raise InputError(str(path), "grey, RGB or RGBA", came, "export it as one of these")
    rgb = np.ascontiguousarray(pixels[..., :3])
    return np.stack([cv2.cvtColor(plane, cv2.COLOR_RGB2GRAY) for plane in rgb])
