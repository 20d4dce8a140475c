"""Files that would end a decoder, or never end it: refused in one line, before they are decoded."""

from __future__ import annotations

import json
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from microscope import input_checks
from microscope.image_files import examine
from microscope.input_checks import available_bytes, picture_bytes, require_memory
from microscope.replay import Recording
from scan.errors import InputError

PLANES = np.full((3, 16, 16), 7, np.uint16)


def write_tiff(path: Path, **options: Any) -> list[int]:
    """Write three pages; the offsets of their directories."""
    tifffile.imwrite(path, PLANES, photometric="minisblack", metadata=None, **options)
    with tifffile.TiffFile(path) as tiff:
        return [page.offset for page in tiff.pages]


def overwrite(path: Path, at: int, data: bytes) -> None:
    """Change some bytes of a file."""
    whole = bytearray(path.read_bytes())
    whole[at : at + len(data)] = data
    path.write_bytes(whole)


def link(path: Path, page: int, target: int, *, big: bool = False) -> None:
    """Let a page of a TIFF be followed by the page at an offset."""
    offset = write_tiff(path, bigtiff=big)[page]
    size, tag, form = (8, 20, "<Q") if big else (2, 12, "<I")
    (tags,) = struct.unpack(f"<{'Q' if big else 'H'}", path.read_bytes()[offset : offset + size])
    overwrite(path, offset + size + tags * tag, struct.pack(form, target))


def ome(path: Path, size_z: int, planes: int = 1) -> None:
    """Write three pages and claim other planes in OME-XML."""
    pixels = (
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="16" SizeY="16" '
        f'SizeZ="{size_z}" SizeC="1" SizeT="1"><TiffData PlaneCount="{planes}"/></Pixels>'
        "</Image></OME>"
    )
    write_tiff(path, description=pixels)


FRAME = b'{"Frame": 0}\0'


def ndtiff(path: Path, position: int, name: str = "a.tif") -> None:
    """Write a page as NDTiff does, and an index of two planes: this one and another."""
    header = b"II*\0" + struct.pack("<7I", 42, 483729, 3, 2, 2355492, 2, 0x7D7B)  # summary {}
    values = {256: 16, 257: 16, 258: 16, 259: 1, 262: 1, 273: 200, 277: 1, 278: 16, 279: 512}
    tags = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items()]
    tags += [struct.pack("<HHII", 51123, 2, len(FRAME), 712)]
    directory = struct.pack("<H", len(tags)) + b"".join(tags) + bytes(4)
    path.write_bytes((header.ljust(42, b"\0") + directory).ljust(200, b"\0") + bytes(512) + FRAME)
    index = b""
    for at, file in ((0, "a.tif"), (position, name)):
        texts = (json.dumps({"z": at}).encode(), file.encode())
        index += b"".join(struct.pack("<I", len(text)) + text for text in texts)
        index += struct.pack("<IiiiiIii", 200, 16, 16, 1, 0, 0, 0, 0)
    (path.parent / "NDTiff.index").write_bytes(index)


def test_a_data_set_is_read_by_its_index(tmp_path: Path) -> None:
    """What is refused below is refused for its fault."""
    ndtiff(tmp_path / "a.tif", 1)

    recording = Recording.open(tmp_path / "a.tif")

    assert recording.read_field(0).shape == (2, 16, 16)


WRONG_TIFFS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a circle": (lambda path: link(path, 2, write_tiff(path)[0]), "circular, after 3 pages"),
    "a loop at the end": (lambda path: link(path, 2, write_tiff(path)[2]), "circular, after 3"),
    "a page after itself": (lambda path: link(path, 0, write_tiff(path)[0]), "circular, after 1"),
    "a circle in a BigTIFF": (
        lambda path: link(path, 2, write_tiff(path, bigtiff=True)[1], big=True),
        "circular, after 3",
    ),
    "beyond the file": (lambda path: link(path, 2, 10**9), "invalid page offset"),
    "the first beyond it": (
        lambda path: write_tiff(path) and overwrite(path, 4, struct.pack("<I", 10**9)), "got",
    ),
    "planes of OME-XML": (lambda path: ome(path, 10**12), "1000000000000 planes"),
    "planes of one TiffData": (lambda path: ome(path, 3, 10**12), "1000000000000 planes"),
    "images of ImageJ": (
        lambda path: write_tiff(path, description=f"ImageJ=1.11a\nimages={10**11}\n"),
        "100000000000 images",
    ),
    "a shape in its description": (
        lambda path: write_tiff(path, description=f'{{"shape": [{10**15}, 16, 16]}}'),
        "fits into memory",
    ),
    "positions in an index": (lambda path: ndtiff(path, 2**31 - 1), "planes in its index"),
    "another folder in an index": (lambda path: ndtiff(path, 1, "../b.tif"), "'../b.tif'"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "said"), WRONG_TIFFS.values(), ids=WRONG_TIFFS)
def test_a_tiff_that_would_never_end_is_refused(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    """Circular chains of pages, and numbers that no file of this size holds, are one line."""
    make(tmp_path / "a.tif")

    with pytest.raises(InputError, match=said) as refused:
        examine(tmp_path / "a.tif")

    assert "\n" not in str(refused.value)


def pipe(path: Path) -> None:
    """A pipe that nobody writes to."""
    os.mkfifo(path)


def listen(path: Path) -> None:
    """A socket."""
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(path.parent)  # the names of sockets are short
        server.bind(path.name)
        os.chdir(before)


def zarr(folder: Path, path: Any = "0", **metadata: Any) -> None:
    """An OME-Zarr image without pixels, of claims only."""
    names = metadata.pop("axes", "zyx")
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in names]
    scale = [{"type": "scale", "scale": [1, 1, 1]}]
    image = {"axes": axes, "datasets": [{"path": path, "coordinateTransformations": scale}]}
    ome = {"ome": {"version": "0.5", "multiscales": [image]}}
    (folder / "0").mkdir(parents=True)
    group = {"zarr_format": 3, "node_type": "group", "attributes": ome}
    (folder / "zarr.json").write_text(json.dumps(group))
    grid = {"name": "regular", "configuration": {"chunk_shape": metadata.pop("chunk", [1, 16, 16])}}
    array = {
        "zarr_format": 3, "node_type": "array", "shape": [3, 16, 16], "data_type": "uint16",
        "chunk_grid": grid, "chunk_key_encoding": {"name": "default"}, "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    }  # fmt: skip
    (folder / "0" / "zarr.json").write_text(json.dumps(array | metadata))


def test_an_image_of_claims_is_read(tmp_path: Path) -> None:
    """What is refused below is refused for its fault, not because it has no pixels."""
    zarr(tmp_path / "image")

    recording = Recording.open(tmp_path / "image")

    assert recording.read_field(0).shape == (3, 16, 16)


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (pipe, "neither file nor folder"),
    "a socket": (listen, "neither file nor folder"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "neither file nor folder"),
    "a pipe in a folder": (
        lambda path: path.mkdir() or pipe(path / "z0.tif"), "neither file nor folder",
    ),
    "a pipe in an array": (
        lambda path: zarr(path) or pipe(path / "0" / "c"), "neither file nor folder",
    ),
    "a link to itself": (lambda path: path.symlink_to(path), "got"),
    "an array elsewhere": (lambda path: zarr(path, str(path.parent / "0")), "pixels outside of it"),
    "an array above": (lambda path: zarr(path, "../0"), "pixels outside of it"),
    "an array of no name": (lambda path: zarr(path, 7), "TypeError"),
    "a linked array": (
        lambda path: zarr(path) or (path / "0" / "c").symlink_to("/tmp"), "a link to another",
    ),
    "12 TB": (lambda path: zarr(path, shape=[3, 10**6, 2 * 10**6]), "claims 1.2e\\+04 GB"),
    "more than there is": (lambda path: zarr(path, shape=[2**62, 2**62, 9]), "fits into memory"),
    "a chunk of 20 TB": (lambda path: zarr(path, chunk=[1, 10**6, 10**7]), "claims 2e\\+04 GB"),
    "many small chunks": (
        lambda path: zarr(path, shape=[2, 2**15, 2**16], chunk=[1, 1, 16]), "268435456 chunks",
    ),
    "chunks beyond the edge": (
        lambda path: zarr(path, shape=[2, 2**31, 1], chunk=[2**31, 1, 1]), "2147483648 chunks",
    ),
    "fewer axes": (lambda path: zarr(path, axes="yx"), "2 axes of an array of 3 dimensions"),
    "axes of no image": (
        lambda path: zarr(path, shape=[2**53, 16, 2**31], axes=["index", "/", "/"]), "axes I//",
    ),
    "no x": (lambda path: zarr(path, shape=[2, 16, 2**31], axes="zy/"), "axes ZY/"),
    "no plane": (lambda path: zarr(path, shape=[0, 16, 16]), "got"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "said"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_image_is_refused(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    """Only regular files of the recording are opened, and nothing is allocated for mere claims."""
    make(tmp_path / "a.tif")

    with pytest.raises(InputError, match=said) as refused:
        Recording.open(tmp_path / "a.tif")

    assert "\n" not in str(refused.value)


NAMES = {"too long": "x" * 300, "with a NUL": "a\0b", "in a file": "a.tif/b"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_that_no_file_can_have_are_refused(tmp_path: Path, name: str) -> None:
    """One line, in which the name can be printed."""
    (tmp_path / "a.tif").write_bytes(b"")

    with pytest.raises(InputError) as refused:
        Recording.open(tmp_path / name)

    assert str(refused.value).isprintable()


def png_of(width: int, height: int) -> bytes:
    """A PNG file of one pixel whose header claims another size."""
    data = imagecodecs.png_encode(np.zeros((1, 1), np.uint8))
    header = data[12:16] + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG file of 16 x 16 pixels whose header claims another size."""
    data = imagecodecs.jpeg8_encode(np.zeros((16, 16), np.uint8))
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


PICTURES = {
    "a PNG": ("a.png", png_of(10**6, 10**6), "claims 1e\\+03 GB"),
    "a PNG without pixels": ("a.png", png_of(0, 0), "no pixels"),
    "a PNG that ends": ("a.png", b"\x89PNG", "got"),
    "a JPEG": ("a.jpg", jpeg_of(65535, 65535), "bytes for 65535 x 65535 pixels"),
}


@pytest.mark.parametrize(("name", "data", "said"), PICTURES.values(), ids=PICTURES)
def test_pictures_of_claims_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, data: bytes, said: str
) -> None:
    """The size in a header is compared with memory and file; libraries print nothing."""
    (tmp_path / name).write_bytes(data)

    with pytest.raises(InputError, match=said):
        examine(tmp_path / name)

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)], ids=["grey", "colour"])
@pytest.mark.parametrize("write", [imagecodecs.png_encode, imagecodecs.jpeg8_encode])
def test_headers_claim_what_is_decoded(write: Callable[..., bytes], shape: tuple[int, ...]) -> None:
    """The size of a picture is known from its header."""
    assert picture_bytes(write(np.zeros(shape, np.uint8))) == np.prod(shape)


def test_an_image_may_take_half_of_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read, and passed on once."""
    monkeypatch.setattr(input_checks, "available_bytes", lambda: 2e9)

    require_memory(tmp_path, 10**9)
    with pytest.raises(InputError, match=r"claims 1\.01 GB, with 2 GB available"):
        require_memory(tmp_path, 101 * 10**7)


def test_available_memory_is_below_that_of_the_computer() -> None:
    """It is a positive number of bytes."""
    assert 10**6 < available_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
