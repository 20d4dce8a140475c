"""Autofocus: peaks between steps, brightness that does not fool, surfaces that shrug off errors."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging.focus import find_peak, sharpness
from imaging.surface import fit_surface

HEIGHTS = tuple(float(z) for z in range(-6, 7))


def sweep(best_um: float, seed: int = 0, light: float = 800.0) -> np.ndarray:
    """A noisy focus sweep of blobs that are sharpest at `best_um`; blur 1 pixel per um."""
    generator = np.random.default_rng(seed)
    blobs = np.zeros((192, 192), np.float32)
    for y, x in generator.integers(10, 182, (25, 2)):
        cv2.circle(blobs, (int(x), int(y)), 6, light, -1, cv2.LINE_AA)
    planes = [cv2.GaussianBlur(blobs, (0, 0), np.hypot(0.8, z - best_um)) for z in HEIGHTS]
    electrons = np.stack(planes) + 20
    noisy = electrons + np.sqrt(electrons) * generator.normal(size=electrons.shape)
    return np.rint(100 + noisy).astype(np.uint16)


@settings(deadline=None, max_examples=15)
@given(st.floats(-3, 3), st.integers(0, 100))
def test_the_peak_is_found_between_steps(best_um: float, seed: int) -> None:
    """The peak lies within a quarter step of the truth wherever the truth lies between steps."""
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


@pytest.mark.parametrize("level", [100, 5000], ids=["dark", "bright"])
def test_an_empty_field_is_rejected(level: int) -> None:
    """Noise alone is no focus sample, and the reason says so."""
    noise = np.random.default_rng(0).normal(level, np.sqrt(level), (13, 200, 200))

    assert "no contrast" in str(find_peak(HEIGHTS, *sharpness(noise)).reason)


@pytest.mark.parametrize("best_um", [-9.0, 9.0], ids=["below", "above"])
def test_a_peak_at_the_edge_is_told(best_um: float) -> None:
    """A sweep that is sharpest at its first or last plane has not found its peak."""
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


def surface_error_um(samples: np.ndarray) -> float:
    """Mean distance of the fitted surface from the truth over the slide."""
    x, y = (axis.ravel() for axis in GRID)
    heights = fit_surface([tuple(row) for row in samples.tolist()]).heights(x, y)
    return float(np.abs(heights - true_height(x, y)).mean())


@pytest.mark.parametrize("seed", range(5))
def test_two_wrong_samples_of_twelve_do_no_harm(seed: int) -> None:
    """With two of twelve samples off by 15 um the surface stays within 0.5 um in the mean."""
    x, y = np.meshgrid(np.linspace(0, 1000, 4), np.linspace(0, 400, 3))
    samples = np.column_stack([x.ravel(), y.ravel(), true_height(x.ravel(), y.ravel())])
    generator = np.random.default_rng(seed)
    samples[:, 2] += generator.normal(0, 0.3, 12)
    wrong = generator.choice(12, 2, replace=False)
    samples[wrong, 2] += 15 * generator.choice([-1, 1], 2)

    kept = fit_surface([tuple(row) for row in samples.tolist()]).kept

    assert surface_error_um(samples) < 0.5
    assert [index for index in range(12) if not kept[index]] == sorted(wrong)


@pytest.mark.parametrize(
    ("count", "kind"), [(1, "constant"), (2, "plane"), (5, "plane"), (18, "quadratic")]
)
def test_the_surface_is_as_rich_as_its_samples(count: int, kind: str) -> None:
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
    """Samples on one line, on one spot or anywhere give heights that do not run away."""
    heights = fit_surface(points).heights([p[0] for p in points], [p[1] for p in points])
    lowest, highest = min(p[2] for p in points), max(p[2] for p in points)
    margin = 0.25 * (highest - lowest) + 1.0 + 1e-6

    assert ((heights >= lowest - margin) & (heights <= highest + margin)).all()
