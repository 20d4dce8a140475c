"""Coordinates in files beside the images: `SIDECARS` is the table of their names and readers."""

import csv
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from microscope import ome_xml
from microscope.coordinates import Coordinates, Label
from microscope.input_checks import require_regular
from microscope.lengths import place_um
from microscope.tiff_metadata import stage_of

MAX_BYTES = 10**9  # of a sidecar
Found = dict[str, Coordinates]  # by the name of the image, relative to the recording


def read_sidecars(root: Path, names: Sequence[str]) -> tuple[Found, list[str]]:
    """Return what sidecars tell of the images of these names, and which sidecars were used.

    A sidecar that cannot be read tells nothing: names and the images' own metadata remain.
    """
    folders = {root, *((root / name).parent for name in names)}
    folders |= {folder.parent for folder in folders if folder != root}
    found: Found = {}
    used = []
    for folder in sorted(folders):
        for sidecar, read in SIDECARS.items():
            path = folder / sidecar
            if path.is_file() and path.stat().st_size < MAX_BYTES:
                require_regular(path, "a file of metadata")
                told = _told(read, path, root, names)
                found |= told
                used += [sidecar] if told else []
    return found, list(dict.fromkeys(used))


def _told(
    read: Callable[[Path, Path, Sequence[str]], Found], path: Path, root: Path, names: Sequence[str]
) -> Found:
    try:
        return read(path, root, names)
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
        ElementTree.ParseError,
    ):
        return {}


def micromanager(path: Path, root: Path, names: Sequence[str]) -> Found:
    """metadata.txt of Micro-Manager's separate image files, of versions 1.4 and 2."""
    entries = json.loads(path.read_text(encoding="utf-8-sig"))
    folder = path.parent.relative_to(root).as_posix()
    images = {PurePosixPath(name).name: name for name in names if _is_in(name, folder)}
    coordinates: Found = {}
    for key, entry in entries.items():
        kind, _, name = key.partition("-")
        if kind in ("Metadata", "FrameKey") and isinstance(entry, dict):
            file = PurePosixPath(str(entry.get("FileName", name))).name
            if file in images:
                coordinates[images[file]] = _of_micromanager(entry, entries.get(f"Coords-{name}"))
    return coordinates


def _of_micromanager(entry: dict[str, Any], at: Any) -> Coordinates:
    indices = at if isinstance(at, dict) else {}
    keys = {"channel": "ChannelIndex", "time": "FrameIndex", "z": "SliceIndex"}
    labels: dict[str, Any] = {
        axis: _first_of(indices.get(axis), indices.get(axis.capitalize()), entry.get(key))
        for axis, key in keys.items()
    }
    position = _first_of(indices.get("position"), indices.get("Position"),
                         entry.get("PositionIndex"))  # fmt: skip
    return Coordinates(
        position=() if position is None else (position,), stage_um=stage_of(entry), **labels
    )


def _first_of(*values: Label | None) -> Label | None:
    return next((value for value in values if value is not None), None)


def _is_in(name: str, folder: str) -> bool:
    return folder == "." or name.startswith(f"{folder}/")


def squid(path: Path, root: Path, names: Sequence[str]) -> Found:
    """coordinates.csv of Squid: the stage position of each field, in mm."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    places = {
        (row["region"], int(float(row["fov"]))): (
            1e3 * float(row["x (mm)"]), 1e3 * float(row["y (mm)"]))
        for row in rows
    }  # fmt: skip
    pattern = re.compile(r"(?:.*/)?(?P<region>[^/_]+)_(?P<field>\d+)(?:_[^/]*)?")
    found: Found = {}
    for name in names:
        match = pattern.fullmatch(name.removesuffix("".join(PurePosixPath(name).suffixes)))
        place = places.get((match["region"], int(match["field"]))) if match else None
        if place:
            found[name] = Coordinates(stage_um=place)
    return found


def harmony(path: Path, root: Path, names: Sequence[str]) -> Found:
    """Index.xml of Operetta and Phenix: the stage position of each image, y pointing up."""
    folder = path.parent.relative_to(root).as_posix()
    images = {PurePosixPath(name).name: name for name in names if _is_in(name, folder)}
    found: Found = {}
    for image in ElementTree.parse(path).iterfind(".//{*}Images/{*}Image"):
        name = images.get(image.findtext("{*}URL", ""))
        x_um, y_um = (_place(image.find(f"{{*}}Position{axis}")) for axis in "XY")
        if name and x_um is not None and y_um is not None:
            found[name] = Coordinates(stage_um=(x_um, -y_um))
    return found


def bioformats2raw(path: Path, root: Path, names: Sequence[str]) -> Found:
    """METADATA.ome.xml of bioformats2raw: the stage position of each image, in order."""
    folder = path.parent.parent.relative_to(root).as_posix()
    stages = ome_xml.stage_of_images(path.read_text(encoding="utf-8"))
    images = {str(number): stage for number, stage in enumerate(stages) if stage}
    return {
        name: Coordinates(stage_um=images[last])
        for name in names
        if _is_in(name, folder) and (last := PurePosixPath(name).name) in images
    }


def _place(element: ElementTree.Element | None) -> float | None:
    return None if element is None else place_um(element.text, element.get("Unit", "m"))


SIDECARS: dict[str, Callable[[Path, Path, Sequence[str]], Found]] = {
    "metadata.txt": micromanager,
    "coordinates.csv": squid,
    "Index.xml": harmony,
    "Index.idx.xml": harmony,
    "OME/METADATA.ome.xml": bioformats2raw,
}
