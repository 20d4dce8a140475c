"""The store: valid OME-Zarr that others open, written in disjoint chunks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr
from ome_zarr_models import open_ome_zarr

from imaging.pyramid import mean_pyramid, nearest_pyramid
from results.digest import digest_of
from results.store import (
    DEPTH,
    LABELS,
    STACKED,
    create_mosaics,
    level_count,
    read_region,
    write_core,
)
from scan.plan import ScanPlan, make_plan

IMAGES = [STACKED, DEPTH, LABELS]


@pytest.fixture
def plan() -> ScanPlan:
    """Two stripes of three fields; odd frames make odd edges."""
    return make_plan((3, 3), (203, 203), 40, 0.325, steered=True)


def create(folder: Path, plan: ScanPlan) -> None:
    """Empty mosaics for a plan."""
    create_mosaics(folder, plan, np.dtype(np.uint16), np.dtype(np.uint32))


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


def test_the_order_of_writing_leaves_no_trace(tmp_path: Path, plan: ScanPlan) -> None:
    """Cores written in another order, or twice, give the same digest; one changed row does not."""
    digests = []
    for name, order in {"a": [0, 1, 2, 3, 4, 5], "b": [5, 3, 3, 1, 0, 2, 4]}.items():
        folder = tmp_path / name
        folder.mkdir()
        create(folder, plan)
        fill(folder, plan, order)
        (folder / "objects.csv").write_text("label\n1\n")
        digests.append(digest_of(folder))
    (folder / "objects.csv").write_text("label\n2\n")

    assert digests[0] == digests[1] != digest_of(folder)
