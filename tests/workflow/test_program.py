"""The program as its users start it: a process of its own, on a Ray of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
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


def stopped(folder: Path, when: str, number: int, victim: str) -> tuple[int, str]:
    """Start a scan, send a signal to a process of it at the first such line; code and output."""
    command = [sys.executable, str(ROOT / "main.py"), "--plain", *TINY, "--fields", "6", "--out"]
    command.append(str(folder))
    lines = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            lines.append(line)
            if when and line.startswith(when):
                os.kill(run.pid if victim == "driver" else camera_of(run.pid), number)
                when = ""
    return run.returncode, "".join(lines)


def camera_of(driver: int) -> int:
    """The process of a capture actor of the Ray that this driver started."""
    workers = (child for child in psutil.Process(driver).children(recursive=True))
    return next(worker.pid for worker in workers if "ray::capture" in " ".join(worker.cmdline()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_scan_says_so(tmp_path: Path, number: int) -> None:
    """A scan that is stopped ends with exit code 130, keeps its journal and claims no answer."""
    code, said = stopped(tmp_path / "run", "captured", number, "driver")

    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert code == 130, said
    assert summary["status"] == "cancelled"
    assert summary["objects"] is None
    assert "Traceback" not in said


def test_a_killed_camera_process_costs_nothing_but_time(tmp_path: Path) -> None:
    """A capture actor killed in mid-scan is started anew and every field is in the answer."""
    code, said = stopped(tmp_path / "run", "captured", signal.SIGKILL, "camera")

    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert code == 0, said
    assert summary["fields"]["detected"] == 12
    assert summary["fields"]["lost"] == []
    assert summary["retries"]["capture"] <= 2
    assert summary["retries"]["actor_restarts"] == 1


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_needs_no_ray(option: str) -> None:
    """Help is answered at once and lists every option of the design that is built."""
    run = program(option)

    assert run.returncode == 0
    assert {"--config", "--out", "--stripes", "--replay-path", "--plain"} <= set(
        re.findall(r"--[a-z-]+", run.stdout)
    )
