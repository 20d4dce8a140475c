"""OME-XML: which plane lies in which file and page, and where the stage stood.

Each Image is a position. Stage positions without a unit, or in the "reference frame", are taken
for µm, as programs write them.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple
from xml.etree import ElementTree

from microscope.coordinates import Coordinates
from microscope.lengths import place_um, size_um

MICROMETRES = "\u00b5m"


class Located(NamedTuple):
    """A plane that OME-XML describes: its file, if named, its page there, its coordinates."""

    file: str | None
    uuid: str | None
    page: int
    coordinates: Coordinates


@dataclass(frozen=True)
class Described:
    """What OME-XML says.

    Attributes
    ----------
    files : dict
        For each file of the set, by its name in lower case, page and coordinates of its planes;
        those without a file name have the name "".
    uuids : dict
        The same by UUID.
    pixel_size_um, z_step_um : float or None
    channels, colours : tuple of str
        Names and colours (six hex digits), where there are any.
    metadata_file : str or None
        The file that has the XML instead (BinaryOnly).
    """

    files: Mapping[str, Sequence[tuple[int, Coordinates]]]
    uuids: Mapping[str, Sequence[tuple[int, Coordinates]]]
    pixel_size_um: float | None
    z_step_um: float | None
    channels: tuple[str, ...]
    metadata_file: str | None = None
    colours: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of the files of the set; empty if planes name none."""
        return sorted(name for name in self.files if name)

    def planes_of(self, name: str, uuid: str | None = None) -> Sequence[tuple[int, Coordinates]]:
        """Return page and coordinates of each plane in a file.

        Its name counts before its UUID, which copies share. A file of its own may be renamed.
        """
        alone = self.names if len(self.names) == 1 else []
        keys = [name.lower(), "", *alone]
        found = next((self.files[key] for key in keys[:2] if key in self.files), None)
        return found or self.uuids.get(uuid or "") or next(map(self.files.get, alone), None) or ()


def parse(xml: str) -> tuple[Described, str | None]:
    """Return what OME-XML says, and the UUID of the file it is in; errors of any kind if damaged.

    The files of a set have the same XML but for this UUID: it is parsed once.
    """
    head, tag, rest = xml.partition("<OME")
    attributes, end, body = rest.partition(">")
    found = re.search(r"""\sUUID=["']([^"']*)["']""", attributes)
    if found:
        attributes = attributes.replace(found[0], "")
    return _parse(head + tag + attributes + end + body), found[1] if found else None


@lru_cache(maxsize=4)
def _parse(xml: str) -> Described:
    root = ElementTree.fromstring(xml)
    binary_only = root.find("{*}BinaryOnly")
    images = root.findall("{*}Image")
    files: dict[str, list[tuple[int, Coordinates]]] = {}
    uuids: dict[str, list[tuple[int, Coordinates]]] = {}
    for position, image in enumerate(images):
        for plane in _planes(image, position if len(images) > 1 else None):
            files.setdefault((plane.file or "").lower(), []).append((plane.page, plane.coordinates))
            uuids.setdefault(plane.uuid or "", []).append((plane.page, plane.coordinates))
    pixels = root.find("{*}Image/{*}Pixels")
    sizes = {} if pixels is None else pixels.attrib
    channels = [] if pixels is None else pixels.findall("{*}Channel")
    return Described(
        files=files,
        uuids=uuids,
        pixel_size_um=_size(sizes, "PhysicalSizeX"),
        z_step_um=_size(sizes, "PhysicalSizeZ"),
        channels=tuple(channel.get("Name") or "" for channel in channels),
        metadata_file=None if binary_only is None else binary_only.get("MetadataFile"),
        colours=tuple(_colour(channel.get("Color")) for channel in channels),
    )


def _colour(rgba: str | None) -> str:
    """Return a colour as six hex digits from a signed number of 32 bits; "" if none is told.

    White is what programs write that have no colours.
    """
    number = int(rgba) % 2**32 if rgba and re.fullmatch(r"-?\d+", rgba.strip()) else 2**32 - 1
    return "" if number >> 8 == 2**24 - 1 else f"{number >> 8:06X}"


def stage_of_images(xml: str) -> list[tuple[float, float] | None]:
    """Return the stage position of each image, as its first plane tells it."""
    images = ElementTree.fromstring(xml).findall("{*}Image/{*}Pixels")
    stages = (list(_stage(pixels).values()) for pixels in images)
    return [stage[0][0] if stage else None for stage in stages]


def _size(pixels: dict[str, str], name: str) -> float | None:
    return size_um(pixels.get(name), pixels.get(f"{name}Unit", MICROMETRES))


def _planes(image: ElementTree.Element, position: int | None) -> Iterator[Located]:
    pixels = image.find("{*}Pixels")
    if pixels is None:
        return
    order = [axis for axis in pixels.get("DimensionOrder", "XYZCT") if axis in "ZCT"]
    sizes = {axis: int(pixels.get(f"Size{axis}", 1)) for axis in "ZCT"}
    channel = pixels.find("{*}Channel")
    samples = int(channel.get("SamplesPerPixel", 1)) if channel is not None else 1
    sizes["C"] = max(1, sizes["C"] // samples)
    stage = _stage(pixels)
    # the first axis of the order is the fastest
    indices = [
        dict(zip(reversed(order), each, strict=True))
        for each in product(*(range(sizes[axis]) for axis in reversed(order)))
    ]
    strides = {axis: math.prod(sizes[a] for a in order[:k]) for k, axis in enumerate(order)}
    for data in pixels.iterfind("{*}TiffData"):
        first = sum(int(data.get(f"First{axis}", 0)) * strides[axis] for axis in order)
        name, uuid = _file_of(data)
        for number in range(_count(data, len(indices) - first)):
            if not 0 <= first + number < len(indices):
                raise ValueError("a plane outside of the sizes in its OME-XML")
            at = indices[first + number]
            where = stage.get((at["Z"], at["C"], at["T"]), (None, None))
            coordinates = Coordinates(
                position=() if position is None else (position,),
                channel=at["C"] if sizes["C"] > 1 else None,
                time=at["T"] if sizes["T"] > 1 else None,
                z=at["Z"] if sizes["Z"] > 1 else None,
                z_um=where[1] if sizes["Z"] > 1 else None,
                stage_um=where[0],
            )
            yield Located(name, uuid, int(data.get("IFD", 0)) + number, coordinates)


def _count(data: ElementTree.Element, rest: int) -> int:
    """Return how many planes a TiffData element is about: all that follow if it says nothing."""
    alone = 1 if "IFD" in data.attrib else rest
    return int(data.get("PlaneCount", data.get("NumPlanes", alone)))


def _file_of(data: ElementTree.Element) -> tuple[str | None, str | None]:
    uuid = data.find("{*}UUID")
    return (None, None) if uuid is None else (uuid.get("FileName"), uuid.text)


Stage = dict[tuple[int, int, int], tuple[tuple[float, float] | None, float | None]]


def _stage(pixels: ElementTree.Element) -> Stage:
    """Return stage x, y and z of each plane, by (z, c, t), as far as they are told."""
    stage: Stage = {}
    for plane in pixels.iterfind("{*}Plane"):
        z, c, t = (int(plane.get(f"The{axis}", 0)) for axis in "ZCT")
        x_um, y_um, z_um = (_place(plane, f"Position{axis}") for axis in "XYZ")
        stage[z, c, t] = None if x_um is None or y_um is None else (x_um, y_um), z_um
    return stage


def _place(plane: ElementTree.Element, name: str) -> float | None:
    unit = plane.get(f"{name}Unit", MICROMETRES)
    return place_um(plane.get(name), MICROMETRES if unit == "reference frame" else unit)
