"""A camera must answer in the time that its work takes, and a margin; the test brings the clock."""

from __future__ import annotations

import pytest

from config import validate
from scan.plan import make_plan
from scan.watchdog import Watchdog, allowed_s

PLAN = make_plan((4, 4), (512, 512), 128, 0.5, steered=True)


def test_only_silence_beyond_its_time_is_a_fault() -> None:
    """A camera is overdue after its time, once; one that answered or has nothing to do never is."""
    watchdog = Watchdog()
    watchdog.expect(0, due_s=10.0)
    watchdog.expect(1, due_s=12.0)
    watchdog.expect(2, due_s=5.0)
    watchdog.dismiss(2)

    assert watchdog.overdue(10.0) == []
    assert watchdog.overdue(11.0) == [0]
    assert watchdog.overdue(11.5) == []
    watchdog.expect(1, due_s=20.0)
    assert watchdog.overdue(19.0) == []
    assert watchdog.overdue(20.5) == [1]


def test_long_exposures_get_their_time() -> None:
    """The time allowed covers every exposure, rest and travel, and the margin beyond."""
    quick, slow = (
        validate({"exposure_ms": ms, "settle_ms": 10, "watchdog_s": 7}) for ms in (1, 2000)
    )

    assert allowed_s(quick, PLAN, planes=15) > 7 + 15 * 0.011
    assert allowed_s(slow, PLAN, 15) - allowed_s(quick, PLAN, 15) == pytest.approx(29.985)
