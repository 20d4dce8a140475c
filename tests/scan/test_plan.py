"""The plan: cores tile the mosaic in whole chunks, and every point has one owner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.ownership import region
from scan.errors import UserMistake
from scan.layout import make_placed_plan, make_plan
from scan.plan import ScanPlan


@st.composite
def placed_plans(draw: st.DrawFn) -> ScanPlan:
    """Plans of recorded fields at places a few pixels off a grid, some of which lack a field."""
    shape = (draw(st.integers(64, 700)), draw(st.integers(64, 700)))
    error = draw(st.integers(0, 6))
    overlap = draw(st.integers(2 * error + 16, min(shape) // 2))
    stripes, fields = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    off = st.integers(-error, error)
    origins = [
        [
            (s * (shape[0] - overlap) + draw(off), f * (shape[1] - overlap) + draw(off))
            if f == s % fields or s == f % stripes or draw(st.booleans())
            else None
            for f in range(fields)
        ]
        for s in range(stripes)
    ]
    return make_placed_plan(origins, shape, 0.5)


@given(placed_plans())
def test_placed_cores_are_whole_chunks_of_their_frames(plan: ScanPlan) -> None:
    """Whatever the places, no two cores share a chunk or a pixel, and a frame shows its core."""
    owners = np.zeros(plan.mosaic_shape, np.uint8)
    for field in plan.fields:
        owners[slice(*field.rows), slice(*field.columns)] += 1
        for spans, edge in zip(field.core_in_frame(), plan.frame_shape, strict=True):
            assert 0 <= spans.start < spans.stop <= edge
        for start, chunk in zip((field.rows[0], field.columns[0]), plan.chunk_shape, strict=True):
            assert start % chunk == 0
            assert all(chunk % 2**level == 0 for level in range(plan.levels))

    assert owners.max() == 1
    every = len(plan.row_cuts) - 1, len(plan.column_cuts) - 1
    assert owners.all() == (len(plan.fields) == every[0] * every[1])
    assert [plan.at((field.stripe, field.field)) for field in plan.fields] == [*plan.fields]
    assert sum(plan.counts) - len(plan.absent) == len(plan.fields)


@given(placed_plans())
def test_placed_fields_keep_their_distances(plan: ScanPlan) -> None:
    """The stage position of a field is that of its frame's centre."""
    for field in plan.fields:
        for origin, edge, place in zip(
            field.origin_px, plan.frame_shape, (field.y_um, field.x_um), strict=True
        ):
            assert place == (origin + (edge - 1) / 2) * plan.pixel_size_um


def test_placed_fields_that_do_not_overlap_are_refused() -> None:
    """A mosaic has no gaps."""
    with pytest.raises(UserMistake, match="overlaps of -10 pixels"):
        make_placed_plan([[(0, 0), (0, 110)]], (100, 100), 1.0)


@st.composite
def plans(draw: st.DrawFn) -> ScanPlan:
    """Plans of steered and recorded scans; a recorded one may end in a shorter stripe."""
    steered = draw(st.booleans())
    shape = (draw(st.integers(64, 700)), draw(st.integers(64, 700)))
    overlap = draw(st.integers(0, min(shape) // 2))
    stripes, fields = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    last = fields if steered else draw(st.integers(1, fields))
    counts = (fields,) * (stripes - 1) + (last if stripes > 1 else fields,)
    return make_plan(counts, shape, overlap, 0.5, steered=steered)


@given(plans())
def test_cores_tile_the_mosaic(plan: ScanPlan) -> None:
    """Every pixel of the mosaic belongs to one core; only unrecorded places belong to none."""
    owners = np.zeros(plan.mosaic_shape, np.uint8)
    for field in plan.fields:
        owners[slice(*field.rows), slice(*field.columns)] += 1

    assert owners.max() == 1
    assert owners[: plan.fields[-1].rows[0] or None].all() or len(plan.stripes) == 1
    if len({len(stripe) for stripe in plan.stripes}) == 1:
        assert owners.all()


@given(plans())
def test_cores_are_whole_chunks_on_every_level(plan: ScanPlan) -> None:
    """A core begins at a chunk border on each level, so no two tasks write one chunk."""
    for field in plan.fields:
        for start, chunk in zip((field.rows[0], field.columns[0]), plan.chunk_shape, strict=True):
            for level in range(plan.levels):
                assert chunk % 2**level == 0
                assert start % chunk == 0


@given(plans())
def test_chunks_are_large(plan: ScanPlan) -> None:
    """A field is written in few files: chunks have the size of cores, or at least 200 pixels."""
    for field in plan.fields:
        spans = (field.rows, field.columns)
        for (start, end), chunk in zip(spans, plan.chunk_shape, strict=True):
            assert chunk >= min(200, 0.5 * (end - start))


@given(plans())
def test_a_core_lies_in_its_frame(plan: ScanPlan) -> None:
    """A field photographs all of its core."""
    for field in plan.fields:
        rows, columns = field.core_in_frame()

        assert 0 <= rows.start < rows.stop <= plan.frame_shape[0]
        assert 0 <= columns.start < columns.stop <= plan.frame_shape[1]


@given(plans(), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_a_point_has_one_owner(plan: ScanPlan, down: float, across: float) -> None:
    """However fields overlap, a point belongs to at most one, and to one where a core is."""
    row = down * plan.mosaic_shape[0] - 0.5
    column = across * plan.mosaic_shape[1] - 0.5
    whole = len({len(stripe) for stripe in plan.stripes}) == 1

    owners = sum(field.owns(row, column) for field in plan.fields)

    assert owners == 1 or (owners == 0 and not whole)


@given(plans(), st.integers(0, 300))
def test_a_region_needs_no_field_but_the_neighbours(plan: ScanPlan, halo_px: int) -> None:
    """What is read to search a field lies in its core and its neighbours' cores."""
    for field in plan.fields:
        around = plan.surroundings(field)
        rows, columns = (
            region(field.rows, halo_px, around[0]),
            region(field.columns, halo_px, around[1]),
        )
        seen = {
            other
            for other in plan.fields
            if other.rows[0] < rows.stop
            and rows.start < other.rows[1]
            and other.columns[0] < columns.stop
            and columns.start < other.columns[1]
        }

        assert seen <= {field, *plan.neighbours(field)}


@given(st.integers(2, 5), st.integers(64, 1500), st.integers(0, 700))
def test_steered_fields_overlap_at_least_as_asked(count: int, frame: int, overlap: int) -> None:
    """Neighbours of a steered scan share no fewer pixels than the settings ask."""
    overlap = min(overlap, frame // 2)
    plan = make_plan((count,), (frame, frame), overlap, 1.0, steered=True)

    for before, after in zip(plan.stripes[0], plan.stripes[0][1:], strict=False):
        assert before.origin_px[1] + frame - after.origin_px[1] >= overlap


def test_recorded_overlap_beyond_half_is_refused() -> None:
    """An overlap that no recording has is a mistake, not a crash."""
    with pytest.raises(UserMistake, match="at most half of the recorded field"):
        make_plan((2,), (100, 100), 60, 1.0, steered=False)


REGISTERED = {
    "as they follow each other": make_plan(
        (3, 3, 3), (256, 256), 32, 0.5, steered=False, registered=True
    ),
    "where the stage was": make_placed_plan(
        [[(s * 224, f * 224) for f in range(3)] for s in range(3)], (256, 256), 0.5, registered=True
    ),
}


@pytest.mark.parametrize("plan", REGISTERED.values(), ids=list(REGISTERED))
def test_recorded_fields_may_move_if_they_are_registered(plan: ScanPlan) -> None:
    """Every frame shows half of its overlap beyond its core on all sides, so it may be shifted."""
    for field in plan.fields:
        for core, origin in zip((field.rows, field.columns), field.origin_px, strict=True):
            assert core[0] - origin == 16
            assert origin + 256 - core[1] == 16
    assert plan.mosaic_shape == (3 * 224, 3 * 224)
