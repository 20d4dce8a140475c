"""Ownership: fields number the same objects alike, and each row belongs to one of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation
from skimage.draw import disk
from skimage.measure import label, regionprops_table

from imaging.ownership import HaloGeometry, core_of, region_with_halo, rows_in_core, scan_numbers
from scan.layout import label_dtype, make_plan
from scan.plan import ScanPlan

COLUMNS = ("label", "centroid", "bbox")


def plan_of(stripes: int, fields: int) -> ScanPlan:
    """Fields of 96 pixels with an overlap of 32."""
    return make_plan((fields,) * stripes, (96, 96), 32, 0.5, steered=True)


def scene(shape: tuple[int, int], seed: int) -> np.ndarray:
    """A mosaic (y, x) bool with separate discs of 2 to 9 pixels radius, some cut by its edge."""
    generator = np.random.default_rng(seed)
    image = np.zeros(shape, bool)
    for _ in range(40):
        centre = generator.uniform(0, shape)
        spot = disk(centre, generator.uniform(2, 9), shape=shape)
        if not binary_dilation(image, np.ones((3, 3)))[spot].any():  # nor by their corners
            image[spot] = True
    return image


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_fields_together_equal_the_whole_mosaic(stripes: int, fields: int, seed: int) -> None:
    """Cores and rows of all fields make up the labels and the table of the mosaic in one piece."""
    plan = plan_of(stripes, fields)
    mosaic = scene(plan.mosaic_shape, seed)
    whole = (slice(0, mosaic.shape[0]), slice(0, mosaic.shape[1]))
    found = label(mosaic)
    expected = scan_numbers(found, whole, plan.mosaic_shape)[found]

    halo = HaloGeometry(32, 0, plan.mosaic_shape)
    stitched, numbers = np.zeros(mosaic.shape, label_dtype(plan.mosaic_shape)), []
    for field in plan.fields:
        region = region_with_halo(field, 32, plan.surroundings(field))
        labels = label(mosaic[region])
        scanwide = scan_numbers(labels, region, plan.mosaic_shape)
        stitched[slice(*field.rows), slice(*field.columns)] = scanwide[
            core_of(labels, field, region)
        ]
        table = regionprops_table(labels, properties=COLUMNS)
        numbers += rows_in_core(table, scanwide, field, region, 0.5, halo)["label"].tolist()

    np.testing.assert_array_equal(stitched, expected)
    assert sorted(numbers) == sorted(set(np.unique(expected)) - {0})


def test_rows_are_in_mosaic_coordinates() -> None:
    """A row has the position of its object in the mosaic and on the slide."""
    plan = plan_of(2, 2)
    field = plan.stripes[1][1]
    region = region_with_halo(field, 16, plan.surroundings(field))
    labels = np.zeros((region[0].stop - region[0].start, region[1].stop - region[1].start), int)
    labels[30:33, 40:43] = 1
    table = regionprops_table(labels, properties=COLUMNS)

    numbers = scan_numbers(labels, region, plan.mosaic_shape)
    rows = rows_in_core(table, numbers, field, region, 0.5, HaloGeometry(16, 0, plan.mosaic_shape))

    top, left = 30 + region[0].start, 40 + region[1].start
    assert (rows["bbox-0"], rows["bbox-3"]) == (top, left + 3)
    assert (rows["y_um"], rows["x_um"]) == (0.5 * (top + 1), 0.5 * (left + 1))
    assert rows["label"] == top * plan.mosaic_shape[1] + left + 1


def test_cut_objects_are_marked() -> None:
    """An object that reaches the end of the region is marked, one inside is not."""
    plan = plan_of(1, 1)
    labels = np.zeros(plan.mosaic_shape, int)
    labels[0:5, 20:25], labels[40:45, 40:45] = 1, 2
    region = region_with_halo(plan.fields[0], 16, plan.surroundings(plan.fields[0]))
    table = regionprops_table(labels, properties=COLUMNS)

    numbers = scan_numbers(labels, region, plan.mosaic_shape)
    halo = HaloGeometry(16, 0, plan.mosaic_shape)
    rows = rows_in_core(table, numbers, plan.fields[0], region, 1.0, halo)

    assert rows["touches_border"].tolist() == [True, False]


def test_objects_cut_by_a_lost_field_are_marked() -> None:
    """An object that ends where a neighbour was not written is marked; beside one that was, not."""
    plan = plan_of(2, 2)
    field = plan.fields[0]
    region = region_with_halo(field, 16, plan.surroundings(field))
    labels = np.zeros([span.stop - span.start for span in region], int)
    last = field.rows[1]
    labels[last - 5 : last, 20:25], labels[20:25, last - 5 : last] = 1, 2
    table = regionprops_table(labels, properties=COLUMNS)
    numbers = scan_numbers(labels, region, plan.mosaic_shape)
    gaps = plan.gaps(field, lost=[plan.stripes[1][0]])

    rows = rows_in_core(
        table, numbers, field, region, 1.0, HaloGeometry(16, 0, plan.mosaic_shape, gaps)
    )

    assert gaps == (((last, plan.mosaic_shape[0]), field.columns),)
    assert rows["touches_border"].tolist() == [True, False]


def test_numbers_fit_any_slide() -> None:
    """A mosaic with more pixels than 32 bits count gets 64-bit labels."""
    assert label_dtype((60_000, 60_000)) == np.uint32
    assert label_dtype((70_000, 70_000)) == np.uint64
