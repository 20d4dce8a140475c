"""Screens that are gone: closed, full, or read by nobody."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORK = """
import sys
from pathlib import Path
from cluster.screen import keep_screen
keep_screen()
opened = open(sys.argv[1], "w")
for _ in range(10_000):
    print("a line \\udcff")
    print("an error", file=sys.stderr)
assert not sys.stdout.isatty()
opened.write("all done")
sys.exit(3)
"""

SCREENS = {
    "full": ">/dev/full 2>/dev/full",
    "no output": ">&-",
    "no errors": "2>&-",
    "no streams": "<&- >&- 2>&-",
    "a pipe that is closed": "2>&1 | head -n 1",
}


@pytest.mark.parametrize("screen", SCREENS.values(), ids=list(SCREENS))
def test_a_screen_that_is_gone_changes_nothing(tmp_path: Path, screen: str) -> None:
    """A program prints into nothing, writes its files whole, and keeps its exit code."""
    done = tmp_path / "done"
    command = shlex.join([sys.executable, "-c", WORK, str(done)])

    script = f"set -o pipefail; {command} {screen}"
    run = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, check=False)

    assert run.returncode == 3, run.stderr
    assert done.read_text() == "all done"


def test_a_screen_that_is_there_is_written_to() -> None:
    """What is printed arrives, in order, with what cannot be encoded escaped."""
    work = (
        "from cluster.screen import keep_screen; keep_screen(); print('one \\udcff'); print('two')"
    )

    run = subprocess.run([sys.executable, "-c", work], cwd=ROOT, capture_output=True, check=True)

    assert run.stdout == b"one \\udcff\ntwo\n"
    assert run.stderr == b""
