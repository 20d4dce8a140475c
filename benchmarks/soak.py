"""Scan two thousand small fields: does anything grow that should not?

    python benchmarks/soak.py --stripes 4 --fields 500 --exposure-ms 40

The program runs as its users start it, on a local Ray of its own. About every second the memory and
the open files of all its processes are noted, with the number of fields detected so far. Memory is
what a process has for itself, RSS without shared pages; those of the object store are counted once,
as the blocks that its file in shared memory has. Of kinds with several processes the mean is taken.
Exposures shall be long enough that detection keeps up, or a backlog of tasks looks like a leak.

Ray's head keeps what it knows of each task, some 2 kB, up to a number of tasks. It is lowered here
so that it is reached before the first sample that counts: what grows afterwards has no such limit.

Neighbouring samples are alike and would feign certainty, so the samples from the 200th field to the
last are parted into ten blocks, and a line is fitted through the means of the blocks. Something
grows if the slope exceeds two standard errors and adds more than 2 % of the first level from the
first block to the last.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

os.environ["RAY_AUTH_MODE"] = "disabled"  # this Ray is ours alone
os.environ["RAY_task_events_max_num_task_in_gcs"] = "500"  # noqa: SIM112  (10,000 otherwise)
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.conditions import print_conditions  # noqa: E402

# Batches of 131 kB, for Ray sends what is below 102 kB through the driver and not the object store.
SETTINGS = """\
field_px = 128
planes = 4
settle_ms = 0
focus_samples = 3
object_store_mb = 200
store_fraction = 0.02
"""
SETTLED, BLOCKS = 200, 10  # fields before the first sample that counts; blocks of samples
ERRORS, SHARE = 2.0, 0.02  # what a slope must exceed to count as growth
SAMPLE_S = 1.0
KINDS = {
    "camera": ("ray::CaptureActor", "ray::capture"),
    "worker": ("ray::stack", "ray::detect"),
    "agent": ("ray::DashboardAgent", "ray::RuntimeEnvAgent"),
    "raylet": ("raylet",),
    "gcs": ("gcs_server",),
}


@dataclass
class Growth:
    """A line through the means of blocks: per 1,000 fields, with its standard error."""

    first: float
    last: float
    slope: float
    error: float
    gain: float

    @classmethod
    def of(cls, fields: np.ndarray, levels: np.ndarray) -> Growth:
        """Fit fields against levels."""
        x = np.array([block.mean() for block in np.array_split(fields / 1e3, BLOCKS)])
        y = np.array([block.mean() for block in np.array_split(levels, BLOCKS)])
        slope, constant = np.polyfit(x, y, 1)
        left = y - constant - slope * x
        error = math.sqrt((left @ left) / (BLOCKS - 2) / ((x - x.mean()) ** 2).sum())
        return cls(y[0], y[-1], slope, error, slope * (x[-1] - x[0]))

    @property
    def growing(self) -> bool:
        """Whether this is growth, as the head of this file says."""
        return self.slope > ERRORS * self.error and self.gain > SHARE * self.first


@dataclass
class Watch:
    """Samples of everything there is to see of a run, by name."""

    driver: psutil.Process
    journal: Path
    detected: int = 0
    over: bool = False
    samples: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    _read: int = 0
    _kinds: dict[psutil.Process, str] = field(default_factory=dict)

    def look(self) -> None:
        """Take one sample, unless the scan is over."""
        self._count()
        if self.over:
            return
        seen = defaultdict(list)
        for process in (self.driver, *self.driver.children(recursive=True)):
            try:
                kind = self._kind(process)
                memory, files = process.memory_info(), process.num_fds()
                seen[kind].append(((memory.rss - memory.shared) / 1e6, files))
                if kind == "raylet":
                    store = store_bytes(process.pid) / 1e6
                    seen["object store"].append((store, math.nan))
            except (psutil.Error, OSError):
                continue  # ended just now
        for kind, found in seen.items():
            memory_mb, files = np.mean(found, axis=0)
            self._note(f"{kind}, MB", memory_mb)
            if kind != "object store":
                self._note(f"{kind}, open files", files)
        self._note("processes", sum(map(len, seen.values())) - len(seen["object store"]))
        cpu = self.driver.cpu_times()
        self._note("driver, CPU ms", 1e3 * (cpu.user + cpu.system))

    def _note(self, name: str, value: float) -> None:
        self.samples[name].append((self.detected, value))

    def _count(self) -> None:
        """Count the fields detected, reading only what is new in the journal."""
        if self.journal.exists():
            with self.journal.open("rb") as file:
                file.seek(self._read)
                whole = file.read().rpartition(b"\n")[0]
            self._read += len(whole)
            self.detected += whole.count(b'"event": "detected"')
            self.over |= b'"event": "finished"' in whole

    def _kind(self, process: psutil.Process) -> str:
        """What a process is; a worker between two tasks is still one."""
        if process == self.driver:
            return "driver"
        title, name = " ".join(process.cmdline()), process.name()
        for kind, titles in KINDS.items():
            if title.startswith(titles) or name in titles:
                self._kinds[process] = kind
        return self._kinds.get(process, "other")


def store_bytes(raylet: int) -> int:
    """Shared memory that the object store has touched; its file has no name any more."""
    files = {
        (status.st_dev, status.st_ino): status.st_blocks * 512
        for link in Path(f"/proc/{raylet}/fd").iterdir()
        if "plasma" in str(link.readlink()) and (status := link.stat())
    }
    return sum(files.values())


def forked_by(program: psutil.Process) -> psutil.Process:
    """The driver's process, which the program forks at once."""
    while not (forked := program.children()):
        time.sleep(0.01)
    return forked[0]


def soak(options: list[str], folder: Path) -> tuple[int, Watch]:
    """One scan, watched; exit code and samples."""
    (folder / "soak.toml").write_text(SETTINGS)
    command = [sys.executable, str(ROOT / "main.py"), "--plain", *options]
    command += ["--config", str(folder / "soak.toml"), "--out", str(folder / "run")]
    with (
        (folder / "said.txt").open("w") as said,
        subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT) as driver,
    ):
        watch = Watch(forked_by(psutil.Process(driver.pid)), folder / "run" / "events.jsonl")
        while driver.poll() is None:
            watch.look()
            time.sleep(SAMPLE_S)
    if driver.returncode:
        print((folder / "said.txt").read_text()[-2000:], file=sys.stderr)
    return driver.returncode, watch


def growths(watch: Watch) -> dict[str, Growth]:
    """What became of each thing that was watched, from the 200th field on."""
    found = {}
    for name, samples in watch.samples.items():
        settled = np.array([sample for sample in samples if sample[0] >= SETTLED])
        if len(settled) >= 2 * BLOCKS:
            found[name] = Growth.of(*settled.T)
    return found


def table(found: dict[str, Growth]) -> str:
    """A line for each thing watched."""
    lines = ["| | first | last | per 1,000 fields | |", "|---|---|---|---|---|"]
    for name, growth in sorted(found.items()):
        verdict = "**growing**" if growth.growing else "flat"
        levels = f"{growth.first:.1f} | {growth.last:.1f}"
        lines.append(
            f"| {name} | {levels} | {growth.slope:+.2f} ± {growth.error:.2f} | {verdict} |"
        )
    return "\n".join(lines)


def pace(events: list[dict[str, Any]], cpu: list[tuple[float, float]]) -> str:
    """Time from field to field, and the driver's CPU time in it, in the first and last quarter."""
    at_s = np.array([event["time"] for event in events if event["event"] == "detected"])
    quarter = len(at_s) // 4
    parts = []
    for name, first, last in (("first", 0, quarter), ("last", len(at_s) - quarter, len(at_s) - 1)):
        wall_ms = 1e3 * (at_s[last] - at_s[first]) / (last - first)
        spent = [sample for sample in cpu if first <= sample[0] <= last and sample[0]]
        (began, ended), (from_ms, to_ms) = zip(spent[0], spent[-1], strict=True)
        cpu_ms = (to_ms - from_ms) / max(ended - began, 1)
        parts.append(
            f"{name} quarter {wall_ms:.1f} ms a field, {cpu_ms:.1f} ms of the driver's CPU"
        )
    return "; ".join(parts)


def run_from_command_line() -> int:
    """Print conditions, the table and the pace; exit code 1 if something grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stripes", type=int, default=4)
    parser.add_argument("--fields", type=int, default=500)
    parser.add_argument("--exposure-ms", type=float, default=40)
    given = vars(parser.parse_args())
    print_conditions(**given)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    with tempfile.TemporaryDirectory() as name:
        code, watch = soak(options, Path(name))
        if code:
            return code
        lines = (Path(name) / "run" / "events.jsonl").read_text().splitlines()
    cpu = watch.samples.pop("driver, CPU ms")
    found = growths(watch)
    print(table(found), pace([json.loads(line) for line in lines], cpu), sep="\n\n")
    return int(any(growth.growing for growth in found.values()))


if __name__ == "__main__":
    sys.exit(run_from_command_line())
