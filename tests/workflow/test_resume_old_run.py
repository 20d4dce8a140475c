"""A run folder of an earlier version of the program: what this one makes of it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

import main

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "interrupted_run.tar.gz"


def test_a_run_of_another_version_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fields of one run are stacked and searched in one way: a run that an earlier version began is
    left as it is, and its report can be made."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "interrupted_run"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    code = main.main(["--plain", "--resume", str(folder)])

    message = capsys.readouterr().err
    assert code == 2
    assert "expected a run of this program, got one of another version" in message
    assert message.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert main.main(["--report", str(folder)]) == 0
    assert (folder / "report.html").stat().st_size > 0
