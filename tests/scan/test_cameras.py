"""The care of cameras: what died is known by name and reason; the test brings the clock."""

from __future__ import annotations

import pytest

from scan.cameras import CameraCare
from scan.credits import Credits
from scan.ledger import Ledger
from scan.plan import Field, make_plan

PLAN = make_plan((3, 3), (64, 64), 0, 1.0, steered=True)
ALLOWED_S = 5.0
START_S = 60.0


@pytest.fixture
def ledger() -> Ledger:
    """A scan whose two cameras have been asked for two fields each."""
    ledger = Ledger(PLAN, Credits(9), retries=2)
    list(ledger.captures_to_begin())
    return ledger


@pytest.fixture
def care(ledger: Ledger) -> CameraCare:
    """The care of these cameras, which have begun at 0 s."""
    care = CameraCare(ledger, ALLOWED_S, START_S)
    for stripe in (0, 1):
        care.expect(stripe, 0.0)
    return care


def first_of(stripe: int) -> Field:
    return PLAN.stripes[stripe][0]


def test_a_hung_camera_is_started_anew(ledger: Ledger, care: CameraCare) -> None:
    """Silence fells a camera; what it was exposing is known until it has started."""
    ledger.was_captured(first_of(1))
    care.expect(1, 4.0)

    assert care.silent(5.5) == [(0, False)]
    assert care.felled(0) == (first_of(0), "no answer from the camera within 5 s")
    assert care.starts(0, "the process died", 6.0)
    assert not care.starts(0, "the process died", 6.1)
    assert ledger.paused == {0}
    assert care.started(0) == "no answer from the camera within 5 s"
    assert ledger.paused == set()


def test_a_camera_that_does_not_start_is_given_up(care: CameraCare) -> None:
    """One that is silent while it starts is not replaced again, and both reasons are told."""
    care.starts(0, "the process died", 1.0)

    assert (0, True) in care.silent(1.0 + START_S + 0.1)
    reason = care.started(0, "it was killed")

    assert reason == f"the process died; the camera did not open within {START_S:.0f} s"


def test_a_camera_that_cannot_be_opened_says_why(care: CameraCare) -> None:
    """An error of its start is told after the reason for which it had to start."""
    care.starts(0, "the process died", 1.0)

    assert care.started(0, "no such port") == (
        "the process died; the camera could not be opened: no such port"
    )


def test_an_answer_in_the_last_moment_counts(care: CameraCare) -> None:
    """A camera that answers while it is being ended has nothing to answer for later."""
    assert (0, False) in care.silent(5.5)
    care.answered(0)

    care.starts(0, "the process died", 6.0)

    assert care.felled(0)[1] == "the process died"


def test_an_idle_camera_may_be_silent(ledger: Ledger, care: CameraCare) -> None:
    """Nothing is expected of a camera that was asked for nothing."""
    for field in PLAN.stripes[0][:2]:
        ledger.was_captured(field)
        care.expect(0, 3.0)

    assert care.silent(100.0) == [(1, False)]
