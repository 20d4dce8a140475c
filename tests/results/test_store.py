"""The store: valid OME-Zarr that others open, written in disjoint chunks."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr
from ome_zarr_models import open_ome_zarr

from imaging.pyramid import mean_pyramid, nearest_pyramid
from results.store import (
    DEPTH,
    LABELS,
    STACKED,
    checksums_of,
    create_mosaics,
    fit_display_windows,
    level_count,
    read_region,
    write_core,
)
from results.verification import remove_temp_files
from scan.errors import StorageError
from scan.layout import make_plan
from scan.plan import ScanPlan

IMAGES = [STACKED, DEPTH, LABELS]


@pytest.fixture
def plan() -> ScanPlan:
    """Two stripes of three fields; odd frames make odd edges."""
    return make_plan((3, 3), (203, 203), 40, 0.325, steered=True)


def create(folder: Path, plan: ScanPlan) -> None:
    """Empty mosaics for a plan."""
    create_mosaics(folder, plan, np.dtype(np.uint16))


def pixels_of(folder: Path) -> bytes:
    """All pixels of the mosaics on disk."""
    return b"".join(zarr.open_group(folder / name, mode="r")["0"][:].tobytes() for name in IMAGES)


def fill(folder: Path, plan: ScanPlan, order: list[int]) -> np.ndarray:
    """Write every core in some order; each pixel carries its own place. Returns the mosaic."""
    rows, columns = np.indices(plan.mosaic_shape)
    truth = (rows * 97 + columns).astype(np.uint16)
    for index in order:
        field = plan.fields[index]
        core = slice(*field.rows), slice(*field.columns)
        levels = level_count(folder / STACKED)
        write_core(folder / STACKED, *core, mean_pyramid(truth[core], levels))
        write_core(folder / DEPTH, *core, mean_pyramid(truth[core].astype(np.float32), levels))
        write_core(folder / LABELS, *core, nearest_pyramid(truth[core].astype(np.uint32), levels))
    return truth


@pytest.mark.parametrize("name", IMAGES)
def test_two_validators_accept_the_store(tmp_path: Path, plan: ScanPlan, name: str) -> None:
    """Both public validators of OME-Zarr 0.5 accept image, depth and labels."""
    create(tmp_path, plan)

    yaozarrs.validate_zarr_store(str(tmp_path / name))
    assert open_ome_zarr(zarr.open_group(tmp_path / name, mode="r"))


def test_sizes_are_physical(tmp_path: Path, plan: ScanPlan) -> None:
    """Axes are y and x in micrometers, and a coarser level's pixels lie between the finer ones."""
    create(tmp_path, plan)

    ome = json.loads((tmp_path / STACKED / "zarr.json").read_text())["attributes"]["ome"]
    (multiscale,) = ome["multiscales"]
    scale, shift = multiscale["datasets"][1]["coordinateTransformations"]

    assert [(a["name"], a["unit"]) for a in multiscale["axes"]] == [
        ("y", "micrometer"),
        ("x", "micrometer"),
    ]
    assert scale["scale"] == [0.65, 0.65]
    assert shift["translation"] == [0.1625, 0.1625]


def ome_of(folder: Path, name: str) -> dict[str, Any]:
    """The OME metadata of an image."""
    return json.loads((folder / name / "zarr.json").read_text())["attributes"]["ome"]


def window_of(folder: Path, name: str) -> dict[str, float]:
    """The display window of an image."""
    (channel,) = ome_of(folder, name)["omero"]["channels"]
    assert channel.keys() >= {"color", "label", "active"}
    return channel["window"]


def test_the_first_pixel_lies_where_the_stage_was(tmp_path: Path, plan: ScanPlan) -> None:
    """The stage position of the first pixel, x and y, is the translation of every image."""
    create_mosaics(tmp_path, plan, np.dtype(np.uint16), origin_um=(1000.0, -20.0))

    for name in IMAGES:
        (multiscale,) = ome_of(tmp_path, name)["multiscales"]
        shifts = [level["coordinateTransformations"][1] for level in multiscale["datasets"]]
        assert shifts[0]["translation"] == [-20.0, 1000.0]
        assert shifts[1]["translation"] == [-20.0 + 0.1625, 1000.0 + 0.1625]


WINDOWS = {  # type of the image, its first window
    "8 bit": (np.uint8, {"start": 0, "end": 255, "min": 0, "max": 255}),
    "16 bit": (np.uint16, {"start": 0, "end": 4095, "min": 0, "max": 65535}),
    "floating point": (np.float32, {"start": 0.0, "end": 4095, "min": 0.0, "max": 4095.0}),
}


@pytest.mark.parametrize(("kind", "window"), WINDOWS.values(), ids=WINDOWS)
def test_an_empty_image_has_a_window(
    tmp_path: Path, plan: ScanPlan, kind: type, window: dict[str, float]
) -> None:
    """Before its pixels are known an image has a window in which those of a camera are visible."""
    create_mosaics(tmp_path, plan, np.dtype(kind))

    assert window_of(tmp_path, STACKED) == window


def test_windows_fit_the_pixels(tmp_path: Path, plan: ScanPlan) -> None:
    """The windows of image and depth span most of their pixels; they are valid, the same when they
    are made again, and kept when the mosaics are created again. No pixel changes."""
    create(tmp_path, plan)
    truth = fill(tmp_path, plan, [0, 1, 2, 3, 4, 5])
    before = pixels_of(tmp_path)

    fit_display_windows(tmp_path)
    windows = [window_of(tmp_path, name) for name in (STACKED, DEPTH)]
    fit_display_windows(tmp_path)
    create(tmp_path, plan)

    assert windows == [window_of(tmp_path, name) for name in (STACKED, DEPTH)]
    for window in windows:
        assert window["min"] <= window["start"] < window["end"] <= window["max"]
        assert window["start"] == pytest.approx(np.percentile(truth, 0.5), rel=0.1, abs=200)
        assert window["end"] == pytest.approx(np.percentile(truth, 99.8), rel=0.1)
    assert (windows[0]["min"], windows[0]["max"]) == (0, 65535)
    for name in IMAGES:
        yaozarrs.validate_zarr_store(str(tmp_path / name))
        assert open_ome_zarr(zarr.open_group(tmp_path / name, mode="r"))
    assert pixels_of(tmp_path) == before


@pytest.mark.parametrize("value", [0, 700])
def test_a_uniform_image_has_a_window(tmp_path: Path, plan: ScanPlan, value: int) -> None:
    """The ends of a window differ, also where all pixels are equal or none was written."""
    create(tmp_path, plan)
    for field in plan.fields:
        core = slice(*field.rows), slice(*field.columns)
        pixels = np.full([span.stop - span.start for span in core], value, np.uint16)
        for name, kind in ((STACKED, np.uint16), (DEPTH, np.float32)):
            levels = mean_pyramid(pixels.astype(kind), level_count(tmp_path / name))
            write_core(tmp_path / name, *core, levels)

    fit_display_windows(tmp_path)

    for name in (STACKED, DEPTH):
        window = window_of(tmp_path, name)
        assert window["start"] <= value < window["end"]


def test_cores_make_up_the_mosaic(tmp_path: Path, plan: ScanPlan) -> None:
    """What zarr-python reads is what the tasks wrote, on the finest level and above."""
    create(tmp_path, plan)

    truth = fill(tmp_path, plan, [0, 1, 2, 3, 4, 5])

    group = zarr.open_group(tmp_path / STACKED, mode="r")
    np.testing.assert_array_equal(group["0"][:], truth)
    for level in range(1, plan.levels):
        assert group[str(level)].shape == tuple(-(-n // 2**level) for n in truth.shape)
        assert group[str(level)][:].all()
    np.testing.assert_array_equal(
        read_region(tmp_path / STACKED, slice(10, 50), slice(100, 190)), truth[10:50, 100:190]
    )


def test_the_order_of_writing_does_not_matter(tmp_path: Path, plan: ScanPlan) -> None:
    """Cores written in another order, or twice, give the same pixels."""
    found = []
    for name, order in {"a": [0, 1, 2, 3, 4, 5], "b": [5, 3, 3, 1, 0, 2, 4]}.items():
        folder = tmp_path / name
        folder.mkdir()
        create(folder, plan)
        fill(folder, plan, order)
        found.append(pixels_of(folder))

    assert found[0] == found[1] != bytes(len(found[0]))


def test_equal_pixels_have_equal_checksums(tmp_path: Path, plan: ScanPlan) -> None:
    """What was written is read back with its checksum, for every core and type."""
    create(tmp_path, plan)
    rng = np.random.default_rng(0)

    for field in plan.fields:
        core = slice(*field.rows), slice(*field.columns)
        shape = [span.stop - span.start for span in core]
        for name, kind in ((STACKED, np.uint16), (DEPTH, np.float32), (LABELS, np.uint32)):
            pixels = rng.integers(0, 2, shape).astype(kind)
            levels = mean_pyramid(pixels, level_count(tmp_path / name))
            written = write_core(tmp_path / name, *core, levels)
            assert [written] == checksums_of(tmp_path / name, core[0], [core[1]])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a chunk cut short": lambda chunk: chunk.write_bytes(chunk.read_bytes()[:-7]),
    "a chunk gone": Path.unlink,
    "a chunk of zeros": lambda chunk: chunk.write_bytes(bytes(chunk.stat().st_size)),
    "an empty chunk": lambda chunk: chunk.write_bytes(b""),
}


@pytest.mark.parametrize("level", ["0", "1"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_chunk_is_noticed(
    tmp_path: Path, plan: ScanPlan, damage: Callable[[Path], object], level: str
) -> None:
    """A chunk that is not as it was written gives its core, and no other, another checksum."""
    create(tmp_path, plan)
    fill(tmp_path, plan, list(range(6)))
    cores = [(slice(*field.rows), slice(*field.columns)) for field in plan.fields]
    before = [checksums_of(tmp_path / DEPTH, rows, [columns]) for rows, columns in cores]

    damage(max((tmp_path / DEPTH / level / "c").rglob("*/*")))

    after = [checksums_of(tmp_path / DEPTH, rows, [columns]) for rows, columns in cores]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True] * 5 + [False]


def test_creating_again_keeps_the_pixels(tmp_path: Path, plan: ScanPlan) -> None:
    """Mosaics that are there stay, pixel by pixel, also where an array's description is torn."""
    create(tmp_path, plan)
    fill(tmp_path, plan, list(range(6)))
    before = pixels_of(tmp_path)
    for level in ("0", "1"):
        (tmp_path / DEPTH / level / "zarr.json").write_text('{"zarr_format": 3, "nod')

    create(tmp_path, plan)

    assert pixels_of(tmp_path) == before
    for name in IMAGES:
        assert open_ome_zarr(zarr.open_group(tmp_path / name, mode="r"))


def test_a_full_disk_is_reported_with_numbers(tmp_path: Path, plan: ScanPlan) -> None:
    """A core that does not fit raises one error with the bytes needed and free; no part of a chunk
    is left behind."""
    create(tmp_path, plan)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    field = plan.fields[0]
    core = slice(*field.rows), slice(*field.columns)
    noise = np.random.default_rng(0).normal(size=(160, 160)).astype(np.float32)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(
            StorageError, match=r"expected to write \d+ bytes, got .*\d+ bytes free"
        ):
            write_core(tmp_path / DEPTH, *core, mean_pyramid(noise, level_count(tmp_path / DEPTH)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    remove_temp_files(tmp_path)
    yaozarrs.validate_zarr_store(str(tmp_path / DEPTH))
    assert not list(tmp_path.rglob("*.__lock"))


def test_a_removed_store_is_not_created_again(tmp_path: Path, plan: ScanPlan) -> None:
    """A write into a removed folder raises an error and does not create it."""
    create(tmp_path, plan)
    fill(tmp_path, plan, [0])
    shutil.rmtree(tmp_path / STACKED)

    with pytest.raises(StorageError, match="No such file or directory"):
        fill(tmp_path, plan, [0])
    assert not (tmp_path / STACKED).exists()


def test_a_store_killed_between_any_two_files_is_finished(tmp_path: Path, plan: ScanPlan) -> None:
    """However many files were written, and with the next one half written as a temporary file, the
    store is finished by a second run: valid, and equal to the undisturbed one."""
    create(tmp_path / "whole", plan)
    fill(tmp_path / "whole", plan, list(range(6)))
    files = [path for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    files.sort(key=lambda path: path.stat().st_mtime_ns)
    wanted = pixels_of(tmp_path / "whole")

    for count in range(0, len(files), 3):
        torn = tmp_path / f"killed after {count}"
        for path in files[: count + 1]:
            copy = torn / path.relative_to(tmp_path / "whole")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        copy.rename(copy.with_name(f"{copy.name}.__lock")).write_bytes(path.read_bytes()[:-5])

        remove_temp_files(torn)
        create(torn, plan)
        fill(torn, plan, list(range(6)))

        for name in IMAGES:
            yaozarrs.validate_zarr_store(str(torn / name))
        assert pixels_of(torn) == wanted
        assert not list(torn.rglob("*.__lock"))
