"""Are objects at seams as true as those in the middle of fields? Without and with registration.

    python benchmarks/seam_objects.py --seeds 3

Isolated ellipses are photographed field by field by a stage that misses its targets, and once as a
whole, with other photons. Objects of the mosaic are compared with those of the whole image: area
and eccentricity, as a user finds them in the table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.conditions import print_conditions
from benchmarks.registration import all_matches, placed
from benchmarks.tile_scenes import BORDER_PX, Stage, Tiles, cut_tiles, photographed, slide_shape
from imaging.detection import detect, estimate_statistics, measure
from imaging.registration import core_at, whole_offset
from scan.layout import make_placed_plan
from scan.plan import Place, ScanPlan

GRID, FIELD_PX, OVERLAP_PX = (4, 6), 320, 42
PITCH_PX = 61  # of the objects, with room between them; no whole part of a field
MIDDLE_PX = 16  # from all seams, from which an object is in the middle of its field
NEAR_PX = 16  # of an object and itself in the other image
SHAPES = ("area", "eccentricity")

Objects = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Errors:
    """Of objects in one part of the mosaic.

    Attributes
    ----------
    area : (n,) float64
        Relative error.
    eccentricity : (n,) float64
    """

    area: NDArray[np.float64]
    eccentricity: NDArray[np.float64]


def ellipses(seed: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Light of isolated ellipses (y, x) in photo-electrons, as a lens leaves them."""
    generator = np.random.default_rng([seed, 2])
    light = np.full(shape, 50, np.float32)
    for y, x in np.ndindex(*(edge // PITCH_PX for edge in shape)):
        centre = (np.array([x, y]) + 0.5) * PITCH_PX + generator.uniform(-6, 6, 2)
        box = tuple(centre.tolist()), tuple(generator.uniform(16, 32, 2)), generator.uniform(0, 180)
        cv2.ellipse(light, box, float(generator.uniform(250, 400)), -1, cv2.LINE_AA)
    grain = cv2.GaussianBlur(generator.standard_normal(shape, np.float32), (0, 0), 2.0)
    return cv2.GaussianBlur(light * np.clip(1 + 0.8 * grain, 0.8, 1.2), (0, 0), 1.0)


def objects_of(image: NDArray[np.uint16]) -> Objects:
    """What a scan would list of an image."""
    statistics = estimate_statistics([image])
    return measure(detect(image, statistics), image, np.zeros(image.shape, np.float32), statistics)


def mosaic_of(plan: ScanPlan, tiles: Tiles, offsets: Mapping[Place, Any]) -> NDArray[np.uint16]:
    """The cores of all fields, each cut out where it lies."""
    mosaic = np.empty(plan.mosaic_shape, np.uint16)
    for field in plan.fields:
        written = whole_offset(field, offsets[field.place], plan.frame_shape, plan.mosaic_shape)
        core = slice(*field.rows), slice(*field.columns)
        mosaic[core] = core_at(tiles.images[field.place], field, written)
    return mosaic


def at_seams(plan: ScanPlan, found: Objects, within_px: int) -> NDArray[np.bool_]:
    """Whether objects cross or touch a seam, or come as near."""
    near = np.zeros(len(found["label"]), bool)
    for axis in (0, 1):
        first, last = found[f"bbox-{axis}"] - within_px, found[f"bbox-{axis + 2}"] + within_px
        cores = [field.rows if axis == 0 else field.columns for field in plan.fields]
        for cut in {core[0] for core in cores} - {0}:
            near |= (first <= cut) & (last >= cut)
    return near


def errors_of(found: Objects, true: Objects, chosen: NDArray[np.bool_]) -> Errors:
    """Errors of the chosen objects against the nearest of the whole image."""
    centres, whole = (
        np.stack([each["centroid-0"], each["centroid-1"]], axis=1) for each in (found, true)
    )
    apart = np.linalg.norm(centres[chosen, None] - whole[None], axis=2)
    nearest = apart.argmin(axis=1)
    known = apart.min(axis=1) < NEAR_PX
    area, shape = (found[name][chosen][known] for name in SHAPES)
    true_area, true_shape = (true[name][nearest][known] for name in SHAPES)
    return Errors(np.abs(area / true_area - 1), np.abs(shape - true_shape))


def compare(seed: int, stage: Stage, grid: tuple[int, int] = GRID) -> dict[tuple[str, str], Errors]:
    """Errors by the rule that places fields, and by the part of the fields."""
    sizes = {"field_px": FIELD_PX, "overlap_px": OVERLAP_PX}
    light = ellipses(seed, slide_shape(grid, FIELD_PX, OVERLAP_PX))
    tiles = cut_tiles(light, grid, stage, **sizes, seed=seed)
    origins = [[(int(y), int(x)) for y, x in stripe] for stripe in tiles.origins]
    plan = make_placed_plan(origins, (FIELD_PX,) * 2, 1.0, registered=True)
    whole = photographed(np.random.default_rng([seed, 3]), light)
    first = [BORDER_PX - origin for origin in plan.fields[0].origin_px]  # of the mosaic
    shown = (slice(a, a + size) for a, size in zip(first, plan.mosaic_shape, strict=True))
    true = objects_of(whole[tuple(shown)])
    matches, _ = all_matches(plan, tiles)
    rules = {
        "stage's word": {field.place: (0.0, 0.0) for field in plan.fields},
        "registered": placed(plan, matches),
    }
    errors = {}
    for name, offsets in rules.items():
        found = objects_of(mosaic_of(plan, tiles, offsets))
        inside = ~at_border(found, plan.mosaic_shape)
        parts = {
            "at seams": at_seams(plan, found, 1),
            "in the middle": ~at_seams(plan, found, MIDDLE_PX),
        }
        for part, chosen in parts.items():
            errors[name, part] = errors_of(found, true, chosen & inside)
    return errors


def at_border(found: Objects, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether objects come near the border of the mosaic, which cuts them."""
    first = np.minimum(found["bbox-0"], found["bbox-1"]) < MIDDLE_PX
    last = [found[f"bbox-{axis + 2}"] > shape[axis] - MIDDLE_PX for axis in (0, 1)]
    return np.asarray(first | last[0] | last[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--error-px", type=float, default=3.0, help="of the stage")
    options = parser.parse_args()
    print_conditions(grid=GRID, field_px=FIELD_PX, overlap_px=OVERLAP_PX, **vars(options))
    heads = ("stage stands at", "placed by", "objects", "n", "area: median, %", "95 %")
    print(f"| {' | '.join(heads)} | eccentricity: median | 95 % |\n{'|---' * 8}|")
    for whole in (True, False):
        stage = Stage(options.error_px, whole=whole)
        found = [compare(seed, stage) for seed in range(1, options.seeds + 1)]
        for name, part in found[0]:
            area = np.concatenate([each[name, part].area for each in found])
            shape = np.concatenate([each[name, part].eccentricity for each in found])
            (a50, a95), (e50, e95) = (np.percentile(each, (50, 95)) for each in (area, shape))
            numbers = f"{len(area)} | {100 * a50:.1f} | {100 * a95:.1f} | {e50:.3f} | {e95:.3f}"
            at = "whole pixels" if whole else "fractions"
            print(f"| {at} | {name} | {part} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
