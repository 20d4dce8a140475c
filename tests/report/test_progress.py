"""The terminal display: it takes every event of a run."""

from __future__ import annotations

import logging
from io import StringIO

import pytest
from rich.console import Console

from report.progress import LiveProgress, PlainProgress, log_shown
from scan.events import Begun, Detected, Event, Stopping, Swept, Warned
from tests.results.scans import events_of_a_scan, resumed_scan
from tests.scan.samples import sample


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


def lines_of(*events: Event) -> list[str]:
    """What a terminal of 24 lines of 80 columns shows after these events."""
    show = LiveProgress()
    for event in events:
        show(event)
    output = StringIO()
    Console(width=80, height=24, file=output).print(show._live.renderable)
    return output.getvalue().splitlines()


def begun(*stripes: int) -> Begun:
    cuts = {"row_cuts": range(len(stripes) + 1), "column_cuts": range(max(stripes) + 1)}
    return sample(Begun, stripes=stripes, fields=sum(stripes), **cuts)


def test_sweeps_are_a_bar() -> None:
    """Autofocus shows how many samples are done, of how many."""
    lines = lines_of(begun(4), sample(Swept, done=3, samples=12))

    (bar,) = (line for line in lines if line.startswith("focused"))
    assert " 3/12" in bar


def test_a_hundred_stripes_fit_a_terminal() -> None:
    """There is one bar for each step, and one for each of the three slowest stripes."""
    detected = [sample(Detected, stripe=s) for s in range(100) if s not in (7, 31, 64)]

    lines = lines_of(begun(*[2] * 100), sample(Swept), *detected)

    assert len(lines) <= 12
    steps = "focused", "captured", "stacked", "detected"
    assert [line.split()[0] for line in lines if line.startswith(steps)] == list(steps)
    assert " 97/200" in next(line for line in lines if line.startswith("detected"))
    slow = [line for line in lines if line.startswith("stripe")]
    assert [line.split()[1] for line in slow] == ["7", "31", "64"]
    assert all(" 0/2" in line for line in slow)
