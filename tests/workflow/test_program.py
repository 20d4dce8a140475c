"""The program as its users start it: a process of its own, on a Ray of its own."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import AuthenticationError

import main
from config import validate
from results.journal import JOURNAL, read_journal
from results.storage import storage_at
from scan.errors import UserMistake
from scan.events import Warned
from tests.results.stores import s3_store
from tests.workflow.left import summary_of

ROOT = Path(__file__).parents[2]
LONGER = ["--stripes", "2", "--fields", "6", "--planes", "7", "--field-px", "192"]
LONGER += ["--exposure-ms", "40", "--focus-samples", "1"]


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


def test_a_python_that_is_too_old_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Python of 2019 can read the program as far as it says, in one line, what it needs."""
    ast.parse((ROOT / "main.py").read_text(), feature_version=(3, 8))
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))

    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "main.py"), run_name="__main__")

    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told.startswith("Python: expected 3.11 or newer, got 3.9.2; make ")
    assert told.count("\n") == 1


@pytest.mark.parametrize("line", ["numpi", "numpi>=2  # arrays", "numpi[all]>=2.0"])
def test_a_missing_package_is_told(tmp_path: Path, line: str) -> None:
    """Whatever is required and not installed is named, with the command that installs it."""
    shutil.copy(ROOT / "main.py", tmp_path)
    required = (ROOT / "requirements.txt").read_text()
    (tmp_path / "requirements.txt").write_text(f"{required}{line}\n")

    run = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert run.returncode == 2
    assert run.stderr == (
        "package numpi: expected to be installed, got none; "
        "python -m pip install -r requirements.txt\n"
    )


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MB of shared memory, as containers have them, and no Ray in this process."""
    usage = shutil.disk_usage

    def container(path: Path) -> Any:
        return SimpleNamespace(free=2**26) if path == Path("/dev/shm") else usage(path)

    monkeypatch.setattr(shutil, "disk_usage", container)
    monkeypatch.setattr(main.ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


needs_shared_memory = pytest.mark.skipif(
    sys.platform != "linux" or not Path("/dev/shm").is_dir(), reason="no /dev/shm here"
)


@needs_shared_memory
def test_too_little_shared_memory_is_told(
    small_memory: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where Ray would put batches into files, it is not started: one line, nothing written."""
    code = main.main(["--plain", "--object-store-mb", "500", "--out", str(tmp_path / "run")])

    told = capsys.readouterr().err
    assert code == 2
    assert told.startswith("/dev/shm: expected 500 MB free for batches, got 67 MB; start ")
    assert "--shm-size=550m" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()


@needs_shared_memory
def test_shared_memory_is_needed_by_a_local_ray_alone(
    small_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room that is just enough will do, so will Ray's own permission, and a cluster has its own."""
    begun: list[dict[str, Any]] = []
    monkeypatch.setattr(main.ray, "init", lambda **how: begun.append(how))
    monkeypatch.setattr(main, "require_grpc", lambda host, port: None)

    main.require_shared_memory(2**26)
    with pytest.raises(UserMistake):
        main.require_shared_memory(2**26 + 1)
    main.start_ray("10.0.0.1:6379", validate({}))
    monkeypatch.setenv("RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE", "1")
    main.start_ray(None, validate({}))

    assert [how["address"] for how in begun] == ["10.0.0.1:6379", "local"]


REFUSALS = {
    "version": RuntimeError("Version mismatch: The cluster was started with:\n  Ray: 2.59.0\n"),
    "token": AuthenticationError("RAY_AUTH_TOKEN_PATH is set but file cannot be opened"),
    "address": ValueError("Malformed address: nowhere"),
}


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS)
def test_a_cluster_that_refuses_us_is_told_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    """Whatever keeps Ray from being joined: exit code 2, its reason and ours in one line."""

    def refuse(address: str, settings: object) -> None:
        raise error

    monkeypatch.setattr(main, "start_ray", refuse)
    monkeypatch.setattr(main.ray, "is_initialized", lambda: False)

    code = main.main(["--address", "somewhere", "--out", str(tmp_path / "run")])

    said = capsys.readouterr().err
    assert code == 2
    assert said.startswith("Ray at somewhere: expected a Ray that answers, got ")
    assert str(error).split()[0] in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def silent(connection: socket.socket) -> None:
    """Take a connection and say nothing, for as long as it is held."""
    connection.recv(100)
    connection.recv(1)


def web_server(connection: socket.socket) -> None:
    """Answer as a web server answers what it does not understand."""
    connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")


def ray_head(connection: socket.socket) -> None:
    """Answer as a Ray's head does, with the settings of HTTP/2."""
    connection.recv(100)
    connection.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))


@pytest.mark.parametrize(("answer", "told"), [(None, False), (web_server, False), (ray_head, True)])
def test_another_ray_is_told_if_it_answers(
    local_ray: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[socket.socket], None] | None,
    told: bool,
) -> None:
    """Where `ray start` left an address, it is told if a Ray answers there that is not ours."""
    (tmp_path / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert main.ray_beside() is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
        if answer is None:
            server.close()
        else:
            threading.Thread(target=lambda: answer(server.accept()[0]), daemon=True).start()

        assert main.ray_beside() == (address if told else None)


def test_our_own_ray_is_not_another(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that is on the Ray that `ray start` left is not told to join it."""
    (tmp_path / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    own = main.ray.get_runtime_context().gcs_address
    (tmp_path / "ray" / "ray_current_cluster").write_text(own)

    assert main.ray_beside() is None


@pytest.mark.parametrize(("options", "told"), [([], 1), (["--address", "10.0.0.2:6379"], 0)])
def test_whoever_asks_for_no_cluster_hears_of_one(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], told: int
) -> None:
    """Another Ray is a warning in the journal that says how to join it, unless one is asked for."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(main, "ray_beside", lambda: "10.0.0.1:6379")
    folder = tmp_path / "run"

    code = main.main(["--plain", "--stripes=1", "--fields=2", "--field-px=128", "--planes=3",
                      "--out", str(folder), *options])  # fmt: skip

    warnings = [e.message for e in read_journal(folder / JOURNAL) if isinstance(e, Warned)]
    assert code == 0
    assert sum("--address 10.0.0.1:6379 joins it" in message for message in warnings) == told


@pytest.mark.parametrize("answer", [None, silent, web_server])
def test_what_is_no_cluster_is_told_soon(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[socket.socket], None] | None
) -> None:
    """Nothing at the address, or something else than Ray: an error within 6 s."""
    assert main.ANSWER_S <= 4
    monkeypatch.setattr(main, "ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if answer is None:
            server.close()
        else:
            threading.Thread(target=lambda: answer(server.accept()[0]), daemon=True).start()
        began = time.monotonic()
        with pytest.raises(OSError, match=r"refused|timed out|not Ray's"):
            main.require_grpc("127.0.0.1", port)
        assert time.monotonic() - began < main.ANSWER_S + 2


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


def until(run: subprocess.Popen[str], begin: str) -> list[str]:
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


def interrupted(folder: Path, number: int) -> Interrupted:
    """Stop a scan with all its processes once the first batch is there, and wait for its end."""
    with started(folder) as run:
        until(run, "captured")
        os.killpg(run.pid, number)
        until(run, "stopping")
        rest = "".join(until(run, "nothing begins so"))
    return Interrupted(folder, run.returncode, rest)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Interrupted]:
    """A scan stopped by each signal, at the same time: they wait for the most part."""
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


def test_a_killed_driver_is_resumed(calm: dict[str, Any], tmp_path: Path) -> None:
    """While a scan runs its folder is refused to others; begun on one CPU, killed in its middle and
    resumed on two, it ends with the same digest, and captures no field again that was on disk."""
    folder = tmp_path / "run"
    with started(folder, "--num-cpus", "1") as run:
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
    calm: dict[str, Any], monkeypatch: pytest.MonkeyPatch
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
        refused = program("--plain", *LONGER, "--out", url)
        resumed = program("--plain", "--resume", url)
        summary = json.loads(storage_at(url).read_bytes("summary.json") or b"{}")
        table, report = map(storage_at(url).read_bytes, ("objects.csv", "report.html"))

    assert refused.returncode == 2
    assert refused.stderr.startswith(f"{url}: expected a new or empty folder")
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
