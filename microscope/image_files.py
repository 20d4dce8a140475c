"""Reading of image files: what they tell of themselves, and their pixels.

`examine` reads metadata only; `read_planes` reads pixels. Any failure is an InputError naming the
file. Decoders that fill in what a truncated file lacks are not trusted: truncation is checked here.
"""

import logging
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from logging.handlers import BufferingHandler
from pathlib import Path
from threading import get_ident
from typing import Any
from zlib import crc32

import cv2
import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from microscope.coordinates import Coordinates
from microscope.image_info import (
    LUMINANCE,
    MAX_FLOAT,
    PIXELS,
    TAKES,
    ImageInfo,
    target_dtype,
    unreadable,
)
from microscope.input_checks import (
    jpeg_frame,
    picture_bytes,
    require_memory,
    require_regular,
    require_sound_structure,
)
from microscope.ome_zarr import examine_zarr, read_zarr_planes
from microscope.tiff_metadata import coordinates_in, ndtiff_entries
from microscope.vendor_files import SUFFIXES as VENDOR_SUFFIXES
from microscope.vendor_files import examine_vendor_file, read_vendor_planes
from scan.errors import InputError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf2", ".tf8")
IMAGE_SUFFIXES = (*TIFF_SUFFIXES, *PICTURE_SUFFIXES, *VENDOR_SUFFIXES)
MIN_IS_WHITE = tifffile.PHOTOMETRIC.MINISWHITE
MANY_PAGES = 9  # files of which planes are no pages have a page or a few
PALETTE = tifffile.PHOTOMETRIC.PALETTE
COLOURS = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)

Pixels = NDArray[Any]


def examine(path: Path) -> ImageInfo:
    """Return what a file or OME-Zarr image tells of itself; failures are InputErrors naming it."""
    with _named(path):
        require_regular(path, TAKES)
        if path.is_dir():
            info = examine_zarr(path)
        elif path.suffix.lower() in PICTURE_SUFFIXES:
            info = _examine_picture(path)
        elif path.suffix.lower() in VENDOR_SUFFIXES:
            info = examine_vendor_file(path)
        else:
            info = _examine_tiff(path)
        target_dtype(path, info.dtype)
        if not info.planes or not all(info.shape):
            raise ValueError("no pixels")
        status = path.stat()
        stamp = info.stamp or crc32(repr((status.st_size, status.st_mtime_ns)).encode())
        return info._replace(stamp=stamp, size_stamp=info.size_stamp or status.st_size)


def read_planes(path: Path, numbers: Sequence[int], sample: int | None = None) -> Pixels:
    """Return planes of a file by number, (n, y, x) uint8, uint16 or float32, C-contiguous.

    Of colour the luminance, or the sample of that number: red, green or blue.
    Failures are InputErrors naming the file.
    """
    with _named(path):
        require_regular(path, TAKES)
        if path.is_dir():
            planes = read_zarr_planes(path, numbers)
        elif path.suffix.lower() in PICTURE_SUFFIXES:
            planes = _grey(_read_picture(path), sample)[None]
        elif path.suffix.lower() in VENDOR_SUFFIXES:
            planes = np.stack([_grey(each, sample) for each in read_vendor_planes(path, numbers)])
        else:
            planes = _read_tiff(path, numbers, sample)
        return np.ascontiguousarray(_to_supported_dtype(path, planes))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let any failure be an InputError that names the file."""
    try:
        with _log_of("imagecodecs", logging.WARNING):
            yield
    except InputError:
        raise
    except Exception as error:  # decoders of damaged files raise almost anything
        raise unreadable(path, error) from error


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


# ------------------------------------------------------------------------------------------ TIFF


@contextmanager
def _open_tiff(path: Path) -> Iterator[Any]:
    """Open a TIFF file by itself, also one of a set; what tifffile logs as errors is raised."""
    with (
        _log_of("tifffile", logging.ERROR) as errors,
        tifffile.TiffFile(path, _multifile=False, is_mmstack=False) as tiff,
    ):
        yield tiff
        own = [e for e in errors if e.thread == get_ident()]  # other threads read other files
        if own:
            raise ValueError("; ".join(record.getMessage() for record in own))


def _examine_tiff(path: Path) -> ImageInfo:
    with _open_tiff(path) as tiff:
        require_sound_structure(path, tiff)
        _require_whole(path, tiff, tiff.pages)
        told = coordinates_in(path, tiff)
        page = tiff.pages.first
        return ImageInfo(
            path=path,
            planes=tuple(told.planes),
            shape=_shape(page),
            dtype=page.dtype,
            pixel_size_um=told.pixel_size_um,
            z_step_um=told.z_step_um,
            by=told.by,
            set_name=told.set_name,
            set_files=told.set_files,
            channels=told.channels,
            warnings=(*told.warnings, *_colour_of(page)),
            colours=told.colours,
            rgb=LUMINANCE in _colour_of(page),
        )


def _shape(page: Any) -> tuple[int, int]:
    axes = dict(zip(page.axes, page.shape, strict=True))
    return axes["Y"], axes["X"]


def _colour_of(page: Any) -> Iterator[str]:
    """Say what becomes of pixels that are no light as they are."""
    samples = dict(zip(page.axes, page.shape, strict=True)).get("S", 1)
    if page.photometric == MIN_IS_WHITE:
        yield "white is 0 in the files (min-is-white): the values are inverted"
    if samples > 1 and page.photometric in COLOURS:
        yield LUMINANCE
    elif samples > 1 and page.extrasamples and page.extrasamples[0] in ALPHA:
        yield "alpha is dropped"
    elif _palette_changes(page):
        yield "colours of a palette are converted to luminance"
    elif samples > 1:
        yield f"{samples} values for each pixel, only the first is used"


def _palette_changes(page: Any) -> bool:
    """Whether a palette shows anything but more light for greater values, as a ramp does."""
    if page.photometric != PALETTE or page.colormap is None:
        return False
    shown = page.colormap[:, : 2**page.bitspersample].sum(axis=0, dtype=np.int64)
    return bool((np.diff(shown) < 0).any())


def _require_whole(path: Path, tiff: Any, pages: Iterable[Any]) -> None:
    """Raise ValueError for a truncated file: tifffile zeroes or drops what is missing."""
    size = tiff.filehandle.size
    for number, page in enumerate(pages):
        itemsize = page.dtype.itemsize if page.dtype else 1
        require_memory(path, math.prod(page.chunks) * itemsize)  # of one strip or tile
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=False))
        short = len(page.dataoffsets) < math.prod(page.chunked)  # of strips or tiles
        if short or max(ends, default=size + 1) > size:
            raise ValueError(f"the file ends before plane {number} does")


def _read_tiff(path: Path, numbers: Sequence[int], sample: int | None = None) -> Pixels:
    """Read pages; the whole file was checked when it was opened, only these are checked again."""
    with _open_tiff(path) as tiff:
        if tiff.is_ndtiff:
            return _read_ndtiff(path, tiff, numbers)
        page = tiff.pages.first
        if len(tiff.pages) < MANY_PAGES or not set(page.axes) <= set("YXS"):
            first = tiff.series[0]
            stored = math.prod(first.shape) // max(1, math.prod(page.shape))
            if len(first.pages) < stored or not set(page.axes) <= set("YXS"):
                return _read_unpaged(path, first, page, numbers, sample)
        pages = [tiff.pages[number].aspage() for number in numbers]
        _require_whole(path, tiff, pages)
        return np.stack([_converted(page.asarray(), page.axes, page, sample) for page in pages])


def _read_unpaged(
    path: Path, series: Any, page: Any, numbers: Sequence[int], sample: int | None
) -> Pixels:
    """Return planes that follow each other without pages of their own, as ImageJ writes them."""
    tiff = series.keyframe.parent
    if series.dataoffset is not None:
        dtype = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
        stack = tiff.filehandle.memmap_array(dtype, series.shape, series.dataoffset)
    else:
        require_memory(path, math.prod(series.shape) * series.dtype.itemsize)
        stack = series.asarray()
    axes = [(letter, size) for letter, size in zip(page.axes, page.shape, strict=True)
            if letter in "YXS"]  # fmt: skip
    planes = np.asarray(stack).reshape(-1, *(size for _, size in axes))
    letters = "".join(letter for letter, _ in axes)
    return np.stack([_converted(planes[number], letters, page, sample) for number in numbers])


def _read_ndtiff(path: Path, tiff: Any, numbers: Sequence[int]) -> Pixels:
    """Return planes of an NDTiff data set, whose index tells where pixels are."""
    entries, page = ndtiff_entries(path), tiff.pages.first
    planes = []
    for number in numbers:
        _, _, offset, width, height, kind, compression, *_ = entries[number]
        if compression or kind == RGB_OF_NDTIFF or (height, width) != page.shape:
            raise ValueError(f"planes of another kind in its index, {height} x {width} pixels")
        count = height * width
        tiff.filehandle.seek(offset)
        planes.append(tiff.filehandle.read_array(page.dtype, count).reshape(height, width))
    return np.stack(planes)


RGB_OF_NDTIFF = 2


def _converted(pixels: Pixels, axes: str, page: Any, sample: int | None = None) -> Pixels:
    """Return the light of a page, (y, x), or one sample of its colour."""
    if "S" in axes:
        pixels = np.moveaxis(pixels, axes.index("S"), -1)
        is_colour = page.photometric in COLOURS and pixels.shape[-1] > 2
        pixels = _light(pixels, sample) if is_colour else pixels[..., 0]
    if _palette_changes(page):
        shift = 16 - 8 * page.dtype.itemsize  # colours of a palette have 16 bits
        shown = _luminance(np.moveaxis(page.colormap, 0, -1)[None])[0] >> shift
        pixels = shown.astype(page.dtype)[pixels]
    if page.photometric == MIN_IS_WHITE:
        return _inverted(pixels, page.bitspersample)
    return pixels


def _inverted(pixels: Pixels, bits: int) -> Pixels:
    if pixels.dtype.kind == "f":
        return -pixels
    greatest = min(2**bits - 1, np.iinfo(pixels.dtype).max)
    return np.asarray(greatest - pixels, dtype=pixels.dtype)


# --------------------------------------------------------------------------------------- pictures


def _examine_picture(path: Path) -> ImageInfo:
    with path.open("rb") as file:
        head = file.read(64)
        data = head if head.startswith(b"\x89PNG") else head + file.read()
    require_memory(path, picture_bytes(data))
    if data.startswith(b"\x89PNG"):
        width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
        dtype = np.dtype(np.uint16 if depth == 16 else np.uint8)
        warnings = {2: LUMINANCE, 6: LUMINANCE,
                    3: "colours of a palette are converted to luminance",
                    4: "alpha is dropped"}  # fmt: skip
        said = (warnings[kind],) if kind in warnings else ()
    else:
        height, width, components, dtype = jpeg_frame(data)
        said = (LUMINANCE,) if components > 1 else ()
    shape, rgb = (height, width), LUMINANCE in said
    return ImageInfo(path, ((0, Coordinates()),), shape, dtype, warnings=said, rgb=rgb)


def _read_picture(path: Path) -> Pixels:
    require_memory(path, path.stat().st_size)
    data = path.read_bytes()
    require_memory(path, picture_bytes(data))
    if data.startswith(b"\x89PNG"):
        return imagecodecs.png_decode(data)
    # The end-of-image marker must follow the last scan (ITU-T T.81, B.1); decoders fill gaps.
    if b"\xff\xd9" not in data[data.rfind(b"\xff\xda") :]:
        raise ValueError("neither a PNG nor a whole JPEG")
    return imagecodecs.jpeg8_decode(data)


def _grey(picture: Pixels, sample: int | None = None) -> Pixels:
    """Return the grey plane of a picture, or one sample of its colour; alpha is dropped."""
    if picture.ndim < 3:
        return picture
    return _light(picture, sample) if picture.shape[-1] > 2 else picture[..., 0]


def _light(pixels: Pixels, sample: int | None) -> Pixels:
    return _luminance(pixels) if sample is None else pixels[..., sample]


def _luminance(pixels: Pixels) -> Pixels:
    """Return the luminance (y, x) of RGB or RGBA (y, x, c); the dtype is kept (BT.601)."""
    return cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_RGB2GRAY)


def _to_supported_dtype(path: Path, pixels: Pixels) -> Pixels:
    """Return the same values as uint8, uint16 or float32 in native byte order."""
    wanted = target_dtype(path, pixels.dtype)
    if wanted.kind == "f":
        with np.errstate(over="ignore"):
            converted = pixels.astype(wanted, copy=False)
        if np.abs(converted).max() <= MAX_FLOAT:
            return converted
    elif pixels.min() >= 0 and pixels.max() <= np.iinfo(wanted).max:
        return pixels.astype(wanted, copy=False)
    got = f"{pixels.min()} … {pixels.max()} as {pixels.dtype}"
    raise InputError(str(path), PIXELS, got, "rescale or convert it")
