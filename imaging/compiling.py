"""The compiled loops of detection, in parts that several processes can share."""

from collections.abc import Callable

import numpy as np

from imaging.detection import DISC_FACTOR, LIGHT, measure, regions_of, rules_of
from imaging.detection_kernels import (
    fill_rings,
    large_regions,
    merge_regions,
    split_discs,
    split_regions,
)
from imaging.statistics import DetectionStatistics


def detection_parts(image: np.ndarray) -> dict[str, Callable[[], object]]:
    """Return calls that compile a part of detection each, the longest first.

    Parameters
    ----------
    image : ndarray, (y, x)
        Any image; of each loop there is one version for all types of pixels.
    """
    statistics = DetectionStatistics(100.0, 10.0, 100.0, 10.0)
    levels, regions, boxes, areas = regions_of(image, statistics, (0, 0))
    rules, empty, core = rules_of(statistics), np.zeros_like(regions), regions > 0
    depth, none = np.zeros(image.shape, np.float32), np.zeros(len(boxes) + 1, np.int32)

    def split() -> None:
        large = large_regions(regions, boxes, rules, rules)
        split_regions(levels, regions, boxes, core, LIGHT, rules, rules, large)

    return {
        "merging": lambda: merge_regions(empty, levels, regions, boxes, none, rules),
        "splitting": split,
        "discs": lambda: split_discs(empty, levels, 0, DISC_FACTOR, rules),
        "rings": lambda: fill_rings(levels, regions.copy(), boxes, areas, 0.0, rules),
        "measuring": lambda: measure(empty, image, depth, statistics),
    }
