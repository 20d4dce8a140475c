"""What is checked of a file before a decoder gets it: its kind, its structure, and what it claims.

Decoders believe a file: they wait for the end of a pipe, follow a chain of pages without end, and
allocate what a header claims. Checks raise InputError if the file cannot be read at all, and
ValueError if its content is wrong.
"""

import math
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from scan.errors import InputError

MAX_PLANES = 10**6  # that metadata may claim: tifffile lists them all, present or not
MAX_INDEX_GAPS = 10  # planes that an index may leave out, for each that it has
COPIES = 2  # of an image in memory: as it is read, and as it is passed on
CGROUP_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of versions 2 and 1
PNG_CHANNELS = {0: 1, 2: 3, 3: 4, 4: 2, 6: 4}  # by colour type; a palette may have transparency
FIRST_ARITHMETIC = 0xC9
JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of a frame header


def require_regular(path: Path, expected: str) -> None:
    """Raise InputError for a pipe, a device or a socket: reading one might never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        got = "one that is neither file nor folder"
        raise InputError(str(path), expected, got, "name a regular file")


def require_regular_below(folder: Path, expected: str) -> None:
    """Raise InputError unless all that lies in a folder are regular files and folders of it."""
    root = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            require_regular(path, expected)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise InputError(str(path), "a file within it", "a link to another", "copy it")


def available_bytes() -> float:
    """Return the memory that this process may still allocate, in bytes."""
    found = [float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    found += [limit] if limit != resource.RLIM_INFINITY else []
    with suppress(OSError, ValueError, IndexError):  # Linux
        lines = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()
        found.append(1024 * int(lines[0]))
    for name in CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # "max" is none
            found.append(int(Path("/sys/fs/cgroup", name).read_text()))
    return min(found)


def require_memory(path: Path, needed_bytes: int) -> None:
    """Raise InputError unless an image of so many bytes can be read."""
    available = available_bytes()
    if COPIES * needed_bytes > available:
        got = (
            f"one that claims {needed_bytes / 1e9:.3g} GB, with {available / 1e9:.3g} GB available"
        )
        raise InputError(str(path), "an image that fits into memory", got, "check or crop it")


# ------------------------------------------------------------------------------------------ TIFF


def require_sound_structure(path: Path, tiff: Any) -> None:
    """Raise ValueError unless pages and metadata of a TIFF end and claim a possible number."""
    _require_chain_ends(tiff)
    if tiff.is_ome:
        _require_possible_planes(tiff.ome_metadata)
    if tiff.is_ndtiff:
        _require_sound_index(path.parent / "NDTiff.index")
    pages = max(1, tiff.filehandle.size // tiff.tiff.tagsize)  # a page has at least one tag
    described = str((tiff.imagej_metadata or {}).get("images", 0))
    if described.isdecimal() and int(described) > max(MAX_PLANES, pages):
        raise ValueError(f"{described} images in its description")


def _require_chain_ends(tiff: Any) -> None:
    """Follow the chain of pages, as tifffile does, but never twice to the same one."""
    seen: set[int] = set()
    chain = _page_offsets(tiff)
    for offset in chain:
        if offset in seen:
            raise ValueError(f"a chain of pages that is circular, after {len(seen)} pages")
        seen.add(offset)


def _page_offsets(tiff: Any) -> Iterator[int]:
    """Yield the offset of each page; ends where the chain leaves the file."""
    file, form = tiff.filehandle, tiff.tiff
    offset = tiff.pages.first.offset
    while 0 < offset < file.size:
        yield offset
        file.seek(offset)
        (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
        file.seek(offset + form.tagnosize + tags * form.tagsize)
        link = file.read(form.offsetsize)
        offset = struct.unpack(form.offsetformat, link)[0] if len(link) == form.offsetsize else 0


def _require_possible_planes(metadata: str) -> None:
    claimed = 0
    for pixels in ElementTree.fromstring(metadata).iterfind(".//{*}Pixels"):
        sizes = [abs(int(pixels.get(f"Size{axis}", 1))) for axis in "ZCT"]
        counts = [abs(int(data.get("PlaneCount", 1))) for data in pixels.iterfind("{*}TiffData")]
        claimed += max(math.prod(sizes), sum(counts))
    if claimed > MAX_PLANES:
        raise ValueError(f"{claimed} planes in its OME-XML")


def _require_sound_index(index: Path) -> None:
    """Check the index of an NDTiff data set, which names files and positions of planes."""
    require_regular(index, "the index of the data set")
    positions: dict[str, set[Any]] = {}
    entries = 0
    for axes, name, *_ in tifffile.read_ndtiff_index(index):
        entries += 1
        file = index.parent / name
        if Path(name).name != name or not file.is_file():
            raise ValueError(f"an index that names {name!r}, which is no file beside it")
        for axis, position in axes.items():
            positions.setdefault(axis, set()).add(position)
    spans = [
        max(numbers) - min(numbers) + 1 if numbers else len(found)
        for found in positions.values()
        for numbers in [[number for number in found if isinstance(number, int)]]
    ]
    if math.prod(spans) > MAX_INDEX_GAPS * max(entries, 1):
        raise ValueError(f"{math.prod(spans)} planes in its index, which lists {entries}")


# --------------------------------------------------------------------------------------- pictures


def picture_bytes(data: bytes) -> int:
    """Return how many bytes of pixels the header of a PNG or JPEG file claims.

    ValueError if a JPEG file is too small for them: decoders fill in what is missing.
    """
    if data.startswith(b"\x89PNG"):
        width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
        return width * height * PNG_CHANNELS.get(kind, 4) * (2 if depth == 16 else 1)
    frames = (
        height * width * components * size for height, width, components, size in _jpeg_frames(data)
    )
    return max(frames, default=0)


def jpeg_frame(data: bytes) -> tuple[int, int, int, np.dtype[Any]]:
    """Return height, width, components and type of a JPEG file; ValueError if it is none."""
    frame = next(_jpeg_frames(data), None)
    if not data.startswith(b"\xff\xd8") or frame is None:
        raise ValueError("neither a PNG nor a whole JPEG")
    return *frame[:3], np.dtype(f"u{frame[3]}")


def _jpeg_frames(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield height, width, components and bytes of a value, of each frame.

    Headers are segments of a marker and a length (T.81, B.1).
    """
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, (length,) = data[at + 1], struct.unpack(">H", data[at + 2 : at + 4])
        if marker in JPEG_FRAMES and at + 10 <= len(data):
            height, width, components = struct.unpack(">HHB", data[at + 5 : at + 10])
            blocks = -(-height // 8) * -(-width // 8)
            if marker < FIRST_ARITHMETIC and 8 * len(data) < blocks:  # Huffman codes: a bit each
                raise ValueError(f"{len(data)} bytes for {height} x {width} pixels")
            yield height, width, components, 2 if data[at + 4] > 8 else 1
        if marker == 0xDA:
            return  # pixels follow
        at += 1 if marker == 0xFF else 2 + max(2, length)
