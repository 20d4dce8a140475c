"""The same scan on a cluster: of several raylets, and of hosts that have one folder in common."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from benchmarks.chaos import SLIDE, events_of, scan
from cluster import nodes
from tests.microscope.devices import ADAPTERS, PRODUCT
from tests.workflow.hosts import RAY, ROOT, Host, Network, await_true, network
from tests.workflow.left import summary_of

SMALL = [*SLIDE, "--focus-samples", "1", "--settle-ms", "0"]
PROGRAM = [sys.executable, "main.py", *SMALL]
PACED = ["--stage-speed-um-per-ms", "0.05"]  # the same pictures, a second from field to field
CUT_S = 1.5  # longer than from batch to batch, and less than Ray waits for a silent host
WORK = ["warm_up", "estimate_statistics", "stack", "detect"]
CAMERAS = ["CaptureActor", "sweep", "capture"]
REST = ["find_z_positions", "predict_scan"]  # which asks for no CPU
STORE_BYTES = 150 * 10**6
NEAR, FAR = "127.0.0.2", "127.0.0.3"  # where the microscope is, and where not


def events_in(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind in the journal so far."""
    return [event for event in events_of(folder / "events.jsonl") if event["event"] == kind]


def await_events(folder: Path, kind: str, count: int = 1) -> None:
    """Wait until the journal has so many lines of a kind."""
    await_true(lambda: len(events_in(folder, kind)) >= count)


def times_captured(folder: Path) -> list[int]:
    """How often each field was photographed, of those that were."""
    places = Counter((e["stripe"], e["field"]) for e in events_in(folder, "captured"))
    return sorted(places.values())


def runs_of(folder: Path, verbs: list[str]) -> list[str]:
    """Where each of such tasks ran, by address, as Ray told the trace of the run."""
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    ran = (names[e["pid"]] for e in events if e["name"].split()[0].split(".")[0] in verbs)
    return [name.removeprefix("Ray: node ") for name in ran if name.startswith("Ray: node ")]


def nodes_of(folder: Path, verbs: list[str]) -> set[str]:
    """Addresses of the nodes where such tasks ran."""
    return set(runs_of(folder, verbs))


@pytest.fixture(scope="module")
def digest(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the same scan on one machine."""
    folder = tmp_path_factory.mktemp("local") / "run"
    assert scan(*SMALL, "--out", str(folder)) == 0
    return str(summary_of(folder)["digest"])


@pytest.fixture
def raylets(local_ray: None) -> Iterator[Cluster]:
    """A Ray of a head without CPUs and two nodes with one each, which differ by address; the first
    has the microscope."""
    small: dict[str, Any] = {"object_store_memory": STORE_BYTES}
    cluster = Cluster(True, head_node_args=small | {"num_cpus": 0, "include_dashboard": False})
    try:
        for address, microscopes in ((NEAR, 1), (FAR, 0)):
            has = {"microscope": microscopes} if microscopes else {}
            cluster.add_node(num_cpus=1, node_ip_address=address, resources=has, **small)
        yield cluster
    finally:
        cluster.shutdown()


def scan_on(cluster: Cluster, folder: Path, *options: str) -> None:
    """Scan as a user would, from this machine."""
    run = subprocess.run(
        [*PROGRAM, "--address", cluster.address, "--out", str(folder), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_several_raylets_give_the_same_answer(
    digest: str, raylets: Cluster, tmp_path: Path
) -> None:
    """On a Ray of three nodes the scan ends with the digest of one machine; cameras are where the
    microscope is, the two nodes that have CPUs share the work, and the head has none of it. Where
    nothing is in a hurry a batch is stacked where it lies."""
    scan_on(raylets, tmp_path / "run")
    scan_on(raylets, tmp_path / "calm", "--stripes", "1", "--fields", "6", *PACED)

    assert summary_of(tmp_path / "run")["digest"] == digest
    assert nodes_of(tmp_path / "run", CAMERAS) == {NEAR}
    assert nodes_of(tmp_path / "run", WORK) == {NEAR, FAR}
    assert nodes_of(tmp_path / "run", REST) <= {NEAR, FAR}
    stacked = runs_of(tmp_path / "calm", ["stack"])
    assert len(stacked) == 6
    assert stacked.count(NEAR) >= 5, stacked


@dataclass
class Laboratory:
    """A Ray of three hosts: one has the microscope, and its CPUs for itself; one stacks, until it
    is replaced."""

    hosts: Network
    head: Host
    microscope: Host
    compute: Host

    def start_microscope(self) -> None:
        """The host of the microscope joins."""
        self.microscope.start_ray(self.head, cpus=0, resources={"microscope": 1})

    def start_compute(self) -> None:
        """The host that stacks joins."""
        self.compute.start_ray(self.head, cpus=2)

    def replace_compute(self) -> None:
        """Another host joins, that stacks instead."""
        self.compute = self.hosts.add(f"compute{len(self.hosts.all)}")
        self.start_compute()

    def begin_scan(self, folder: Path, *options: str) -> subprocess.Popen[str]:
        """Scan from the host of the head into a folder."""
        joining = ["--address", self.head.ray_address, "--out", str(folder)]
        return self.head.start(*PROGRAM, *joining, *options)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network without hosts."""
    with network(tmp_path_factory.mktemp("hosts")) as made:
        yield made


@pytest.fixture(scope="module")
def laboratory(hosts: Network) -> Laboratory:
    """A head that has a dashboard and no CPUs, the host of the microscope, and one that stacks."""
    made = Laboratory(hosts, *(hosts.add(name) for name in ("head", "microscope", "compute")))
    made.head.start_ray(cpus=0, options=["--dashboard-host=0.0.0.0"])
    with ThreadPoolExecutor() as pool:
        for joining in [pool.submit(made.start_microscope), pool.submit(made.start_compute)]:
            joining.result()
    return made


def end_of(run: subprocess.Popen[str], within_s: float = 90) -> tuple[int, str]:
    """Exit code of a scan, and what it said."""
    with run:
        try:
            told, _ = run.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            run.kill()
            raise
    return run.returncode, told


def test_hosts_give_the_same_answer(digest: str, laboratory: Laboratory) -> None:
    """On three hosts the scan ends with the digest of one machine: cameras are where the microscope
    is, stacking and detection where CPUs are, and the head does nothing."""
    folder = laboratory.hosts.shared / "calm"

    code, told = end_of(laboratory.begin_scan(folder))

    assert code == 0, told
    assert summary_of(folder)["digest"] == digest
    assert nodes_of(folder, CAMERAS) == {laboratory.microscope.address}
    assert nodes_of(folder, WORK) == {laboratory.compute.address}
    assert laboratory.head.address not in nodes_of(folder, REST)


@pytest.mark.parametrize("shared", [False, True], ids=["own folder", "relative"])
def test_a_folder_that_is_not_shared_is_refused(laboratory: Laboratory, shared: bool) -> None:
    """Results would be scattered where every host has a folder of that name: one line that says
    which hosts see another one, or that the path is relative, and exit code 2."""
    hosts = laboratory.hosts
    out = Path("run") if shared else hosts.local / "run"

    code, told = end_of(laboratory.begin_scan(out))

    (line,) = (line for line in told.splitlines() if line != "starting Ray")
    assert code == 2
    assert "storage that all nodes share" in line
    assert ("relative" in line) is shared
    assert ("another one on microscope" in line and "another one on compute" in line) is not shared


def test_a_real_microscope_is_driven_where_it_stands(laboratory: Laboratory) -> None:
    """Micro-Manager's core runs on the microscope's host alone, one actor takes both stripes."""
    hosts, folder = laboratory.hosts, laboratory.hosts.shared / "beads"
    settings = hosts.shared / "beads.toml"
    settings.write_text(
        f"microscope = 'micromanager'\nmm_config = '{PRODUCT}'\nadapters = '{ADAPTERS}'\n"
        "stripes = 2\nfields = 2\nplanes = 5\nexposure_ms = 2\nroi_px = [0, 0, 256, 256]\n"
    )
    joining = ["--address", laboratory.head.ray_address, "--out", str(folder)]
    program = [sys.executable, "main.py", "--plain", "--config", str(settings), *joining]

    code, told = end_of(laboratory.head.start(*program))

    assert code == 0, told
    assert nodes_of(folder, CAMERAS) == {laboratory.microscope.address}
    assert len({event["process"] for event in events_in(folder, "captured")}) == 1
    assert times_captured(folder) == [1] * 4


def test_a_missing_microscope_is_told(
    local_ray: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A scan that needs a node which nobody has ends within its patience, by one line that names
    the resource, and leaves no folder."""
    monkeypatch.setattr(nodes, "NODE_WAIT_S", 1.0)
    (tmp_path / "scan.toml").write_text("capture_on = 'electrons'\n")

    code = scan(*SMALL, "--config", str(tmp_path / "scan.toml"), "--out", str(tmp_path / "run"))

    told = capsys.readouterr().err
    assert code == 2
    assert "of resource electrons, got 0 free within 1 s" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_compute_host_dies_and_another_comes(digest: str, laboratory: Laboratory) -> None:
    """The host that stacks dies and another joins while cameras go on: same digest, exit code 0, no
    field is photographed again, and the new one has done the rest."""
    folder, lost = laboratory.hosts.shared / "compute", laboratory.compute
    run = laboratory.begin_scan(folder, *PACED)
    await_events(folder, "stacked")
    lost.end_processes()
    laboratory.replace_compute()

    code, told = end_of(run)

    assert code == 0, told
    assert summary_of(folder)["digest"] == digest
    assert times_captured(folder) == [1] * 8
    assert laboratory.compute.address in nodes_of(folder, ["stack"])


def test_a_short_cut_costs_nothing_but_time(digest: str, laboratory: Laboratory) -> None:
    """The microscope's host is cut off and back before Ray gives it up: what it photographed in the
    meantime arrives, no camera is started anew, same digest."""
    folder = laboratory.hosts.shared / "short"
    run = laboratory.begin_scan(folder, *PACED)
    await_events(folder, "captured", 2)
    laboratory.microscope.cut()
    time.sleep(CUT_S)
    laboratory.microscope.mend()

    code, told = end_of(run)

    late_s = max(e["time"] - e["ended_s"] for e in events_in(folder, "captured"))
    assert code == 0, told
    assert summary_of(folder)["digest"] == digest
    assert times_captured(folder) == [1] * 8
    assert late_s > CUT_S / 10  # so that it was cut off at all
    assert not events_in(folder, "restarted")


def test_a_long_cut_is_waited_for(digest: str, laboratory: Laboratory) -> None:
    """Ray gives up the microscope's host, which comes back and has its Ray started anew: both
    cameras are, too, fields whose batches were lost there are photographed again, same digest; Ray
    names the node that it gave up."""
    folder, microscope = laboratory.hosts.shared / "long", laboratory.microscope
    run = laboratory.begin_scan(folder, *PACED)
    await_events(folder, "captured", 2)
    microscope.cut()
    await_events(folder, "retried", 2)
    microscope.mend()
    await_true(lambda: "raylet" not in microscope.programs())  # it learns that it was given up
    microscope.end_processes()
    laboratory.start_microscope()

    code, told = end_of(run)

    assert code == 0, told
    assert summary_of(folder)["digest"] == digest
    assert sorted(e["camera"] for e in events_in(folder, "restarted")) == [0, 1]
    assert len(times_captured(folder)) == 8
    assert not events_in(folder, "lost")
    assert "has been marked dead" in told


def test_a_silent_host_is_not_waited_for(digest: str, laboratory: Laboratory) -> None:
    """The host that stacks is cut off and never comes back: what it had is done by another as soon
    as Ray gives it up, not when the network notices, minutes later; same digest."""
    folder = laboratory.hosts.shared / "silent"
    run = laboratory.begin_scan(folder, *PACED)
    await_events(folder, "captured", 3)
    laboratory.compute.cut()
    laboratory.replace_compute()

    code, told = end_of(run, within_s=60)

    assert code == 0, told
    assert summary_of(folder)["digest"] == digest
    assert times_captured(folder) == [1] * 8


def test_a_job_is_submitted(digest: str, laboratory: Laboratory) -> None:
    """`ray job submit` in a folder that only the head has: Ray gives the program to all hosts, what
    git ignores is not sent, and the job ends as the same scan."""
    head, folder = laboratory.head, laboratory.hosts.shared / "job"
    home = laboratory.hosts.local / "program"
    shutil.copytree(ROOT, head.seen(home), ignore=shutil.ignore_patterns(".*", "runs", "venv"))
    shutil.copy(ROOT / ".gitignore", head.seen(home))
    head.seen(home / "runs").mkdir()
    head.seen(home / "runs" / "large").write_bytes(bytes(10**7))

    run = head.run(
        *[RAY, "job", "submit", f"--address=http://{head.address}:8265", "--working-dir=."],
        *["--", *PROGRAM, "--out", str(folder)],
        cwd=home,
        within_s=240,  # the folder is new to every process, and what it compiles is, too
    )

    (sent,) = head.seen(head.packages).glob("_ray_pkg_*/")
    assert run.returncode == 0, run.stdout
    assert summary_of(folder)["digest"] == digest
    assert not (sent / "runs").exists()
    assert not (sent / ".git").exists()


def with_token(file: Path, token: str) -> dict[str, str]:
    """The environment of those who have this token in a file."""
    file.write_text(token)
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}


def test_a_cluster_wants_its_token(digest: str, hosts: Network) -> None:
    """A scan with the token of the cluster is let in; others are told within 30 s, in one line and
    with exit code 2, that theirs is another, or that they have none."""
    head, folder = hosts.add("guarded"), hosts.shared / "guarded"
    ours = with_token(hosts.shared / "token", "ours" * 16)
    other = with_token(hosts.shared / "another token", "else" * 16)
    head.start_ray(cpus=1, environment=ours)
    none, began_s = {"RAY_AUTH_MODE": "token"}, time.monotonic()

    def attempt(environment: dict[str, str], out: str) -> subprocess.CompletedProcess[str]:
        joining = ["--address", head.ray_address, "--out", str(hosts.shared / out)]
        return head.run(*PROGRAM, *joining, environment=environment)

    with ThreadPoolExecutor() as pool:
        refused = [pool.submit(attempt, *each) for each in ((other, "other"), (none, "none"))]
        run = pool.submit(attempt, ours, folder.name)
        refusals = [each.result() for each in refused]
        refused_s = time.monotonic() - began_s

    assert run.result().returncode == 0, run.result().stdout
    assert summary_of(folder)["digest"] == digest
    assert refused_s < 30
    for refusal in refusals:
        (told,) = (line for line in refusal.stdout.splitlines() if line != "starting Ray")
        assert refusal.returncode == 2
        assert told.startswith(f"Ray at {head.ray_address}: expected a Ray that answers, got ")
        assert "both sides use one token" in told
