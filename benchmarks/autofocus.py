"""How near autofocus comes to the best focus of known fields, and what it refuses to believe.

    python benchmarks/autofocus.py --seeds 101 102 103

Each seed is another field of every kind, focused on as a scan does it. The first sample of a stripe
is searched for, a later one swept finely around the height that is expected, which is wrong by some
deviation here. Errors are in um and of the accepted fields; `wrong` counts those that are more than
a depth of focus away from the specimen. The last table is of focus surfaces: twelve samples of a
slide, two of them wrong by 15 um.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.conditions import print_conditions
from config import validate
from imaging.focus import find_peak, sharpness
from imaging.zpositions import z_positions
from microscope.simulated import (
    FOCUSED_SIGMA_UM,
    LEVELS_PER_ELECTRON,
    OFFSET_LEVELS,
    READ_NOISE_ELECTRONS,
    SIGMA_PER_DEFOCUS,
    SimulatedMicroscope,
)
from microscope.specimen import FocusSurface, Specimen
from scan.focusing import FocusJob, FocusPeak, FocusResult, sample_fields
from scan.layout import make_plan
from scan.plan import Field
from scan.records import SweepRecord
from scan.sweeps import COARSE_STEP_UM, FINE_STEP_UM, is_fine, sweeps_of_sample

Image = NDArray[np.float64]
Light = Callable[[float], Image]  # photo-electrons of one exposure at a height in um
Range = tuple[float, float]

SIDE_PX, PIXEL_UM = 512, 0.325  # of a field, as a scan has it by default
MARGIN_PX = 128  # drawn around a field, whose light comes in from outside
HIGHEST_UM = 12.0  # best focus lies within so much of the middle of the first sweep
EXPECTED_OFF_UM = 1.4  # deviation of what is expected: relief, and a slide that sags
DEPTH_OF_FOCUS_UM = 2.4
LAMP_ELECTRONS = 2000.0
SECTION_DENSITY = 0.15  # optical density of the fine structure of a stained section
NUCLEUS_DENSITY = 0.4
COARSEST_PX = 64  # structure of all sizes up to this, as in tissue: amplitude falls as 1 / turns
SPECKS = (4, 12)  # of dust in a field
SPECK_UM = (2.0, 8.0)
FAR_UM, POSITION_TOLERANCE_UM = (
    (30.0, 60.0),
    (12.0, 20.0),
)  # of dirt from the specimen, above or below
SURFACE_NOISE_UM, WRONG_UM, WRONG = 0.3, 15.0, 2
SETTINGS = validate({})
FIELD = make_plan((1,), (SIDE_PX, SIDE_PX), 0, PIXEL_UM, steered=True).fields[0]


@dataclass(frozen=True)
class Scene:
    """What one field shows at every height, and the height at which its specimen is sharpest."""

    light: Light
    best_um: float

    def photograph(self, z_um: float, generator: np.random.Generator) -> NDArray[np.uint16]:
        """One plane with the noise of light and camera."""
        light = np.maximum(self.light(z_um), 0)
        noise = generator.normal(size=light.shape) * np.sqrt(light + READ_NOISE_ELECTRONS**2)
        levels = OFFSET_LEVELS + LEVELS_PER_ELECTRON * (light + noise)
        return np.clip(np.rint(levels), 0, 65535).astype(np.uint16)


class Sheet:
    """A thin sheet at one height, blurred out of focus by a Gaussian that loses no light.

    The blur is done on Fourier coefficients: exact for any width, and what leaves on one side comes
    in on the other.
    """

    def __init__(self, sharp: Image, height_um: float) -> None:
        self._height_um, self._shape = height_um, sharp.shape
        self._waves = np.fft.rfft2(sharp)
        turns = np.fft.fftfreq(sharp.shape[0])[:, None], np.fft.rfftfreq(sharp.shape[1])
        self._squared_turns = turns[0] ** 2 + turns[1] ** 2

    def at(self, z_um: float) -> Image:
        """The middle of the sheet, seen by a microscope that is focused on a height."""
        spread_um = SIGMA_PER_DEFOCUS * (z_um - self._height_um)
        variance_px = (FOCUSED_SIGMA_UM**2 + spread_um**2) / PIXEL_UM**2
        passed = np.exp(-2 * np.pi**2 * variance_px * self._squared_turns)
        seen = np.fft.irfft2(self._waves * passed, self._shape)
        return seen[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]


def ellipses(generator: np.random.Generator, per_field: float, width_um: Range) -> Image:
    """Ellipses anywhere on a field and its margin, 0.3 to 1 strong; the strongest is seen."""
    side = SIDE_PX + 2 * MARGIN_PX
    image = np.zeros((side, side))
    for row, column in generator.uniform(0, side, (round(per_field * (side / SIDE_PX) ** 2), 2)):
        reach = int(width_um[1] / PIXEL_UM) + 2
        rows, columns = (slice(max(0, int(c) - reach), int(c) + reach) for c in (row, column))
        y, x = np.mgrid[:side, :side][:, rows, columns]
        turn, flat = generator.uniform(0, np.pi), generator.uniform(0.5, 1)
        along = (y - row) * np.cos(turn) + (x - column) * np.sin(turn)
        across = (x - column) * np.cos(turn) - (y - row) * np.sin(turn)
        radius = generator.uniform(*width_um) / 2 / PIXEL_UM
        body = np.clip(radius - np.hypot(along, across / flat) + 0.5, 0, 1)
        image[rows, columns] = np.maximum(image[rows, columns], generator.uniform(0.3, 1) * body)
    return image


def dust(generator: np.random.Generator, best_um: float, away_um: Range) -> Sheet:
    """Sparse specks on another plane, 0.3 to 1."""
    away = generator.choice([-1, 1]) * generator.uniform(*away_um)
    return Sheet(ellipses(generator, generator.uniform(*SPECKS), SPECK_UM), best_um + away)


def cells(
    generator: np.random.Generator,
    best_um: float,
    per_field: float,
    exposure_ms: float = 20.0,
    relief: bool = False,
) -> Scene:
    """A field of the simulated microscope; with relief, best is the mean height of its cells."""
    edge_um = (SIDE_PX + MARGIN_PX) * PIXEL_UM
    density = per_field / (SIDE_PX * PIXEL_UM) ** 2 * 1e6
    seed = int(generator.integers(2**31))
    grown = Specimen.grow(seed, (edge_um, edge_um), density_per_mm2=density)
    bumps = grown.height_um - grown.focus_surface_um(grown.x_um, grown.y_um)
    specimen = replace(grown, height_um=best_um + relief * bumps)
    shape = (SIDE_PX, SIDE_PX)
    microscope = SimulatedMicroscope(
        specimen, frame_shape=shape, pixel_size_um=PIXEL_UM, exposure_ms=exposure_ms, seed=seed
    )
    far_um = np.maximum(abs(specimen.x_um - edge_um / 2), abs(specimen.y_um - edge_um / 2))
    seen = specimen.height_um[far_um < SIDE_PX * PIXEL_UM / 2]

    def light(z_um: float) -> Image:
        return microscope.electrons(edge_um / 2, edge_um / 2, z_um).astype(np.float64)

    return Scene(light, float(seen.mean()) if len(seen) else best_um)


def dusty_cells(
    generator: np.random.Generator, best_um: float, per_field: float, away_um: Range
) -> Scene:
    """Cells under dust that shines as brightly as they do."""
    clean = cells(generator, best_um, per_field)
    dirt, electrons = dust(generator, best_um, away_um), generator.uniform(200, 1600)
    return Scene(lambda z_um: clean.light(z_um) + electrons * dirt.at(z_um), best_um)


def section(generator: np.random.Generator, best_um: float) -> Scene:
    """A stained section in transmitted light: nuclei and fine structure take light away."""
    side = SIDE_PX + 2 * MARGIN_PX
    turns = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    waves = np.fft.rfft2(generator.normal(size=(side, side))) / (turns + 1 / COARSEST_PX)
    grain = np.fft.irfft2(waves, (side, side))
    structure = SECTION_DENSITY * np.clip(1 + grain / grain.std(), 0, None)
    nuclei = NUCLEUS_DENSITY * ellipses(generator, 60, (6.0, 12.0))
    sheet = Sheet(np.exp(-structure - nuclei), best_um)
    return Scene(lambda z_um: LAMP_ELECTRONS * sheet.at(z_um), best_um)


def dusty_section(generator: np.random.Generator, best_um: float, away_um: Range) -> Scene:
    """The same under dust that lets little light pass."""
    clean, dirt = section(generator, best_um), dust(generator, best_um, away_um)
    return Scene(lambda z_um: clean.light(z_um) * (1 - dirt.at(z_um)), best_um)


KINDS: dict[str, Callable[[np.random.Generator, float], Scene]] = {
    "usual, 15 cells": lambda g, z: cells(g, z, 15),
    "sparse, 3 cells": lambda g, z: cells(g, z, 3),
    "dense, 80 cells": lambda g, z: cells(g, z, 80),
    "dim, 5 to 20 electrons": lambda g, z: cells(g, z, 15, exposure_ms=0.25),
    "brightfield section": section,
    "dust far, 15 cells": lambda g, z: dusty_cells(g, z, 15, FAR_UM),
    "dust near, 15 cells": lambda g, z: dusty_cells(g, z, 15, POSITION_TOLERANCE_UM),
    "dust near, 3 cells": lambda g, z: dusty_cells(g, z, 3, POSITION_TOLERANCE_UM),
    "dust far, brightfield": lambda g, z: dusty_section(g, z, FAR_UM),
    "dust near, brightfield": lambda g, z: dusty_section(g, z, POSITION_TOLERANCE_UM),
    "relief, 15 cells": lambda g, z: cells(g, z, 15, relief=True),
    "relief, 3 cells": lambda g, z: cells(g, z, 3, relief=True),
    "empty": lambda g, z: cells(g, z, 0),
    "dust alone": lambda g, z: dusty_cells(g, z, 0, FAR_UM),
}


def focus_on(
    scene: Scene, generator: np.random.Generator, near_um: float | None
) -> tuple[FocusPeak, int]:
    """The peak that a scan would take for this field, and how many planes it exposed."""
    sweeps = sweeps_of_sample(SETTINGS, FIELD, near_um)
    exposed, heights = 0, next(sweeps)[1]
    while True:
        frames = np.stack([scene.photograph(z, generator) for z in heights])
        exposed += len(heights)
        peak = find_peak(heights, *sharpness(frames, fine=is_fine(heights)))
        try:
            heights = sweeps.send(peak)[1]
        except StopIteration as end:
            return end.value[0], exposed


def print_kinds(seeds: list[int], kinds: list[str], *, expected: bool) -> None:
    """A line for each kind of field; under it why fields were dropped."""
    names = ("fields", "accepted", "median", "p95", "max", "wrong", "planes")
    title = f"later samples, {EXPECTED_OFF_UM} um off" if expected else "first samples"
    print(f"{title:28}" + "".join(f"{name:>9}" for name in names), flush=True)
    for kind in kinds:
        peaks, errors, planes = focus_all(kind, seeds, expected=expected)
        cells = [f"{np.percentile(errors, p):9.2f}" if errors else f"{'':9}" for p in (50, 95, 100)]
        wrong = sum(error > DEPTH_OF_FOCUS_UM for error in errors)
        print(
            f"{kind:28}{len(seeds):9}{len(errors):9}{''.join(cells)}{wrong:9}{planes:9.1f}",
            flush=True,
        )
        for reason, times in Counter(plain(p.reason) for p in peaks if p.reason).items():
            print(f"    {times} x {reason}", flush=True)


def focus_all(
    kind: str, seeds: list[int], *, expected: bool
) -> tuple[list[FocusPeak], list[float], float]:
    """Peaks of all fields of a kind, errors in um of those accepted, planes exposed in the mean."""
    peaks, errors, planes = [], [], 0
    for seed in seeds:
        generator = np.random.default_rng([seed, *kind.encode()])
        scene = KINDS[kind](generator, generator.uniform(-HIGHEST_UM, HIGHEST_UM))
        near_um = scene.best_um + generator.normal(0, EXPECTED_OFF_UM)
        peak, exposed = focus_on(scene, generator, near_um if expected else None)
        peaks.append(peak)
        planes += exposed
        if not peak.reason:
            errors.append(abs(peak.z_um - scene.best_um))
    return peaks, errors, planes / len(seeds)


def plain(reason: str) -> str:
    """A reason without its numbers."""
    return re.sub(r"-?\d+(\.\d+)?", "#", reason)


def print_surfaces(seeds: list[int]) -> None:
    """A line for each slide: how near the surface comes, and what was left out of it."""
    print(f"\n{'surface':10}{'mean um':>9}{'max um':>9}   rejected (wrong samples: *)")
    means = []
    for seed in seeds:
        focus, errors, wrong = surface_of(np.random.default_rng(seed))
        means.append(errors.mean())
        cells = [
            f"{r.stripe}/{r.field}{'*' if (r.stripe, r.field) in wrong else ''}: {r.reason}"
            for r in focus.rejected
        ]
        print(f"seed {seed:<5}{errors.mean():9.2f}{errors.max():9.2f}   {'; '.join(cells)}")
    print(f"{'all':10}{np.mean(means):9.2f}{max(means):9.2f}   mean and greatest of the means")


def surface_of(
    generator: np.random.Generator,
) -> tuple[FocusResult, NDArray[np.float64], set[tuple[int, int]]]:
    """Heights of all fields from twelve samples, their errors in um, and the wrong samples."""
    settings = validate({"stripes": 3, "fields": 8, "focus_samples": 4})
    plan = make_plan((8, 8, 8), (512, 512), 128, PIXEL_UM, steered=True)
    extent_um = np.array(plan.mosaic_shape) * PIXEL_UM
    slide = FocusSurface.draw(generator)

    def truth(field: Field) -> float:
        return float(slide(field.x_um / extent_um[1] - 0.5, field.y_um / extent_um[0] - 0.5))

    samples = sample_fields(plan, settings.focus_samples)
    found = [truth(field) + generator.normal(0, SURFACE_NOISE_UM) for field in samples]
    wrong = generator.choice(len(samples), WRONG, replace=False)
    for index in wrong:
        found[index] += WRONG_UM * generator.choice([-1, 1])
    peaks = {f: FocusPeak(z) for f, z in zip(samples, found, strict=True)}
    sweeps = [(field, SweepRecord((0.0,), (1.0,), 1.0, 0.0, 0.0)) for field in samples]
    focus = z_positions(peaks, FocusJob(plan, settings, 15, 1.0), sweeps)
    errors = [abs(focus.centres_um[f.stripe, f.field] - truth(f)) for f in plan.fields]
    return focus, np.array(errors), {(samples[i].stripe, samples[i].field) for i in wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(101, 141)), metavar="N")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), metavar="KIND", choices=KINDS)
    options = parser.parse_args()
    print_conditions(seeds=options.seeds)
    print(f"field {SIDE_PX} px of {PIXEL_UM} um, depth of focus {DEPTH_OF_FOCUS_UM} um, ", end="")
    print(f"steps {COARSE_STEP_UM} and {FINE_STEP_UM} um\n")
    for expected in (False, True):
        print_kinds(options.seeds, options.kinds, expected=expected)
        print()
    print_surfaces(options.seeds)


if __name__ == "__main__":
    main()
