"""Planes come to their places by metadata, names and order, in this order; nothing is dropped
without a line."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from microscope.replay import Recording
from scan.errors import InputError

P, Z, C, Y, X = 3, 4, 2, 18, 20
OME_URI = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def pixels(position: int, z: int, channel: int = 0, time: int = 0) -> np.ndarray:
    """A plane whose values tell where it belongs."""
    return np.full((Y, X), 1000 * time + 100 * position + 10 * channel + z, np.uint16)


def stack(position: int, channel: int = 0) -> np.ndarray:
    """The planes of a field."""
    return np.stack([pixels(position, z, channel) for z in range(Z)])


def write(path: Path, image: np.ndarray, **options: Any) -> None:
    """Write a TIFF file without metadata of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image, **{"photometric": "minisblack", "metadata": None, **options})


def pages(path: Path, images: list[np.ndarray], text: str | None, **options: Any) -> None:
    """Write pages one by one, the first with a description."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as tiff:
        for number, image in enumerate(images):
            description = text if number == 0 else None
            tiff.write(image, photometric="minisblack", metadata=None, description=description,
                       **options)  # fmt: skip


# ------------------------------------------------------------------------------ what is written


def ome_images(folder: Path) -> Path:
    """Several positions as images of one OME-TIFF."""
    with tifffile.TiffWriter(folder / "a.ome.tif", ome=True) as tiff:
        for position in range(P):
            plane = {"PositionX": [100.0 * position] * Z, "PositionY": [5.0] * Z}
            tiff.write(stack(position), photometric="minisblack",
                       metadata={"axes": "ZYX", "Plane": plane})  # fmt: skip
    return folder


def ome_set(folder: Path, names: str = "scan_MMStack_Pos{}.ome.tif", others: str = "whole") -> Path:
    """A file for each position, channels fastest; the XML of the first describes all of them."""
    files = [names.format(position) for position in range(P)]
    xml = f'<OME xmlns="{OME_URI}" UUID="urn:uuid:0">'
    for position, file in enumerate(files):
        xml += (
            f'<Image ID="Image:{position}"><Pixels ID="Pixels:{position}" DimensionOrder="XYCZT" '
            f'Type="uint16" SizeX="{X}" SizeY="{Y}" SizeC="{C}" SizeZ="{Z}" SizeT="1" '
            'PhysicalSizeX="0.5" PhysicalSizeZ="2">'
            '<Channel ID="C:0" Name="DAPI"/><Channel ID="C:1" Name="GFP"/>'
        )
        for z in range(Z):
            for c in range(C):
                xml += (
                    f'<TiffData FirstC="{c}" FirstZ="{z}" IFD="{C * z + c}" PlaneCount="1">'
                    f'<UUID FileName="{file}">urn:uuid:{position}</UUID></TiffData>'
                )
        xml += f'<Plane TheC="0" TheZ="0" TheT="0" PositionX="{100 * position}" PositionY="5"/>'
        xml += "</Pixels></Image>"
    texts = {
        "whole": xml + "</OME>",
        "none": None,
        "imagej": f"ImageJ=1.52\nimages={Z * C}\nchannels={C}\nslices={Z}\nhyperstack=true\n",
        "binary only": f'<OME xmlns="{OME_URI}"><BinaryOnly MetadataFile="{files[0]}" '
        'UUID="urn:uuid:0"/></OME>',
    }
    for position, file in enumerate(files):
        planes = [pixels(position, z, c) for z in range(Z) for c in range(C)]
        pages(folder / file, planes, texts["whole" if position == 0 else others])
    return folder


def mmstack(folder: Path) -> Path:
    """Micro-Manager's stacks with an index map and without OME-XML, slices fastest."""
    for position in range(P):
        path = folder / f"scan_MMStack_{position}.ome.tif"
        planes = [pixels(position, z, c) for c in range(C) for z in range(Z)]
        stage = {"XPositionUm": 100.0 * position, "YPositionUm": 5.0, "PixelSizeUm": 0.5}
        tag = (51123, 2, None, json.dumps(stage), True)
        with tifffile.TiffWriter(path) as tiff:
            for plane in planes:
                tiff.write(plane, photometric="minisblack", metadata=None, extratags=[tag])
        summary = {"MicroManagerVersion": "2", "Frames": 1, "ChNames": ["DAPI", "GFP"],
                   "z-step_um": 2.0}  # fmt: skip
        _insert_index(path, summary, [(c, z, 0, position) for c in range(C) for z in range(Z)])
    return folder


def _insert_index(path: Path, summary: dict[str, Any], index: list[tuple[int, ...]]) -> None:
    """Rewrite a TIFF with the header of Micro-Manager, which lies before the first page."""
    with tifffile.TiffFile(path) as tiff:
        images = [page.asarray() for page in tiff.pages]
        text = tiff.pages.first.tags[51123].value
    tag = json.dumps(text).encode() + b"\0"
    data, offsets = bytearray(40), []
    body = json.dumps(summary).encode()
    data += body
    for number, image in enumerate(images):
        data += bytes(len(data) % 2)
        values = {256: X, 257: Y, 258: 16, 259: 1, 262: 1, 273: 0, 277: 1, 278: Y, 279: 2 * X * Y}
        size = 2 + 12 * (len(values) + 1) + 4
        at = len(data)
        offsets.append(at)
        values[273] = at + size
        after = at + size + 2 * X * Y
        tags = [struct.pack("<HHII", key, 4, 1, value) for key, value in values.items()]
        tags.append(struct.pack("<HHII", 51123, 2, len(tag), after))
        following = after + len(tag) + (after + len(tag)) % 2
        link = following if number + 1 < len(images) else 0
        data += struct.pack("<H", len(tags)) + b"".join(tags) + struct.pack("<I", link)
        data += image.tobytes() + tag
    data += bytes(len(data) % 2)
    place = len(data)
    data += struct.pack("<II", 3453623, len(index))
    for entry, offset in zip(index, offsets, strict=True):
        data += struct.pack("<5I", *entry, offset)
    head = struct.pack("<IIIIIIII", 54773648, place, 0, 0, 0, 0, 2355492, len(body))
    data[:8] = b"II*\0" + struct.pack("<I", offsets[0])
    data[8:40] = head
    path.write_bytes(bytes(data))


def separate(folder: Path, version: int) -> Path:
    """Micro-Manager's separate image files with metadata.txt; names alone are in another order."""
    entries: dict[str, Any] = {"Summary": {}}
    for position in range(P):
        for z in range(Z):
            for c, channel in enumerate(("DAPI", "GFP")):
                name = f"img_000000000_{channel}_{z:03}.tif"
                name = f"Pos{position}/{name}" if version == 1 else f"{position}{z}{c}.tif"
                write(folder / name, pixels(position, z, c))
                stage = {"XPositionUm": 100.0 * position, "YPositionUm": 5.0}
                entries[f"Coords-{name}"] = {"position": position, "z": z, "channel": c, "time": 0}
                entries[f"Metadata-{name}"] = {"FileName": name, **stage}
    if version == 2:
        (folder / "metadata.txt").write_text(json.dumps(entries))
    return folder


def ndtiff(folder: Path) -> Path:
    """An NDTiff data set of one file."""
    path, index, data = folder / "scan_NDTiffStack.tif", b"", bytearray()
    summary = b"{}"
    data += b"II*\0" + struct.pack("<7I", 42, 483729, 3, 2, 2355492, len(summary), 0)
    data = data[:28] + summary + bytes(12)
    data[4:8] = struct.pack("<I", len(data))
    for position in range(P):
        for c, channel in enumerate(("DAPI", "GFP")):
            for z in range(Z):
                image = pixels(position, z, c)
                meta = json.dumps({"XPositionUm": 100.0 * position, "YPositionUm": 5.0,
                                   "PixelSizeUm": 0.5}).encode()  # fmt: skip
                values = {256: X, 257: Y, 258: 16, 259: 1, 262: 1, 273: 0, 277: 1, 278: Y,
                          279: image.nbytes}  # fmt: skip
                size = 2 + 12 * (len(values) + 1) + 4
                at = len(data)
                values[273] = at + size
                end = at + size + image.nbytes + len(meta) + len(meta) % 2
                tags = [struct.pack("<HHII", key, 4, 1, value) for key, value in values.items()]
                tags.append(struct.pack("<HHII", 51123, 2, len(meta), end - len(meta)
                                        - len(meta) % 2))  # fmt: skip
                last = (position, c, z) == (P - 1, C - 1, Z - 1)
                data += struct.pack("<H", len(tags)) + b"".join(tags)
                data += struct.pack("<I", 0 if last else end) + image.tobytes() + meta
                data += bytes(len(meta) % 2)
                axes = json.dumps({"position": position, "channel": channel, "z": z}).encode()
                for text in (axes, path.name.encode()):
                    index += struct.pack("<I", len(text)) + text
                index += struct.pack("<IiiiiIii", values[273], X, Y, 1, 0,
                                     values[273] + image.nbytes, len(meta), 0)  # fmt: skip
    path.write_bytes(bytes(data))
    (folder / "NDTiff.index").write_bytes(index)
    return folder


def plate(folder: Path) -> Path:
    """A plate in OME-Zarr: one well of several fields, with translations and named channels."""
    group = zarr.open_group(folder / "plate.zarr", mode="w", zarr_format=3)
    group.attrs["ome"] = {"version": "0.5", "plate": {"wells": [{"path": "B/3"}]}}
    names = ("c", "z", "y", "x")
    for position in range(P):
        field = group.create_group(f"B/3/{position}")
        field["0"] = np.stack([stack(position, c) for c in range(C)])
        field.attrs["ome"] = {
            "version": "0.5",
            "multiscales": [{
                "axes": [{"name": n} | ({} if n == "c" else {"unit": "micrometer"}) for n in names],
                "datasets": [{"path": "0", "coordinateTransformations": [
                    {"type": "scale", "scale": [1, 2, 0.5, 0.5]},
                    {"type": "translation", "translation": [0, 0, 5, 100 * position]}]}],
            }],
            "omero": {"channels": [{"label": "DAPI"}, {"label": "GFP"}]},
        }  # fmt: skip
    return folder / "plate.zarr"


def series(folder: Path) -> Path:
    """Images as bioformats2raw writes them: numbered groups, stage positions in OME-XML."""
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    xml = f'<OME xmlns="{OME_URI}">'
    for position in range(P):
        field = group.create_group(str(position))
        field["0"] = np.stack([stack(position, c) for c in range(C)])[None]
        scale = [{"type": "scale", "scale": [1, 1, 2, 0.5, 0.5]}]
        field.attrs["multiscales"] = [{
            "version": "0.4",
            "axes": [{"name": n} | ({"unit": "micrometer"} if n in "zyx" else {}) for n in "tczyx"],
            "datasets": [{"path": "0", "coordinateTransformations": scale}],
        }]  # fmt: skip
        xml += f'<Image ID="Image:{position}"><Pixels><MetadataOnly/>'
        xml += f'<Plane TheC="0" TheZ="0" TheT="0" PositionX="{100 * position}" PositionY="5"/>'
        xml += "</Pixels></Image>"
    (folder / "a.zarr" / "OME").mkdir()
    (folder / "a.zarr" / "OME" / "METADATA.ome.xml").write_text(xml + "</OME>")
    return folder / "a.zarr"


def squid(folder: Path) -> Path:
    """Images of Squid, with the stage positions of fields in coordinates.csv."""
    rows = ["region,fov,x (mm),y (mm)"] + [f"R0,{p},{0.1 * p},0.005" for p in range(P)]
    named_planes(folder, "0/R0_{p}_{z}_Fluorescence_{c}_nm_Ex.tif")
    (folder / "coordinates.csv").write_text("\n".join(rows))
    return folder


def squid_stacks(folder: Path) -> Path:
    """Stacks of Squid, a file for each field, with coordinates.csv."""
    hyperstacks(folder)
    for p in range(P):
        (folder / f"pos{p}.tif").rename(folder / f"R0_{p}.ome.tif")
    rows = ["region,fov,z_level,x (mm),y (mm)"] + [f"R0,{p},0,{0.1 * p},0.005" for p in range(P)]
    (folder / "coordinates.csv").write_text("\n".join(rows))
    return folder


def pyramid(folder: Path) -> Path:
    """NDTiff data in the folder of full resolution, beside a smaller copy."""
    (folder / "Full resolution").mkdir()
    ndtiff(folder / "Full resolution")
    write(folder / "Downsampled_x2" / "scan_NDTiffStack.tif", pixels(0, 0)[::2, ::2])
    return folder


def metaseries(folder: Path) -> Path:
    """Images of an ImageXpress, which describe themselves; names tell site, z and channel."""
    for p in range(P):
        for z in range(Z):
            for c in range(C):
                told = {"stage-position-x": 100 * p, "stage-position-y": 5, "z-position": 2 * z,
                        "spatial-calibration-x": 0.5}  # fmt: skip
                props = "".join(
                    f'<prop id="{key}" type="float" value="{value}"/>'
                    for key, value in told.items()
                )
                props += '<prop id="spatial-calibration-state" type="bool" value="on"/>'
                text = f"<MetaData><PlaneInfo>{props}</PlaneInfo></MetaData>"
                path = folder / f"ZStep_{z + 1}" / f"P_C05_s{p + 1}_w{c + 1}.tif"
                pages(path, [pixels(p, z, c)], text, software="MetaSeries")
    return folder


def harmony(folder: Path) -> Path:
    """Images of an Operetta or Phenix; Index.xml has stage positions in m, with y pointing up."""
    named_planes(folder, "Images/r01c01f{p:02}p{z:02}-ch{c}sk1fk1fl1.tif")
    xml = '<EvaluationInputData xmlns="http://www.perkinelmer.com/PEHH/HarmonyV5"><Images>'
    for image in sorted((folder / "Images").iterdir()):
        xml += f"<Image><URL>{image.name}</URL><PositionX Unit='m'>{1e-4 * int(image.name[7:9])}"
        xml += "</PositionX><PositionY Unit='m'>-5e-6</PositionY></Image>"
    (folder / "Images" / "Index.xml").write_text(xml + "</Images></EvaluationInputData>")
    return folder


def named_planes(folder: Path, form: str = "pos{p}_z{z}_ch{c}.tif") -> Path:
    """Single planes, told apart by names."""
    for p in range(P):
        for z in range(Z):
            for c in range(C):
                write(folder / form.format(p=p, z=z, c=c), pixels(p, z, c))
    return folder


def hyperstacks(folder: Path) -> Path:
    """A file of ImageJ for each position, with two channels."""
    for position in range(P):
        image = np.stack([stack(position, c) for c in range(C)], 1)
        tifffile.imwrite(folder / f"pos{position}.tif", image, imagej=True,
                         metadata={"axes": "ZCYX"})  # fmt: skip
    return folder


# How a recording of P positions, Z planes and C channels is written; whether it tells the stage.
WRITTEN: dict[str, tuple[Callable[[Path], Path], bool]] = {
    "images of an OME-TIFF": (ome_images, True),
    "a set of OME-TIFF": (ome_set, True),
    "a set, the XML in the first": (lambda d: ome_set(d, others="binary only"), True),
    "a set, the first with XML, others of ImageJ": (lambda d: ome_set(d, others="imagej"), True),
    "a set, the first with XML, others without": (lambda d: ome_set(d, others="none"), True),
    "an index map of Micro-Manager": (mmstack, True),
    "separate files of Micro-Manager 1.4": (lambda d: separate(d, 1), False),
    "separate files with metadata.txt": (lambda d: separate(d, 2), True),
    "NDTiff": (ndtiff, True),
    "a plate": (plate, True),
    "bioformats2raw": (series, True),
    "Squid": (squid, True),
    "Harmony": (harmony, True),
    "MetaSeries": (metaseries, True),
    "Squid's stacks": (squid_stacks, True),
    "NDTiff of several resolutions": (pyramid, True),
    "names": (named_planes, False),
    "folders": (lambda d: named_planes(d, "pos{p}/z{z}_ch{c}.tif"), False),
    "folders of channels": (lambda d: named_planes(d, "ch{c}/pos{p}/z{z}.tif"), False),
    "ImageJ": (hyperstacks, False),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_plane_comes_to_its_place(kind: str, tmp_path: Path) -> None:
    """Each field has the planes of its position and of the first channel, in the order of z."""
    writer, stage = WRITTEN[kind]

    recording = Recording.open(writer(tmp_path))

    assert (recording.field_count, recording.planes) == (P, Z)
    for position in range(P):
        np.testing.assert_array_equal(recording.read_field(position), stack(position))
    places = [field.stage_um for field in recording.fields]
    corner = (0.5 * (X - 1) / 2, 0.5 * (Y - 1) / 2) if kind == "a plate" else (0, 0)
    told = [(100.0 * p + corner[0], 5.0 + corner[1]) for p in range(P)]
    assert places == ([pytest.approx(each) for each in told] if stage else [None] * P)


MULTICHANNEL = [kind for kind in WRITTEN if kind != "images of an OME-TIFF"]


@pytest.mark.parametrize("kind", MULTICHANNEL)
def test_all_channels_are_read(kind: str, tmp_path: Path) -> None:
    """Each channel of each field has its own planes; the first one focuses; nothing is left out."""
    recording = Recording.open(WRITTEN[kind][0](tmp_path))

    assert recording.understood.startswith(
        f"{P} positions \u00d7 {Z} planes \u00d7 {C} channels, by "
    )
    assert (len(recording.channels), recording.reference) == (C, 0)
    for position, channel in product(range(P), range(C)):
        planes = recording.read_field(position, channel)
        np.testing.assert_array_equal(planes, stack(position, channel))
    assert [each for each in recording.caveats if not each.startswith("left out")] == []


@pytest.mark.parametrize("kind", MULTICHANNEL)
def test_what_is_not_scanned_is_told(kind: str, tmp_path: Path) -> None:
    """If one of two channels is named, that is a caveat, which the end of a run says again."""
    recording = Recording.open(WRITTEN[kind][0](tmp_path), channels=[1])

    assert recording.channels == ()
    np.testing.assert_array_equal(recording.read_field(0), stack(0, channel=1))
    said = [each for each in recording.caveats if not each.startswith("left out")]
    assert [each.startswith("2 channels, only channel ") for each in said] == [True]


def test_channels_are_chosen_in_an_order(tmp_path: Path) -> None:
    """Channels come in the order in which they are named, and any of them may focus."""
    recording = Recording.open(ome_set(tmp_path), channels=["GFP", "DAPI"], reference="DAPI")

    assert [channel.name for channel in recording.channels] == ["GFP", "DAPI"]
    assert recording.channels_in_words == "; channels GFP, DAPI, focused by DAPI"
    np.testing.assert_array_equal(recording.read_field(1, 0), stack(1, channel=1))
    np.testing.assert_array_equal(recording.read_field(1), stack(1, channel=0))


THIN = {
    "a run of planes": ([1, 2], True),
    "one plane": ([1], True),
    "planes with a gap": ([0, 2], False),
    "a plane beyond": ([3], False),
}


@pytest.mark.parametrize(("heights", "used"), THIN.values(), ids=THIN)
def test_a_channel_may_have_fewer_planes(heights: list[int], used: bool, tmp_path: Path) -> None:
    """A channel of which some neighbouring planes were taken is used, where they lie; one with
    other planes is left out, and that is told."""
    for position, z in product(range(P), range(3)):
        write(tmp_path / f"pos{position}_ch0_z{z}.tif", pixels(position, z))
    for position, z in product(range(P), heights):
        write(tmp_path / f"pos{position}_ch1_z{z}.tif", pixels(position, z, 1))

    recording = Recording.open(tmp_path)

    assert recording.planes == 3
    assert [channel.planes for channel in recording.channels] == ([3, len(heights)] if used else [])
    assert [each.endswith("it is not scanned") for each in recording.caveats] == [True] * (not used)
    if used:
        assert recording.channels[1].first == heights[0]
        np.testing.assert_array_equal(recording.read_field(1, 1)[0], pixels(1, heights[0], 1))


def test_colours_of_channels_are_read(tmp_path: Path) -> None:
    """OME-XML and OME-Zarr tell the colours of channels; white is none."""
    colours = [0x0000FFFF, 0xFF00FFFF - 2**32]
    metadata = {"axes": "CZYX", "Channel": {"Name": ["a", "b"], "Color": colours}}
    image = np.stack([stack(0, channel) for channel in range(2)])
    tifffile.imwrite(tmp_path / "a.ome.tif", image, metadata=metadata)

    recording = Recording.open(tmp_path / "a.ome.tif")

    assert [channel.colour for channel in recording.channels] == ["0000FF", "FF00FF"]


@pytest.mark.parametrize("channel", [1, "GFP"])
def test_a_channel_is_chosen(channel: int | str, tmp_path: Path) -> None:
    """By its number or its name."""
    recording = Recording.open(ome_set(tmp_path), channels=[channel])

    np.testing.assert_array_equal(recording.read_field(1), stack(1, channel=1))
    assert "only channel GFP is used; not scanned: DAPI" in recording.caveats[0]


def test_a_channel_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The refusal names those that are."""
    with pytest.raises(InputError, match=r"one of DAPI, GFP, got channel Cy5"):
        Recording.open(ome_set(tmp_path), channels=["Cy5"])


GARBAGE = [
    b"",
    b"{",
    b"[1]",
    b'{"Metadata-x": 1}',
    b"[" * 10**5,
    b"\xff\xfe",
    b"<a>",
    b"region,fov\n,",
]


@pytest.mark.parametrize("sidecar", ["metadata.txt", "coordinates.csv", "Index.xml"])
@pytest.mark.parametrize("content", GARBAGE)
def test_damaged_sidecars_tell_nothing(sidecar: str, content: bytes, tmp_path: Path) -> None:
    """Names remain."""
    named_planes(tmp_path)
    (tmp_path / sidecar).write_bytes(content)

    assert (Recording.open(tmp_path).field_count, Recording.open(tmp_path).planes) == (P, Z)


def test_a_renamed_set_is_placed_by_its_uuids(tmp_path: Path) -> None:
    """Names in OME-XML may be those that files had before."""
    folder = ome_set(tmp_path)
    for position in range(P):
        file = folder / f"scan_MMStack_Pos{position}.ome.tif"
        text = tifffile.tiffcomment(file)
        tifffile.tiffcomment(file, text.replace('UUID="urn:uuid:0"', f'UUID="urn:uuid:{position}"'))
        file.rename(folder / f"mine{position}.ome.tif")

    recording = Recording.open(folder)

    assert (recording.field_count, recording.planes) == (P, Z)
    np.testing.assert_array_equal(recording.read_field(2), stack(2))


def test_a_missing_file_of_a_set_is_told(tmp_path: Path) -> None:
    """A position without its file is not dropped in silence."""
    (ome_set(tmp_path) / "scan_MMStack_Pos1.ome.tif").unlink()

    recording = Recording.open(tmp_path)

    assert recording.field_count == P - 1
    assert "missing of a set of files: 1 file, scan_mmstack_pos1" in recording.caveats[0]


def test_stacks_that_were_renamed_are_positions(tmp_path: Path) -> None:
    """Acquisitions have one name in their OME-XML; copies of them in one folder are no set."""
    for position in range(P):
        name = '<UUID FileName="scan_MMStack_Pos0.ome.tif">urn:uuid:0</UUID>'
        planes = "".join(
            f'<TiffData FirstZ="{z}" IFD="{z}" PlaneCount="1">{name}</TiffData>' for z in range(Z)
        )
        xml = (
            f'<OME xmlns="{OME_URI}" UUID="urn:uuid:{position}"><Image ID="Image:0"><Pixels '
            f'ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="{X}" SizeY="{Y}" '
            f'SizeC="1" SizeZ="{Z}" SizeT="1">{planes}</Pixels></Image></OME>'
        )
        pages(tmp_path / f"mine{position}.ome.tif", list(stack(position)), xml)

    recording = Recording.open(tmp_path)

    assert (recording.field_count, recording.planes, recording.caveats) == (P, Z, ())
    np.testing.assert_array_equal(recording.read_field(2), stack(2))


def test_heights_in_names_give_the_step(tmp_path: Path) -> None:
    """Signed heights are sorted by value, and their distance is the z-step."""
    for z in range(Z):
        write(tmp_path / f"z{1.5 * (z - 2):+.1f}um.tif", pixels(0, z))

    recording = Recording.open(tmp_path)

    np.testing.assert_array_equal(recording.read_field(0), stack(0))
    assert recording.z_step_um == 1.5


def test_uneven_heights_are_told(tmp_path: Path) -> None:
    """Planes at 0, 1 and 4 µm do not lie one step apart."""
    for z, height in enumerate((0, 1, 4)):
        write(tmp_path / f"z{height}um.tif", pixels(0, z))

    assert any("1 to 3 µm apart" in each for each in Recording.open(tmp_path).warnings)


@pytest.mark.parametrize("axis", ["T", "C"])
def test_a_lone_axis_is_taken_for_z(axis: str, tmp_path: Path) -> None:
    """Seven time points, or channels without names, of single planes are a stack, with a caveat."""
    image = np.stack([pixels(0, z) for z in range(7)])
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, metadata={"axes": f"{axis}YX"})

    recording = Recording.open(tmp_path)

    np.testing.assert_array_equal(recording.read_field(0), image)
    assert "taken for the planes of a z-stack" in recording.caveats[0]


def test_two_channels_of_one_plane_are_channels(tmp_path: Path) -> None:
    """So few are no z-stack."""
    tifffile.imwrite(tmp_path / "a.tif", stack(0)[:2], imagej=True, metadata={"axes": "CYX"})

    recording = Recording.open(tmp_path)

    assert (recording.planes, len(recording.channels)) == (1, 2)
    assert not recording.caveats


def test_a_users_pattern_places_planes(tmp_path: Path) -> None:
    """What names may mean in two ways is refused without a pattern, and read with one."""
    for z in range(Z):
        write(tmp_path / f"p{z}.tif", pixels(0, z))

    with pytest.raises(InputError, match="plane or position"):
        Recording.open(tmp_path)
    assert Recording.open(tmp_path, name_pattern="p{z}").planes == Z
    assert Recording.open(tmp_path, name_pattern="p{position}").field_count == Z


def test_strays_are_left_out_with_a_line(tmp_path: Path) -> None:
    """A projection and a thumbnail beside planes are named."""
    named_planes(tmp_path)
    write(tmp_path / "MAX_pos0.tif", pixels(9, 9))
    write(tmp_path / "overview.tif", np.zeros((5, 5), np.uint16))

    recording = Recording.open(tmp_path)

    assert (recording.field_count, recording.planes) == (P, Z)
    assert any("MAX_pos0.tif, overview.tif" in each for each in recording.caveats)


def test_a_stray_beside_a_set_is_left_out(tmp_path: Path) -> None:
    """An overview has no place in the metadata of the set."""
    write(ome_set(tmp_path) / "overview.tif", np.zeros((5, 5), np.uint16))

    recording = Recording.open(tmp_path)

    assert recording.field_count == P
    assert any("overview.tif" in each for each in recording.caveats)


def test_single_images_are_told_apart_by_names(tmp_path: Path) -> None:
    """Images that Micro-Manager saved one by one all say that they are the first."""
    first = {"PositionIndex": 0, "ChannelIndex": 0, "SliceIndex": 0, "FrameIndex": 0}
    for z in range(Z):
        tag = (51123, 2, None, json.dumps(first), True)
        write(tmp_path / f"z{z}.tif", pixels(0, z), extratags=[tag])

    np.testing.assert_array_equal(Recording.open(tmp_path).read_field(0), stack(0))


def without(folder: Path, name: str) -> Path:
    """Remove a file."""
    (folder / name).unlink()
    return folder


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a plane missing of one position": (
        lambda d: without(named_planes(d), "pos1_z2_ch0.tif"), "4 planes, got 3 .z 2 missing"),
    "a plane missing of all positions": (
        lambda d: [without(d, f"pos{p}_z2_ch0.tif") for d in [named_planes(d)] for p in range(P)]
        and d,
        "4 planes, got 3 .z missing after 1"),
    "a height missing": (
        lambda d: [write(d / f"z{z:+.1f}um.tif", pixels(0, 0)) for z in (-2, -1, 1, 2)] and d,
        "5 planes, got 4 .z missing after -1"),
    "two planes at one place": (
        lambda d: write(named_planes(d) / "pos01_z2_ch0.tif", pixels(0, 0)) or d,
        "one plane at each place, got 2 at position 1, z 2, channel 0: "
        r"pos01_z2_ch0\.tif and pos1_z2_ch0\.tif"),
    "parts that vary": (
        lambda d: named_planes(d, "{p}_{z}_{c}.tif"), r"parts that vary: numbers \(0, 1, 2\) and"),
    "z in names and in files": (
        lambda d: [write(d / f"z{z}.tif", stack(z), metadata={}) for z in range(3)] and d,
        "z in names or in files"),
    "axes without names": (
        lambda d: write(d / "a.tif", np.zeros((2, 3, Y, X), np.uint8), metadata={}) or d, "QQYX"),
    "files at two depths": (
        lambda d: write(named_planes(d) / "more/z0.tif", pixels(0, 0)) or d, "sub-folders"),
}  # fmt: skip


@pytest.mark.parametrize(("writer", "said"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_place_is_refused(
    writer: Callable[[Path], Path], said: str, tmp_path: Path
) -> None:
    """The one line says what was expected and what came."""
    with pytest.raises(InputError, match=said) as refused:
        Recording.open(writer(tmp_path))

    assert "\n" not in str(refused.value)


GREY = np.arange(Y * X, dtype=np.uint8).reshape(Y, X)
RAMP = np.stack([np.arange(256) * 257] * 3).astype(np.uint16)
# An image, and the light that must come back.
KINDS: dict[str, tuple[Callable[[Path], object], np.ndarray, str]] = {
    "grey and alpha, TIFF": (
        lambda p: write(p, np.dstack([GREY, 255 - GREY]), extrasamples=["unassalpha"],
                        planarconfig="contig"), GREY, "alpha is dropped"),
    "grey and alpha, PNG": (
        lambda p: p.with_suffix(".png").write_bytes(
            imagecodecs.png_encode(np.dstack([GREY, 255 - GREY]))), GREY, "alpha is dropped"),
    "min-is-white": (
        lambda p: write(p, 255 - GREY, photometric="miniswhite"), GREY, "inverted"),
    "a palette that is a ramp": (
        lambda p: write(p, GREY, photometric="palette", colormap=RAMP), GREY, ""),
    "a palette that is inverted": (
        lambda p: write(p, 255 - GREY, photometric="palette", colormap=RAMP[:, ::-1].copy()),
        GREY, "palette"),
    "a thumbnail after it": (
        lambda p: (write(p, GREY), tifffile.imwrite(
            p, GREY[::2, ::2], append=True, subfiletype=1, photometric="minisblack",
            metadata=None)), GREY, ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_light_is_read_as_it_was(kind: str, tmp_path: Path) -> None:
    """Alpha, palettes, inverted scales and reduced copies do not change what is scanned."""
    writer, expected, said = KINDS[kind]
    writer(tmp_path / "a.tif")

    recording = Recording.open(tmp_path)

    np.testing.assert_array_equal(recording.read_field(0), expected[None])
    assert any(said in warning for warning in recording.warnings)


def test_planes_without_pages_are_read(tmp_path: Path) -> None:
    """Programs write large stacks as one page, with the other planes behind its pixels."""
    write(tmp_path / "a.tif", stack(1), metadata={}, truncate=True)

    recording = Recording.open(tmp_path)

    np.testing.assert_array_equal(recording.read_field(0), stack(1))
