"""Detection in the fields of a plan, as a scan does it, and in the mosaic in one piece."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.detection import detect, measure
from imaging.ownership import HaloGeometry, core_of, region_with_halo, rows_in_core, scan_numbers
from imaging.statistics import DetectionStatistics
from scan.layout import label_dtype
from scan.plan import Field, ScanPlan

Table = dict[str, NDArray[Any]]
Scene = tuple[NDArray[np.uint16], NDArray[np.float32]]  # image, height


def look(
    scene: Scene, statistics: DetectionStatistics, field: Field, seen: tuple[slice, slice]
) -> tuple[NDArray[Any], Table]:
    """Labels of a field's core and rows of its objects, as a scan makes them."""
    image, height = scene
    labels = detect(image[seen], statistics, (seen[0].start, seen[1].start))
    table = measure(labels, image[seen], height[seen], statistics)
    numbers = scan_numbers(labels, seen, image.shape)
    halo = HaloGeometry(statistics.halo_px, statistics.filter_reach_px, image.shape)
    rows = rows_in_core(table, numbers, field, seen, 0.5, halo)
    return numbers[core_of(labels, field, seen)], rows


def by_fields(
    scene: Scene, statistics: DetectionStatistics, plan: ScanPlan
) -> tuple[NDArray[Any], Table]:
    """Label image and table of a scan in fields."""
    labels = np.zeros(scene[0].shape, label_dtype(scene[0].shape))
    tables = []
    for field in plan.fields:
        seen = region_with_halo(field, statistics.halo_px, plan.surroundings(field))
        core = slice(*field.rows), slice(*field.columns)
        labels[core], rows = look(scene, statistics, field, seen)
        tables.append(rows)
    return labels, joined(tables)


def in_one_piece(scene: Scene, statistics: DetectionStatistics) -> tuple[NDArray[Any], Table]:
    """Label image and table of the mosaic, processed at once."""
    height, width = scene[0].shape
    field = Field(0, 0, (0, 0), (0, height), (0, width), 0.0, 0.0)
    labels, rows = look(scene, statistics, field, (slice(0, height), slice(0, width)))
    return labels, joined([rows])


def joined(tables: list[Table]) -> Table:
    """Rows in the order of their labels; the field they come from is dropped."""
    whole = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    order = np.argsort(whole["label"], kind="stable")
    return {k: column[order] for k, column in whole.items() if k not in ("stripe", "field")}


def assert_no_trace_of_borders(
    scene: Scene, statistics: DetectionStatistics, plan: ScanPlan
) -> tuple[Table, NDArray[np.bool_]]:
    """Assert that labels and table are those of one piece, to the bit, but for `touches_border`.

    Returns the table, and which objects touch the edge of the mosaic.
    """
    labels, table = by_fields(scene, statistics, plan)
    expected_labels, expected = in_one_piece(scene, statistics)

    np.testing.assert_array_equal(labels, expected_labels)
    flagged, at_edge = table["touches_border"], expected.pop("touches_border")
    assert flagged[at_edge].all()
    assert {name: table[name].tobytes() for name in expected} == {
        name: column.tobytes() for name, column in expected.items()
    }
    return table, at_edge
