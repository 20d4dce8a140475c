"""Hosts of a cluster on one machine, in Linux namespaces.

Each host has its own network, processes, name, /tmp/ray, /dev/shm and home.

A host lives as long as its first process, which reads from a pipe of this process. So nothing is
left behind, not even by a test that is killed.
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
from imaging.code_cache import cache_folder

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
PORT = 6379  # of Ray's head
START_S = 60.0  # for Ray on one host; it takes seconds
POLL_S = 0.02
RAY_FOLDER = Path("/tmp/ray")

# Reads until the pipe is closed. As the first process of its namespace it ends all others with it,
# and inherits those whose parents died.
FIRST_PROCESS = (
    "import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    "print(flush=True); sys.stdin.read()"
)
# A dead node is noticed within 1 s, a silent one within 4 s; by default that takes 15 and 65 s.
FAST_DETECTION = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "250",
    "RAY_health_check_timeout_ms": "750",
    "RAY_health_check_failure_threshold": "4",
    "RAY_grpc_client_keepalive_time_ms": "1000",
    "RAY_grpc_client_keepalive_timeout_ms": "3000",
}
LEAN = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",  # start no process before a task needs it
}
SMALL = ["--object-store-memory=150000000", "--disable-usage-stats", "--include-log-monitor=false"]


class Host:
    """A computer of its own, for the programs that run on it."""

    def __init__(self, network: Network, name: str, address: str) -> None:
        self.name, self.address = name, address
        self._network = network
        self._environment = RAY_ENVIRONMENT | FAST_DETECTION | LEAN | {"HOME": str(network.local)}
        self._environment["NUMBA_CACHE_DIR"] = str(
            cache_folder()
        )  # compiling is not what is tested
        self._unshared, self._process = _unshare(
            "--net", "--mount", "--uts", "--pid", "--mount-proc"
        )
        self._configure()

    def _configure(self) -> None:
        """Set a name, link to the switch, and mount folders that no other host sees."""
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
        """Start a command on this host; its output and errors go to one pipe."""
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
                output, _ = process.communicate(timeout=within_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(command, process.returncode, output)

    def start_ray(
        self,
        head: Host | None = None,
        *,
        cpus: int,
        resources: Mapping[str, float] = {},
        options: Sequence[str] = ("--include-dashboard=false",),
        environment: Mapping[str, str] = {},
    ) -> None:
        """Start a Ray with this host as its head, or join that of another host."""
        role = ["--head", f"--port={PORT}", *options] if head is None else []
        role += [f"--address={head.ray_address}"] if head else []
        run = self.run(
            RAY,
            "start",
            *role,
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
        """The folder where Ray unpacks the files of jobs."""
        session = self.path_from_outside(RAY_FOLDER / "session_latest").readlink()
        return session / "runtime_resources" / "working_dir_files"

    @property
    def ray_address(self) -> str:
        """The address of a Ray that has its head here."""
        return f"{self.address}:{PORT}"

    def path_from_outside(self, path: Path) -> Path:
        """The path, for this process, of a file of this host."""
        return Path(f"/proc/{self._process}/root") / path.relative_to("/")

    def programs(self) -> set[str]:
        """The names of the processes of this host."""
        return set(self._processes().values())

    def _processes(self) -> dict[psutil.Process, str]:
        """The processes of this host and their names."""
        found, own = {}, Path(f"/proc/{self._process}/ns/pid").readlink()
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):  # of those that end meanwhile
                if Path(f"/proc/{process.pid}/ns/pid").readlink() == own:
                    found[process] = process.name()
        return found

    @contextmanager
    def paused(self, program: str) -> Iterator[None]:
        """Halt the processes whose names begin so, of which there is one at least."""
        named = self._processes().items()
        halted = [process for process, name in named if name.lower().startswith(program)]
        assert halted, f"no {program} on {self.name}: {self.programs()}"
        for process in halted:
            process.suspend()
        try:
            yield
        finally:
            for process in halted:
                process.resume()

    def disconnect(self) -> None:
        """Pull the network cable; no connection is closed."""
        self._network.switch("ip", "link", "set", self.name, "down")

    def reconnect(self) -> None:
        """Put the network cable back."""
        self._network.switch("ip", "link", "set", self.name, "up")

    def kill_processes(self) -> None:
        """Kill all processes of this host at once, as a reset does."""
        self.run("sh", "-c", "kill -9 -1")

    def close(self) -> None:
        """End the host and its processes."""
        _end(self._unshared)


class Network:
    """Hosts on one switch, with a folder that all share and one that each has for itself."""

    def __init__(self, folder: Path) -> None:
        self.shared, self.local = folder / "shared", folder / "local"
        self.shared.mkdir()
        self.local.mkdir()
        RAY_FOLDER.mkdir(exist_ok=True)
        self.all: list[Host] = []
        self._unshared, self._process = _unshare("--net", "--pid")
        self.switch("ip", "link", "add", "switch", "type", "bridge")
        self.switch("ip", "link", "set", "switch", "up")

    def switch(self, *command: str) -> None:
        """Run a command in the namespace of the switch."""
        entering = _entering(self._process, "--net")
        run = subprocess.run([*entering, *command], capture_output=True, text=True, check=False)
        if run.returncode:
            raise OSError(run.stderr)

    def add(self, name: str) -> Host:
        """Add a host."""
        host = Host(self, name, f"10.77.0.{len(self.all) + 1}")
        self.all.append(host)
        return host

    def close(self) -> None:
        """End all hosts, with their processes and mounts."""
        for host in self.all:
            host.close()
        _end(self._unshared)


def _unshare(*own: str) -> tuple[subprocess.Popen[str], int]:
    """Start a process in new namespaces; returns it, and the process id to enter them by."""
    unshared = subprocess.Popen(
        ["unshare", *own, "--fork", "--kill-child", sys.executable, "-c", FIRST_PROCESS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert unshared.stdout is not None
    if error := unshared.stdout.readline().strip():  # the first process prints an empty line
        _end(unshared)
        raise OSError(error)
    (inner,) = psutil.Process(unshared.pid).children()
    return unshared, inner.pid


def _entering(process: int, *namespaces: str) -> list[str]:
    return ["nsenter", f"--target={process}", *namespaces, "--"]


def _end(unshared: subprocess.Popen[str]) -> None:
    """Close the pipe from which the first process of a host reads, and wait until it has ended."""
    with unshared:
        assert unshared.stdin is not None
        unshared.stdin.close()


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A network for hosts; tests are skipped where namespaces are not permitted."""
    for tool in ("unshare", "nsenter", "ip"):
        if not shutil.which(tool):
            pytest.skip(f"hosts need {tool}, which is not installed")
    with ExitStack() as ending:
        try:
            made = Network(folder)
            ending.callback(made.close)
            Host(made, "trial", "10.77.0.254").close()
        except OSError as error:
            pytest.skip(f"hosts in namespaces are not permitted here: {str(error).strip()}")
        yield made


def wait_until(condition: Callable[[], Any], within_s: float = 60.0) -> Any:
    """Wait until a condition is true; returns its value."""
    deadline_s = time.monotonic() + within_s
    while not (found := condition()):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {within_s:.0f} s: {condition}")
        time.sleep(POLL_S)
    return found
