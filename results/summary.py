"""The summary of a run, from its journal alone: numbers for programs, a few lines for people.

Times are wall-clock seconds; keys and their meaning are in the documentation of outputs.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heappush, heapreplace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.files import write_atomically
from results.journal import EventIndex
from scan.events import (
    Begun,
    Captured,
    Described,
    Detected,
    Event,
    Failed,
    FieldEvent,
    Finished,
    Focused,
    Lost,
    Predicted,
    RayStarted,
    Restarted,
    Resumed,
    Retried,
    Stacked,
    Stressed,
    Throttled,
    WarmedUp,
)

SUMMARY = "summary.json"
MAX_LISTED_SAMPLES = 6  # a large scan has hundreds; the file has all of them
CPU_TASKS = (WarmedUp, Described, Stacked, Detected)  # events of tasks that take a CPU slot
CpuTask = WarmedUp | Described | Stacked | Detected
Summary = dict[str, Any]


def summarise(events: Sequence[Event]) -> Summary:
    """Return the summary of a run folder from all its events.

    A run that was cut short is summarised as far as it came. After a resume, fields and faults
    count over all runs; times are those of the last run.
    """
    ever, last = EventIndex(events), EventIndex(latest(events))
    begun, finished, failed = last.last(Begun), last.last(Finished), last.last(Failed)
    predicted = last.last(Predicted)
    return {
        "status": finished.status if finished else "failed",
        "reason": failed.reason if failed else None,
        "fields": _fields(ever, last),
        "objects": predicted.objects if predicted else None,
        "digest": predicted.digest if predicted else None,
        "z_positions": _z_positions(ever.last(Focused)),
        "retries": _retries(ever),
        "timing": _timing(last),
        "dispatch_ms": _dispatch(last),
        "exposure_slip_ms": _slip(last),
        "memory": _memory(last),
        "holds": _holds(ever.of(Throttled)),
        "stress": _named(last.last(Stressed), "burners", "seconds") or None,
        "driver_cpu_s": finished.driver_cpu_s if finished else None,
        "versions": dict(begun.versions) if begun else {},
    }


def latest(events: Sequence[Event]) -> Sequence[Event]:
    """Return the events of the last run into a folder."""
    began = max((k for k, event in enumerate(events) if isinstance(event, Begun)), default=0)
    return events[began:]


def end_s(events: Sequence[Event]) -> float:
    """Return the time of the last event that has one (a damaged line has none), else 0."""
    return next((event.time for event in reversed(events) if event.time), 0.0)


def _named(event: Event | None, *names: str) -> dict[str, Any]:
    """Some keys of an event; an empty dictionary if there is none."""
    return {name: getattr(event, name) for name in names} if event else {}


def _z_positions(focused: Focused | None) -> dict[str, Any]:
    return _named(focused, "sampled", "kept", "rejected", "surface", "residual_um")


def _fields(ever: EventIndex, last: EventIndex) -> dict[str, Any]:
    begun, resumed = last.last(Begun), last.last(Resumed)
    steps: dict[str, type[FieldEvent]] = {
        "captured": Captured, "stacked": Stacked, "detected": Detected,
    }  # fmt: skip
    lost = sorted(last.of(Lost), key=lambda event: event.place)
    return {
        "planned": begun.fields if begun else 0,
        **{step: len({event.place for event in ever.of(kind)}) for step, kind in steps.items()},
        "lost": [_named(event, "stripe", "field", "reason") for event in lost],
        "resumed": sum(resumed.stacked) if resumed else 0,
    }


def _retries(ever: EventIndex) -> dict[str, int]:
    steps = [event.step for event in ever.of(Retried)]
    counts = {step: steps.count(step) for step in ("focus", "capture", "stack", "detect")}
    return {**counts, "actor_restarts": len(ever.of(Restarted))}


def _timing(run: EventIndex) -> dict[str, float]:
    begun, up, captured = run.last(Begun), run.last(RayStarted), run.of(Captured)
    focused = run.last(Focused)
    exposed_s = [focused.first_exposure_s] if focused else []
    exposed_s += [event.began_s for event in captured]
    timing: dict[str, float] = {}
    if begun and up and exposed_s:
        timing["startup"] = min(exposed_s) - begun.process_began_s
        timing["first_exposure"] = min(exposed_s) - up.up_s
    if captured:
        last_exposure_s = max(event.ended_s for event in captured)
        timing["capture"] = last_exposure_s - min(exposed_s)
        timing |= _answer(run, last_exposure_s)
    if begun:  # to the end, or as far as the journal of a killed run goes
        timing["wall"] = end_s(run.events) - begun.process_began_s
    return {name: round(value, 4) for name, value in timing.items()}


def _answer(run: EventIndex, last_exposure_s: float) -> dict[str, float]:
    predicted, up = run.last(Predicted), run.last(RayStarted)
    if not (predicted and up):
        return {}
    bound_s = lower_bound_s(run, up.cpus)
    return {
        "answer": predicted.answered_s - last_exposure_s,
        "lower_bound": bound_s,
        "ratio": (predicted.answered_s - up.up_s) / bound_s,
    }


def lower_bound_s(run: EventIndex, cpus: int) -> float:
    """Return the least workflow time that the measured captures and CPU seconds allow.

    Cameras: the slowest camera's sweeps and captures back to back, then the stacking and detection
    of one field. CPUs: all stacking and detection, evenly spread. Whichever is longer.
    """
    focused = run.last(Focused)
    cameras = Counter(dict(enumerate(focused.sweeping_s if focused else ())))
    for event in run.of(Captured):
        cameras[event.camera] += event.ended_s - event.began_s  # type: ignore[assignment]
    stacking_s = [event.cpu_s for event in run.of(Stacked)]
    detecting_s = [event.cpu_s for event in run.of(Detected)]
    last_field_s = float(np.median(stacking_s or [0]) + np.median(detecting_s or [0]))
    by_cameras_s = max(cameras.values()) + last_field_s
    by_cpus_s = (sum(stacking_s) + sum(detecting_s)) / cpus
    return float(max(by_cameras_s, by_cpus_s))


def _dispatch(run: EventIndex) -> dict[str, dict[str, float]]:
    """Time from a batch being complete to its stacking; idle where a CPU was free at that moment.

    `slot_free` counts all of them, from when both the batch was complete and a CPU slot was free.
    """
    up, stacked = run.last(RayStarted), run.of(Stacked)
    cpus = up.cpus if up else 0
    asked_s = np.array([event.asked_s for event in stacked])
    waits_ms = 1e3 * (np.array([event.began_s for event in stacked]) - asked_s)
    free = _demand(run, asked_s) < cpus
    waits = {
        "slot_free": dispatch_waits_ms(run.events, cpus),
        "idle": waits_ms[free],
        "waited_for_cpu": waits_ms[~free],
    }
    return {name: _spread(values, (50, 95, 99)) for name, values in waits.items()}


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
    """For each task that has been asked for, ms from then, or from a CPU slot being free if that
    was later, to its first line.

    `work` holds of every task in a slot when it began, ended, and was asked for, in seconds; None
    where that does not count.
    """
    return [
        1e3 * (task[0] - max(task[2], since_s))
        for task, _, since_s in in_slots(work, cpus)
        if task[2] is not None
    ]


def in_slots(
    work: Iterable[tuple[float, float, Any]], cpus: int
) -> Iterator[tuple[tuple[float, float, Any], int, float]]:
    """Each task in the order of beginning, the CPU slot it ran in, and since when that was free.

    `work` holds of every task when it began and ended, in seconds, and anything. A task takes the
    slot that is free for longest; where clocks differ and none seems free, there is one more.
    """
    slots = [(0.0, slot) for slot in range(cpus)]  # a heap
    for task in sorted(work, key=lambda task: task[0]):
        if not slots or slots[0][0] > task[0]:
            heappush(slots, (0.0, len(slots)))
        since_s, slot = slots[0]
        heapreplace(slots, (task[1], slot))
        yield task, slot, since_s


def _demand(run: EventIndex, moments_s: NDArray[np.float64]) -> NDArray[np.intp]:
    """Count the tasks that ran, or waited for a CPU, just before each moment."""
    work = cpu_tasks(run.events)
    asked_s = np.sort([getattr(event, "asked_s", event.began_s) for event in work])
    ended_s = np.sort([event.ended_s for event in work])
    return np.searchsorted(asked_s, moments_s) - np.searchsorted(ended_s, moments_s)


def _slip(run: EventIndex) -> dict[str, float]:
    spread = _spread(slips_ms(run.events), (50, 99))
    return {name: value for name, value in spread.items() if name != "n"}


def slips_ms(events: Iterable[Event]) -> list[float]:
    """Return how much later than its stage allowed each exposure of a run began."""
    captured = (event for event in events if isinstance(event, Captured))
    return [slip for event in captured for slip in event.slips_ms]


def _spread(
    values: Sequence[float] | NDArray[np.float64], percentiles: Sequence[int]
) -> dict[str, float]:
    if not len(values):
        return {"n": 0}
    spread = {f"p{p}": round(float(np.percentile(values, p)), 3) for p in percentiles}
    return {"n": len(values), **spread, "max": round(float(max(values)), 3)}


def _holds(holds: Sequence[Throttled]) -> dict[str, float]:
    """Count how often, and for how many seconds, cameras paused because no credit was left."""
    seconds = sum(event.ended_s - event.began_s for event in holds)
    return {"n": len(holds), "seconds": round(seconds, 3)}


def _memory(run: EventIndex) -> dict[str, Any]:
    up, finished = run.last(RayStarted), run.last(Finished)
    in_flight = max((event.in_flight for event in run.of(Captured)), default=0)
    peak = finished.peak_batches_in_flight if finished else in_flight
    return {
        "object_store_mb": round(up.object_store_bytes / 1e6, 1) if up else 0.0,
        "peak_live_mb": round(peak * up.batch_bytes / 1e6, 1) if up else 0.0,
        "spilled_mb": finished.spilled_mb if finished else None,
        "peak_batches_in_flight": peak,
        "credits": up.credits if up else None,
    }


def write_summary(folder: Path, summary: Summary) -> None:
    """Write the summary into a run folder."""
    write_atomically(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")


def format_summary(summary: Summary) -> list[str]:
    """The summary as a person reads it, a line each; the lost fields stand last, by name."""
    fields, timing, focus = summary["fields"], summary["timing"], summary["z_positions"]
    ready, slip = summary["dispatch_ms"]["slot_free"], summary["exposure_slip_ms"]
    objects = "" if summary["objects"] is None else f", {summary['objects']} objects"
    more = fields["stacked"] - fields["detected"]
    stacked = f" and the image of {more} more" if more > 0 else ""
    lines = [
        f"{summary['status']}: {fields['detected']} of {fields['planned']} fields{stacked}"
        f"{objects} in {timing.get('wall', 0):.1f} s",
    ]
    if focus and focus["surface"] != "none":  # else planes were recorded and nothing was fitted
        lines.append(
            f"focus: {focus['kept']} of {focus['sampled']} samples kept, "
            f"{focus['surface']}, residual {focus['residual_um']:.2f} um"
        )
        lines += _dropped(focus["rejected"])
    if "answer" in timing:
        lines.append(
            f"answer {timing['answer']:.2f} s after the last exposure; "
            f"{timing['ratio']:.2f} x the least time possible"
        )
    if ready.get("n"):
        lines.append(
            f"stacking began {ready['p50']:.0f} ms after batch and CPU were there (median, "
            f"at most {ready['max']:.0f} ms)"
        )
    if slip:
        lines.append(
            f"exposures began {slip['p50']:.2f} ms late (median, at most {slip['max']:.1f} ms)"
        )
    return (
        lines
        + _stress(summary)
        + _faults(summary)
        + [
            f"lost: stripe {lost['stripe']} field {lost['field']}: {lost['reason']}"
            for lost in fields["lost"]
        ]
    )


def _stress(summary: Summary) -> list[str]:
    """What a fully loaded CPU did to the scan beyond the times; nothing without --stress."""
    stress, retries = summary["stress"], summary["retries"]
    if not stress:
        return []
    return [
        f"under stress ({stress['burners']} foreign processes, {stress['seconds']:g} s more for "
        f"each stack): {sum(retries.values()) - retries['actor_restarts']} retries, "
        f"{retries['actor_restarts'] + retries['stack'] + retries['detect']} crashes"
    ]


def _faults(summary: Summary) -> list[str]:
    """What went wrong and was mended, in one line; none for a calm run."""
    told = [
        *(f"{number} x {step} again" for step, number in summary["retries"].items() if number),
        *[f"cameras held for {summary['holds']['seconds']:.1f} s"] * bool(summary["holds"]["n"]),
        *[f"{summary['fields']['resumed']} fields from before"]
        * bool(summary["fields"]["resumed"]),
    ]
    return [", ".join(told).replace("actor_restarts again", "camera restarted")] if told else []


def _dropped(rejected: Sequence[Mapping[str, Any]]) -> list[str]:
    """The samples that the focus surface does not go through, and why; the first few by name."""
    told = [
        f"    without stripe {sample['stripe']} field {sample['field']}: {sample['reason']}"
        for sample in rejected[:MAX_LISTED_SAMPLES]
    ]
    more = len(rejected) - len(told)
    return [*told, f"    and {more} more, in {SUMMARY}"] if more else told
