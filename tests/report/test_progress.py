"""The terminal display: it takes every event of a run."""

from __future__ import annotations

import pytest

from report.progress import LiveProgress, PlainProgress
from scan.events import Stopping
from tests.results.scans import events_of_a_scan, resumed_scan


@pytest.mark.parametrize("display", [PlainProgress, LiveProgress])
def test_any_journal_can_be_shown(display: type, capsys: pytest.CaptureFixture[str]) -> None:
    """Both displays take every event of a scan and name the lost field."""
    with display() as show:
        for event in events_of_a_scan():
            show(event)

    assert "camera" in capsys.readouterr().out


@pytest.mark.parametrize("display", [PlainProgress, LiveProgress])
def test_a_resumed_run_can_be_shown(display: type) -> None:
    """Both displays take the events of a run that goes on where another stopped."""
    with display() as show:
        for event in [*resumed_scan(), Stopping()]:
            show(event)
