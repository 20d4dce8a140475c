"""Which task ran in which CPU slot, and how long a task waited for one, from their times alone."""

from collections.abc import Iterable, Iterator
from heapq import heappush, heapreplace
from typing import Any

from scan.events import Described, Detected, Event, Matched, Placed, Stacked, WarmedUp

CPU_TASKS = (
    WarmedUp,
    Described,
    Stacked,
    Matched,
    Placed,
    Detected,
)  # events of tasks that take a CPU slot
CpuTask = WarmedUp | Described | Stacked | Matched | Placed | Detected


def cpu_tasks(events: Iterable[Event]) -> list[CpuTask]:
    """Return the events of tasks that took a CPU slot."""
    return [event for event in events if isinstance(event, CPU_TASKS)]


def dispatch_waits_ms(events: Iterable[Event], cpus: int) -> list[float]:
    """Return how long each batch of a run waited for its stacking once a CPU slot was free."""
    work = [
        (event.began_s, event.ended_s, event.asked_s if isinstance(event, Stacked) else None)
        for event in cpu_tasks(events)
    ]
    return slot_waits_ms(work, cpus)


def slot_waits_ms(work: Iterable[tuple[float, float, float | None]], cpus: int) -> list[float]:
    """Return for each task how long it waited once it was submitted and a CPU slot was free, in ms.

    Parameters
    ----------
    work : iterable of (began, ended, asked)
        For every task when it began, ended and was submitted, in seconds; None for `asked` if its
        wait does not count.
    cpus : int
        CPU slots.
    """
    return [
        1e3 * (task[0] - max(task[2], since_s))
        for task, _, since_s in in_slots(work, cpus)
        if task[2] is not None
    ]


def in_slots(
    work: Iterable[tuple[float, float, Any]], cpus: int
) -> Iterator[tuple[tuple[float, float, Any], int, float]]:
    """Yield tasks in the order of their start, with their slot and the time since it was free.

    A task takes the slot that has been free longest. Where clocks differ and no slot seems free,
    one is added.

    Parameters
    ----------
    work : iterable of (began, ended, anything)
        For every task when it began and ended, in seconds.
    cpus : int
        CPU slots.
    """
    slots = [(0.0, slot) for slot in range(cpus)]  # a heap
    for task in sorted(work, key=lambda task: task[0]):
        if not slots or slots[0][0] > task[0]:
            heappush(slots, (0.0, len(slots)))
        since_s, slot = slots[0]
        heapreplace(slots, (task[1], slot))
        yield task, slot, since_s
