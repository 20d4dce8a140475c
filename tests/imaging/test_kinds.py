"""Objects of many kinds are counted, and fields of any size count the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks import object_scenes as scenes
from imaging.detection import detect, estimate_statistics, measure
from imaging.statistics import DetectionStatistics

CORE_PX = 128
Objects = dict[bytes, tuple[bytes, ...]]

KINDS: dict[str, Callable[[], scenes.Scene]] = {
    "rods of 1:2": lambda: scenes.rods(7, 2, 12, 256, textured=False),
    "rods of 1:4": lambda: scenes.rods(7, 4, 9, 256, textured=False),
    "rods of 1:6": lambda: scenes.rods(7, 6, 9, 320, textured=False),
    "textured rods of 1:5": lambda: scenes.rods(7, 5, 12, 320, textured=True),
    "pairs of balls": lambda: scenes.clumps(7, "pair", "ball", 20, 300),
    "flat triangles": lambda: scenes.clumps(7, "triangle", "flat", 14, 300),
    "flat chains of 4": lambda: scenes.clumps(7, "chain of 4", "flat", 16, 360),
    "bent chains of balls": lambda: scenes.clumps(7, "bent chain of 5", "ball", 14, 340),
    "flat rosettes": lambda: scenes.clumps(7, "rosette of 7", "flat", 14, 300),
    "rimmed triangles": lambda: scenes.clumps(7, "triangle", "rimmed", 20, 300),
    "sizes of 1:2": lambda: scenes.sizes(7, 2, 10, textured=False),
    "sizes of 1:4": lambda: scenes.sizes(7, 4, 10, textured=False),
    "sizes of 1:6": lambda: scenes.sizes(7, 6, 10, textured=False),
    "rings": lambda: scenes.rings(7, 34, 4, 300),
    "thick rings": lambda: scenes.rings(7, 40, 10, 300),
}


@pytest.mark.parametrize("kind", KINDS)
def test_objects_of_all_kinds_are_counted(kind: str) -> None:
    """Rods are one object each, touching discs are two, a ring is one: the same rules for all."""
    image, truth = KINDS[kind]()

    labels = detect(image, estimate_statistics([image]))

    number = len(np.unique(truth)) - 1
    assert labels.max() == number == matched(truth, labels)


def matched(truth: np.ndarray, labels: np.ndarray) -> int:
    """Count the objects with an intersection over union above one half."""
    shared = np.histogram2d(
        truth.ravel(), labels.ravel(), [np.arange(truth.max() + 2), np.arange(labels.max() + 2)]
    )[0]
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    return int((shared[1:, 1:] > 0.5 * union[1:, 1:]).sum())


def objects_in(
    image: np.ndarray, statistics: DetectionStatistics, core: tuple[slice, slice]
) -> Objects:
    """Pixels and measures, to the bit, of the objects whose centroid lies in a core."""
    halo = statistics.halo_px
    seen = tuple(slice(max(0, s.start - halo), s.stop + halo) for s in core)
    origin = (seen[0].start, seen[1].start)
    part = image[seen]
    labels = detect(part, statistics, origin)
    table = measure(labels, part, part.astype(np.float32), statistics)
    for name in table:
        if name.startswith(("bbox", "centroid")):
            table[name] = table[name] + origin[int(name[-1]) % 2]
    owned = np.ones(len(table["label"]), bool)
    for axis, span in enumerate(core):
        owned &= (span.start <= table[f"centroid-{axis}"]) & (table[f"centroid-{axis}"] < span.stop)
    pixels = {n: (np.argwhere(labels == n) + origin).tobytes() for n in table["label"][owned]}
    columns = [column for name, column in table.items() if name != "label"]
    return {pixels[n]: tuple(column[n - 1].tobytes() for column in columns) for n in pixels}


@pytest.mark.parametrize(
    "kind",
    ["rods of 1:6", "textured rods of 1:5", "flat rosettes", "rimmed triangles", "sizes of 1:4",
     "rings"],
)  # fmt: skip
def test_field_borders_leave_no_trace_on_any_kind(kind: str) -> None:
    """Fields with a halo give the objects of the mosaic in one piece, each once, to the bit."""
    image, _ = KINDS[kind]()
    statistics = estimate_statistics([image])
    whole = objects_in(image, statistics, (slice(0, image.shape[0]), slice(0, image.shape[1])))
    edges = [range(0, size, CORE_PX) for size in image.shape]

    fields = [
        objects_in(image, statistics, (slice(row, row + CORE_PX), slice(column, column + CORE_PX)))
        for row in edges[0]
        for column in edges[1]
    ]

    assert sum(map(len, fields)) == len(whole) > 8
    assert {key: row for part in fields for key, row in part.items()} == whole
