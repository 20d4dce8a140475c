"""How a run ends: what is missing is said, and what was not closed is closed."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path
from typing import Any

import pytest

import main
from report.ending import close_run, end_run, print_ending
from results.journal import JOURNAL, read_journal
from results.run_folder import run_lock
from scan.errors import InputError, ScanError
from scan.events import Finished, RunFailed
from tests.report.runs import FakeRun

GONE = ScanError("the driver", "its process to run to its end", "SIGKILL", "see the logs")


def run_of(folder: Path, *, finished: bool) -> FakeRun:
    """A run of six fields, one of them done."""
    run = FakeRun(folder)
    run.begin()
    run.focus()
    for step in (run.capture, run.stack, run.detect):
        step(run.plan.fields[0])
    if finished:
        run.finish("complete")
    run.journal.close()
    return run


def fill_disk(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """From now on there is no room for files of these names."""
    opened = Path.open

    def open_or_refuse(path: Path, *how: Any, **named: Any) -> Any:
        writes = "w" in "".join([*how, named.get("mode", "")])
        if writes and any(name in path.name for name in names):
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, *how, **named)

    monkeypatch.setattr(Path, "open", open_or_refuse)


@pytest.mark.parametrize("names", [["report.html"], ["trace.json"], ["summary.json", "report"]])
def test_what_a_full_disk_leaves_out_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    names: list[str],
) -> None:
    """The results are there, so the exit code stays; a line names each file that is missing, and
    one the command that writes them, which does."""
    run_of(tmp_path, finished=True)
    with monkeypatch.context() as full:
        fill_disk(full, *names)
        code = print_ending(end_run(tmp_path, None, list))
    lines = capsys.readouterr().out.splitlines()

    assert code == 0
    for name in names:
        assert sum(name in line and "No space left" in line for line in lines) == 1
    (command,) = (line for line in lines if line.startswith("to write what is missing: "))
    again = main.main(re.split(r"\s+", command.partition("main.py ")[2]))
    assert again == 0
    left = {path.name for path in tmp_path.iterdir()}
    assert {"report.html", "trace.json", "summary.json"} <= left


def test_a_run_whose_process_died_is_closed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its journal gets its last events, its summary the reason; the line says how to go on."""
    run_of(tmp_path, finished=False)

    code = print_ending(close_run(tmp_path, GONE))

    printed = capsys.readouterr()
    failed, finished = read_journal(tmp_path / JOURNAL)[-2:]
    assert code == 1
    assert printed.err == ""  # the reason was said when the process died
    assert f"python main.py --resume {tmp_path}" in printed.out
    assert isinstance(failed, RunFailed)
    assert isinstance(finished, Finished)
    assert json.loads((tmp_path / "summary.json").read_text())["reason"] == str(GONE)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_run_that_died_after_its_end_is_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stopped: bool
) -> None:
    """What happens to a process after the last event does not change how its run ended."""
    run_of(tmp_path, finished=True)
    before = (tmp_path / JOURNAL).read_bytes()

    code = print_ending(close_run(tmp_path, KeyboardInterrupt() if stopped else GONE))

    assert code == 0
    assert (tmp_path / JOURNAL).read_bytes() == before
    assert capsys.readouterr().err == ""


def test_a_run_that_was_stopped_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that a signal ended leaves a run that was cancelled."""
    run_of(tmp_path, finished=False)

    code = print_ending(close_run(tmp_path, KeyboardInterrupt()))

    assert code == 130
    assert capsys.readouterr().err == ""
    assert not [e for e in read_journal(tmp_path / JOURNAL) if isinstance(e, RunFailed)]


def test_a_run_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    """Who resumed the run meanwhile has it."""
    run_of(tmp_path, finished=False)
    with run_lock(tmp_path), pytest.raises(InputError, match="a folder that no run is using"):
        close_run(tmp_path, GONE)
