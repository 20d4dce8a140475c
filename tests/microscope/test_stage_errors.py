"""The simulated stage misses its targets as its settings say, each target always by the same."""

from __future__ import annotations

import numpy as np
import pytest

from config import validate
from microscope.opening import errors_of, open_simulated, prepare
from microscope.stage_errors import StageErrors

SLIDE = {"stripes": 2, "fields": 4, "field_px": 128, "planes": 1, "exposure_ms": 0.1}


def test_each_target_is_missed_by_the_same_amount() -> None:
    """The error of a place depends on the seed and the place alone; others differ."""
    errors = StageErrors(seed=5, error_um=2.0)

    assert errors.at(10.0, 20.0) == StageErrors(seed=5, error_um=2.0).at(10.0, 20.0)
    assert errors.at(10.0, 20.0) != errors.at(10.1, 20.0)
    assert errors.at(10.0, 20.0) != StageErrors(seed=6, error_um=2.0).at(10.0, 20.0)


def test_errors_are_spread_as_the_setting_says() -> None:
    """Over many places errors along both axes are normal: mean 0, standard deviation as given."""
    errors = StageErrors(seed=1, error_um=3.0)
    found = np.array([errors.at(float(x), float(y)) for x in range(40) for y in range(40)])

    assert np.abs(found.mean(axis=0)).max() < 0.3
    assert found.std(axis=0) == pytest.approx(3.0, rel=0.1)


def test_a_turned_camera_sees_steps_along_both_axes() -> None:
    """With a camera turned by 1 degree, 1000 um to the right show as 17.5 um up, too."""
    right, down = StageErrors(rotation_deg=1.0).at(1000.0, 0.0)

    assert right == pytest.approx(-0.152, abs=1e-3)
    assert down == pytest.approx(-17.452, abs=1e-3)


def test_drift_grows_from_field_to_field() -> None:
    """Each field lies farther to the right by the drift, stripe after stripe."""
    setup = prepare(validate(SLIDE | {"stage_drift_um": 0.5}))
    errors = errors_of(setup)
    found = [errors.at(field.x_um, field.y_um) for field in setup.plan.fields]

    assert np.diff([right for right, _ in found]) == pytest.approx(0.5)
    assert {down for _, down in found} == {0.0}


def test_a_frame_shows_the_place_where_the_stage_is() -> None:
    """A frame at a missed target is the frame without error at the place where the stage stands."""
    wrong = prepare(validate(SLIDE | {"stage_error_um": 2.0}))
    exact = prepare(validate(SLIDE))
    field = wrong.plan.stripes[1][2]
    right, down = errors_of(wrong).at(field.x_um, field.y_um)
    seen = open_simulated(wrong, 0).electrons(field.x_um, field.y_um, 0.0)
    there = open_simulated(exact, 0).electrons(field.x_um + right, field.y_um + down, 0.0)

    assert np.array_equal(seen, there)
    assert errors_of(exact).at(field.x_um, field.y_um) == (0.0, 0.0)


def test_a_place_photographed_twice_is_the_same_bytes() -> None:
    """Exposures of one place are equal in two microscopes, whatever else they photographed."""
    setup = prepare(validate(SLIDE | {"stage_error_um": 2.0}))
    field, other = setup.plan.stripes[0][1], setup.plan.stripes[1][3]
    first, second = open_simulated(setup, 0), open_simulated(setup, 0)
    second.stack(other.x_um, other.y_um, (0.0,))
    frames = [m.stack(field.x_um, field.y_um, (1.0,)).frames for m in (first, second)]

    assert np.array_equal(*frames)
