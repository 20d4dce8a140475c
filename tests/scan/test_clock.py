"""Durations do not depend on who sets the wall clock."""

from __future__ import annotations

import time

import pytest

from scan.clock import now_s


def test_a_clock_that_is_set_back_changes_no_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows the wall clock of the start, and is steady since."""
    before_s = now_s()
    assert abs(before_s - time.time()) < 60

    monkeypatch.setattr(time, "time", lambda: 0.0)

    assert 0 <= now_s() - before_s < 60
