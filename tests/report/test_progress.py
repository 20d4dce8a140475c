"""The terminal display: it takes every event of a run."""

from __future__ import annotations

import logging

import pytest

from report.progress import LiveProgress, PlainProgress, log_shown
from scan.events import Stopping, Warned
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


@pytest.mark.parametrize("display", [PlainProgress, LiveProgress])
def test_messages_are_shown_as_they_are(display: type, capsys: pytest.CaptureFixture[str]) -> None:
    """What a message holds is neither markup of the display nor a command of the terminal."""
    with display() as show:
        for event in events_of_a_scan()[:2]:
            show(event)
        show(Warned(message="no [/bold] brackets\x1b]0;title\x07"))

    assert r"no [/bold] brackets\x1b]0;title\x07" in capsys.readouterr().out


def test_log_messages_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A log message names what the user named, whatever that is."""
    with log_shown():
        logging.getLogger("driver.test").info("opening %s", "a\n\x1b[2J")

    assert capsys.readouterr().out == "opening a\\n\\x1b[2J\n"
