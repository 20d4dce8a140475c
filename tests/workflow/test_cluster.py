"""The same scan on hosts that share a folder, also when hosts fail, return and join.

One set of hosts serves all tests: first for scans that run at the same time, then for one after
another in which hosts fail.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos import SLIDE, events_of, scan
from cluster import nodes
from tests.microscope.devices import ADAPTERS, PRODUCT
from tests.workflow.hosts import RAY, ROOT, Host, Network, network, wait_until
from tests.workflow.left import digest_of

SMALL = [*SLIDE, "--focus-samples", "1"]
PROGRAM = [sys.executable, "main.py", *SMALL]
PACE_S = 1.0  # from field to field; the images are the same
PACED = ["--stage-speed-um-per-ms", "0.05"]
PACED_TWICE = ["--stage-speed-um-per-ms", "0.1"]  # half of that
BUSY = ["--stress", "--stress-seconds", "1.5"]  # each stacking task takes that much longer
SHORT_CUT_S = 1.5 * PACE_S  # and less than the time in which Ray gives up a silent host
SLOTS = 6  # of CPU, once stacking may run at the microscope's host as well
AT_A_TIME = 4  # programs that start together; more of them answer too slowly
REFUSED_WITHIN_S = 30

WORK = ["warm_up", "estimate_statistics", "stack", "detect"]
CAMERAS = ["CaptureActor", "ready", "sweep", "capture"]
REST = ["find_z_positions", "predict_scan"]  # they need no CPU slot


# ------------------------------------------------------------------------- what a run left


def events_in(folder: Path, kind: str, **facts: Any) -> list[dict[str, Any]]:
    """The events of one kind in the journal so far, of those that have these values."""
    events = [event for event in events_of(folder / "events.jsonl") if event["event"] == kind]
    return [event for event in events if facts.items() <= event.items()]


def wait_for_events(folder: Path, kind: str, count: int, **facts: Any) -> None:
    """Wait until the journal has so many events of a kind."""
    wait_until(lambda: len(events_in(folder, kind, **facts)) >= count)


def captured_not_stacked(folder: Path) -> set[tuple[int, int]]:
    """The fields whose stacking tasks wait or run."""
    captured, stacked = (
        {(e["stripe"], e["field"]) for e in events_in(folder, kind)}
        for kind in ("captured", "stacked")
    )
    return captured - stacked


def capture_counts(folder: Path) -> list[int]:
    """How often each field was captured, of those that were."""
    counts = Counter((e["stripe"], e["field"]) for e in events_in(folder, "captured"))
    return sorted(counts.values())


def addresses_of(folder: Path, tasks: list[str], after: str = "nothing") -> list[str]:
    """For each run of such tasks the address of its node, by the trace, which has it from Ray; of
    those that began when the last task of the name `after` had ended."""
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    pids = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    nodes = {p: n.removeprefix("Ray: node ") for p, n in pids.items() if n.startswith("Ray: node ")}
    ran = [e for e in events if e["pid"] in nodes and e["ph"] == "X"]
    named = [(e["name"].split()[0].split(".")[0], e) for e in ran]
    from_us = max((e["ts"] + e["dur"] for name, e in named if name == after), default=0.0)
    return [nodes[e["pid"]] for name, e in named if name in tasks and e["ts"] >= from_us]


# ----------------------------------------------------------------------------------- hosts


@dataclass
class Laboratory:
    """A Ray of hosts: the head has no CPU slots, one host has two microscopes, two hosts stack."""

    hosts: Network
    head: Host
    microscope: Host
    compute: list[Host]
    microscope_cpus: int = 0  # as long as stacking has to run elsewhere

    def start_microscope(self) -> None:
        """The host of the microscope joins."""
        resources = {"microscope": 2}
        self.microscope.start_ray(self.head, cpus=self.microscope_cpus, resources=resources)

    def add_compute(self, cpus: int) -> Host:
        """A host that stacks joins."""
        host = self.hosts.add(f"compute{len(self.hosts.all)}")
        host.start_ray(self.head, cpus=cpus)
        return host

    def command(self, folder: Path, *options: str) -> list[str]:
        """The program, which joins this Ray and scans into a folder."""
        return [*PROGRAM, "--address", self.head.ray_address, "--out", str(folder), *options]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network without hosts."""
    with network(tmp_path_factory.mktemp("hosts")) as made:
        yield made


@pytest.fixture(scope="module")
def token(hosts: Network) -> dict[str, str]:
    """The environment of programs that have the token of `guarded`."""
    return with_token(hosts.shared / "token", "ours" * 16)


def with_token(file: Path, token: str) -> dict[str, str]:
    """The environment of programs that have this token in a file."""
    file.write_text(token)
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}


@pytest.fixture(scope="module")
def started(hosts: Network, token: dict[str, str]) -> tuple[Laboratory, Host]:
    """The laboratory, and a host that has a Ray of its own, which requires a token."""
    names = ("guarded", "head", "microscope", "compute1", "compute2")
    guarded, head, microscope, *compute = (hosts.add(name) for name in names)
    laboratory = Laboratory(hosts, head, microscope, compute)
    with ThreadPoolExecutor() as pool:
        starting = [pool.submit(guarded.start_ray, cpus=1, environment=token)]
        head.start_ray(cpus=0, options=["--dashboard-host=0.0.0.0"])
        starting.append(pool.submit(laboratory.start_microscope))
        starting += [pool.submit(host.start_ray, head, cpus=1) for host in compute]
        for each in starting:
            each.result()
    return laboratory, guarded


@pytest.fixture(scope="module")
def laboratory(started: tuple[Laboratory, Host]) -> Laboratory:
    """The hosts that most tests use."""
    return started[0]


# ------------------------------------------------------------- scans that run at the same time


@dataclass(frozen=True)
class Program:
    """A program to run on a host."""

    host: Host
    command: list[str]
    environment: Mapping[str, str]
    cwd: Path = ROOT


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    output: str
    took_s: float

    @property
    def message(self) -> str:
        """Its only line, apart from the one that announces Ray."""
        (line,) = (line for line in self.output.splitlines() if line != "starting Ray")
        return line


def run_program(program: Program) -> Ended:
    """Run a program and wait for its end."""
    began_s = time.monotonic()
    ended = program.host.run(
        *program.command, environment=program.environment, cwd=program.cwd, within_s=240
    )
    return Ended(ended.returncode, ended.stdout, time.monotonic() - began_s)


@pytest.fixture(scope="module")
def ended(started: tuple[Laboratory, Host], token: dict[str, str]) -> dict[str, Ended]:
    """How programs ended that do not disturb each other; they run at the same time."""
    laboratory, guarded = started
    head, hosts = laboratory.head, laboratory.hosts
    other = with_token(hosts.shared / "other token", "else" * 16)
    guarded_scan = [*PROGRAM, "--address", guarded.ray_address, "--out"]
    programs = {
        "job": submitted_job(laboratory),
        "one machine": Program(guarded, [*guarded_scan, str(hosts.shared / "one machine")], token),
        "beads": real_microscope(laboratory),
        "own folder": Program(head, laboratory.command(hosts.local / "run"), {}),
        "relative": Program(head, laboratory.command(Path("run")), {}),
        "other token": Program(guarded, [*guarded_scan, str(hosts.shared / "other")], other),
        "no token": Program(
            guarded, [*guarded_scan, str(hosts.shared / "none")], {"RAY_AUTH_MODE": "token"}
        ),
    }
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        running = {name: pool.submit(run_program, each) for name, each in programs.items()}
        return {name: each.result() for name, each in running.items()}


def submitted_job(laboratory: Laboratory) -> Program:
    """`ray job submit` in a copy of the program that only the head has."""
    head, home = laboratory.head, laboratory.hosts.local / "program"
    copy = head.path_from_outside(home)
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "venv"))
    shutil.copy(ROOT / ".gitignore", copy)
    (copy / "runs").mkdir()
    (copy / "runs" / "large").write_bytes(bytes(10**7))
    submit = [RAY, "job", "submit", f"--address=http://{head.address}:8265", "--working-dir=."]
    out = str(laboratory.hosts.shared / "job")
    return Program(head, [*submit, "--", *PROGRAM, "--out", out], {}, home)


def real_microscope(laboratory: Laboratory) -> Program:
    """A scan that drives Micro-Manager's core."""
    settings, config = (laboratory.hosts.shared / f"beads.{end}" for end in ("toml", "cfg"))
    shutil.copy(PRODUCT, config)  # other tests may drive the one that it is copied from
    settings.write_text(
        f"microscope = 'micromanager'\nmm_config = '{config}'\nadapters = '{ADAPTERS}'\n"
        "stripes = 2\nfields = 2\nplanes = 5\nexposure_ms = 2\nroi_px = [0, 0, 256, 256]\n"
    )
    joining = ["--address", laboratory.head.ray_address]
    out = ["--out", str(laboratory.hosts.shared / "beads")]
    program = [sys.executable, "main.py", "--plain", "--config", str(settings), *joining, *out]
    return Program(laboratory.head, program, {})


@pytest.fixture(scope="module")
def digest(hosts: Network, ended: dict[str, Ended]) -> str:
    """The digest of the same scan on one machine."""
    assert ended["one machine"].code == 0, ended["one machine"].output
    return digest_of(hosts.shared / "one machine")


def test_a_job_gives_the_same_answer(
    digest: str, laboratory: Laboratory, ended: dict[str, Ended]
) -> None:
    """A job on four hosts ends with the digest of one machine: cameras run where the microscope is,
    both hosts with CPU slots share stacking and detection, and the head does none of the work."""
    folder = laboratory.hosts.shared / "job"

    assert ended["job"].code == 0, ended["job"].output
    assert digest_of(folder) == digest
    assert set(addresses_of(folder, CAMERAS)) == {laboratory.microscope.address}
    assert set(addresses_of(folder, WORK)) == {host.address for host in laboratory.compute}
    assert laboratory.head.address not in addresses_of(folder, REST)


@pytest.mark.parametrize("relative", [False, True], ids=["own folder", "relative"])
def test_a_folder_that_is_not_shared_is_refused(ended: dict[str, Ended], relative: bool) -> None:
    """A folder that is another one on other hosts ends the scan with exit code 2 and one line: it
    names those hosts, or says that the path is relative."""
    refused = ended["relative" if relative else "own folder"]

    assert refused.code == 2
    assert "storage that all nodes share" in refused.message
    assert ("relative" in refused.message) is relative
    for host in ("microscope", "compute"):
        assert (f"another one on {host}" in refused.message) is not relative


def test_a_real_microscope_is_driven_where_it_stands(
    laboratory: Laboratory, ended: dict[str, Ended]
) -> None:
    """Micro-Manager's core runs on the microscope's host only, and one actor captures both
    stripes."""
    folder = laboratory.hosts.shared / "beads"

    assert ended["beads"].code == 0, ended["beads"].output
    assert set(addresses_of(folder, CAMERAS)) == {laboratory.microscope.address}
    assert len({event["process"] for event in events_in(folder, "captured")}) == 1
    assert capture_counts(folder) == [1] * 4


@pytest.mark.usefixtures("ended")
def test_a_job_brings_the_program_along(laboratory: Laboratory) -> None:
    """`ray job submit` in a folder that only the head has sends the program to all hosts, without
    the files that git ignores."""
    head = laboratory.head

    (sent,) = head.path_from_outside(head.packages).glob("_ray_pkg_*/")
    assert (sent / "main.py").exists()
    assert not (sent / "runs").exists()
    assert not (sent / ".git").exists()


@pytest.mark.parametrize("name", ["other token", "no token"])
def test_a_cluster_requires_its_token(
    digest: str, started: tuple[Laboratory, Host], ended: dict[str, Ended], name: str
) -> None:
    """A scan with the cluster's token runs; with another or none it ends within half a minute, with
    exit code 2 and one line that says so."""
    _, guarded = started
    refused = ended[name]

    assert refused.code == 2
    assert refused.message.startswith(
        f"Ray at {guarded.ray_address}: expected a Ray that answers, got "
    )
    assert "both sides use one token" in refused.message
    assert refused.took_s < REFUSED_WITHIN_S


def test_a_missing_microscope_is_named(
    local_ray: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A scan that needs a resource of no node ends when the wait for it is over, with one line that
    names the resource, and leaves no folder."""
    monkeypatch.setattr(nodes, "NODE_WAIT_S", 0.5)
    (tmp_path / "scan.toml").write_text("capture_on = 'electrons'\n")

    code = scan(*SMALL, "--config", str(tmp_path / "scan.toml"), "--out", str(tmp_path / "run"))

    message = capsys.readouterr().err
    assert code == 2
    assert "of resource electrons, got 0 free within 0 s" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------- faults


def start_scan(laboratory: Laboratory, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start a scan on the head."""
    return laboratory.head.start(*laboratory.command(folder, *options))


def end_of(run: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code of a scan, and its output."""
    with run:
        try:
            output, _ = run.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            run.kill()
            raise
    return run.returncode, output


def test_hosts_that_stack_are_replaced(digest: str, laboratory: Laboratory) -> None:
    """The microscope's host is cut off for a moment, then one host that stacks dies and the other
    falls silent, while cameras go on: batches arrive late, no camera is restarted, a host that
    joins does the tasks of both, no field is captured again, same digest.

    The silent host is given up when Ray notices, not when the network does, minutes later.
    """
    folder = laboratory.hosts.shared / "replaced"
    dead, silent = laboratory.compute
    run = start_scan(laboratory, folder, *PACED, *BUSY)
    wait_for_events(folder, "captured", 2)
    laboratory.microscope.disconnect()
    time.sleep(SHORT_CUT_S)
    laboratory.microscope.reconnect()
    wait_for_events(folder, "warmed", 2)  # so both hosts stack
    wait_for_events(folder, "stacked", 1)
    wait_until(lambda: len(captured_not_stacked(folder)) >= 3)  # more than both at a time
    silent.disconnect()
    dead.kill_processes()
    joined = laboratory.add_compute(cpus=2)

    code, output = end_of(run)

    late_s = max(e["time"] - e["ended_s"] for e in events_in(folder, "captured"))
    assert code == 0, output
    assert digest_of(folder) == digest
    assert late_s > SHORT_CUT_S / 10  # the microscope was cut off
    assert not events_in(folder, "restarted")
    assert events_in(folder, "retried", step="stack")
    assert capture_counts(folder) == [1] * 8
    assert joined.address in addresses_of(folder, ["stack"])


def test_a_microscope_that_was_cut_off_is_waited_for(digest: str, laboratory: Laboratory) -> None:
    """Ray gives up the microscope's host, which returns and has its Ray started again: so are both
    cameras, fields whose batches were lost there are captured again, same digest. Ray names the
    node."""
    folder, microscope = laboratory.hosts.shared / "returned", laboratory.microscope
    run = start_scan(laboratory, folder, *PACED_TWICE)
    wait_for_events(folder, "captured", 2)
    microscope.disconnect()
    wait_for_events(folder, "retried", 2, step="capture")
    microscope.reconnect()
    wait_until(lambda: "raylet" not in microscope.programs())  # it learns that it was given up
    microscope.kill_processes()
    laboratory.microscope_cpus = 4  # for the next test
    laboratory.start_microscope()

    code, output = end_of(run)

    assert code == 0, output
    assert digest_of(folder) == digest
    assert sorted(e["camera"] for e in events_in(folder, "restarted")) == [0, 1]
    assert len(capture_counts(folder)) == 8
    assert not events_in(folder, "lost")
    assert "has been marked dead" in output


def test_a_batch_is_stacked_where_it_lies(laboratory: Laboratory) -> None:
    """If the host that holds a batch has a free CPU slot, the batch is stacked there."""
    folder = laboratory.hosts.shared / "near"
    if not laboratory.microscope_cpus:  # this test runs alone
        laboratory.microscope.kill_processes()
        laboratory.microscope_cpus = 4
        laboratory.start_microscope()

    # Ray prefers a host until half of its slots are taken: workers that still start take them.
    paced = ["--stripes", "1", "--fields", "12", "--exposure-ms", "150"]
    run = start_scan(laboratory, folder, *paced)
    wait_for_events(folder, "captured", 1)
    with laboratory.microscope.paused("ray::capture"):  # cameras
        wait_for_events(folder, "warmed", SLOTS)
    code, output = end_of(run)

    assert code == 0, output
    stacked = addresses_of(folder, ["stack"], after="warm_up")
    assert len(stacked) >= 2
    assert stacked.count(laboratory.microscope.address) >= len(stacked) - 1, stacked
