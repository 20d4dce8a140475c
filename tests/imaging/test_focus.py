"""Autofocus: peaks between planes, robustness to brightness, dirt and wrong samples."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging.focus import find_peak, sharpness
from imaging.surface import FocusSurface, fit_surface
from scan.focusing import FocusPeak

HEIGHTS = tuple(float(z) for z in range(-6, 7))


COARSE_STEP_UM = 4.0
COARSE = tuple(COARSE_STEP_UM * k for k in range(-6, 7))


def sweep(best_um: float, seed: int = 0, light: float = 800.0) -> np.ndarray:
    """A noisy focus sweep of blobs that are sharpest at `best_um`; blur 1 pixel per um."""
    blobs = blobs_at(best_um, HEIGHTS, 25, np.random.default_rng(seed), light=light, side=192)
    return camera(blobs, seed)


def blobs_at(
    best_um: float,
    heights: tuple[float, ...],
    count: int,
    generator: np.random.Generator,
    light: float = 800.0,
    side: int = 512,
    radius: int = 6,
) -> np.ndarray:
    """The light of blobs that are sharpest at `best_um`, seen from each height."""
    blobs = np.zeros((side, side), np.float32)
    for y, x in generator.integers(10, side - 10, (count, 2)):
        cv2.circle(blobs, (int(x), int(y)), radius, light, -1, cv2.LINE_AA)
    return np.stack([cv2.GaussianBlur(blobs, (0, 0), np.hypot(0.8, z - best_um)) for z in heights])


def camera(light: np.ndarray, seed: int) -> np.ndarray:
    """Planes with background, offset and shot noise."""
    generator, electrons = np.random.default_rng(seed), light + 20
    noise = generator.standard_normal(electrons.shape, np.float32)
    noisy = electrons + np.sqrt(electrons) * noise
    return np.rint(100 + noisy).astype(np.uint16)


@settings(deadline=None, max_examples=15)
@given(st.floats(-3, 3), st.integers(0, 100))
def test_the_peak_is_found_between_steps(best_um: float, seed: int) -> None:
    """The peak lies within a quarter step of the truth, anywhere between planes."""
    peak = find_peak(HEIGHTS, *sharpness(sweep(best_um, seed)))

    assert peak.reason is None
    assert abs(peak.z_um - best_um) < 0.25


def test_a_flickering_lamp_does_not_move_the_peak() -> None:
    """Planes that are brighter by half do not look sharper."""
    frames = sweep(0.3).astype(np.float64)
    flicker = np.where(np.arange(len(frames)) % 3 == 1, 1.5, 1.0)
    flickering = (frames - 100) * flicker[:, None, None] + 100

    steady = find_peak(HEIGHTS, *sharpness(frames)).z_um

    assert abs(find_peak(HEIGHTS, *sharpness(flickering)).z_um - steady) < 0.2


def test_one_bright_object_does_not_outvote_the_field() -> None:
    """A field in focus at 0 stays so when a single object ten times as bright lies 4 um higher."""
    dim, bright = sweep(0.0, seed=1), sweep(4.0, seed=2, light=8000)
    mixed = dim.copy()
    mixed[:, :40, :40] = bright[:, 60:100, 60:100]

    assert abs(find_peak(HEIGHTS, *sharpness(mixed)).z_um) < 0.5


@pytest.mark.parametrize("cells", [2, 5, 8])
def test_the_glow_of_few_objects_does_not_outvote_them(cells: int) -> None:
    """In a field that is mostly empty the coarse peak is where its few objects are sharp."""
    for seed in range(6):
        generator = np.random.default_rng(seed)
        light = blobs_at(-1.4, COARSE, cells, generator, light=1500, radius=12)
        peak = find_peak(COARSE, *sharpness(camera(light, seed)))

        assert peak.reason is None
        assert abs(peak.z_um + 1.4) < COARSE_STEP_UM / 2


DIRT = {  # objects, specks, height, light and radius of the specks; whether the field is accepted
    "few far specks": (25, 5, 40.0, 3000, 6, True),
    "few bright specks at the end of the sweep": (25, 5, 22.0, 3000, 4, True),
    "few specks within the sweep": (25, 8, -14.0, 1500, 4, True),
    "faint specks": (25, 12, 14.0, 200, 4, True),
    "as many specks as objects": (10, 8, -14.0, 1500, 4, False),
    "more specks than objects": (5, 8, 15.0, 1500, 4, False),
}


@pytest.mark.parametrize(
    ("objects", "specks", "dirt_um", "light", "radius", "accepted"), DIRT.values(), ids=DIRT
)
def test_dirt_does_not_move_the_peak(
    objects: int, specks: int, dirt_um: float, light: float, radius: int, accepted: bool
) -> None:
    """Sparse dirt on another plane does not move the peak; dense dirt rejects the sample."""
    for seed in range(3):
        generator = np.random.default_rng(seed)
        specimen = blobs_at(0.7, COARSE, objects, generator, radius=12)
        dirt = blobs_at(dirt_um, COARSE, specks, generator, light, radius=radius)
        peak = find_peak(COARSE, *sharpness(camera(specimen + dirt, seed)))

        assert peak.reason is None or not accepted
        assert peak.reason is not None or abs(peak.z_um - 0.7) < COARSE_STEP_UM / 2


FINE = tuple(1.5 * k - 3.75 for k in range(6))


def fine_peak(light: np.ndarray, seed: int) -> FocusPeak:
    """The peak of a fine sweep."""
    return find_peak(FINE, *sharpness(camera(light, seed), fine=True))


@settings(deadline=None, max_examples=15)
@given(st.floats(-2, 2), st.integers(0, 100))
def test_six_planes_find_a_peak_that_was_expected_elsewhere(best_um: float, seed: int) -> None:
    """A fine sweep finds a peak that is 2 um off its middle, to a tenth of its step."""
    peak = fine_peak(blobs_at(best_um, FINE, 12, np.random.default_rng(seed), side=256), seed)

    assert peak.reason is None
    assert abs(peak.z_um - best_um) < 0.15


FINE_DIRT = {  # height, light and radius of 8 specks beside 3 cells
    "as bright": (12.0, 1500, 4),
    "bright, below": (-16.0, 3000, 4),
    "as large as cells": (20.0, 1500, 12),
}


@pytest.mark.parametrize(("dirt_um", "light", "radius"), FINE_DIRT.values(), ids=FINE_DIRT)
def test_dirt_beyond_a_fine_sweep_does_not_reject_it(
    dirt_um: float, light: float, radius: int
) -> None:
    """Where the focus is about known, dirt 12 um away may outnumber the cells."""
    for seed in range(3):
        generator = np.random.default_rng(seed)
        cells = blobs_at(0.7, FINE, 3, generator, light=1500, radius=12)
        dirt = blobs_at(dirt_um, FINE, 8, generator, light, radius=radius)
        peak = fine_peak(cells + dirt, seed)

        assert peak.reason is None
        assert abs(peak.z_um - 0.7) < 1.2  # half a depth of focus


def test_a_peak_of_one_plane_is_found() -> None:
    """The peak is found if both neighbours have no contrast, as in a stack of three planes."""
    assert find_peak((0.0, 1.0, 2.0), np.array([0.0, 0.9, 0.0]), 0.01).z_um == pytest.approx(1)


def test_two_equal_planes_are_rejected() -> None:
    """If specimen and dirt are equally sharp, the sample is rejected and both heights are named."""
    generator = np.random.default_rng(0)
    planes = [blobs_at(z, COARSE, 12, generator) for z in (-8.0, 12.0)]

    reason = str(find_peak(COARSE, *sharpness(camera(sum(planes), 0))).reason)

    assert "two planes" in reason
    assert "-8 um" in reason
    assert "12 um" in reason


@settings(deadline=None, max_examples=10)
@given(st.floats(-2, 2), st.floats(0, 3), st.integers(0, 100))
def test_relief_is_focused_on_its_centre(middle_um: float, apart_um: float, seed: int) -> None:
    """With objects at two heights, the peak lies nearer their centre than either."""
    generator = np.random.default_rng(seed)
    halves = [
        blobs_at(middle_um + d, HEIGHTS, 20, generator) for d in (-apart_um / 2, apart_um / 2)
    ]

    peak = find_peak(HEIGHTS, *sharpness(camera(sum(halves), seed)))

    assert peak.reason is None
    assert abs(peak.z_um - middle_um) < 0.25 + apart_um / 4


@pytest.mark.parametrize("level", [100, 5000], ids=["dark", "bright"])
def test_an_empty_field_is_rejected(level: int) -> None:
    """A sample with noise only is rejected with the reason."""
    noise = np.random.default_rng(0).normal(level, np.sqrt(level), (13, 200, 200))

    assert "no contrast" in str(find_peak(HEIGHTS, *sharpness(noise)).reason)


@pytest.mark.parametrize("best_um", [-9.0, 9.0], ids=["below", "above"])
def test_a_peak_at_the_edge_is_rejected(best_um: float) -> None:
    """A sweep that is sharpest at its first or last plane has no peak."""
    peak = find_peak(HEIGHTS, *sharpness(sweep(best_um)))

    assert peak.at_edge
    assert "edge" in str(peak.reason)


def slide(count: int, seed: int, noise_um: float = 0.3) -> np.ndarray:
    """Focus samples (x, y, z) of a tilted and bowed slide of 1000 x 400 um."""
    generator = np.random.default_rng(seed)
    x, y = generator.uniform(0, 1000, count), generator.uniform(0, 400, count)
    return np.column_stack([x, y, true_height(x, y) + generator.normal(0, noise_um, count)])


def true_height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tilt of 10 um across, bow of 3 um."""
    return np.asarray(5 + 0.01 * x - 0.005 * y - 3 * ((x - 500) / 500) ** 2)


GRID = np.meshgrid(np.linspace(50, 950, 8), np.linspace(50, 350, 3))


def error_um(surface: FocusSurface) -> float:
    """Mean distance of the fitted surface from the truth over the slide."""
    x, y = (axis.ravel() for axis in GRID)
    return float(np.abs(surface.heights(x, y) - true_height(x, y)).mean())


def twelve(seed: int) -> np.ndarray:
    """Samples of three stripes of four, with the usual focus noise."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(0, 1000, 4), np.linspace(0, 400, 3)))
    noise_um = np.random.default_rng(seed).normal(0, 0.3, 12)
    return np.column_stack([x, y, true_height(x, y) + noise_um])


PAIRS = {
    "any two": [(seed, *np.random.default_rng(seed).choice(12, 2, replace=False))
                for seed in range(5)],
    "two of the first stripe": [(0, *pair) for pair in combinations(range(4), 2)],
    "two of the middle stripe": [(1, *pair) for pair in combinations(range(4, 8), 2)],
    "two of the last stripe": [(2, *pair) for pair in combinations(range(8, 12), 2)],
}  # fmt: skip


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1)], ids=["same side", "both sides"])
@pytest.mark.parametrize("pairs", PAIRS.values(), ids=PAIRS)
def test_two_wrong_samples_of_twelve_do_no_harm(
    pairs: list[tuple[int, int, int]], signs: tuple[int, int]
) -> None:
    """With two of twelve samples off by 15 um the surface stays within 0.5 um in the mean."""
    for seed, *wrong in pairs:
        samples = twelve(seed)
        samples[wrong, 2] += 15 * np.array(signs)

        surface = fit_surface([tuple(row) for row in samples.tolist()])

        assert error_um(surface) < 0.5
        assert np.flatnonzero(~surface.kept).tolist() == sorted(wrong)


@pytest.mark.parametrize(
    ("count", "kind"), [(1, "constant"), (2, "plane"), (5, "plane"), (18, "quadratic")]
)
def test_the_kind_of_surface_follows_the_number_of_samples(count: int, kind: str) -> None:
    """Few samples give a stiff surface, and every surface gives finite heights everywhere."""
    surface = fit_surface([tuple(row) for row in slide(count, seed=1).tolist()])

    assert surface.kind == kind
    assert np.isfinite(surface.heights([-100, 0, 2000], [0, 0, 900])).all()


@given(
    st.lists(
        st.tuples(st.floats(0, 1e4), st.floats(0, 1e4), st.floats(-50, 50)), min_size=1, max_size=9
    )
)
@settings(deadline=None, max_examples=60)
def test_any_samples_give_a_surface_near_them(points: list[tuple[float, float, float]]) -> None:
    """Samples on one line, at one point or anywhere give bounded heights."""
    heights = fit_surface(points).heights([p[0] for p in points], [p[1] for p in points])
    lowest, highest = min(p[2] for p in points), max(p[2] for p in points)
    margin = 0.25 * (highest - lowest) + 1.0 + 1e-6

    assert ((heights >= lowest - margin) & (heights <= highest + margin)).all()
