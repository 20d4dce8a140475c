"""Where the planes of a TIFF file belong, as its metadata tell it.

`SOURCES` is the table: what may tell the coordinates of planes, best first, and the function that
reads it. Each returns None if the file has no such metadata.
"""

import json
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import tifffile

from microscope import ome_xml
from microscope.coordinates import Coordinates, Label
from microscope.image_info import ImageInfo, coordinates_of
from microscope.input_checks import MAX_PLANES, require_memory
from microscope.lengths import place_um, size_um

STAGE_KEYS = (  # of Micro-Manager, and of Magellan before its first measurement
    ("XPositionUm", "YPositionUm"),
    ("XPosition_um_Intended", "YPosition_um_Intended"),
)
MM_TAG = 51123  # MicroManagerMetadata, JSON of each page


class Told(NamedTuple):
    """What metadata tell, as in ImageInfo: of each plane its number in the file, and its place."""

    by: str
    planes: Sequence[tuple[int, Coordinates]]
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    set_name: str | None = None
    channels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    set_files: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()


def coordinates_in(path: Path, tiff: Any) -> Told:
    """Return what the best metadata of an open TIFF file tell of its planes."""
    return next(told for source in SOURCES if (told := source(path, tiff)))


def ndtiff(path: Path, tiff: Any) -> Told | None:
    """The index of an NDTiff data set, by Micro-Manager or Pycro-Manager."""
    if not tiff.is_ndtiff:
        return None
    index = path.with_name("NDTiff.index")
    every = [axes for axes, *_ in _index_of(index, index.stat().st_mtime_ns)]
    entries = ndtiff_entries(path)
    varying = [axis for axis in every[0] if len({axes.get(axis) for axes in every}) > 1]
    places = [axis for axis in varying if axis not in ("z", "channel", "time")]
    is_grid = {*places} == {"row", "column"}
    stage: dict[tuple[Label, ...], tuple[float, float] | None] = {}
    planes = []
    for number, (axes, *_) in enumerate(entries):
        position = tuple(axes[axis] for axis in places)
        if position not in stage:
            stage[position] = stage_of(_json_of_entry(path, entries[number]))
        planes.append((number, Coordinates(
            position, axes.get("channel"), axes.get("time"), axes.get("z"),
            cell=(axes["row"], axes["column"]) if is_grid else None, stage_um=stage[position],
        )))  # fmt: skip
    summary = (tiff.micromanager_metadata or {}).get("Summary", {})
    image = _json_of_entry(path, entries[0]) if entries else {}
    pixel_um = size_um(image.get("PixelSizeUm", summary.get("PixelSizeUm")), "um")
    step_um = size_um(summary.get("z-step_um"), "um")
    return Told("NDTiff.index", planes, pixel_um, step_um, str(path.parent))


def ndtiff_entries(path: Path) -> list[tuple[Any, ...]]:
    """Return the entries of an NDTiff index that are about one file."""
    index = path.with_name("NDTiff.index")
    return [entry for entry in _index_of(index, index.stat().st_mtime_ns) if entry[1] == path.name]


@lru_cache(maxsize=2)
def _index_of(index: Path, _time_ns: int) -> tuple[tuple[Any, ...], ...]:
    return tuple(tifffile.read_ndtiff_index(index))


def _json_of_entry(path: Path, entry: tuple[Any, ...]) -> dict[str, Any]:
    offset, count, compression = entry[7:10]
    with path.open("rb") as file:
        file.seek(offset)
        text = file.read(count) if compression == 0 and count > 0 else b"{}"
    try:
        found = json.loads(text.rstrip(b"\0"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def stage_of(metadata: dict[str, Any]) -> tuple[float, float] | None:
    """Return the stage position, x and y in µm, in Micro-Manager's metadata of an image."""
    for keys in STAGE_KEYS:
        try:
            x_um, y_um = (float(_scalar(metadata[key])) for key in keys)
        except (KeyError, TypeError, ValueError):
            continue
        return x_um, y_um
    return None


def _scalar(value: Any) -> Any:
    """Return a value, also of a property map, as versions of Micro-Manager write it."""
    return value.get("scalar") if isinstance(value, dict) else value


def ome(path: Path, tiff: Any) -> Told | None:
    """OME-XML in the first page, or in the file that it names."""
    if not tiff.is_ome:
        return None
    described, uuid = ome_xml.parse(tiff.ome_metadata)
    if described.metadata_file:
        described = _described_elsewhere(path, described.metadata_file)
    planes = described.planes_of(path.name, uuid)
    if not planes:
        return None
    count, names = len(tiff.pages), described.names
    if any(page >= count for page, _ in planes):
        raise ValueError(f"{count} of {len(planes)} planes")
    return Told(
        "OME-XML", planes, described.pixel_size_um, described.z_step_um,
        f"{path.parent}: {names}" if len(names) > 1 else None, described.channels,
        set_files=tuple(names) if path.name.lower() in names else (), colours=described.colours,
    )  # fmt: skip


def described_siblings(
    images: Sequence[ImageInfo], others: Sequence[Path] = ()
) -> dict[Path, ImageInfo]:
    """Return images that the OME-XML of a file in their folder places, but not their own.

    Micro-Manager writes the XML of a whole set into each of its files, or into the first alone.
    `others` are files that cannot be read; what is said of them is as of the file with the XML.
    """
    sets = {
        (image.path.parent, image.set_name): image
        for image in reversed(images)
        if image.set_name and image.by == "OME-XML"
    }
    lacking: list[tuple[Path, ImageInfo | None]] = [(i.path, i) for i in images if not i.set_name]
    lacking += [(path, None) for path in others]
    placed: dict[Path, ImageInfo] = {}
    for (folder, set_name), source in sets.items():
        beside = [(path, info) for path, info in lacking if path.parent == folder]
        if not beside:
            continue
        with tifffile.TiffFile(source.path, _multifile=False, is_mmstack=False) as tiff:
            xml, _ = ome_xml.parse(tiff.ome_metadata or "<OME/>")
        for path, info in beside:
            planes = tuple(xml.planes_of(path.name))
            if planes and (info is None or len(planes) == len(info.planes)):
                image = (info or source)._replace(planes=planes, path=path, channels=xml.channels)
                image = image._replace(colours=xml.colours)
                placed[path] = image._replace(set_name=set_name, by="OME-XML")
    return placed


def _described_elsewhere(path: Path, name: str) -> ome_xml.Described:
    """Return the OME-XML of another file in the folder, a TIFF or an XML file."""
    other = path.parent / Path(name).name
    if other.suffix.lower() in (".xml", ".ome"):
        return ome_xml.parse(other.read_text())[0]
    with tifffile.TiffFile(other, _multifile=False, is_mmstack=False) as tiff:
        return ome_xml.parse(tiff.ome_metadata or "<OME/>")[0]


def mmstack(path: Path, tiff: Any) -> Told | None:
    """The index map of Micro-Manager's image file stacks."""
    metadata = tiff.micromanager_metadata or {}
    index = metadata.get("IndexMap")
    if index is None or not len(index):
        return None
    index = index[index[:, 4].argsort()]
    if len(index) > len(tiff.pages):
        raise ValueError(f"{len(tiff.pages)} of {len(index)} planes")
    summary = metadata.get("Summary", {})
    image = _json_of_page(tiff)
    stage = stage_of(image)
    planes = [
        (page, Coordinates((position,), channel, time, z, stage_um=stage))
        for page, (channel, z, time, position, _) in enumerate(index.tolist())
    ]
    names = summary.get("ChNames")
    return Told(
        "Micro-Manager", planes,
        size_um(image.get("PixelSizeUm", summary.get("PixelSize_um")), "um"),
        size_um(summary.get("z-step_um"), "um"), _set_of(path),
        tuple(map(str, names)) if isinstance(names, list) else (),
    )  # fmt: skip


def _set_of(path: Path) -> str:
    return f"{path.parent}/{path.name.partition('_MMStack')[0]}"


def _json_of_page(tiff: Any) -> dict[str, Any]:
    tag = tiff.pages.first.tags.get(MM_TAG)
    value = tag.value if tag is not None else {}
    return value if isinstance(value, dict) else {}


def micromanager(path: Path, tiff: Any) -> Told | None:
    """The metadata that Micro-Manager writes into a file of a single page."""
    metadata = _json_of_page(tiff)
    keys = ("PositionIndex", "ChannelIndex", "SliceIndex", "FrameIndex")
    if len(tiff.pages) != 1 or not {"PositionIndex", "SliceIndex"} <= metadata.keys():
        return None
    labels: list[Label | None] = [metadata.get(key) for key in keys]
    position, channel, z, time = labels
    coordinates = Coordinates(
        (position,) if position is not None else (), channel, time, z, stage_um=stage_of(metadata)
    )
    pixel_um = size_um(metadata.get("PixelSizeUm"), "um")
    return Told("Micro-Manager", [(0, coordinates)], pixel_um, None, str(path.parent))


def metaseries(path: Path, tiff: Any) -> Told | None:
    """The description of an image by MetaMorph, MetaXpress and ImageXpress."""
    if not tiff.is_metaseries or len(tiff.pages) != 1:
        return None
    info = (tiff.metaseries_metadata or {}).get("PlaneInfo", {})
    x_um, y_um, z_um = (
        place_um(info.get(key), "um")
        for key in ("stage-position-x", "stage-position-y", "z-position")
    )
    stage = None if x_um is None or y_um is None else (x_um, y_um)
    calibrated = info.get("spatial-calibration-state")
    pixel_um = size_um(info.get("spatial-calibration-x"), "um") if calibrated else None
    return Told("MetaSeries", [(0, Coordinates(z_um=z_um, stage_um=stage))], pixel_um)


def series(path: Path, tiff: Any) -> Told:
    """The axes of the first image, as tifffile knows them: of ImageJ, STK, LSM and others."""
    first = tiff.series[0]
    letters = [letter for letter in first.axes if letter not in "YXS"]
    counts = [first.shape[first.axes.index(letter)] for letter in letters]
    if len({*letters}) < len(letters):
        raise ValueError(f"several axes of one name, {first.axes}")
    if math.prod(counts) > MAX_PLANES:
        require_memory(path, math.prod(first.shape) * first.dtype.itemsize)
    coordinates = coordinates_of(letters, counts)
    numbers = _page_numbers(first, len(coordinates))
    pixel_um, step_um = _sizes(tiff)
    by = {"imagej": "ImageJ", "generic": "order", "uniform": "order", "shaped": "order"}
    kind = by.get(first.kind, first.kind.upper())
    planes = list(zip(numbers, coordinates, strict=True))
    return Told(kind, planes, pixel_um, step_um, warnings=tuple(_unread(tiff)))


def _page_numbers(first: Any, planes: int) -> Sequence[int]:
    """Return the page of each plane; planes that are no pages are numbered in order."""
    pages = list(first.pages)
    if len(pages) != planes:
        return range(planes)
    if any(page is None for page in pages):
        raise ValueError(f"{sum(page is not None for page in pages)} of {planes} planes")
    return [page.index for page in pages]


def _unread(tiff: Any) -> list[str]:
    """Name the images of a file that are not used; ValueError if they may be planes."""
    first, *others = [each for each in tiff.series if not each.keyframe.is_reduced] or tiff.series
    same = [each for each in others if each.keyframe.shape == first.keyframe.shape]
    if same or (others and first.kind in ("generic", "shaped", "uniform")):
        sizes = f"{first.keyframe.shape} and {others[0].keyframe.shape}"
        raise ValueError(f"planes of different size or type, {sizes}")
    return [f"{len(others)} smaller images in the file, which are not used"] if others else []


def _sizes(tiff: Any) -> tuple[float | None, float | None]:
    """Return pixel size and z-step as ImageJ writes them, or else of a TIFF resolution in cm."""
    metadata = tiff.imagej_metadata or {}
    unit = str(metadata.get("unit")).replace("\\u00B5", "µ")
    resolution = tiff.pages.first.tags.get("XResolution")
    pixels, units = resolution.value if resolution else (0, 0)
    return size_um(units / pixels if pixels else None, unit), size_um(metadata.get("spacing"), unit)


Source = Callable[[Path, Any], Told | None]
SOURCES: tuple[Source, ...] = (ndtiff, ome, mmstack, micromanager, metaseries, series)
