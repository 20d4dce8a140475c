"""Registration: our rule beside others, on fields of a known slide; see --help.

Fields are cut out of a slide by a stage that misses its targets, each with photons of its own. A
seam is counted where the overlap shows enough, by an oracle: the scatter that noise allows at the
true shift is below 0.3 px. It is bad if two fields lie wrong against each other by over 1.5 px.
"causal" places each field without looking ahead, "all at once" after the whole scan.

--table quick or --table whole says instead how exact our rule is by slide, size of the scan,
stage error and geometry; "alone" are fields without any match, which lie as their neighbours do.

--live scans a grid with the program: from the last stack to the complete mosaic.
--picture FILE cuts an image at whole pixels and says how true the mosaic is. --peers PYTHON runs
ASHLAR, m2stitch and multiview-stitcher in an environment of their own, as far as they are there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.conditions import print_conditions
from benchmarks.tile_scenes import Stage, Tiles, cut_tiles, slide, slide_shape
from imaging import matching, placement
from imaging.registration import Registration, core_at, match_overlap, whole_offset
from results.journal import JOURNAL, EventIndex, read_journal
from scan.events import Captured, Placed, Stacked
from scan.layout import make_plan
from scan.matches import Match, Offset, Pair, Placement
from scan.plan import Place, ScanPlan

Matches = dict[Pair, Match | None]
Offsets = Mapping[Place, Offset]
CAUSAL = {"AHEAD": 0, "MAX_BELOW": 1}
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

TABLE_FIELD_PX = 416
# overlap: stage errors that it is enough for; 15.4 px are 5 um at the default pixel size
ERRORS_PX = {42: (1.0, 3.0, 5.0), 104: (5 / 0.325,)}
GEOMETRIES: dict[str, dict[str, float]] = {
    "straight": {},
    "turned by 0.1 degrees": {"turned_deg": 0.1},
    "drifting by 0.02 px a field": {"drift_px": 0.02},
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


def placed(plan: ScanPlan, matches: Matches, **rule: int) -> Offsets:
    """Where our rule places the fields, or another one: constants of `imaging.placement`."""
    return {place: each.offset_px for place, each in placements(plan, matches, **rule).items()}


def placements(plan: ScanPlan, matches: Matches, **rule: int) -> dict[Place, Placement]:
    """What a rule finds."""
    before = {name: getattr(placement, name) for name in rule}
    state = Registration(plan, {}, matches)
    for field in plan.fields:
        state.add(field.place)
    try:
        vars(placement).update(rule)
        return dict(state.decide())
    finally:
        vars(placement).update(before)


def at_once(plan: ScanPlan, matches: Matches) -> Offsets:
    """Where fields lie by all matches together: what deciding early costs is the difference."""
    places = [field.place for field in plan.fields]
    known = {pair: match for pair, match in matches.items() if match}
    error_px = placement.stage_error_px(list(known.values()))
    system = placement._System(places, {}, known, 0.25 / error_px**2, np.zeros(2))
    return {place: tuple(xy) for place, xy in zip(places, system.solve()[0], strict=True)}


def seam_errors(
    tiles: Tiles, offsets: Offsets, seams: list[tuple[Place, Place]]
) -> NDArray[np.float64]:
    """How far two fields lie wrong against each other, for each seam."""
    apart = [np.subtract(offsets[b], offsets[a]) for a, b in seams]
    true = [tiles.offsets[b] - tiles.offsets[a] for a, b in seams]
    return np.hypot(*np.subtract(apart, true).T)


def scores(tiles: Tiles, offsets: Offsets, seams: list[tuple[Place, Place]]) -> str:
    """Errors of the seams that show enough: median, 95 %, bad ones."""
    errors = seam_errors(tiles, offsets, seams)
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
        "ours": lambda: placed(plan, matches),
        "causal": lambda: placed(plan, matches, **CAUSAL),
        "all at once": lambda: at_once(plan, matches),
    }
    row = f"| {case}, seed {seed} |"
    for name, rule in rules.items():
        began_s = time.process_time()
        offsets = rule()
        spent_s = time.process_time() - began_s + cpu_s * (name != "stage's word")
        print(f"{row} {name} | {scores(tiles, offsets, seams)} | {spent_s:.1f} | | |", flush=True)
    for name, offsets, costs in peers(options.peers, tiles) if options.peers else ():
        numbers = f"{costs['seconds']:.1f} | {costs['after']:.2f} | {costs['peak']:.0f}"
        print(f"{row} {name} | {scores(tiles, offsets, seams)} | {numbers} |", flush=True)


def peers(python: str, tiles: Tiles) -> Iterator[tuple[str, Offsets, Mapping[str, float]]]:
    """What our rule and the peers find, each in a process of its own, and what that costs; those
    that are not there are left out."""
    script = Path(__file__).with_name("registration_peers.py")
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/tiles.npz", images=tiles.images, origins=tiles.origins)
        for name in ("ours", "ashlar", "ashlar-1", "ashlar-3", "m2stitch", "multiview-stitcher"):
            command = [sys.executable if name == "ours" else python, str(script), name, folder]
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
            costs = {key: float(found[key]) for key in ("seconds", "after", "peak")}
            yield f"{name}, a process", {place: tuple(offsets[place]) for place in places}, costs


@dataclass(frozen=True)
class Group:
    """Scans of one slide: all stage errors and geometries with one overlap."""

    kind: str
    grid: tuple[int, int]
    overlap_px: int
    errors_px: tuple[float, ...]
    seed: int


Row = tuple[str, tuple[int, int], int, float, str]  # kind, grid, overlap, stage error, geometry
Scan = tuple[NDArray[np.float64], int, int]  # errors of seams, fields without a match, fields


def groups(whole: bool, kinds: Collection[str]) -> list[Group]:
    """What the table has of some kinds of slides; the quick one takes a twentieth of the time."""
    grids, seeds = (((3, 8), (10, 40)), (1, 2, 3)) if whole else (((3, 8),), (1, 2))
    return [
        Group(kind, grid, overlap_px, errors_px, seed)
        for grid in grids
        for kind in ("dense", "sparse")
        if kind in kinds
        for overlap_px, errors_px in ERRORS_PX.items()
        for seed in seeds
    ]


def scan_group(group: Group) -> dict[Row, Scan]:
    """Register the scans of a slide."""
    cv2.setNumThreads(1)
    grid, overlap_px = group.grid, group.overlap_px
    sizes = {"field_px": TABLE_FIELD_PX, "overlap_px": overlap_px}
    light = slide(group.kind, group.seed, slide_shape(grid, *sizes.values(), 60))
    plan = make_plan((grid[1],) * grid[0], (TABLE_FIELD_PX,) * 2, overlap_px, 1.0, steered=False)
    found: dict[Row, Scan] = {}
    for error_px in group.errors_px:
        for name, geometry in GEOMETRIES.items():
            tiles = cut_tiles(light, grid, Stage(error_px, **geometry), **sizes, seed=group.seed)
            matches, _ = all_matches(plan, tiles)
            edges = [(a, b) for a, b in neighbours(plan) if a[0] == b[0] or a[1] == b[1]]
            seams = [pair for pair in edges if shows_enough(plan, tiles, *pair)]
            places = placements(plan, matches)
            offsets = {place: each.offset_px for place, each in places.items()}
            alone = sum(not each.agreeing for each in places.values())
            row = (group.kind, grid, overlap_px, error_px, name)
            found[row] = seam_errors(tiles, offsets, seams), alone, len(places)
    return found


def table(whole: bool, kinds: Collection[str], processes: int) -> None:
    """A row for each condition, all seeds together, bad seams of each seed, too."""
    heads = (
        "slide",
        "fields",
        "overlap",
        "stage error",
        "stage",
        "median",
        "95 %",
        "bad, % (seeds)",
    )
    print(f"| {' | '.join(heads)} | alone |\n{'|---' * 9}|")
    rows: dict[Row, list[Scan]] = {}
    todo = groups(whole, kinds)
    with ProcessPoolExecutor(processes) as pool:
        for group, found in zip(todo, pool.map(scan_group, todo), strict=True):
            for row, scan in found.items():
                rows.setdefault(row, []).append(scan)
            if group.seed == todo[-1].seed:  # its last
                for row in found:
                    print(f"| {format_row(row, rows[row])} |", flush=True)


def format_row(row: Row, scans: list[Scan]) -> str:
    """Of all seeds together: errors of the seams, and fields without a match."""
    kind, (stripes, fields), overlap_px, error_px, name = row
    errors = np.concatenate([each for each, _, _ in scans])
    bad = ", ".join(f"{100 * (each > BAD_PX).mean():.1f}" for each, _, _ in scans)
    alone = 100 * sum(n for _, n, _ in scans) / sum(n for _, _, n in scans)
    size = f"{stripes} x {fields} | {overlap_px} px | {error_px:.3g} px | {name}"
    p50, p95 = np.percentile(errors, (50, 95))
    share = 100 * (errors > BAD_PX).mean()
    return f"{kind} | {size} | {p50:.2f} | {p95:.2f} | {share:.1f} ({bad}) | {alone:.0f} %"


LIVE = """field_px = 416
overlap_px = 42
stage_error_um = 1.0
planes = 5
exposure_ms = 100.0
register_fields = true
"""  # CPUs keep up with a few cameras


def live(grid: tuple[int, int], cameras: int) -> None:
    """Scan with the program, and say when the mosaic was complete after the last stack."""
    root = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        settings = folder.with_suffix(".toml")
        settings.write_text(f"{LIVE}cameras = {cameras}\nstripes = {grid[0]}\nfields = {grid[1]}\n")
        command = [sys.executable, str(root / "main.py"), "--plain", "--config", str(settings)]
        subprocess.run([*command, "--out", str(folder)], check=True, capture_output=True)
        found = EventIndex(read_journal(folder / JOURNAL))
    last = {kind: max(event.ended_s for event in found.of(kind)) for kind in (Stacked, Placed)}
    captured_s = max(event.ended_s for event in found.of(Captured))
    late = sum(event.ended_s > last[Stacked] for event in found.of(Placed))
    after_s = last[Placed] - last[Stacked]
    print(f"| last exposure to last stack, s | {last[Stacked] - captured_s:.2f} |")
    print(f"| last stack to complete mosaic, s | {after_s:.2f} |\n| fields written then | {late} |")


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
        ("ours", placed(plan, matches)),
        ("the truth, in whole pixels", {f.place: tuple(offsets[f.place]) for f in plan.fields}),
    ):
        mosaic = np.empty(plan.mosaic_shape, np.float32)
        for field in plan.fields:
            written = whole_offset(field, found[field.place], plan.frame_shape, plan.mosaic_shape)
            core = slice(*field.rows), slice(*field.columns)
            mosaic[core] = core_at(clean[field.place], field, written)
        # the mosaic as a whole lies a fraction of a pixel off: by that of its first field
        apart = np.median([offsets[place] - found[place] for place in found], axis=0)
        y, x = 64 + (apart.round() if whole else apart) * (name == "ours")
        move = np.array([[1, 0, x], [0, 1, y]])
        truth = cv2.warpAffine(light, move, mosaic.shape[::-1], flags=flags)
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
    parser.add_argument("--table", choices=("quick", "whole"), help="of our rule alone")
    parser.add_argument("--live", action="store_true", help="a scan of the grid, nothing else")
    parser.add_argument("--cameras", type=int, default=1, help="of this scan")
    parser.add_argument("--processes", type=int, default=2, help="for the table")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.table:
        print_conditions(field_px=TABLE_FIELD_PX, processes=options.processes)
        table(options.table == "whole", options.cases, options.processes)
        return
    print_conditions(grid=options.grid, field_px=options.field_px, overlap_px=options.overlap_px)
    if options.live:
        live(options.grid, options.cameras)
        return
    if options.picture:
        print("| picture | stage error | rule | PSNR, dB |\n|---|---|---|---|")
        for whole in (True, False):
            for error_px in (0.0, 3.0, 6.0, 10.0):
                picture(options.picture, error_px, whole, 1)
        return
    heads = (
        "slide",
        "rule",
        "seams: median, px",
        "95 %",
        "bad",
        "CPU, s",
        "after the last stack, s",
    )
    print(f"| {' | '.join(heads)} | peak memory, MiB |\n{'|---' * 8}|")
    for case in options.cases:
        for seed in range(1, options.seeds + 1):
            compare(case, options, seed)


if __name__ == "__main__":
    main()
