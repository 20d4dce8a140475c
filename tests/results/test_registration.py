"""What the summary says of registration, from events that we make up."""

from __future__ import annotations

import numpy as np
import pytest

from microscope.stage_errors import StageErrors
from results.journal import EventIndex
from results.registration import format_registration, registration, seams
from scan.events import Begun, Matched, MatchFact, Placed
from scan.layout import make_plan
from scan.plan import Field

PLAN = make_plan((12,) * 4, (256, 256), 64, 0.5, steered=True)
WORK = {"began_s": 1.0, "ended_s": 2.0, "cpu_s": 0.5}
BEGUN = Begun.of(PLAN, process_began_s=0.0, versions={}, identity={})


def placed(field: Field, down: float, across: float, agreeing: int = 2) -> Placed:
    """A field that was placed."""
    written = round(down), round(across)
    return Placed.of(
        field, 0, offset_px=(down, across), written_px=written, agreeing=agreeing, **WORK
    )


def of_a_stage(errors: StageErrors) -> EventIndex:
    """The events of a scan by a stage whose errors are found exactly."""
    events = [BEGUN]
    for field in PLAN.fields:
        right, down = errors.at(field.x_um, field.y_um)
        events.append(placed(field, down / PLAN.pixel_size_um, right / PLAN.pixel_size_um))
    return EventIndex(events)


def test_without_registration_nothing_is_said() -> None:
    """Runs that did not register have an empty entry, and no line."""
    assert registration(EventIndex([BEGUN])) == {}
    assert format_registration({}) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_turned_camera_is_told(seed: int) -> None:
    """A rotation is found within a fifth of itself, in spite of the random error of the stage."""
    found = registration(of_a_stage(StageErrors(seed, 1.0, rotation_deg=0.4)))

    assert found["rotation_deg"] == pytest.approx(0.4, rel=0.2)
    assert "the camera is turned by" in "\n".join(format_registration(found))


@pytest.mark.parametrize("seed", range(5))
def test_a_straight_camera_is_not_called_turned(seed: int) -> None:
    """Random errors alone show neither rotation nor scale."""
    found = registration(of_a_stage(StageErrors(seed, 1.0)))

    assert (found["rotation_deg"], found["scale"]) == (None, None)
    assert found["shift_um"]["p50"] == pytest.approx(1.18, rel=0.3)  # of a Rayleigh distribution
    assert len(format_registration(found)) == 1


def test_steps_that_are_too_long_are_told() -> None:
    """A stage whose steps are one percent longer than said has a scale of 1.01."""
    events = [BEGUN]
    for field in PLAN.fields:
        events.append(placed(field, 0.01 * field.rows[0], 0.01 * field.columns[0]))
    found = registration(EventIndex(events))

    assert found["scale"] == pytest.approx(1.01, rel=1e-3)
    assert "+1.00 %" in format_registration(found)[-1]


def test_fields_placed_by_the_stages_word_are_counted() -> None:
    """Fields without a match that agrees are counted apart, and told if they are many."""
    events = [placed(field, 0, 0, agreeing=int(field.field < 6)) for field in PLAN.fields]
    found = registration(EventIndex([BEGUN, *events]))

    assert (found["matched"], found["unmatched"]) == (24, 24)
    assert "24 fields show too little where they overlap" in format_registration(found)[1]


def test_a_seam_is_compared_before_and_after() -> None:
    """By the stage's word two fields would lie 5 px wrong; placed as they match, 1 px."""
    one, other = PLAN.stripes[0][:2]
    fact = MatchFact(stripe=0, field=0, shift_px=(3, 4), covariance_px2=(1, 1, 0), ncc=0.9)
    match = Matched.of(other, 0, matches=(fact,), **WORK)
    events = EventIndex([BEGUN, match, placed(one, 0.0, 0.0), placed(other, 3.0, 3.0)])

    assert seams(events) == {((0, 0), (0, 1)): (5.0, 1.0)}
    assert registration(events)["residual_px"] == {"p50": 1.0, "p95": 1.0}


def test_fields_beyond_their_overlap_are_told() -> None:
    """A field that is written elsewhere than it lies, because its frame ends, is counted."""
    events = [placed(field, 0, 0) for field in PLAN.fields[1:]]
    far = Placed.of(
        PLAN.fields[0], 0, offset_px=(40.0, 0.0), written_px=(32, 0), agreeing=1, **WORK
    )
    found = registration(EventIndex([BEGUN, far, *events]))

    assert found["limited"] == 1
    assert any(
        "farther off than their overlap allows" in each for each in format_registration(found)
    )
    assert np.isclose(found["shift_um"]["max"], 20.0)
