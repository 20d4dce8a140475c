"""The summary of a run, made from its journal alone: numbers for programs, a few lines for people.

Times are wall-clock seconds; the keys and their meaning stand in the README.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappush, heapreplace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.files import write_atomically
from results.journal import Event

SUMMARY = "summary.json"
MAX_LISTED_SAMPLES = 6  # a large scan has hundreds; all of them stand in the file
WORK = ("warmed", "described", "stacked", "detected")  # tasks that take a CPU slot
Summary = dict[str, Any]


def summarise(events: Sequence[Event]) -> Summary:
    """The summary of a run folder from all its events; a run cut short is summarised as far as it
    came. Where a run was resumed, times are those of the last one."""
    last = latest(events)
    one = {event["event"]: event for event in last}  # for events that happen once
    ever, many = EventIndex(events), EventIndex(last)
    return {
        "status": one.get("finished", {}).get("status", "failed"),
        "reason": one.get("failed", {}).get("reason"),
        "fields": _fields(one, ever, many),
        "objects": one.get("predicted", {}).get("objects"),
        "digest": one.get("predicted", {}).get("digest"),
        "z_positions": _only(
            (ever["focused"] or [{}])[-1], "sampled", "kept", "rejected", "surface", "residual_um"
        ),
        "retries": _retries(ever),
        "timing": _timing(one, many),
        "dispatch_ms": _dispatch(one, many),
        "exposure_slip_ms": _slip(many),
        "memory": _memory(one, many),
        "holds": _holds(ever["held"]),
        "stress": _only(one.get("stressed", {}), "burners", "seconds") or None,
        "driver_cpu_s": one.get("finished", {}).get("driver_cpu_s"),
        "versions": one.get("begun", {}).get("versions", {}),
    }


def latest(events: Sequence[Event]) -> Sequence[Event]:
    """The events of the last run of a folder."""
    began = max((k for k, event in enumerate(events) if event["event"] == "begun"), default=0)
    return events[began:]


def end_s(events: Sequence[Event]) -> float:
    """The time of the last event that has one, which a damaged line has not; 0 if none has."""
    return next((float(event["time"]) for event in reversed(events) if "time" in event), 0.0)


class EventIndex:
    """Events by kind."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.all = list(events)

    def __getitem__(self, kind: str) -> list[Event]:
        return [event for event in self.all if event["event"] == kind]


def _only(facts: Event, *names: str) -> dict[str, Any]:
    return {name: facts[name] for name in names if name in facts}


def _places(events: Iterable[Event]) -> set[tuple[int, int]]:
    return {(event["stripe"], event["field"]) for event in events}


def _fields(one: dict[str, Event], ever: EventIndex, many: EventIndex) -> dict[str, Any]:
    planned = one.get("begun", {}).get("fields", 0)
    counts = {kind: len(_places(ever[kind])) for kind in ("captured", "stacked", "detected")}
    by_name = sorted(many["lost"], key=lambda event: (event["stripe"], event["field"]))
    lost = [_only(event, "stripe", "field", "reason") for event in by_name]
    resumed = sum(one.get("resumed", {}).get("stacked", ()))
    return {"planned": planned, **counts, "lost": lost, "resumed": resumed}


def _retries(many: EventIndex) -> dict[str, int]:
    steps = [event["step"] for event in many["retried"]]
    counts = {step: steps.count(step) for step in ("focus", "capture", "stack", "detect")}
    return {**counts, "actor_restarts": len(many["restarted"])}


def _timing(one: dict[str, Event], many: EventIndex) -> dict[str, float]:
    begun, up, focused = (one.get(kind) for kind in ("begun", "ray", "focused"))
    exposed_s = [focused["first_exposure_s"]] if focused else []
    exposed_s += [event["began_s"] for event in many["captured"]]
    timing: dict[str, float] = {}
    if begun and up and exposed_s:
        timing["startup"] = min(exposed_s) - begun["process_began_s"]
        timing["first_exposure"] = min(exposed_s) - up["up_s"]
    if many["captured"]:
        ends = [event["ended_s"] for event in many["captured"]]
        timing["capture"] = max(ends) - min(exposed_s)
        timing |= _until_answer(one, many, max(ends))
    if begun:  # to the end, or as far as the journal of a killed run goes
        timing["wall"] = end_s(many.all) - begun["process_began_s"]
    return {name: round(value, 4) for name, value in timing.items()}


def _until_answer(one: dict[str, Event], many: EventIndex, last_s: float) -> dict[str, float]:
    if "predicted" not in one:
        return {}
    answered_s, bound_s = one["predicted"]["answered_s"], lower_bound_s(one, many)
    workflow_s = answered_s - one["ray"]["up_s"]
    return {"answer": answered_s - last_s, "lower_bound": bound_s, "ratio": workflow_s / bound_s}


def lower_bound_s(one: dict[str, Event], many: EventIndex) -> float:
    """The least workflow time that the measured captures and CPU seconds allow.

    Cameras: the slowest camera's sweeps and captures back to back, then the stacking and detection
    of one field. CPUs: all stacking and detection, evenly spread. Whichever is longer.
    """
    cameras = Counter(dict(enumerate(one.get("focused", {}).get("sweeping_s", ()))))
    for event in many["captured"]:
        cameras[event["camera"]] += event["ended_s"] - event["began_s"]
    stacking, detecting = (
        [event["cpu_s"] for event in many[kind]] for kind in ("stacked", "detected")
    )
    last_field_s = float(np.median(stacking or [0]) + np.median(detecting or [0]))
    by_cameras = max(cameras.values()) + last_field_s
    by_cpus = (sum(stacking) + sum(detecting)) / one["ray"]["cpus"]
    return float(max(by_cameras, by_cpus))


def _dispatch(one: dict[str, Event], many: EventIndex) -> dict[str, dict[str, float]]:
    """Time from a batch being complete to its stacking; idle where a CPU was free just then.

    `slot_free` counts all of them, from when both the batch was complete and a CPU slot was free.
    """
    cpus = one.get("ray", {}).get("cpus", 0)
    asked_s = np.array([event["asked_s"] for event in many["stacked"]])
    waits_ms = 1e3 * (np.array([event["began_s"] for event in many["stacked"]]) - asked_s)
    free = _demand(many, asked_s) < cpus
    waits = {
        "slot_free": dispatch_waits_ms(many.all, cpus),
        "idle": waits_ms[free],
        "waited_for_cpu": waits_ms[~free],
    }
    return {name: _spread(values, (50, 95, 99)) for name, values in waits.items()}


def dispatch_waits_ms(events: Iterable[Event], cpus: int) -> list[float]:
    """How long every batch of a run waited for its stacking once there was a CPU slot for it."""
    work = [event for event in events if event["event"] in WORK]
    asked = [event["asked_s"] if event["event"] == "stacked" else None for event in work]
    times = [(event["began_s"], event["ended_s"]) for event in work]
    return slot_waits_ms([(*time, at) for time, at in zip(times, asked, strict=True)], cpus)


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


def _demand(many: EventIndex, moments_s: NDArray[np.float64]) -> NDArray[np.intp]:
    """How many tasks ran, or waited for a CPU, just before each moment."""
    work = [event for kind in WORK for event in many[kind]]
    asked = np.sort([event.get("asked_s", event["began_s"]) for event in work])
    ended = np.sort([event["ended_s"] for event in work])
    return np.searchsorted(asked, moments_s) - np.searchsorted(ended, moments_s)


def _slip(many: EventIndex) -> dict[str, float]:
    spread = _spread(slips_ms(many.all), (50, 99))
    return {name: value for name, value in spread.items() if name != "n"}


def slips_ms(events: Iterable[Event]) -> list[float]:
    """How much later than its stage allowed every exposure of a run began."""
    captured = (event for event in events if event["event"] == "captured")
    return [slip for event in captured for slip in event["slips_ms"]]


def _spread(
    values: Sequence[float] | NDArray[np.float64], percentiles: Sequence[int]
) -> dict[str, float]:
    if not len(values):
        return {"n": 0}
    spread = {f"p{p}": round(float(np.percentile(values, p)), 3) for p in percentiles}
    return {"n": len(values), **spread, "max": round(float(max(values)), 3)}


def _holds(held: Sequence[Event]) -> dict[str, float]:
    """How often, and for how many seconds, cameras stood still for want of credits."""
    return {"n": len(held), "seconds": round(sum(e["ended_s"] - e["began_s"] for e in held), 3)}


def _memory(one: dict[str, Event], many: EventIndex) -> dict[str, Any]:
    up, finished = one.get("ray", {}), one.get("finished", {})
    seen = max((event.get("in_flight", 0) for event in many["captured"]), default=0)
    peak = finished.get("peak_batches_in_flight", seen)
    return {
        "object_store_mb": round(up.get("object_store_bytes", 0) / 1e6, 1),
        "peak_live_mb": round(peak * up.get("batch_bytes", 0) / 1e6, 1),
        "spilled_mb": finished.get("spilled_mb"),
        "peak_batches_in_flight": peak,
        "credits": up.get("credits"),
    }


def write_summary(folder: Path, summary: Summary) -> None:
    """Write the summary beside the results."""
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


def _dropped(rejected: Sequence[Event]) -> list[str]:
    """The samples that the focus surface does not go through, and why; the first few by name."""
    told = [
        f"    without stripe {sample['stripe']} field {sample['field']}: {sample['reason']}"
        for sample in rejected[:MAX_LISTED_SAMPLES]
    ]
    more = len(rejected) - len(told)
    return [*told, f"    and {more} more, in {SUMMARY}"] if more else told
