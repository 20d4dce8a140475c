"""What is said while many files are read."""

import logging

import pytest

from microscope.counting import counted
from report.progress import log_shown


def test_many_files_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Results come as they are, behind one line that says how many there will be."""
    with caplog.at_level(logging.INFO, "microscope"):
        assert list(counted(iter(range(5)), "reading files", 5, many=5)) == [0, 1, 2, 3, 4]

    assert [record.getMessage() for record in caplog.records] == ["reading files: 5"]


def test_few_files_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """What is over at once needs no line."""
    with caplog.at_level(logging.INFO, "microscope"):
        assert list(counted(iter("ab"), "reading files", 2, many=5)) == ["a", "b"]

    assert not caplog.records


def test_a_terminal_has_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal a bar shows how far reading is."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    with log_shown():
        list(counted(range(5), "reading files", 5, many=5))

    shown = capsys.readouterr().out
    assert "reading files" in shown
    assert "100%" in shown


def test_a_program_without_a_log_is_shown_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the scan is a function of another program there is no bar, also not after a scan that
    was shown."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with log_shown():
        pass

    list(counted(range(5), "reading files", 5, many=5))

    assert not capsys.readouterr().out
