"""What a cluster costs: the same work on one, two and four raylets, and a farm of nodes on paper.

    python benchmarks/cluster_cost.py --rounds 3

On one machine: a head without CPUs, where the driver is, and raylets with one CPU slot each; the
first of them has the microscope. *Stacking that waits* sleeps for a known time, so that raylets
are as good as computers and the difference from the ideal is Ray's and ours. *The program* is
a scan as it comes, whose stacking and detection share the cores that there are: more raylets than
cores cannot be faster, and should not be slower. *Alone* are what the driver does for a batch, by
tiny ones that nothing else takes time for, and the way of a batch to another node.

Bytes between nodes are measured in three ways: by where each batch was stacked, by what all object
stores took in beyond what was captured, and by the counter of the loopback device, which counts
Ray's talk and that of all others on this machine, too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

os.environ["RAY_AUTH_MODE"] = "disabled"  # this Ray is ours alone
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (Ray spells it so)
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
found_by = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, found_by))  # the raylets' workers, too

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

import main  # noqa: E402
import tasks  # noqa: E402
from benchmarks.conditions import print_conditions  # noqa: E402
from benchmarks.scaling import (  # noqa: E402
    LINK_BYTES_PER_S,
    NODE_CORES,
    USUAL,
    usual_batch,
    usual_detection_s,
)
from benchmarks.systems import this_driver  # noqa: E402
from benchmarks.workload import Workload, least_s, waits_ms  # noqa: E402
from cluster.nodes import MICROSCOPE, SMALL_SHARE, store_stats  # noqa: E402
from results.journal import JOURNAL, read_journal  # noqa: E402
from scan.events import Detected, RayStarted, Stacked  # noqa: E402
from scan.records import StackRecord  # noqa: E402

RAYLETS = (1, 2, 4)
WAIT_S = 0.5
STORE_BYTES = 600 * 10**6  # of every node: a dozen of the batches below
WAITING = Workload(fields=12, exposure_s=0.005)  # three cameras, three times as fast as four nodes
SLIDE = ["--plain", "--stripes=3", "--fields=8"]
TINY = Workload(stripes=2, fields=500, planes=2, edge_px=64, exposure_s=1e-5)
MOVES = 20
AT_THE_MICROSCOPE = {"resources": {MICROSCOPE: SMALL_SHARE}}
MOVED = "MB moved per batch: by place; by stores; by loopback"
FARM = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Moved:
    """Megabytes that went from node to node for each batch, measured in three ways."""

    placed: float
    stored: float
    looped: float


@dataclass(frozen=True)
class Waited:
    """A scan whose stacking waits."""

    makespan_s: float
    ideal_s: float
    waits_ms: list[float]
    moved: Moved


@dataclass(frozen=True)
class Scanned:
    """A scan by the program."""

    makespan_s: float
    cpu_s: float
    digest: str
    moved: Moved


@dataclass(frozen=True)
class Alone:
    """Costs of a batch other than stacking, in ms: the driver's CPU and the time from one to the
    next, both of tiny ones; and of one that is moved, the time, and the CPU of both raylets."""

    driver_ms: float
    next_ms: float
    moving_ms: float
    sender_ms: float
    receiver_ms: float


# ----------------------------------------------------------------------------- the cluster


@contextmanager
def raylets(count: int) -> Iterator[Cluster]:
    """A head without CPUs, where this driver is, and so many raylets with one CPU slot."""
    common = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0} | common)
    try:
        for number in range(count):
            has = {} if number else {MICROSCOPE: 1}
            cluster.add_node(wait=False, num_cpus=1, resources=has, **common)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def microscopes_node() -> str:
    """The node whose raylet has the microscope, where all batches are made."""
    return next(n["NodeID"] for n in ray.nodes() if MICROSCOPE in n["Resources"])


def noting(notes: Path, work: Callable[[Any, Any], tuple[int, int]]) -> Any:
    """A task that stacks in some way and notes the node on which it did."""

    @ray.remote(num_cpus=1)
    def stack_batch(job: Any, frames: Any) -> StackRecord:
        note = notes / f"{job.field.stripe}-{job.field.field}"
        note.write_text(ray.get_runtime_context().get_node_id())
        return StackRecord(*tasks._timed(work, job, frames))

    return stack_batch


def wait(job: Any, frames: Any) -> tuple[int, int]:
    """Stacking that takes a known time and no CPU."""
    time.sleep(WAIT_S)
    return 0, 0


# -------------------------------------------------------------------------- what was moved


@dataclass(frozen=True)
class Counters:
    """What nodes and network have counted so far."""

    stored: int
    looped: int

    @classmethod
    def now(cls) -> Counters:
        """Both, at this moment."""
        return cls(stored_bytes(), looped_bytes())


def stored_bytes() -> int:
    """Bytes of all objects that were ever put into any object store; a copy counts again."""
    return int(store_stats().cumulative_created_bytes)


def looped_bytes() -> int:
    """Bytes that went through the loopback device; none outside Linux."""
    if sys.platform != "linux":
        return 0
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.lstrip().startswith("lo:"))


def moved(before: Counters, after: Counters, notes: Path, batch_bytes: int) -> Moved:
    """What was moved between two moments in which all batches were stacked that have a note."""
    nodes = [note.read_text() for note in notes.iterdir()]
    home, batches = microscopes_node(), len(nodes)
    placed = batch_bytes * sum(node != home for node in nodes)
    stored = after.stored - before.stored - batches * batch_bytes
    looped = after.looped - before.looped
    return Moved(*(each / 1e6 / batches for each in (placed, stored, looped)))


# ------------------------------------------------------------------------------ the scans


def waiting(count: int) -> Waited:
    """A scan on so many raylets whose stacking waits; neither autofocus nor detection."""
    work, before = replace(WAITING, cpus=count), Counters.now()
    with tempfile.TemporaryDirectory() as notes:
        timeline = this_driver(
            work, nullcontext, stacking=noting(Path(notes), wait), camera_options=AT_THE_MICROSCOPE
        )
        crossed = moved(before, Counters.now(), Path(notes), work.batch_bytes)
    first_s = min(each.began_s for each in timeline.captures.values())
    makespan_s = max(each.ended_s for each in timeline.works.values()) - first_s
    works = {place: replace(each, cpu_s=WAIT_S) for place, each in timeline.works.items()}
    ideal_s = least_s(work, replace(timeline, works=works))
    return Waited(makespan_s, ideal_s, waits_ms(timeline, count), crossed)


def scanning() -> Scanned:
    """A scan by the program."""
    before = Counters.now()
    with tempfile.TemporaryDirectory() as notes, tempfile.TemporaryDirectory() as folder:
        tasks.stack_batch, out = noting(Path(notes), tasks.stack), Path(folder) / "run"
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            assert main.main([*SLIDE, "--out", str(out)]) == 0
        summary = json.loads((out / "summary.json").read_text())
        events = read_journal(out / JOURNAL)
        size = next(each.batch_bytes for each in events if isinstance(each, RayStarted))
        crossed = moved(before, Counters.now(), Path(notes), size)
    makespan_s = summary["timing"]["capture"] + summary["timing"]["answer"]
    cpu_s = sum(each.cpu_s for each in events if isinstance(each, Stacked | Detected))
    return Scanned(makespan_s, cpu_s, summary["digest"], crossed)


def alone(cluster: Cluster, count: int) -> Alone:
    """What the driver does for a batch, and the way of one to another node, if there is one."""
    work = replace(TINY, cpus=count)
    timeline = this_driver(work, nullcontext, camera_options=AT_THE_MICROSCOPE)
    first_s = min(each.began_s for each in timeline.captures.values())
    wall_s = max(each.ended_s for each in timeline.works.values()) - first_s
    spent = [1e3 * each / len(timeline.works) for each in (timeline.driver_cpu_s, wall_s)]
    return Alone(*spent, *(moving(cluster) if count > 1 else [float("nan")] * 3))


def moving(cluster: Cluster) -> tuple[float, float, float]:
    """Milliseconds to move a batch to another node, and CPU milliseconds of sender and receiver."""
    home = microscopes_node()
    nodes = sorted(cluster.worker_nodes, key=lambda node: node.node_id != home)[:2]
    pair = [psutil.Process(node.all_processes["raylet"][0].process.pid) for node in nodes]
    there = NodeAffinitySchedulingStrategy(nodes[1].node_id, soft=False)
    make = batch_made.options(**AT_THE_MICROSCOPE)
    arrive = planes_of.options(scheduling_strategy=there)
    ray.get(arrive.remote(make.remote()))  # both processes have started
    times_s, before_s = [], [cpu_s(raylet) for raylet in pair]
    for _ in range(MOVES):
        batch = make.remote()
        ray.wait([batch], fetch_local=False)
        began_s = time.perf_counter()
        ray.get(arrive.remote(batch))
        times_s.append(time.perf_counter() - began_s)
    spent_s = np.subtract([cpu_s(raylet) for raylet in pair], before_s)
    return 1e3 * statistics.median(times_s), *(1e3 * spent_s / MOVES)


@ray.remote(num_cpus=0)
def batch_made() -> np.ndarray:
    """A batch (z, y, x)."""
    return np.ones((WAITING.planes, WAITING.edge_px, WAITING.edge_px), np.uint16)


@ray.remote(num_cpus=0)
def planes_of(batch: np.ndarray) -> int:
    """How many planes a batch has, where it has come to."""
    return len(batch)


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


# ------------------------------------------------------------------------------ the tables


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median, least and greatest."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"


def table_of_moved(rounds: Sequence[Waited] | Sequence[Scanned]) -> str:
    """Medians of what was moved, in three ways."""
    ways = [(r.moved.placed, r.moved.stored, r.moved.looped) for r in rounds]
    return "; ".join(f"{way:.1f}" for way in np.median(ways, axis=0))


def print_waiting(found: dict[int, list[Waited]]) -> None:
    """A line for each number of raylets."""
    size = WAITING.batch_bytes / 1e6
    batches = len(WAITING.places)
    print(f"Stacking that waits {WAIT_S} s, {batches} batches of {size:.0f} MB:\n")
    print(f"| raylets | makespan, s | ideal, s | over it | dispatch, 50 / 99 %, ms | {MOVED} |")
    print("|---" * 6 + "|")
    for count, rounds in found.items():
        makespan = spread([r.makespan_s for r in rounds], 2)
        ideal_s = statistics.median(r.ideal_s for r in rounds)
        over = spread([100 * (r.makespan_s / r.ideal_s - 1) for r in rounds])
        half, most = np.percentile([wait for r in rounds for wait in r.waits_ms], (50, 99))
        print(
            f"| {count} | {makespan} | {ideal_s:.2f} | {over} % | {half:.0f} / {most:.0f} "
            f"| {table_of_moved(rounds)} |"
        )


def print_scanning(found: dict[int, list[Scanned]]) -> None:
    """A line for each number of raylets."""
    print(f"\nThe program, {' '.join(SLIDE)}, on {os.cpu_count()} cores:\n")
    print(f"| raylets | first exposure to answer, s | CPU of all tasks, s | {MOVED} |")
    print("|---" * 4 + "|")
    for count, rounds in found.items():
        makespan = spread([r.makespan_s for r in rounds])
        cpu = spread([r.cpu_s for r in rounds])
        print(f"| {count} | {makespan} | {cpu} | {table_of_moved(rounds)} |")
    digests = {r.digest for rounds in found.values() for r in rounds}
    print(f"\n{len(digests)} digest(s) in {sum(map(len, found.values()))} scans")


def print_alone(found: dict[int, list[Alone]]) -> None:
    """A line for each number of raylets; nothing is moved where there is one."""
    size = WAITING.batch_bytes / 1e6
    print(f"\nAlone: {len(TINY.places)} tiny batches, and {MOVES} of {size:.0f} MB moved:\n")
    print(
        "| raylets | driver's CPU per batch, ms | batch to batch, ms | moving one, ms "
        "| CPU of the sending raylet, ms | of the receiving one, ms |"
    )
    print("|---" * 6 + "|")
    for count, rounds in found.items():
        cells = " | ".join(spread(column) for column in zip(*map(astuple, rounds), strict=True))
        print(f"| {count} | {cells.replace('nan (nan to nan)', '')} |")


def print_farm(driver_s: float, send_s: float, receive_s: float) -> None:
    """How many cameras so many stacking nodes carry, and what runs out first.

    Cameras have computers of their own, so that every batch is received once by a stacking node.
    What is written to the folder that all share is not counted.
    """
    stack_s, detect_s, batch_s = usual_batch()[1], usual_detection_s(), USUAL.batch_s
    work_s = stack_s + detect_s + receive_s
    print(
        f"\nOn paper: a batch of {USUAL.batch_bytes / 1e6:.0f} MB every {batch_s:.3f} s from each "
        f"camera; links of {LINK_BYTES_PER_S / 1.25e8:.0f} Gbit/s; {NODE_CORES} cores a node; CPU "
        f"per batch: receiving {1e3 * receive_s:.0f}, stacking {1e3 * stack_s:.0f}, detection "
        f"{1e3 * detect_s:.0f}, driver {1e3 * driver_s:.1f}, sending in the camera's computer "
        f"{1e3 * send_s:.0f} ms. Cameras that each would carry:\n"
    )
    print("| stacking nodes | their links | their cores | one driver | cameras | runs out first |")
    print("|---" * 6 + "|")
    for nodes in FARM:
        serve = {
            "links": nodes * LINK_BYTES_PER_S * batch_s / USUAL.batch_bytes,
            "cores": nodes * NODE_CORES * batch_s / work_s,
            "the driver": batch_s / driver_s,
        }
        first = min(serve, key=lambda name: serve[name])
        cells = " | ".join(f"{cameras:.0f}" for cameras in serve.values())
        print(f"| {nodes} | {cells} | {int(serve[first])} | {first} |")


def run_from_command_line() -> int:
    """Print conditions, three tables and the farm; exit code 1 unless all digests are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--raylets", type=int, nargs="+", default=RAYLETS)
    given = parser.parse_args()
    print_conditions(rounds=given.rounds)
    waited: dict[int, list[Waited]] = {count: [] for count in given.raylets}
    scanned: dict[int, list[Scanned]] = {count: [] for count in given.raylets}
    lonely: dict[int, list[Alone]] = {count: [] for count in given.raylets}
    for _ in range(given.rounds):
        for count in given.raylets:
            with raylets(count) as cluster:
                waited[count].append(waiting(count))
                scanned[count].append(scanning())
                lonely[count].append(alone(cluster, count))
    print_waiting(waited)
    print_scanning(scanned)
    print_alone(lonely)
    most = lonely[max(given.raylets)]
    spent = [(r.driver_ms, r.sender_ms, r.receiver_ms) for r in most]
    if np.isfinite(spent).all():  # on one raylet nothing is moved
        print_farm(*(np.median(spent, axis=0) / 1e3))
    return int(len({r.digest for rounds in scanned.values() for r in rounds}) > 1)


if __name__ == "__main__":
    sys.exit(run_from_command_line())
