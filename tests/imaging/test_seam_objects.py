"""Objects that cross seams of a registered mosaic have the shapes that they have in the slide."""

from __future__ import annotations

import pytest

from benchmarks.seam_objects import SHAPES, Errors, compare
from benchmarks.tile_scenes import Stage


@pytest.fixture(scope="module")
def errors() -> dict[tuple[str, str], Errors]:
    """Of objects at seams and of others, with a stage error of 3 px."""
    return compare(1, Stage(3.0, whole=True), (2, 4))


@pytest.mark.parametrize("name", SHAPES)
def test_objects_at_seams_are_as_true_as_others(
    errors: dict[tuple[str, str], Errors], name: str
) -> None:
    """Area and eccentricity err at seams as in the middle of fields, and by far more without
    registration."""
    mean = {case: getattr(each, name).mean() for case, each in errors.items()}

    assert len(errors["registered", "at seams"].area) >= 8
    assert mean["registered", "at seams"] < 1.5 * mean["registered", "in the middle"]
    assert mean["stage's word", "at seams"] > 4 * mean["stage's word", "in the middle"]
