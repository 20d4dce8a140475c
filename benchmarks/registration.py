"""Registration: our rule beside others, on fields of a known slide; see --help.

Fields are cut out of a slide by a stage that misses its targets, each with photons of its own. A
seam is counted where the overlap shows enough, by an oracle: the scatter that noise allows at the
true shift is below 0.3 px. It is bad if two fields lie wrong against each other by over 1.5 px.
"causal" places each field without looking ahead, "all at once" after the whole scan.

--picture FILE cuts an image at whole pixels and says how true the mosaic is. --peers PYTHON runs
ASHLAR, m2stitch and multiview-stitcher in an environment of their own, as far as they are there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.conditions import print_conditions
from benchmarks.tile_scenes import Stage, Tiles, cut_tiles, slide, slide_shape
from imaging import matching, placement
from imaging.registration import core_at, match_overlap, whole_offset
from scan.layout import make_plan
from scan.matches import Match, Offset, Pair, Placement
from scan.plan import Place, ScanPlan

Matches = dict[Pair, Match | None]
Offsets = Mapping[Place, Offset]
BAD_PX = 1.5
SEEN_PX = 0.3  # scatter at the true shift, from which a seam shows too little
CASES: dict[str, Stage] = {
    "dense": Stage(3.0),
    "sparse": Stage(3.0),
    "brightfield": Stage(3.0),
    "dense, turned by 0.1 degrees": Stage(3.0, turned_deg=0.1),
    "sparse, turned by 0.1 degrees": Stage(3.0, turned_deg=0.1),
    "dense, drifting by 0.02 px a field": Stage(3.0, drift_px=0.02),
    "sparse, drifting by 0.02 px a field": Stage(3.0, drift_px=0.02),
}


def neighbours(plan: ScanPlan) -> Iterator[tuple[Place, Place]]:
    """All pairs of neighbours, in raster order."""
    for one in plan.fields:
        for other in plan.neighbours(one):
            if one.place < other.place:
                yield one.place, other.place


def all_matches(plan: ScanPlan, tiles: Tiles) -> tuple[Matches, float]:
    """Every match, and the CPU seconds of them all."""
    began_s, found = time.process_time(), {}
    for one, other in neighbours(plan):
        fields = plan.at(one), plan.at(other)
        found[one, other] = match_overlap(*fields, (tiles.images[one], tiles.images[other]))
    return found, time.process_time() - began_s


def shows_enough(plan: ScanPlan, tiles: Tiles, one: Place, other: Place) -> bool:
    """Whether noise at the true shift allows less than the limit of scatter."""
    down, across = (int(step) for step in tiles.origins[other] - tiles.origins[one])
    overlap = min(matching.overlap_of(plan.frame_shape, (down, across)))
    bins = 2 if overlap >= matching.BINNED_FROM_PX else 1
    first = matching.cut(tiles.images[one], (down, across))
    second = matching.cut(tiles.images[other], (-down, -across))
    corner = second.corner[0] + down, second.corner[1] + across
    views = matching._view(first, bins), matching._view(matching.Strip(second.pixels, corner), bins)
    true = np.rint((tiles.offsets[other] - tiles.offsets[one]) / bins).astype(int)
    pair = matching._Pair(*views, reach=10**4)
    if pair.ncc((int(true[0]), int(true[1]))) <= 0:
        return False
    spread = bins**2 * pair.covariance((int(true[0]), int(true[1])), matching._sigma(bins))
    return bool(np.linalg.eigvalsh(spread)[-1] < SEEN_PX**2)


def placed(plan: ScanPlan, matches: Matches, ahead: int) -> Offsets:
    """Where our rule places the fields if it looks so many fields ahead."""
    places, found = {field.place for field in plan.fields}, dict[Place, Placement]()
    before, placement.AHEAD = placement.AHEAD, ahead
    try:
        for place in sorted(places, key=lambda p: (p[0] * (ahead + 1) + p[1], p)):
            found[place] = placement.place_field(place, places, found, matches)
    finally:
        placement.AHEAD = before
    return {place: each.offset_px for place, each in found.items()}


def at_once(plan: ScanPlan, matches: Matches) -> Offsets:
    """Where fields lie by all matches together: what deciding early costs is the difference."""
    places = [field.place for field in plan.fields]
    known = {pair: match for pair, match in matches.items() if match}
    error_px = placement.stage_error_px(list(known.values()))
    system = placement._System(places, {}, known, 0.25 / error_px**2, np.zeros(2))
    return {place: tuple(xy) for place, xy in zip(places, system.solve()[0], strict=True)}


def scores(tiles: Tiles, offsets: Offsets, seams: list[tuple[Place, Place]]) -> str:
    """Errors of the seams that show enough: median, 95 %, bad ones."""
    errors = np.array(
        [
            np.hypot(*np.subtract(offsets[b], offsets[a]) - (tiles.offsets[b] - tiles.offsets[a]))
            for a, b in seams
        ]
    )
    p50, p95 = np.percentile(errors, (50, 95))
    return f"{p50:.2f} | {p95:.2f} | {(errors > BAD_PX).sum()} of {len(errors)}"


def compare(case: str, options: argparse.Namespace, seed: int) -> None:
    """A row for each rule, for one slide."""
    kind, grid, field_px, overlap_px = (
        case.split(",")[0],
        options.grid,
        options.field_px,
        options.overlap_px,
    )
    sizes = {"field_px": field_px, "overlap_px": overlap_px}
    light = slide(kind, seed, slide_shape(grid, field_px, overlap_px, 60))
    tiles = cut_tiles(light, grid, CASES[case], **sizes, seed=seed)
    plan = make_plan((grid[1],) * grid[0], (field_px,) * 2, overlap_px, 1.0, steered=False)
    matches, cpu_s = all_matches(plan, tiles)
    edges = [(a, b) for a, b in neighbours(plan) if a[0] == b[0] or a[1] == b[1]]
    seams = [pair for pair in edges if shows_enough(plan, tiles, *pair)]
    rules: dict[str, Callable[[], Offsets]] = {
        "stage's word": lambda: {field.place: (0.0, 0.0) for field in plan.fields},
        "ours": lambda: placed(plan, matches, placement.AHEAD),
        "causal": lambda: placed(plan, matches, 0),
        "all at once": lambda: at_once(plan, matches),
    }
    for name, rule in rules.items():
        began_s = time.process_time()
        offsets = rule()
        spent_s = time.process_time() - began_s + cpu_s * (name != "stage's word")
        print(
            f"| {case}, seed {seed} | {name} | {scores(tiles, offsets, seams)} | {spent_s:.1f} |",
            flush=True,
        )
    for name, offsets, spent_s in peers(options.peers, tiles) if options.peers else ():
        print(
            f"| {case}, seed {seed} | {name} | {scores(tiles, offsets, seams)} | {spent_s:.1f} |",
            flush=True,
        )


def peers(python: str, tiles: Tiles) -> Iterator[tuple[str, Offsets, float]]:
    """What the peers find, each in a process of its own; those that are not there are left out."""
    script = Path(__file__).with_name("registration_peers.py")
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/tiles.npz", images=tiles.images, origins=tiles.origins)
        for name in ("ashlar", "ashlar-1", "ashlar-3", "m2stitch", "multiview-stitcher"):
            command = [python, str(script), name, folder]
            try:
                ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
            except subprocess.TimeoutExpired:
                print(f"({name}: no answer within 300 s)")
                continue
            if ended.returncode:
                print(f"({name}: {ended.stderr.strip().splitlines()[-1:]})", flush=True)
                continue
            found = np.load(f"{folder}/{name}.npz")
            offsets = found["positions"] - tiles.origins
            places = np.ndindex(*tiles.origins.shape[:2])
            yield name, {place: tuple(offsets[place]) for place in places}, float(found["seconds"])


def picture(file: Path, error_px: float, whole: bool, seed: int) -> None:
    """Cut a picture into fields, register them, and compare the mosaic with the picture."""
    grey = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    light = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0) * 8
    field_px, overlap_px = 416, 42
    grid = tuple((edge - overlap_px - 128) // (field_px - overlap_px) for edge in light.shape)
    plan = make_plan((grid[1],) * grid[0], (field_px,) * 2, overlap_px, 1.0, steered=True)
    origins = np.array([[f.origin_px for f in stripe] for stripe in plan.stripes])
    generator = np.random.default_rng(seed)
    offsets = generator.normal(0, error_px, origins.shape)
    offsets = np.rint(offsets) if whole else offsets
    clean = np.empty((*grid, field_px, field_px), np.float32)
    for place in np.ndindex(*grid):
        y, x = origins[place] + offsets[place] + 64
        move = np.array([[1, 0, x], [0, 1, y]])
        flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
        clean[place] = cv2.warpAffine(light, move, (field_px,) * 2, flags=flags)
    noisy = generator.poisson(np.maximum(clean, 0)).astype(np.uint16)
    tiles = Tiles(noisy, origins, offsets, light)
    matches, _ = all_matches(plan, tiles)
    for name, found in (
        ("stage's word", {field.place: (0.0, 0.0) for field in plan.fields}),
        ("ours", placed(plan, matches, placement.AHEAD)),
        ("the truth, in whole pixels", {f.place: tuple(offsets[f.place]) for f in plan.fields}),
    ):
        mosaic = np.empty(plan.mosaic_shape, np.float32)
        for field in plan.fields:
            written = whole_offset(field, found[field.place], plan.frame_shape, plan.mosaic_shape)
            core = slice(*field.rows), slice(*field.columns)
            mosaic[core] = core_at(clean[field.place], field, written)
        both = (
            np.median([offsets[p] - found[p] for p in found], axis=0) if name == "ours" else [0, 0]
        )
        y, x = (round(64 + float(each)) for each in both)
        truth = light[y : y + mosaic.shape[0], x : x + mosaic.shape[1]]
        inner = slice(16, -16), slice(16, -16)
        error = np.square(mosaic - truth)[inner].mean()
        psnr = 10 * np.log10((255 * 8) ** 2 / error) if error else np.inf
        stage = f"{error_px:g} px{'' if whole else ', fractions'}"
        print(f"| {file.name} | {stage} | {name} | {psnr:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grid", type=lambda t: tuple(map(int, t.split("x"))), default=(4, 8))
    parser.add_argument("--field-px", type=int, default=416)
    parser.add_argument("--overlap-px", type=int, default=42)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cases", nargs="*", default=list(CASES), help="names of slides")
    parser.add_argument("--peers", metavar="PYTHON", help="of an environment that has the peers")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="cut this, and nothing else")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print_conditions(grid=options.grid, field_px=options.field_px, overlap_px=options.overlap_px)
    if options.picture:
        print("| picture | stage error | rule | PSNR, dB |\n|---|---|---|---|")
        for whole in (True, False):
            for error_px in (0.0, 3.0, 6.0, 10.0):
                picture(options.picture, error_px, whole, 1)
        return
    print("| slide | rule | seams: median, px | 95 % | bad | s |\n|---|---|---|---|---|---|")
    for case in options.cases:
        for seed in range(1, options.seeds + 1):
            compare(case, options, seed)


if __name__ == "__main__":
    main()
