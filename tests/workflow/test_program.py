"""The program as its users start it: a process of its own, on a Ray of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = ["--stripes", "2", "--fields", "2", "--planes", "7", "--field-px", "256"]


def program(*options: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run `python main.py` with these options and wait for its end."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *options],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=120,
        check=False,
    )


def test_the_answer_does_not_depend_on_the_cpus(tmp_path: Path) -> None:
    """One CPU and two give the same digest, exit code 0, and name the folder on the last line."""
    digests = set()
    for cpus in ("1", "2"):
        folder = tmp_path / cpus
        run = program(*TINY, "--num-cpus", cpus, "--out", str(folder))

        assert run.returncode == 0, run.stderr
        assert run.stdout.splitlines()[-1] == str(folder)
        digests.add(json.loads((folder / "summary.json").read_text())["digest"])

    assert len(digests) == 1


def test_a_missing_cluster_is_told_soon(tmp_path: Path) -> None:
    """No Ray at the address: exit code 2 within 20 s, one message, nothing written."""
    began = time.monotonic()

    run = program("--address", "127.0.0.1:1", "--out", str(tmp_path / "run"))

    assert time.monotonic() - began < 20
    assert run.returncode == 2
    assert re.search(r"Ray at 127\.0\.0\.1:1: expected a Ray that answers", run.stderr)
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "run").exists()


def test_the_readme_gives_the_two_commands() -> None:
    """The README's commands install exactly the files that are there."""
    commands = re.findall(r"^pip install -r (\S+) && (.+)$", (ROOT / "README.md").read_text(), re.M)

    assert commands == [("requirements.txt", "python main.py"), ("requirements-dev.txt", "pytest")]
    assert all((ROOT / name).is_file() for name, _ in commands)


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_needs_no_ray(option: str) -> None:
    """Help is answered at once and lists every option of the design that is built."""
    run = program(option)

    assert run.returncode == 0
    assert {"--config", "--out", "--stripes", "--replay-path", "--plain"} <= set(
        re.findall(r"--[a-z-]+", run.stdout)
    )
