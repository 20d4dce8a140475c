"""Field borders leave no trace: fields of any size give what the mosaic in one piece gives."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from imaging.statistics import DetectionStatistics
from scan.layout import make_plan
from scan.plan import ScanPlan
from tests.imaging.fields import (
    Scene,
    Table,
    assert_no_trace_of_borders,
    by_fields,
    in_one_piece,
)

DIAMETER_PX = 24
OVERLAP_PX = 2 * DIAMETER_PX
STATISTICS = DetectionStatistics(100.0, 4.0, 200.0, float(DIAMETER_PX))
SIZES = {256: (3, 4), 512: (1, 3)}  # fields down and across


def plan_of(edge_px: int, counts: tuple[int, int]) -> ScanPlan:
    return make_plan((counts[1],) * counts[0], (edge_px,) * 2, OVERLAP_PX, 0.5, steered=True)


def crowd(shape: tuple[int, int], seed: int) -> NDArray[np.float64]:
    """Light of ellipses that cover a fifth of the mosaic: touching, clumped, cut by its edge."""
    generator = np.random.default_rng(seed)
    light = np.zeros(shape)
    for centre in generator.uniform(0, shape, (round(np.prod(shape) / 2300), 2)):
        size_px = generator.uniform(0.7, 1.3, 2) * DIAMETER_PX
        add_ellipse(light, tuple(centre), tuple(size_px), 100 * 4 ** generator.uniform())
    return light


def add_ellipse(
    light: NDArray[np.float64],
    centre: tuple[float, float],
    size_px: tuple[float, float],
    brightness: float,
) -> None:
    """Draw an upright ellipse in place, brightest in its middle, so that it is one object."""
    reach = int(max(size_px))
    rows, columns = (slice(max(0, int(c) - reach), int(c) + reach) for c in centre)
    window = light[rows, columns]
    y = np.arange(window.shape[0])[:, None] + rows.start - centre[0]
    x = np.arange(window.shape[1]) + columns.start - centre[1]
    far = 2 * np.hypot(y / size_px[0], x / size_px[1])
    body = np.clip((1 - far) * min(size_px) / 2 + 0.5, 0, 1) * np.exp(-(far**2) / 2)
    light[rows, columns] = np.maximum(window, brightness * body)


def photograph(light: NDArray[np.float64]) -> Scene:
    noise = np.random.default_rng(0).normal(0, 4, light.shape)
    image = np.clip(ndimage.gaussian_filter(light, 1.0) + 100 + noise, 0, 65535).astype(np.uint16)
    return image, (image % 7).astype(np.float32)


def length_of(table: Table) -> NDArray[np.int64]:
    """The longer side of every object's box in pixels."""
    return np.maximum(table["bbox-2"] - table["bbox-0"], table["bbox-3"] - table["bbox-1"])


@pytest.mark.parametrize("edge_px", SIZES)
def test_fields_of_any_size_equal_the_mosaic_in_one_piece(edge_px: int) -> None:
    """With an overlap of two diameters labels and table are the whole mosaic's, bit by bit."""
    plan = plan_of(edge_px, SIZES[edge_px])
    scene = photograph(crowd(plan.mosaic_shape, edge_px))

    table, at_edge = assert_no_trace_of_borders(scene, STATISTICS, plan)

    assert len(table["label"]) > 150
    flagged = table["touches_border"]
    assert (length_of(table)[flagged & ~at_edge] > OVERLAP_PX).all()  # and no other


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
@pytest.mark.parametrize("beside_px", range(-84, 85, 21))
def test_an_object_three_times_the_overlap_is_not_cut_silently(beside_px: int, axis: int) -> None:
    """Wherever it lies it is counted once, and flagged unless its pixels are the whole mosaic's."""
    plan = plan_of(256, (2, 2))
    border = plan.stripes[0][0].rows[1]
    light = np.zeros(plan.mosaic_shape)
    add_ellipse(light, (border + beside_px, 100), (3 * OVERLAP_PX, DIAMETER_PX), 900)
    add_ellipse(light, (border, 170), (DIAMETER_PX, DIAMETER_PX), 300)
    scene = photograph(light if axis == 0 else light.T.copy())

    labels, table = by_fields(scene, STATISTICS, plan)

    whole, _ = in_one_piece(scene, STATISTICS)
    usual, large = np.argsort(table["area"])  # two, each counted once
    first, last = table[f"bbox-{axis}"][large], table[f"bbox-{axis + 2}"][large]
    assert last - first > 2.5 * OVERLAP_PX
    assert not table["touches_border"][usual]
    assert table["touches_border"][large] == (first < border < last)
    assert table["touches_border"][large] or np.array_equal(labels, whole)


def test_an_object_larger_than_the_halo_is_flagged_everywhere() -> None:
    """Every counted piece of an object larger than every region is flagged."""
    plan = plan_of(256, (3, 1))
    light = np.zeros(plan.mosaic_shape)
    add_ellipse(light, (plan.mosaic_shape[0] / 2, 100), (10 * OVERLAP_PX, DIAMETER_PX), 2000)

    _, table = by_fields(photograph(light), STATISTICS, plan)

    assert len(table["label"]) > 0
    assert table["touches_border"].all()
