"""The program as its users start it: a process of its own, on a Ray of its own."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import psutil
import pytest

import main
from results.storage import storage_at
from tests.results.stores import s3_store
from tests.workflow.left import summary_of

ROOT = Path(__file__).parents[2]
LONGER = ["--stripes", "2", "--fields", "6", "--planes", "7", "--field-px", "192"]
LONGER += ["--exposure-ms", "40", "--focus-samples", "1"]
SLOW = ["--stage-speed-um-per-ms", "0.05"]  # a second from field to field; the images are the same


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


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"version_info": (3, 10, 2, "final", 0)}, "Python: expected 3.11 or newer, got 3.10.2"),
        ({"platform": "win32"}, "Windows: expected Linux or macOS"),
    ],
    ids=["Python", "Windows"],
)
def test_what_the_program_cannot_run_on_is_said_first(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, Any],
    expected: str,
) -> None:
    """An older Python can read the program as far as it says, in one line, what it needs."""
    ast.parse((ROOT / "main.py").read_text(), feature_version=(3, 10))
    for name, value in change.items():
        monkeypatch.setattr(sys, name, value)

    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "main.py"), run_name="__main__")

    message = capsys.readouterr().err
    assert ended.value.code == 2
    assert message.startswith(expected)
    assert message.count("\n") == 1


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    """Without its packages the program says in one line which is missing and what to do."""
    shutil.copy(ROOT / "main.py", tmp_path)
    for package in ("cluster", "scan"):  # what comes before all packages is in these
        shutil.copytree(ROOT / package, tmp_path / package)
    (tmp_path / "cluster" / "environment.py").write_text("import numpi")

    run = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert run.returncode == 2
    assert run.stderr == (
        "No module named 'numpi'; run python main.py after python -m pip install -r "
        "requirements.txt\n"
    )


def test_a_missing_cluster_is_reported_soon(tmp_path: Path) -> None:
    """No Ray at the address: exit code 2 within 20 s, one line, nothing written."""
    began = time.monotonic()

    run = program("--address", "127.0.0.1:1", "--out", str(tmp_path / "run"))

    assert time.monotonic() - began < 20
    assert run.returncode == 2
    assert run.stderr.startswith("Ray at 127.0.0.1:1: expected a Ray that answers, got ")
    assert run.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_readme_gives_the_two_commands() -> None:
    """The README's commands install exactly the files that are there."""
    commands = re.findall(r"^pip install -r (\S+) && (.+)$", (ROOT / "README.md").read_text(), re.M)

    assert commands == [("requirements.txt", "python main.py"), ("requirements-dev.txt", "pytest")]
    assert all((ROOT / name).is_file() for name, _ in commands)


def started(folder: Path | str, *options: str) -> subprocess.Popen[str]:
    """A scan of two stripes of six fields in a process, and process group, of its own."""
    command = [sys.executable, str(ROOT / "main.py"), "--plain", *LONGER, "--out", str(folder)]
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


def until(run: subprocess.Popen[str], begin: str | tuple[str, ...]) -> list[str]:
    """The lines that a run says up to the first that begins so."""
    assert run.stdout is not None
    lines = []
    for line in run.stdout:
        lines.append(line)
        if line.startswith(begin):
            break
    return lines


def begun_after(folder: Path, kind: str) -> list[float]:
    """By how many seconds captures of the first run began after an event; what is on its way to a
    camera when it is taken back, within 0.15 s, is passed over."""
    lines = (folder / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    (moment,) = (event["time"] for event in events if event["event"] == kind)
    first_run = events[: [event["event"] for event in events].index("finished")]
    late = [e["began_s"] - moment for e in first_run if e["event"] == "captured"]
    return [seconds for seconds in late if seconds > 0.15]


@pytest.fixture(scope="module")
def calm(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of the same scan, undisturbed."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    assert main.main(["--plain", *LONGER, "--out", str(folder)]) == 0
    return summary_of(folder)


SIGNALS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}


@dataclass(frozen=True)
class Interrupted:
    """What is left of a scan that was stopped: its folder, exit code, and last words."""

    folder: Path
    code: int
    rest: str


STARTING = Lock()


def interrupted(folder: Path, number: int) -> Interrupted:
    """Stop a scan with all its processes once the first batch is there, and wait for its end."""
    with STARTING:  # one Ray after another
        run = started(folder)
        said = until(run, "captured")
    with run:
        assert said[-1].startswith("captured"), "".join(said)
        os.killpg(run.pid, number)
        until(run, "stopping")
        rest = "".join(until(run, "nothing begins so"))
    return Interrupted(folder, run.returncode, rest)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Interrupted]:
    """A scan stopped by each signal; they end side by side, since they wait for the most part."""
    folder = tmp_path_factory.mktemp("stopped")
    with ThreadPoolExecutor() as pool:
        ends = [pool.submit(interrupted, folder / name, SIGNALS[name]) for name in SIGNALS]
    return dict(zip(SIGNALS, (end.result() for end in ends), strict=True))


@pytest.mark.parametrize(("name", "late"), [("Ctrl-C", 0), ("SIGTERM", 2)])
def test_an_interrupted_scan_comes_home(
    calm: dict[str, Any], stopped: Mapping[str, Interrupted], name: str, late: int
) -> None:
    """Stopped with all its processes, as a terminal and a service manager do it, a scan begins no
    further capture, closes its journal, exits with 130 and says how to go on; resumed it ends with
    the digest of the undisturbed scan. SIGTERM ends Ray's own processes, too: nobody can call back
    the one capture that waits in each camera's queue."""
    folder, rest = stopped[name].folder, stopped[name].rest
    cancelled = summary_of(folder)

    code = main.main(["--plain", "--resume", str(folder)])

    assert stopped[name].code == 130, rest
    assert cancelled["status"] == "cancelled"
    assert cancelled["objects"] is None
    assert len(begun_after(folder, "stopping")) <= late
    assert f"python main.py --resume {folder}" in rest
    assert "Traceback" not in rest
    assert code == 0
    assert summary_of(folder)["digest"] == calm["digest"]


@dataclass(frozen=True)
class Died:
    """What is left of a scan whose Ray died, and after how long it said so."""

    folder: Path
    code: int
    output: str
    told_s: float


def lost_ray(folder: Path, program: str, event: str) -> Died:
    """Kill a process of Ray's own once the journal has an event."""
    with started(folder) as run:
        until(run, event)
        (found,) = (
            process
            for process in psutil.Process(run.pid).children(recursive=True)
            if process.name() == program
        )
        found.kill()
        began_s = time.monotonic()
        told = until(run, ("Ray: expected", "failed"))
        told_s = time.monotonic() - began_s
        output = "".join([*told, *until(run, "nothing begins so")])
    return Died(folder, run.returncode, output, told_s)


RAY_DIES = {
    "head, before tasks are called": ("gcs_server", "ray", "its head to answer"),
    "raylet, amid captures": ("raylet", "captured", "its process"),
}


@pytest.fixture(scope="module")
def died(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Died]:
    """A scan for each process of Ray that can die, at the same time."""
    folder = tmp_path_factory.mktemp("died")
    with ThreadPoolExecutor() as pool:
        ends = [pool.submit(lost_ray, folder / c[0], *c[:2]) for c in RAY_DIES.values()]
    return dict(zip(RAY_DIES, (end.result() for end in ends), strict=True))


@pytest.mark.parametrize("name", RAY_DIES)
def test_the_death_of_ray_is_told(
    calm: dict[str, Any], died: Mapping[str, Died], name: str
) -> None:
    """When Ray itself dies the program says so within 10 s, whatever it waits for: exit code 1, one
    line and how to go on; the journal is closed, no field is lost for it, and the run is resumed to
    the digest of the undisturbed scan."""
    died_here, (_, _, message) = died[name], RAY_DIES[name]
    events = [json.loads(line) for line in (died_here.folder / "events.jsonl").open()]

    code = main.main(["--plain", "--resume", str(died_here.folder)])

    assert died_here.code == 1, died_here.output
    assert died_here.told_s < 10
    assert f"expected {message}" in died_here.output
    assert f"python main.py --resume {died_here.folder}" in died_here.output
    assert "Traceback" not in died_here.output
    assert events[-1]["event"] == "finished"
    assert events[-1]["status"] == "failed"
    assert not [event for event in events if event["event"] == "lost"]
    assert code == 0
    assert summary_of(died_here.folder)["digest"] == calm["digest"]


def test_a_killed_driver_is_resumed(calm: dict[str, Any], tmp_path: Path) -> None:
    """While a scan runs its folder is refused to others; begun on one CPU, killed in its middle and
    resumed on two, it ends with the same digest, and captures no field again that was on disk."""
    folder = tmp_path / "run"
    with started(folder, "--num-cpus", "1", *SLOW) as run:
        until(run, "stacked")
        refused = main.main(["--plain", "--resume", str(folder)])
        run.kill()
    stacked = sum("stacked" in line for line in (folder / "events.jsonl").open())

    code = main.main(["--plain", "--resume", str(folder)])

    summary = summary_of(folder)
    assert refused == 2
    assert code == 0
    assert summary["digest"] == calm["digest"]
    assert summary["fields"]["resumed"] == stacked > 0
    assert summary["fields"]["lost"] == []


def test_a_scan_into_an_object_store_is_resumed(
    calm: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images, table and small files lie in an S3 store; a driver that is killed is resumed from
    there alone, by a process that knows nothing else, and the digest is that of a folder."""
    url = "s3://lab/run"
    with s3_store("lab") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with started(url, "--num-cpus", "1") as run:
            while b'"stacked"' not in (storage_at(url).read_bytes("events.jsonl") or b""):
                assert run.poll() is None
                time.sleep(0.05)
            run.kill()
        refused = main.main(["--plain", *LONGER, "--out", url])
        message = capsys.readouterr().err
        resumed = program("--plain", "--resume", url)
        summary = json.loads(storage_at(url).read_bytes("summary.json") or b"{}")
        table, report = map(storage_at(url).read_bytes, ("objects.csv", "report.html"))

    assert refused == 2
    assert message.startswith(f"{url}: expected a new or empty folder")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.endswith(f"\n{url}\n")
    assert summary["digest"] == calm["digest"]
    assert summary["fields"]["resumed"] > 0
    assert (table or b"").count(b"\n") == 1 + summary["objects"]
    assert b"<html" in (report or b"")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_needs_no_ray(option: str) -> None:
    """Help is answered at once and lists every option of the design that is built."""
    run = program(option)

    assert run.returncode == 0
    assert {"--config", "--out", "--stripes", "--replay-path", "--plain"} <= set(
        re.findall(r"--[a-z-]+", run.stdout)
    )
