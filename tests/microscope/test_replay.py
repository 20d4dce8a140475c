"""Recordings are read as written, or refused, naming the file."""

import json
import logging
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorstore
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from microscope.image_files import examine
from microscope.replay import Recording, ReplayMicroscope
from scan.errors import CaptureError, InputError

PLANES = 12  # enough that natural and alphabetical order differ
SHAPE = (PLANES, 20, 24)
STACK = np.random.default_rng(3).integers(0, 256, SHAPE).astype(np.uint16) * 200
BYTES = (STACK // 200).astype(np.uint8)
COLOUR = np.random.default_rng(4).integers(0, 256, (*SHAPE, 3)).astype(np.uint8)
LUMINANCE = (COLOUR @ [0.299, 0.587, 0.114]).round()


def write_planes(folder: Path, planes: np.ndarray, suffix: str = ".tif") -> Path:
    """Write a folder of single planes named z1, z2 … z10."""
    folder.mkdir(parents=True)
    for number, plane in enumerate(planes, 1):
        name = str(folder / f"z{number}{suffix}")
        if suffix == ".tif":
            tifffile.imwrite(name, plane)
        else:
            cv2.imwrite(name, plane)
    return folder


def write_tiff(path: Path, planes: np.ndarray, **options: object) -> Path:
    """Write one TIFF file of several pages."""
    tifffile.imwrite(path, planes, **{"photometric": "minisblack", **options})
    return path


def write_ome_tiff(path: Path, planes: np.ndarray, axes: str = "ZYX") -> Path:
    """Write an OME-TIFF with sizes, the pixel size in nm."""
    metadata = {"axes": axes, "PhysicalSizeX": 325.0, "PhysicalSizeXUnit": "nm",
                "PhysicalSizeZ": 1.5, "PhysicalSizeZUnit": "µm"}  # fmt: skip
    return write_tiff(path, planes, ome=True, metadata=metadata)


def write_imagej(path: Path, planes: np.ndarray, unit: str = "um") -> Path:
    """Write a stack as ImageJ does, 0.325 to the pixel and 1.5 to the plane, of some unit."""
    return write_tiff(
        path, planes, imagej=True, resolution=(1 / 0.325, 1 / 0.325),
        metadata={"axes": "ZYX", "spacing": 1.5, "unit": unit},
    )  # fmt: skip


def write_zarr(path: Path, array: np.ndarray, version: int, compressed: bool = True) -> Path:
    """Write an OME-Zarr image of a given Zarr format; the leading axes are t, c, z as there are."""
    names = ["t", "c", "z", "y", "x"][-array.ndim :]
    scale = [1.0, 1.0, 1.5, 0.325, 0.325][-array.ndim :]
    unit = {"t": "second", "c": None, "z": "micrometer", "y": "micrometer", "x": "micrometer"}
    multiscales = [{
        "version": "0.5" if version == 3 else "0.4",
        "axes": [{"name": n} | ({"unit": unit[n]} if unit[n] else {}) for n in names],
        "datasets": [{"path": "0", "coordinateTransformations": [
            {"type": "scale", "scale": scale}]}],
    }]  # fmt: skip
    path.mkdir(parents=True)
    spec = {"driver": "zarr3" if version == 3 else "zarr", "create": True,
            "kvstore": {"driver": "file", "path": str(path / "0")}}  # fmt: skip
    if version == 3:
        ome = {"version": "0.5", "multiscales": multiscales}
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
        (path / "zarr.json").write_text(json.dumps(group))
        gzip = {"name": "gzip", "configuration": {"level": 1}}
        bytes_codec = {"name": "bytes", "configuration": {"endian": "little"}}
        spec["metadata"] = {"codecs": [bytes_codec, *([gzip] if compressed else [])]}
    else:
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps({"multiscales": multiscales}))
        spec["metadata"] = {"compressor": {"id": "zlib", "level": 1} if compressed else None}
    store = tensorstore.open(spec, shape=array.shape, dtype=array.dtype.name).result()
    store.write(array).result()
    return path


def write_bioformats2raw(folder: Path) -> Path:
    """Write three OME-Zarr images in the layout of bioformats2raw."""
    for series in range(3):
        write_zarr(folder / str(series), STACK, 2)
    (folder / ".zattrs").write_text('{"bioformats2raw.layout": 3}')
    (folder / "OME").mkdir()
    (folder / "OME" / "METADATA.ome.xml").write_text("<OME/>")
    return folder


def write_fields(folder: Path, writer: Callable[[Path], Path], suffix: str) -> Path:
    """Write a folder of three fields."""
    folder.mkdir()
    for number in (1, 2, 10):
        writer(folder / f"field{number}{suffix}")
    return folder


# What is written, how, and how many fields of PLANES planes must come back equal to it.
TAKES = {
    "multi-page TIFF": (lambda d: write_tiff(d / "a.tif", STACK), STACK, 1),
    "deflated TIFF": (lambda d: write_tiff(d / "a.tif", STACK, compression="zlib"), STACK, 1),
    "big-endian BigTIFF": (
        lambda d: write_tiff(d / "a.tiff", STACK, byteorder=">", bigtiff=True), STACK, 1),
    "TIFF without metadata": (lambda d: write_tiff(d / "a.tif", STACK, metadata=None), STACK, 1),
    "tiled TIFF": (lambda d: write_tiff(d / "a.tif", STACK, tile=(16, 16)), STACK, 1),
    "OME-TIFF": (lambda d: write_ome_tiff(d / "a.ome.tif", STACK), STACK, 1),
    "ImageJ TIFF": (lambda d: write_imagej(d / "a.tif", STACK), STACK, 1),
    "colour TIFF": (
        lambda d: write_tiff(d / "a.tif", COLOUR, photometric="rgb"), LUMINANCE, 1),
    "colour by planes TIFF": (
        lambda d: write_tiff(d / "a.tif", np.moveaxis(COLOUR, -1, 1).copy(), photometric="rgb",
                             planarconfig="separate"), LUMINANCE, 1),
    "float64 TIFF": (lambda d: write_tiff(d / "a.tif", STACK / 7), STACK / 7, 1),
    "int32 TIFF": (lambda d: write_tiff(d / "a.tif", STACK.astype(np.int32)), STACK, 1),
    "folder of TIFF planes": (lambda d: write_planes(d / "a", STACK), STACK, 1),
    "folder of PNG planes": (lambda d: write_planes(d / "a", STACK, ".png"), STACK, 1),
    "folder of 8 bit PNG": (lambda d: write_planes(d / "a", BYTES, ".png"), BYTES, 1),
    "folder of colour PNG": (
        lambda d: write_planes(d / "a", COLOUR[..., ::-1], ".png"), LUMINANCE, 1),
    "folder of multi-page TIFF": (
        lambda d: write_fields(d / "a", lambda p: write_tiff(p, STACK), ".tif"), STACK, 3),
    "folder of folders of planes": (
        lambda d: write_fields(d / "a", lambda p: write_planes(p, STACK), ""), STACK, 3),
    "folder of folders of multi-page TIFF": (
        lambda d: write_fields(d / "a", lambda p: write_fields(
            p, lambda q: write_tiff(q, STACK), ".tif"), ""), STACK, 9),
    "folder of OME-Zarr": (
        lambda d: write_fields(d / "a", lambda p: write_zarr(p, STACK, 3), ".zarr"), STACK, 3),
    "bioformats2raw": (lambda d: write_bioformats2raw(d / "a.zarr"), STACK, 3),
    "OME-Zarr 0.4": (lambda d: write_zarr(d / "a.zarr", STACK, 2), STACK, 1),
    "OME-Zarr 0.5": (lambda d: write_zarr(d / "a.zarr", STACK, 3), STACK, 1),
}  # fmt: skip


@pytest.mark.parametrize("take", TAKES)
def test_every_recording_is_read_as_written(take: str, tmp_path: Path) -> None:
    """Each kind of recording gives its planes in order, equal to what was written."""
    write, expected, fields = TAKES[take]

    recording = Recording.open(write(tmp_path))

    assert recording.field_count == fields
    assert (recording.planes, *recording.frame_shape) == SHAPE
    for index in range(fields):
        planes = recording.read_field(index)
        assert planes.dtype == recording.dtype
        assert planes.dtype in (np.uint8, np.uint16, np.float32)
        assert planes.flags.c_contiguous
        np.testing.assert_allclose(planes, expected, rtol=1e-6, atol=1 if "colour" in take else 0)


def test_jpeg_planes_come_back_nearly(tmp_path: Path) -> None:
    """A folder of JPEG planes is one field, as near as the compression left it."""
    smooth = np.tile(np.arange(64, dtype=np.uint8) * 3, (5, 48, 1))

    recording = Recording.open(write_planes(tmp_path / "a", smooth, ".jpg"))

    assert (recording.planes, recording.dtype) == (5, np.uint8)
    np.testing.assert_allclose(recording.read_field(0), smooth, atol=6)


@pytest.mark.parametrize(
    ("write", "kept", "word"),
    [
        (lambda d: write_ome_tiff(d / "a.ome.tif", np.stack([STACK, STACK + 1]), "TZYX"),
         STACK, "2 timepoints"),
        (lambda d: write_zarr(d / "a.zarr", np.stack([[STACK, STACK + 1]] * 3), 3),
         STACK, "3 timepoints"),
        (lambda d: write_planes(d / "a", COLOUR[..., ::-1], ".png"), LUMINANCE, "luminance"),
    ],
    ids=["timepoints", "Zarr v3 t and c", "colour"],
)  # fmt: skip
def test_ignored_images_give_a_warning(
    write: Callable[[Path], Path], kept: np.ndarray, word: str, tmp_path: Path
) -> None:
    """Of several timepoints the first is used, and of colour the luminance; that is told once."""
    recording = Recording.open(write(tmp_path))
    said = (*recording.warnings, *recording.caveats)

    np.testing.assert_allclose(recording.read_field(0), kept, atol=1 if word == "luminance" else 0)
    assert [word in warning for warning in said].count(True) == 1


@pytest.mark.parametrize(
    "write",
    [
        lambda d: write_tiff(d / "a.tif", STACK[0]),
        lambda d: Path(str(write_planes(d / "a", STACK[:1], ".png")) + "/z1.png"),
        lambda d: write_zarr(d / "a.zarr", STACK[0], 3),
    ],
    ids=["TIFF", "PNG", "OME-Zarr without z"],
)
def test_a_single_image_is_one_plane(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """An image without z is a field of one plane; there is no warning about its z-step."""
    recording = Recording.open(write(tmp_path))

    assert recording.planes == 1
    assert not any("z-step" in warning for warning in recording.warnings)
    np.testing.assert_array_equal(recording.read_field(0), STACK[:1])


@pytest.mark.parametrize(
    "write",
    [
        lambda d: write_ome_tiff(d / "a.ome.tif", STACK),
        lambda d: write_imagej(d / "a.tif", STACK),
        lambda d: write_imagej(d / "a.tif", STACK, "micron"),
        lambda d: write_imagej(d / "a.tif", STACK, "\\u00B5m"),
        lambda d: write_zarr(d / "a.zarr", STACK, 2),
        lambda d: write_zarr(d / "a.zarr", STACK, 3),
    ],
    ids=["OME-XML", "ImageJ um", "ImageJ micron", "ImageJ escaped", "NGFF 0.4", "NGFF 0.5"],
)
def test_sizes_of_the_metadata_win(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """Sizes come from the metadata, with a warning if the settings differ."""
    path = write(tmp_path)

    agreed = Recording.open(path, pixel_size_um=0.325, z_step_um=1.5)
    opposed = Recording.open(path, pixel_size_um=0.5, z_step_um=2.0)

    assert (agreed.pixel_size_um, agreed.z_step_um) == pytest.approx((0.325, 1.5))
    assert agreed.warnings == ()
    assert (opposed.pixel_size_um, opposed.z_step_um) == pytest.approx((0.325, 1.5))
    assert [warning.split()[0] for warning in opposed.warnings] == ["pixel", "z-step"]


def test_sizes_not_recorded_come_from_the_settings(tmp_path: Path) -> None:
    """Without metadata the settings are used; without these 1 µm is assumed with a warning."""
    path = write_imagej(tmp_path / "a.tif", STACK, "pixel")

    recording = Recording.open(path, pixel_size_um=0.5, z_step_um=2.0)
    assumed = Recording.open(path)

    assert (recording.pixel_size_um, recording.z_um[:3], recording.warnings) == (
        0.5,
        (0.0, 2.0, 4.0),
        (),
    )
    assert (assumed.pixel_size_um, assumed.z_step_um, len(assumed.warnings)) == (1.0, 1.0, 2)


def test_sidecars_are_ignored(tmp_path: Path) -> None:
    """Hidden files, notes and tables next to the images are ignored."""
    folder = write_planes(tmp_path / "a", STACK)
    for name in ("._z1.tif", ".DS_Store", "notes.txt", "README.md", "meta.json", "t.csv", "o.xml"):
        (folder / name).write_text("nothing")
    (folder / "empty").mkdir()

    assert Recording.open(folder).planes == PLANES


def test_one_file_of_a_set_gives_its_own_planes(tmp_path: Path) -> None:
    """OME-TIFF files that each describe their whole set are planes, not copies of the set."""
    folder = write_planes(tmp_path / "a", STACK[:2])
    files = [folder / "z1.tif", folder / "z2.tif"]
    data = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{file.name}">urn:uuid:{z}</UUID></TiffData>'
        for z, file in enumerate(files)
    )
    for z, file in enumerate(files):
        xml = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{z}"><Image ID="Image:0"><Pixels ID="Pixels:0" SizeX="24" SizeY="20" '
            'SizeZ="2" SizeC="1" SizeT="1" DimensionOrder="XYZCT" Type="uint16" '
            f'PhysicalSizeX="0.5" PhysicalSizeZ="2">{data}</Pixels></Image></OME>'
        )
        tifffile.imwrite(file, STACK[z], description=xml, metadata=None)

    recording = Recording.open(folder)

    assert (recording.field_count, recording.planes) == (1, 2)
    assert (recording.pixel_size_um, recording.z_step_um) == (0.5, 2.0)
    np.testing.assert_array_equal(recording.read_field(0), STACK[:2])


def spoiled(stack: np.ndarray, value: float) -> np.ndarray:
    """Return the stack with one value put into it."""
    floats = stack.astype(np.float64)
    floats[3, 4, 5] = value
    return floats


def taller(path: Path) -> Path:
    """Let every page of a TIFF claim a million rows that it does not hold."""
    with tifffile.TiffFile(path, mode="r+b") as file:
        for page in file.pages:
            page.tags["ImageLength"].overwrite(10**6)
    return path


def with_file(folder: Path, name: str, write: Callable[[Path], object]) -> Path:
    """Add a file to a folder of planes and return the folder."""
    write(folder / name)
    return folder


# What is wrong, the name of the file that must be named, and a word of what was expected.
MISTAKES = {
    "nothing there": (lambda d: d / "absent", "absent", "TIFF"),
    "empty folder": (lambda d: d, "", "TIFF"),
    "no image in it": (
        lambda d: with_file(d, "notes.txt", lambda p: p.write_text("x")), "", "TIFF"),
    "not an image": (
        lambda d: with_file(d, "notes.txt", lambda p: p.write_text("x")) / "notes.txt",
        "notes.txt", "TIFF"),
    "text named TIFF": (
        lambda d: with_file(d, "a.tif", lambda p: p.write_text("x" * 99)), "a.tif", "whole"),
    "text named PNG": (
        lambda d: with_file(d, "a.png", lambda p: p.write_text("x" * 99)), "a.png", "whole"),
    "empty TIFF": (lambda d: with_file(d, "a.tif", Path.touch), "a.tif", "whole"),
    "empty JPEG": (lambda d: with_file(d, "a.jpg", Path.touch), "a.jpg", "whole"),
    "complex": (lambda d: write_tiff(d / "a.tif", STACK.astype(np.complex64)), "a.tif", "floats"),
    "bool": (lambda d: write_tiff(d / "a.tif", STACK > 9), "a.tif", "floats"),
    "plane of another size": (
        lambda d: with_file(write_planes(d / "a", STACK), "z5.tif",
                            lambda p: write_tiff(p, STACK[0, :9])), "z5.tif", "pixels"),
    "plane of another dtype": (
        lambda d: with_file(write_planes(d / "a", STACK), "z5.tif",
                            lambda p: write_tiff(p, BYTES[0])), "z5.tif", "uint16"),
    "more rows than strips": (
        lambda d: taller(write_tiff(d / "a.tif", STACK, compression="zlib")), "a.tif", "whole"),
    "more rows than tiles": (
        lambda d: taller(write_tiff(d / "a.tif", STACK, tile=(16, 16))), "a.tif", "whole"),
    "pages of two sizes": (
        lambda d: with_file(d, "a.tif", lambda p: (
            write_tiff(p, STACK[0]), write_tiff(p, STACK[1, :9], append=True))),
        "a.tif", "whole"),
    "field of another plane count": (
        lambda d: with_file(
            write_fields(d / "a", lambda p: write_tiff(p, STACK), ".tif"), "field2.tif",
            lambda p: write_tiff(p, STACK[:5])), "field2.tif", "12 planes"),
    "plane missing in a folder": (
        lambda d: with_file(
            write_fields(d / "a", lambda p: write_planes(p, STACK), ""), "field2/z3.tif",
            Path.unlink), "field2", "12 planes"),
    "single and several planes": (
        lambda d: with_file(write_planes(d / "a", STACK), "z5.tif",
                            lambda p: write_tiff(p, STACK)), "z5.tif", "z in names or in files"),
    "images next to folders": (
        lambda d: with_file(
            write_fields(d / "a", lambda p: write_planes(p, STACK), ""), "z.tif",
            lambda p: write_tiff(p, STACK)), "a", "sub-folders"),
    "JSON that is none": (
        lambda d: with_file(write_zarr(d / "a.zarr", STACK, 3), "zarr.json",
                            lambda p: p.write_text("{")), "zarr.json", "whole"),
    "JSON of another kind": (
        lambda d: with_file(write_zarr(d / "a.zarr", STACK, 2), ".zattrs",
                            lambda p: p.write_text("[1]")), ".zattrs", "whole"),
    "Zarr without its array": (
        lambda d: with_file(write_zarr(d / "a.zarr", STACK, 3), "0", shutil.rmtree),
        "a.zarr", "whole"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_faulty_file_is_refused_by_name_when_opened(
    mistake: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Any fault raises InputError with the file as subject, and nothing is printed."""
    write, name, word = MISTAKES[mistake]
    path = write(tmp_path)
    capfd.readouterr()

    with pytest.raises(InputError) as caught:
        Recording.open(path)

    assert Path(caught.value.subject).name == (name or tmp_path.name)
    assert word in caught.value.args[1]
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


# What is wrong with the pixels, the name of the file, and a word of what was expected.
PIXELS = {
    "NaN": (lambda d: write_tiff(d / "a.tif", spoiled(STACK, np.nan)), "a.tif", "finite"),
    "infinity": (lambda d: write_tiff(d / "a.tif", spoiled(STACK, np.inf)), "a.tif", "finite"),
    "beyond float32": (lambda d: write_tiff(d / "a.tif", spoiled(STACK, 1e99)), "a.tif", "finite"),
    "negative": (
        lambda d: write_tiff(d / "a.tif", spoiled(STACK, -1).astype(np.int32)), "a.tif", "65535"),
    "too large": (
        lambda d: write_tiff(d / "a.tif", spoiled(STACK, 65536).astype(np.uint32)),
        "a.tif", "65535"),
}  # fmt: skip


@pytest.mark.parametrize("fault", PIXELS)
def test_pixels_that_cannot_be_used_cost_their_field(fault: str, tmp_path: Path) -> None:
    """Pixels are read when the field is captured: the field is lost, with the file as reason."""
    write, name, word = PIXELS[fault]
    recording = Recording.open(write(tmp_path))
    microscope = ReplayMicroscope(recording, [(0.0, 0.0)])

    with pytest.raises(InputError) as caught:
        recording.read_field(0)
    with pytest.raises(CaptureError) as lost:
        microscope.stack(0.0, 0.0, [0.0])

    assert Path(caught.value.subject).name == name
    assert word in caught.value.args[1]
    assert lost.value.args == caught.value.args


def test_a_damaged_file_costs_its_field(tmp_path: Path) -> None:
    """Of three fields one is damaged: the others are read, and a warning names the file."""
    folder = write_fields(tmp_path / "a", lambda p: write_tiff(p, STACK), ".tif")
    content = (folder / "field2.tif").read_bytes()
    (folder / "field2.tif").write_bytes(content[: len(content) // 2])

    recording = Recording.open(folder)

    assert recording.field_count == 3
    assert [("field2.tif" in each) for each in recording.warnings].count(True) == 1
    np.testing.assert_array_equal(recording.read_field(0), STACK)
    np.testing.assert_array_equal(recording.read_field(2), STACK)
    with pytest.raises(InputError, match=r"field2\.tif"):
        recording.read_field(1)


def test_a_refused_permission_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read is an InputError that says so."""
    path = write_planes(tmp_path / "a", BYTES[:1], ".png") / "z1.png"

    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"z1\.png: expected .* got PermissionError"):
        Recording.open(path)


def file_of(take: str, folder: Path) -> Path:
    """Write a take and return one file of it that holds pixels."""
    path = TRUNCATED[take](folder)
    if path.is_file():
        return path
    return max((f for f in path.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


RAMP = np.tile(np.arange(64, dtype=np.uint8) * 3, (1, 48, 1))
TRUNCATED = {
    "TIFF": lambda d: write_tiff(d / "a.tif", STACK),
    "TIFF without metadata": lambda d: write_tiff(d / "a.tif", STACK, metadata=None),
    "deflated TIFF": lambda d: write_tiff(d / "a.tif", STACK, compression="zlib"),
    "LZW tiles": lambda d: write_tiff(d / "a.tif", STACK, compression="lzw", tile=(16, 16)),
    "JPEG in TIFF": lambda d: write_tiff(d / "a.tif", BYTES, compression="jpeg"),
    "OME-TIFF": lambda d: write_ome_tiff(d / "a.ome.tif", STACK),
    "ImageJ TIFF": lambda d: write_imagej(d / "a.tif", STACK),
    "BigTIFF": lambda d: write_tiff(d / "a.tif", STACK, bigtiff=True),
    "PNG": lambda d: write_planes(d / "a", STACK[:1], ".png") / "z1.png",
    "JPEG": lambda d: write_planes(d / "a", RAMP, ".jpg") / "z1.jpg",
    "Zarr v2": lambda d: write_zarr(d / "a.zarr", STACK, 2),
    "Zarr v2 plain": lambda d: write_zarr(d / "a.zarr", STACK, 2, compressed=False),
    "Zarr v3": lambda d: write_zarr(d / "a.zarr", STACK, 3),
    "Zarr v3 plain": lambda d: write_zarr(d / "a.zarr", STACK, 3, compressed=False),
}


@pytest.mark.parametrize("take", TRUNCATED)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_truncated_file_is_told(take: str, data: st.DataObject) -> None:
    """A file cut anywhere is an InputError, or what was cut held no pixels: never less silently."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = file_of(take, folder)
        path = next(folder.iterdir())
        whole = Recording.open(path)
        pixels = whole.read_field(0)
        content = file.read_bytes()
        lost = st.integers(1, len(content)) | st.integers(1, 60)
        file.write_bytes(content[: -data.draw(lost, label="bytes lost")])
        try:
            cut = Recording.open(path).read_field(0)
        except InputError:
            return

        np.testing.assert_array_equal(cut, pixels)


@pytest.mark.parametrize("take", TRUNCATED)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_damaged_file_raises_nothing_but_input_error(take: str, data: st.DataObject) -> None:
    """A file with bytes overwritten opens, or raises InputError, never what a decoder raises."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = file_of(take, folder)
        content = bytearray(file.read_bytes())
        start = data.draw(st.integers(0, len(content) - 1), label="start")
        noise = data.draw(st.binary(min_size=1, max_size=8), label="noise")
        content[start : start + len(noise)] = noise
        file.write_bytes(content)
        try:
            Recording.open(next(folder.iterdir())).read_field(0)
        except InputError:
            return


def test_a_png_with_a_wrong_byte_is_told(tmp_path: Path) -> None:
    """A PNG whose checksums do not fit is refused, though decoders fill in what they like."""
    path = write_planes(tmp_path / "a", STACK[:1], ".png") / "z1.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(InputError, match="whole"):
        Recording.open(path).read_field(0)


def test_reading_leaves_the_log_of_tifffile_as_it_was(tmp_path: Path) -> None:
    """The logger that is silenced while a file is read is given back unchanged."""
    logger = logging.getLogger("tifffile")
    before = (list(logger.handlers), logger.propagate, logger.level)

    examine(write_tiff(tmp_path / "a.tif", STACK))

    assert (list(logger.handlers), logger.propagate, logger.level) == before


@pytest.fixture
def replay(tmp_path: Path) -> ReplayMicroscope:
    """Two fields 10 µm apart, the second one grey level brighter, 2 µm between planes."""
    folder = tmp_path / "fields"
    folder.mkdir()
    for index in range(2):
        write_tiff(folder / f"{index}.tif", STACK + index)
    recording = Recording.open(folder, pixel_size_um=0.5, z_step_um=2.0)
    return ReplayMicroscope(pickle.loads(pickle.dumps(recording)), [(0.0, 0.0), (10.0, 0.0)])


@pytest.mark.parametrize(
    ("x_um", "z_um", "field", "planes"),
    [
        (0.0, [0.0, 2.0, 4.0], 0, [0, 1, 2]),
        (9.1, [22.0, 0.0], 1, [11, 0]),
        (0.0, [-1.0, 2.9, 23.0], 0, [0, 1, 11]),
    ],
    ids=["exact", "nearly, in any order", "half a step off"],
)
def test_replay_shows_the_nearest_field_and_planes(
    x_um: float, z_um: list[float], field: int, planes: list[int], replay: ReplayMicroscope
) -> None:
    """The planes nearest to the heights asked for come back, as they were recorded."""
    replay.stack(10.0 - x_um, 0.0, [0.0])  # another field was shown before
    stack = replay.stack(x_um, 0.0, z_um)

    np.testing.assert_array_equal(stack.frames, STACK[planes] + field)
    assert stack.frames.flags.c_contiguous
    assert stack.due_s == stack.began_s
    assert len(stack.due_s) == len(z_um)
    assert stack.ended_s >= stack.began_s[-1]


@pytest.mark.parametrize(
    ("x_um", "z_um"),
    [(5.0, 0.0), (-1.1, 0.0), (float("nan"), 0.0), (0.0, -1.1), (0.0, 23.1), (0.0, float("nan"))],
    ids=["between", "outside", "x NaN", "below", "above", "z NaN"],
)
def test_replay_refuses_what_was_not_recorded(
    x_um: float, z_um: float, replay: ReplayMicroscope
) -> None:
    """A place or a height that was not recorded is a CaptureError, not the nearest picture."""
    with pytest.raises(CaptureError, match="recorded"):
        replay.stack(x_um, 0.0, [z_um])


def test_replay_hands_out_copies(replay: ReplayMicroscope) -> None:
    """Writing into a stack leaves the recording and later stacks alone; closing twice is fine."""
    replay.stack(0.0, 0.0, [0.0]).frames[:] = 0
    replay.stop()
    replay.close()
    replay.close()

    np.testing.assert_array_equal(replay.stack(0.0, 0.0, [0.0]).frames, STACK[:1])


COLOUR_FILES: dict[str, Callable[[Path], Path]] = {
    "PNG": lambda d: write_planes(d / "a", COLOUR[..., ::-1], ".png"),
    "TIFF": lambda d: write_tiff(d / "a.tif", COLOUR, photometric="rgb"),
}


@pytest.mark.parametrize("kind", COLOUR_FILES)
def test_colour_images_have_three_channels(kind: str, tmp_path: Path) -> None:
    """Red, green and blue are channels if they are asked for; green focuses, and nothing is said of
    luminance."""
    recording = Recording.open(COLOUR_FILES[kind](tmp_path), colour=True)

    assert [channel.name for channel in recording.channels] == ["red", "green", "blue"]
    assert recording.reference == 1
    for channel in range(3):
        np.testing.assert_array_equal(recording.read_field(0, channel), COLOUR[..., channel])
    assert not any("luminance" in warning for warning in recording.warnings)
    chosen = Recording.open(recording.path, colour=True, channels=["blue", "red"], reference="red")
    np.testing.assert_array_equal(chosen.read_field(0, 0), COLOUR[..., 2])
    assert chosen.reference == 1


def test_grey_images_have_no_colours(tmp_path: Path) -> None:
    """Grey images are refused if their colours are asked for."""
    with pytest.raises(InputError, match="images in red, green and blue"):
        Recording.open(write_planes(tmp_path / "a", STACK, ".png"), colour=True)
