"""The run as a trace: cameras, CPU slots and driver over time, for ui.perfetto.dev.

In Chrome's trace event format; times are in microseconds since the first run into the folder began.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from config import is_file
from report.current import mark_of
from report.naming import FAULTS, subject_of
from results.cpu_slots import cpu_tasks, in_slots
from results.files import write_atomically
from results.journal import EventIndex
from scan.events import (
    Begun,
    Captured,
    Described,
    Detected,
    Event,
    Focused,
    Matched,
    Placed,
    RayStarted,
    Stacked,
    Throttled,
    WarmedUp,
)

TRACE = "trace.json"
RAY_NODE = "Ray: node "
VERBS: dict[type[Event], str] = {
    WarmedUp: "warm up", Described: "describe", Stacked: "stack", Matched: "match",
    Placed: "place", Detected: "detect",
}  # fmt: skip
# What the position and length of a span show; all other keys become its arguments.
SHOWN = ("time", "event", "stripe", "field", "camera", "began_s", "ended_s", "checksums", "matches")
TraceEvent = dict[str, Any]


def write_trace(folder: Path, events: Sequence[Event], ray_events: Sequence[TraceEvent]) -> None:
    """Write the trace of all runs of a folder, whose journal was read, into it."""
    found = trace_of(events, ray_events)
    trace = {"otherData": {"mark": mark_of(folder)}, "traceEvents": found}
    write_atomically(folder / TRACE, json.dumps(trace) + "\n")


def ray_events_of(folder: Path, events: Sequence[Event]) -> list[TraceEvent]:
    """Return Ray's own events in the trace that a run has left; none if it left no whole one."""
    begun = EventIndex(events).of(Begun)
    if not (begun and is_file(folder / TRACE)):
        return []
    try:
        trace = json.loads((folder / TRACE).read_bytes())["traceEvents"]
        first_us = 1e6 * begun[0].process_began_s
        return list(_ray_events(trace, first_us))
    except (ValueError, LookupError, TypeError, AttributeError):  # killed while it was written
        return []


def _ray_events(trace: Sequence[TraceEvent], first_us: float) -> Iterator[TraceEvent]:
    """Ray's events as `ray.timeline` gave them."""
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in trace if e["ph"] == "M"}
    for event in trace:
        process, thread = names[event["pid"], 0], names.get((event["pid"], event["tid"]))
        if event["ph"] != "M" and process.startswith(RAY_NODE):
            names_of_ray = {"pid": process.removeprefix(RAY_NODE), "tid": thread}
            yield event | names_of_ray | {"ts": event["ts"] + first_us}


def trace_of(events: Sequence[Event], ray_events: Sequence[TraceEvent] = ()) -> list[TraceEvent]:
    """Return the trace of a journal and of `ray.timeline()`, on one time base."""
    index = EventIndex(events)
    begun, up = index.of(Begun), index.of(RayStarted)
    first_us = 1e6 * begun[0].process_began_s if begun else 0.0
    up_us = 1e6 * up[0].up_s if up else 0.0
    ours = [event for event in ray_events if event["ts"] >= up_us]  # not those of earlier drivers
    found: list[TraceEvent] = [{"args": _arguments(event)} | span for event, span in _spans(events)]
    found += [*_driver(events), *_of_ray(ours)]
    return _numbered([event | {"ts": round(event["ts"] - first_us, 1)} for event in found])


def spans(events: Sequence[Event]) -> list[TraceEvent]:
    """Return what took time, of cameras, then of CPU slots, in microseconds of the clock."""
    return [span for _, span in _spans(events)]


def _spans(events: Sequence[Event]) -> Iterator[tuple[Event, TraceEvent]]:
    """Yield spans, and the events of which they are; some have arguments of their own."""
    yield from _cameras(events)
    yield from _slots(events)


def _cameras(events: Iterable[Event]) -> Iterator[tuple[Event, TraceEvent]]:
    for event in events:
        match event:
            case Captured():
                yield event, _camera_span(_name("capture", event), event)
            case Throttled():
                yield event, _camera_span("hold", event)
            case Focused():
                for camera, sweeping_s in enumerate(event.sweeping_s):
                    span = _span("autofocus", (event.first_exposure_s, event.time))
                    place = {"pid": "cameras", "tid": f"camera {camera}"}
                    yield event, span | place | {"args": {"sweeping_s": sweeping_s}}


def _camera_span(name: str, event: Captured | Throttled) -> TraceEvent:
    span = _span(name, (event.began_s, event.ended_s))
    return span | {"pid": "cameras", "tid": f"camera {event.camera}"}


def _slots(events: Sequence[Event]) -> Iterator[tuple[Event, TraceEvent]]:
    cpus = max((event.cpus for event in EventIndex(events).of(RayStarted)), default=0)
    work = [(event.began_s, event.ended_s, event) for event in cpu_tasks(events)]
    for (began_s, ended_s, event), slot, _ in in_slots(work, cpus):
        span = _span(_name(VERBS[type(event)], event), (began_s, ended_s))
        yield event, span | {"pid": "CPU slots", "tid": f"CPU slot {slot}"}


def _driver(events: Iterable[Event]) -> Iterator[TraceEvent]:
    for event in events:
        at = {"pid": "driver", "tid": "loop", "ts": 1e6 * event.time}
        match event:
            case Captured() | Stacked():
                count = {"batches": event.in_flight}
                yield at | {"ph": "C", "name": "in flight", "args": count}
            case _ if isinstance(event, FAULTS):
                name = _name(event.event, event)
                yield at | {"ph": "i", "s": "g", "name": name, "args": _arguments(event)}


def _of_ray(ray_events: Iterable[TraceEvent]) -> Iterator[TraceEvent]:
    for event in ray_events:
        name = event["cat"].removeprefix("task::")  # the other is the function's
        yield event | {"name": name, "pid": f"{RAY_NODE}{event['pid']}"}


def _span(name: str, times_s: tuple[float, float]) -> TraceEvent:
    began_us, ended_us = 1e6 * times_s[0], 1e6 * times_s[1]
    times = {"ts": began_us, "dur": round(max(0.0, ended_us - began_us), 1)}
    return {"ph": "X", "name": name} | times


def _name(verb: str, event: Event) -> str:
    """The name of a span, as Ray's tasks are named."""
    return " ".join(filter(None, (verb, subject_of(event))))


def _arguments(event: Event) -> dict[str, Any]:
    return {key: value for key, value in event.to_dict().items() if key not in SHOWN}


def _numbered(found: Sequence[TraceEvent]) -> list[TraceEvent]:
    """Replace the names of processes and threads by numbers, and add events with the names."""
    pids = {name: pid for pid, name in enumerate(dict.fromkeys(e["pid"] for e in found), 1)}
    places = {(event["pid"], event["tid"]) for event in found}
    in_order = sorted(places, key=lambda place: (pids[place[0]], len(place[1]), place[1]))
    tids = {place: tid for tid, place in enumerate(in_order, 1)}
    meta = [("process_name", name, pid, 0) for name, pid in pids.items()]
    meta += [("thread_name", name, pids[process], tid) for (process, name), tid in tids.items()]
    return [
        *({"ph": "M", "name": k, "pid": p, "tid": t, "args": {"name": n}} for k, n, p, t in meta),
        *(e | {"pid": pids[e["pid"]], "tid": tids[e["pid"], e["tid"]]} for e in found),
    ]
