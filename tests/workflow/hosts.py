"""Hosts of a cluster on one machine: each has network, processes, name, /tmp/ray, /dev/shm and home
of its own.

They are Linux namespaces. All of them live as long as a process that reads from a pipe of ours,
so nothing is left behind, not even by a test that is killed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.environment import RAY_ENVIRONMENT

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
PORT = 6379  # of Ray's head
START_S = 60.0  # for Ray on one host; it takes seconds
POLL_S = 0.02
RAY_FOLDER = Path("/tmp/ray")

# Reads until we close the pipe, or are no more. As the first process of its namespace it takes all
# others along, and inherits those whose parents died.
LIVE = (
    "import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    "print(flush=True); sys.stdin.read()"
)
# A node that died is noticed within 1 s, a silent one within 5 s; by default it would be 15 and 65.
NOTICED_SOON = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "250",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_grpc_client_keepalive_time_ms": "1000",
    "RAY_grpc_client_keepalive_timeout_ms": "4000",
}
QUIET = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
SMALL = ["--object-store-memory=150000000", "--disable-usage-stats"]


class Host:
    """A machine of its own, as far as programs can tell."""

    def __init__(self, network: Network, name: str, address: str) -> None:
        self.name, self.address = name, address
        self._network = network
        self._environment = RAY_ENVIRONMENT | NOTICED_SOON | QUIET | {"HOME": str(network.local)}
        self._unshared, self._process = _live("--net", "--mount", "--uts", "--pid", "--mount-proc")
        self._settle()

    def _settle(self) -> None:
        """A name, a link to the others, and folders that no other host sees."""
        link = ["link", "add", self.name, "type", "veth", "peer", "name", "eth0"]
        self._network.switch("ip", *link, "netns", str(self._process))
        self._network.switch("ip", "link", "set", self.name, "master", "switch", "up")
        own = "mount -t tmpfs tmpfs"
        script = (
            f"hostname {self.name} && ip link set lo up && ip link set eth0 up && "
            f"ip address add {self.address}/24 dev eth0 && "
            f"{own} /dev/shm && {own} {RAY_FOLDER} && {own} {self._network.local}"
        )
        if (run := self.run("sh", "-c", script)).returncode:
            self.close()
            raise OSError(run.stdout)

    def start(
        self, *command: str, environment: Mapping[str, str] = {}, cwd: Path = ROOT
    ) -> subprocess.Popen[str]:
        """Begin a command on this host; what it says is kept together."""
        own = ("--net", "--mount", "--uts", "--pid")
        given = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
        return subprocess.Popen(
            [*_entering(self._process, *own), "env", f"--chdir={cwd}", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**given, **self._environment, **environment},
        )

    def run(
        self,
        *command: str,
        environment: Mapping[str, str] = {},
        cwd: Path = ROOT,
        within_s: float = 90,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this host and wait for its end."""
        with self.start(*command, environment=environment, cwd=cwd) as process:
            try:
                told, _ = process.communicate(timeout=within_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(command, process.returncode, told)

    def start_ray(
        self,
        head: Host | None = None,
        *,
        cpus: int,
        resources: Mapping[str, float] = {},
        options: Sequence[str] = ("--include-dashboard=false",),
        environment: Mapping[str, str] = {},
    ) -> None:
        """Begin a Ray with this host as its head, or join that of another host."""
        place = ["--head", f"--port={PORT}", *options] if head is None else []
        place += [f"--address={head.ray_address}"] if head else []
        run = self.run(
            RAY,
            "start",
            *place,
            f"--node-ip-address={self.address}",
            f"--num-cpus={cpus}",
            f"--resources={json.dumps(resources)}",
            *SMALL,
            environment=environment,
            within_s=START_S,
        )
        if run.returncode:
            raise RuntimeError(f"ray start on {self.name}: {run.stdout}")

    @property
    def packages(self) -> Path:
        """Where Ray unpacks what jobs bring along."""
        session = self.seen(RAY_FOLDER / "session_latest").readlink()
        return session / "runtime_resources" / "working_dir_files"

    @property
    def ray_address(self) -> str:
        """Where a Ray that has its head here is joined."""
        return f"{self.address}:{PORT}"

    def seen(self, path: Path) -> Path:
        """Where we find what this host has at a path."""
        return Path(f"/proc/{self._process}/root") / path.relative_to("/")

    def programs(self) -> set[str]:
        """Names of all that runs on this host."""
        found, own = set(), Path(f"/proc/{self._process}/ns/pid").readlink()
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):  # those that end while we look
                if Path(f"/proc/{process.pid}/ns/pid").readlink() == own:
                    found.add(process.name())
        return found

    def cut(self) -> None:
        """Pull the cable; nobody is told."""
        self._network.switch("ip", "link", "set", self.name, "down")

    def mend(self) -> None:
        """Put the cable back."""
        self._network.switch("ip", "link", "set", self.name, "up")

    def end_processes(self) -> None:
        """All that runs on this host dies at once, as by a reset."""
        self.run("sh", "-c", "kill -9 -1")

    def close(self) -> None:
        """End the host with all that runs on it."""
        _end(self._unshared)


class Network:
    """Hosts on one switch, a folder that all of them see and one of which each has its own."""

    def __init__(self, folder: Path) -> None:
        self.shared, self.local = folder / "shared", folder / "local"
        self.shared.mkdir()
        self.local.mkdir()
        RAY_FOLDER.mkdir(exist_ok=True)
        self.all: list[Host] = []
        self._unshared, self._process = _live("--net", "--pid")
        self.switch("ip", "link", "add", "switch", "type", "bridge")
        self.switch("ip", "link", "set", "switch", "up")

    def switch(self, *command: str) -> None:
        """Run a command where the cables of all hosts end."""
        entering = _entering(self._process, "--net")
        run = subprocess.run([*entering, *command], capture_output=True, text=True, check=False)
        if run.returncode:
            raise OSError(run.stderr)

    def add(self, name: str) -> Host:
        """One more host."""
        host = Host(self, name, f"10.77.0.{len(self.all) + 1}")
        self.all.append(host)
        return host

    def close(self) -> None:
        """End all hosts, and with them whatever they ran and mounted."""
        for host in self.all:
            host.close()
        _end(self._unshared)


def _live(*own: str) -> tuple[subprocess.Popen[str], int]:
    """A process with these namespaces of its own, and the number by which they are entered."""
    unshared = subprocess.Popen(
        ["unshare", *own, "--fork", "--kill-child", sys.executable, "-c", LIVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert unshared.stdout is not None
    if told := unshared.stdout.readline().strip():  # an empty line comes from within
        _end(unshared)
        raise OSError(told)
    (inner,) = psutil.Process(unshared.pid).children()
    return unshared, inner.pid


def _entering(process: int, *namespaces: str) -> list[str]:
    return ["nsenter", f"--target={process}", *namespaces, "--"]


def _end(unshared: subprocess.Popen[str]) -> None:
    """Close the pipe from which the first process of a host reads, and wait for its end."""
    with unshared:
        assert unshared.stdin is not None
        unshared.stdin.close()


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A network for hosts; tests are skipped where that is not permitted."""
    for tool in ("unshare", "nsenter", "ip"):
        if not shutil.which(tool):
            pytest.skip(f"hosts are made by {tool}, which is not there")
    with ExitStack() as ending:
        try:
            made = Network(folder)
            ending.callback(made.close)
            Host(made, "trial", "10.77.0.254").close()
        except OSError as error:
            pytest.skip(f"hosts in namespaces are not permitted here: {str(error).strip()}")
        yield made


def await_true(happened: Callable[[], Any], within_s: float = 60.0) -> Any:
    """Look until it has happened; what it gave."""
    until_s = time.monotonic() + within_s
    while not (found := happened()):
        if time.monotonic() > until_s:
            raise TimeoutError(f"not within {within_s:.0f} s: {happened}")
        time.sleep(POLL_S)
    return found
