"""One run at a time uses a folder; a folder with results is never overwritten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from results.run_folder import LOCK, OWNER, choose_folder, run_lock
from scan.errors import InputError

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, signal
from pathlib import Path
from results.run_folder import run_lock
with run_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    signal.pause()
"""


def holder_of(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock of the folder until it is ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_two_runs_cannot_use_one_folder(tmp_path: Path) -> None:
    """The second is refused and the message names the first; a killed run blocks no other."""
    with holder_of(tmp_path / "run") as other:
        with (
            pytest.raises(InputError, match=f"in use by process {other.pid} on "),
            run_lock(tmp_path / "run"),
        ):
            pass
        other.send_signal(signal.SIGKILL)

    assert (tmp_path / "run" / LOCK).exists()
    with run_lock(tmp_path / "run"):
        assert f"process {os.getpid()} " in (tmp_path / "run" / OWNER).read_text()


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, RuntimeError])
def test_a_lock_is_released(tmp_path: Path, error: type[BaseException] | None) -> None:
    """However a run ends, its lock is removed; results stay, an empty folder is removed."""
    for name, result in (("empty", ""), ("full", "events.jsonl")):
        folder = tmp_path / name
        try:
            with run_lock(folder):
                if result:
                    (folder / result).touch()
                if error:
                    raise error
        except (KeyboardInterrupt, RuntimeError):
            pass

    assert not (tmp_path / "empty").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["events.jsonl"]


def test_a_stale_lock_is_not_a_result(tmp_path: Path) -> None:
    """A folder in which a run died before it wrote anything can be used again."""
    (tmp_path / LOCK).touch()
    (tmp_path / OWNER).touch()

    assert choose_folder(tmp_path) == tmp_path


def test_two_runs_of_one_second_get_two_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders named by the time have different names."""
    monkeypatch.chdir(tmp_path)
    chosen = set()
    for _ in range(3):
        folder = choose_folder(None)
        folder.mkdir(parents=True)
        chosen.add(folder)

    assert len(chosen) == 3
