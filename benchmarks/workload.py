"""The workflow that orchestrators are compared on: cameras at a fixed cadence, a stack per batch.

Nothing here knows who orchestrates. A camera delivers the same frames again and again, exactly when
a real one would; the kernel is this project's focus stacking and, if asked for, more work up to so
many CPU seconds.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from heapq import heapreplace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from imaging.stacking import focus_stack
from results.cpu_slots import slot_waits_ms

SETTLE_S = 0.003
NICENESS = 10  # of stacking, as everybody may do it


@dataclass(frozen=True)
class Workload:
    """What is to be scanned; `cpu_s` is the least CPU time of a batch's stacking.

    Cameras know nothing of each other: they begin one after the other within a batch's time.
    """

    stripes: int = 3
    fields: int = 10
    planes: int = 15
    edge_px: int = 1024
    exposure_s: float = 0.02
    cpu_s: float = 0.0
    cpus: int = 2

    @property
    def batch_s(self) -> float:
        """Time of one capture."""
        return self.planes * (self.exposure_s + SETTLE_S)

    @property
    def batch_bytes(self) -> int:
        """Size of one batch, uint16."""
        return 2 * self.planes * self.edge_px**2

    @property
    def places(self) -> list[tuple[int, int]]:
        """Stripe and field of every batch."""
        return [(s, f) for f in range(self.fields) for s in range(self.stripes)]


@dataclass(frozen=True)
class Capture:
    """When a batch was begun and complete, and how late each exposure began."""

    began_s: float
    complete_s: float
    slips_ms: tuple[float, ...]


@dataclass(frozen=True)
class Work:
    """When a stacking began and ended, and what it cost."""

    began_s: float
    ended_s: float
    cpu_s: float


@dataclass
class Timeline:
    """What became of a workload.

    `ready_s` is when the first capture could have begun; captures and works are by place.
    """

    ready_s: float = 0.0
    captures: dict[tuple[int, int], Capture] = field(default_factory=dict)
    works: dict[tuple[int, int], Work] = field(default_factory=dict)
    driver_cpu_s: float = 0.0


class Camera:
    """Delivers one z-stack again and again, each plane when its exposure ends."""

    def __init__(self, work: Workload) -> None:
        self.work = work
        self._phase_s = work.batch_s / work.stripes
        rng = np.random.default_rng(0)
        edge = work.edge_px
        grain = cv2.GaussianBlur(rng.normal(0, 4000, (edge, edge)), (0, 0), 1.5) + 2000
        blurs = np.abs(np.arange(work.planes) - work.planes / 2 + 0.2) + 0.3
        planes = [cv2.GaussianBlur(grain, (0, 0), blur) for blur in blurs]
        self.frames = np.clip(planes, 0, 65535).astype(np.uint16)

    def capture_into(self, frames: np.ndarray, stripe: int) -> Capture:
        """Take a batch (z, y, x) uint16 into memory that is there already."""
        due_s, began_s = [], []
        phase_s, self._phase_s = self._phase_s, 0.0
        time.sleep(stripe * phase_s)
        now_s = time.time()
        for plane, out in zip(self.frames, frames, strict=True):
            due_s.append(now_s + SETTLE_S)
            sleep_until(due_s[-1])
            began_s.append(time.time())
            sleep_until(began_s[-1] + self.work.exposure_s)
            np.copyto(out, plane)
            now_s = began_s[-1] + self.work.exposure_s
        slips_ms = tuple(1e3 * (c - d) for c, d in zip(began_s, due_s, strict=True))
        return Capture(began_s[0], time.time(), slips_ms)

    def capture(self, stripe: int) -> tuple[Capture, np.ndarray]:
        """Take a batch (z, y, x) uint16 into memory of its own."""
        frames = np.empty_like(self.frames)
        return self.capture_into(frames, stripe), frames


def sleep_until(moment_s: float) -> None:
    """Sleep; not at all if that is over."""
    time.sleep(max(0.0, moment_s - time.time()))


def stack(frames: np.ndarray, cpu_s: float) -> Work:
    """The kernel: focus stacking, and more work until so many CPU seconds are spent."""
    began_s, began_cpu_s = time.time(), time.thread_time()
    focus_stack(frames)
    while time.thread_time() - began_cpu_s < cpu_s:
        pass
    return Work(began_s, time.time(), time.thread_time() - began_cpu_s)


def rehearse() -> None:
    """What every worker does before the first batch: import and compile."""
    cv2.setNumThreads(1)
    frames = Camera(Workload(planes=3, edge_px=128)).frames
    focus_stack(frames)


def least_s(work: Workload, timeline: Timeline) -> float:
    """Time from the first exposure to the last stack under a perfect orchestrator.

    Captures and CPU seconds are as they were measured; each camera goes on at once, and stackings
    begin in the order in which batches are complete, as soon as a CPU slot is free.
    """
    first_s = min(each.began_s for each in timeline.captures.values())
    complete = []
    for stripe in range(work.stripes):
        captures = [timeline.captures[stripe, field] for field in range(work.fields)]
        lasts = [each.complete_s - each.began_s for each in captures]
        began_s = captures[0].began_s - first_s
        ends_s = began_s + np.cumsum(lasts) + SETTLE_S * np.arange(work.fields)
        complete += [(end_s, timeline.works[stripe, f].cpu_s) for f, end_s in enumerate(ends_s)]
    free_s = [0.0] * work.cpus
    for complete_s, cpu_s in sorted(complete):
        heapreplace(free_s, max(complete_s, free_s[0]) + cpu_s)
    return float(max(free_s))


def measures(work: Workload, timeline: Timeline, began_s: float) -> dict[str, Any]:
    """What the table shows, times in seconds unless the name says otherwise."""
    captures, works = timeline.captures, timeline.works
    if not len(captures) == len(works) == len(work.places):
        raise ValueError(f"expected {len(work.places)} batches, got {len(captures)}, {len(works)}")
    first_s = min(each.began_s for each in captures.values())
    bound_s = least_s(work, timeline)
    makespan_s = max(each.ended_s for each in works.values()) - first_s
    return {
        "startup": timeline.ready_s - began_s,
        "waits_ms": [round(wait, 2) for wait in waits_ms(timeline, work.cpus)],
        "slips_ms": [round(slip, 3) for each in captures.values() for slip in each.slips_ms],
        "makespan": makespan_s,
        "ratio": makespan_s / bound_s,
        "driver_cpu": timeline.driver_cpu_s,
    }


def waits_ms(timeline: Timeline, cpus: int) -> list[float]:
    """For each batch, ms from when it and a CPU slot were there to its stacking's first line."""
    captures = timeline.captures
    return slot_waits_ms(
        ((w.began_s, w.ended_s, captures[at].complete_s) for at, w in timeline.works.items()), cpus
    )
