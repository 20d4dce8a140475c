"""Kill something at a random moment of a scan, again and again: is the answer still the same?

    python benchmarks/chaos.py --runs 50 --seed 1

Each run scans the same small slide on a Ray of two nodes and loses one thing at a moment drawn from
the seed: a capture actor in the scan or in autofocus, a stacking worker, a detection worker, the
second node with all that is on it, or the driver, Ray's head or Ray's process on this computer,
which are followed by `--resume`. The moment is a line of the journal, the process is killed with
SIGKILL. One kind loses the stacking worker of a field on every attempt but the last, and one stops
a worker for 5 to 15 s. A run has survived if it ends with exit code 0 and the digest of the
undisturbed run; where only workers died, each field must have been captured once; where Ray died,
the program must first have said so and closed its journal within 10 s.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

os.environ["RAY_AUTH_MODE"] = "disabled"  # this Ray is ours alone
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

import main  # noqa: E402
import tasks  # noqa: E402
from benchmarks.conditions import print_conditions  # noqa: E402
from config import Settings  # noqa: E402

SLIDE = ["--plain", "--stripes", "2", "--fields", "4", "--planes", "7", "--field-px", "192"]
SLIDE += ["--exposure-ms", "5"]
NOTICED_SOON = {  # a dead node is noticed within a second, not within a quarter of a minute
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 100,
    "health_check_timeout_ms": 300,
    "health_check_failure_threshold": 5,
}
WORKERS = {
    "capture actor": ("ray::capture", "ray::CaptureActor"),
    "stacking worker": ("ray::stack",),
    "detection worker": ("ray::detect",),
    "camera in autofocus": ("ray::CaptureActor.sweep",),
}
ANY_WORKER = ("ray::",)
RAYS_OWN = {"Ray's head": "gcs_server", "Ray's process": "raylet"}
TOLD_S = 10.0  # within which the death of Ray must be told
FROZEN, FROZEN_S = "worker, stopped for seconds", (5.0, 15.0)
EACH_STACKING_WORKER = "stacking worker, each time"  # on every attempt but the last
FAULTS = [*WORKERS, EACH_STACKING_WORKER, "second node", "driver", FROZEN, *RAYS_OWN]
NO_EXPOSURE_LOST = ("stacking worker", "detection worker", EACH_STACKING_WORKER)
ATTEMPTS = 1 + Settings().retries
DONE = {"capture": "captured", "stack": "stacked", "detect": "detected"}


@dataclass(frozen=True)
class Outcome:
    """What became of one run: `struck` is the victim's name, empty if the scan was over first."""

    fault: str
    struck: str
    survived: bool
    recovery_s: float


class Strike(threading.Thread):
    """Waits for a line of the journal, then strikes; `victim` and `at_s` say whom and when."""

    def __init__(self, folder: Path, line: int, kill: Callable[[], str]) -> None:
        super().__init__(daemon=True)
        self.victim, self.at_s, self.over = "", 0.0, threading.Event()
        self._journal, self._line, self._kill = folder / "events.jsonl", line, kill

    def run(self) -> None:
        """Look until the moment has come and there is somebody to strike."""
        while not self.over.wait(0.002):
            if len(events_of(self._journal)) >= self._line and (victim := self._kill()):
                self.victim, self.at_s = victim, time.time()
                return


def events_of(journal: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal so far."""
    text = journal.read_text() if journal.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def kill_worker(titles: tuple[str, ...], generator: random.Random) -> str:
    """Kill one of our Ray's processes with such a title; which, or nothing if there is none."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline()).strip()
        except psutil.Error:
            continue
        if title.startswith(titles):
            found.append((process, title))
    if not found:
        return ""
    process, title = generator.choice(found)
    process.send_signal(signal.SIGKILL)
    return title


@contextmanager
def struck(folder: Path, line: int, kill: Callable[[], str]) -> Iterator[Strike]:
    """Strike while the body runs."""
    strike = Strike(folder, line, kill)
    strike.start()
    try:
        yield strike
    finally:
        strike.over.set()
        strike.join()


def scan(*options: str) -> int:
    """Run the program in this process, quietly, on the Ray that is there."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        return main.main([*options])


def scan_and_lose_each_worker(folder: Path, field: int) -> tuple[Strike, int]:
    """Run the program with a stacking task that kills its worker until the last attempt."""
    marks = Path(tempfile.mkdtemp(dir=folder.parent))
    stack_batch = tasks.stack_batch

    @ray.remote(num_cpus=1, max_retries=0)
    def dying_stack(job: Any, frames: Any) -> Any:
        record = stack_batch._function(job, frames)
        for attempt in range(ATTEMPTS - 1):
            mark = marks / f"{attempt}"
            if (job.field.stripe, job.field.field) == (field % 2, field // 2) and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return record

    tasks.stack_batch = dying_stack
    try:
        with struck(folder, 2, lambda: EACH_STACKING_WORKER) as strike:
            code = scan(*SLIDE, "--out", str(folder))
    finally:
        tasks.stack_batch = stack_batch
    assert len(list(marks.iterdir())) == ATTEMPTS - 1
    return strike, code


def captures_of(events: list[dict[str, Any]]) -> Counter[tuple[int, int]]:
    """How often each field was captured."""
    return Counter((e["stripe"], e["field"]) for e in events if e["event"] == "captured")


def scan_and_lose_driver(folder: Path, line: int, address: str) -> tuple[Strike, int]:
    """Run the program as a process, kill it, resume here."""
    command = [sys.executable, str(ROOT / "main.py"), *SLIDE, "--out", str(folder)]
    with subprocess.Popen(
        [*command, "--address", address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as driver:

        def kill() -> str:
            driver.send_signal(signal.SIGKILL)
            return "driver"

        with struck(folder, line, kill) as strike:
            driver.wait()
    return strike, scan("--plain", "--resume", str(folder))


def scan_and_lose_ray(folder: Path, line: int, name: str) -> tuple[Strike, int]:
    """Run the program on a Ray of its own, kill a process of that Ray, resume here."""
    command = [sys.executable, str(ROOT / "main.py"), *SLIDE, "--out", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as program:

        def kill() -> str:
            for process in psutil.Process(program.pid).children(recursive=True):
                if process.name() == RAYS_OWN[name]:
                    process.kill()
                    return name
            return ""

        with struck(folder, line, kill) as strike:
            told = program.communicate()[1]
    took_s, last = time.time() - strike.at_s, events_of(folder / "events.jsonl")[-1]
    if strike.victim and not (program.returncode == 1 and told and took_s < TOLD_S):
        print(f"told after {took_s:.1f} s with exit code {program.returncode}: {told!r}")
        return strike, 1
    assert last["event"] == "finished"
    return strike, scan("--plain", "--resume", str(folder))


def freeze_worker(generator: random.Random) -> str:
    """Stop one of our Ray's processes for some seconds; which, or nothing if there is none."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith(ANY_WORKER):
                found.append(process)
    if not found:
        return ""
    process = generator.choice(found)
    title = " ".join(process.cmdline()).strip()
    process.suspend()
    resume = threading.Timer(generator.uniform(*FROZEN_S), lambda: _resume(process))
    resume.daemon = True
    resume.start()
    return title


def _resume(process: psutil.Process) -> None:
    with suppress(psutil.Error):  # killed meanwhile
        process.resume()


def recovery_s(strike: Strike, events: list[dict[str, Any]]) -> float:
    """From the strike to the lost result, to the new process where nothing was lost, or to the last
    event where Ray died."""
    after = [event for event in events if event["time"] > strike.at_s]
    words = strike.victim.removeprefix("ray::").rstrip("()").split()
    if strike.victim in RAYS_OWN:
        back = [event for event in after if event["event"] == "finished"]
    elif len(words) == 5:  # such as: capture stripe 0 field 3
        place = (int(words[2]), int(words[4]))
        back = [
            e for e in after
            if e["event"] == DONE[words[0]] and (e["stripe"], e["field"]) == place
        ]  # fmt: skip
    else:
        back = [e for e in after if e["event"] in ("restarted", "focused", *DONE.values())]
    return back[0]["time"] - strike.at_s if back else 0.0


class Arena:
    """A Ray of two nodes, and the undisturbed scan that every other is compared with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        head = {"num_cpus": 1, "object_store_memory": 200 * 10**6, "include_dashboard": False}
        self.cluster = Cluster(
            initialize_head=True, head_node_args=head | {"_system_config": NOTICED_SOON}
        )
        self.second = self.cluster.add_node(num_cpus=1, object_store_memory=200 * 10**6)
        ray.init(address=self.cluster.address, log_to_driver=False, logging_level="error")
        for name in ("first", "calm"):  # the first one compiles
            assert scan(*SLIDE, "--out", str(folder / name)) == 0
        self.digest = self.digest_of("calm")
        self.lines = len(events_of(folder / "calm" / "events.jsonl"))

    def digest_of(self, name: str) -> str:
        """The digest in the summary of a run."""
        return str(json.loads((self.folder / name / "summary.json").read_text())["digest"])

    def lose_second_node(self) -> str:
        """The raylet of the second node and all its children die at once."""
        self.cluster.remove_node(self.second, allow_graceful=False)
        return "second node"

    def run(self, number: int, fault: str, generator: random.Random) -> Outcome:
        """One scan that loses something."""
        in_autofocus = fault == "camera in autofocus"
        line = 2 if in_autofocus else generator.randrange(2, self.lines - 6)
        folder = self.folder / str(number)
        if fault == EACH_STACKING_WORKER:
            strike, code = scan_and_lose_each_worker(folder, generator.randrange(8))
        elif fault == "driver":
            strike, code = scan_and_lose_driver(folder, line, self.cluster.address)
        elif fault in RAYS_OWN:
            strike, code = scan_and_lose_ray(folder, line, fault)
        else:
            kill = {
                "second node": self.lose_second_node,
                FROZEN: lambda: freeze_worker(generator),
            }.get(fault, lambda: kill_worker(WORKERS[fault], generator))
            with struck(folder, line, kill) as strike:
                code = scan(*SLIDE, "--out", str(folder))
        if fault == "second node" and strike.victim:
            self.second = self.cluster.add_node(num_cpus=1, object_store_memory=200 * 10**6)
        events = events_of(folder / "events.jsonl")
        survived = code == 0 and self.digest_of(str(number)) == self.digest
        if fault in NO_EXPOSURE_LOST:
            survived = survived and set(captures_of(events).values()) == {1}
        return Outcome(fault, strike.victim, survived, recovery_s(strike, events))

    def close(self) -> None:
        """End this Ray."""
        ray.shutdown()
        self.cluster.shutdown()


def table(outcomes: list[Outcome]) -> str:
    """Faults injected and survived, and how long it took to be where the scan was."""
    lines = [
        "| lost | injected | survived | recovery, median (s) | longest (s) |",
        "|---|---|---|---|---|",
    ]
    for fault in (*FAULTS, "all"):
        some = [o for o in outcomes if o.fault == fault or fault == "all"]
        if some:
            times = [o.recovery_s for o in some]
            survived = sum(o.survived for o in some)
            spread = f"{np.median(times):.2f} | {max(times):.2f}"
            lines.append(f"| {fault} | {len(some)} | {survived} | {spread} |")
    return "\n".join(lines)


def chaos(runs: int, seed: int, folder: Path) -> list[Outcome]:
    """So many scans that lost something; those that were over too soon are made again."""
    generator, arena = random.Random(seed), Arena(folder)
    outcomes: list[Outcome] = []
    number = 0
    try:
        while len(outcomes) < runs:
            fault = FAULTS[len(outcomes) % len(FAULTS)]
            outcome = arena.run(number, fault, generator)
            number += 1
            if outcome.struck:
                outcomes.append(outcome)
                verdict = "same digest" if outcome.survived else "DIFFERENT"
                name = outcome.struck.removeprefix("ray::")
                print(
                    f"{len(outcomes):3} {name:28} {verdict} {outcome.recovery_s:6.2f} s", flush=True
                )
    finally:
        arena.close()
    return outcomes


def run_from_command_line() -> int:
    """Print conditions, every run and the table; exit code 1 if a digest differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print_conditions()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = chaos(given.runs, given.seed, Path(folder))
    print(table(outcomes))
    return 0 if all(outcome.survived for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(run_from_command_line())
