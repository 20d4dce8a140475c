"""A specimen depends on its seed only, and is as hard to focus and to separate as documented."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microscope.specimen import CLOSEST, HEIGHT_LIMIT_UM, Specimen

SCAN_UM = (416.0, 1040.0)  # 3 × 8 fields of 512 px, overlapping by 128 px, at 0.325 µm
DEPTH_OF_FOCUS_UM = 2.4
ARRAYS = ("x_um", "y_um", "height_um", "diameter_um", "elongation", "orientation", "brightness",
          "texture_seed")  # fmt: skip

seeds = st.integers(0, 2**63)
lengths_um = st.floats(50, 1500)


@given(seeds, lengths_um, lengths_um)
@settings(max_examples=25, deadline=None)
def test_the_same_seed_grows_the_same_specimen(seed: int, height: float, width: float) -> None:
    """Every array and the focus surface depend on the arguments alone."""
    first, second = (Specimen.grow(seed, (height, width)) for _ in range(2))

    assert first.surface == second.surface
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_another_seed_grows_another_specimen() -> None:
    """Two seeds share neither positions nor focus surface."""
    first, second = Specimen.grow(1, SCAN_UM), Specimen.grow(2, SCAN_UM)

    assert first.surface != second.surface
    assert not np.isin(first.x_um, second.x_um).any()


@given(seeds, lengths_um, lengths_um)
@settings(max_examples=25, deadline=None)
def test_objects_are_as_promised(seed: int, height: float, width: float) -> None:
    """Positions, sizes, heights and brightnesses stay within the documented bounds."""
    specimen = Specimen.grow(seed, (height, width))

    assert {len(getattr(specimen, name)) for name in ARRAYS} == {len(specimen)}
    assert ((specimen.x_um >= 0) & (specimen.x_um <= width)).all()
    assert ((specimen.y_um >= 0) & (specimen.y_um <= height)).all()
    assert ((specimen.diameter_um >= 8) & (specimen.diameter_um <= 14)).all()
    assert (specimen.elongation >= 1).all()
    own_um = specimen.height_um - specimen.focus_surface_um(specimen.x_um, specimen.y_um)
    assert (np.abs(own_um) <= HEIGHT_LIMIT_UM + 1e-9).all()


@pytest.mark.parametrize(
    "density_per_mm2", [680.0, 3000.0, 20000.0], ids=["usual", "dense", "full"]
)
def test_objects_do_not_overlap_much(density_per_mm2: float) -> None:
    """No two centres are nearer than nine tenths of the sum of radii, however dense."""
    specimen = Specimen.grow(5, (200.0, 300.0), density_per_mm2=density_per_mm2)

    distance = np.hypot(*(v[:, None] - v for v in (specimen.x_um, specimen.y_um)))
    np.fill_diagonal(distance, np.inf)
    radii = (specimen.diameter_um[:, None] + specimen.diameter_um) / 2
    assert (distance >= CLOSEST * radii).all()
    assert 0 < len(specimen) <= round(density_per_mm2 * 0.06)


@pytest.mark.parametrize("seed", range(5))
def test_the_usual_scan_holds_some_hundred_objects(seed: int) -> None:
    """A scan of 3 × 8 fields holds 250 to 350 objects, a few of which touch."""
    specimen = Specimen.grow(seed, SCAN_UM)

    brightest, dimmest = specimen.brightness.max(), specimen.brightness.min()
    assert 250 <= len(specimen) <= 350
    assert 3 < brightest / dimmest <= 4


@given(seeds, lengths_um, lengths_um)
@settings(max_examples=25, deadline=None)
def test_one_focus_does_not_serve_the_whole_slide(seed: int, height: float, width: float) -> None:
    """For any extent the surface rises by more than twice the depth of focus."""
    specimen = Specimen.grow(seed, (height, width))

    y_um, x_um = np.mgrid[0:height:21j, 0:width:21j]  # type: ignore[misc]
    surface_um = specimen.focus_surface_um(x_um, y_um)
    assert 2 * DEPTH_OF_FOCUS_UM < np.ptp(surface_um) < 20
    assert surface_um.dtype == np.float64


def test_the_focus_surface_takes_numbers_and_arrays() -> None:
    """A single position gives the same height as within an array."""
    specimen = Specimen.grow(0, SCAN_UM)

    alone = specimen.focus_surface_um(100.0, 50.0)
    among = specimen.focus_surface_um(np.array([0.0, 100.0]), np.array([0.0, 50.0]))
    assert float(alone) == among[1]


def test_an_extent_without_room_grows_an_empty_specimen() -> None:
    """A slide smaller than one object's share is empty, not an error."""
    assert len(Specimen.grow(0, (10.0, 10.0))) == 0
