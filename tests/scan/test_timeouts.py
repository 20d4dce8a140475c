"""A camera may take as long as its work takes, and a margin."""

from __future__ import annotations

import pytest

from config import validate
from scan.layout import make_plan
from scan.timeouts import capture_timeout_s

PLAN = make_plan((4, 4), (512, 512), 128, 0.5, steered=True)


def test_long_exposures_get_their_time() -> None:
    """The limit covers every exposure, rest and travel, and the margin beyond."""
    quick, slow = (
        validate({"exposure_ms": ms, "settle_ms": 10, "watchdog_s": 7}) for ms in (1, 2000)
    )

    assert capture_timeout_s(quick, PLAN, planes=15) > 7 + 15 * 0.011
    added_s = capture_timeout_s(slow, PLAN, 15) - capture_timeout_s(quick, PLAN, 15)
    assert added_s == pytest.approx(29.985)
