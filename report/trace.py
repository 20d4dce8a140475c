"""The run as a trace: who did what when, for ui.perfetto.dev and chrome://tracing.

In Chrome's trace event format, in microseconds; here since the folder's first run began.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from results.files import write_atomically
from results.journal import JOURNAL, Event, read_journal
from results.summary import WORK, in_slots

TRACE = "trace.json"
VERBS = {"warmed": "warm up", "described": "describe", "stacked": "stack", "detected": "detect"}
MOMENTS = ("retried", "restarted", "lost", "warning", "failed")
# What a span's place and length tell; all else is told beside it.
PLACED = ("time", "event", "stripe", "field", "camera", "began_s", "ended_s", "checksums")


def write_trace(folder: Path, ray_events: Sequence[Event]) -> None:
    """Write the trace of all runs of a folder beside the results."""
    found = {"traceEvents": trace_of(read_journal(folder / JOURNAL), ray_events)}
    write_atomically(folder / TRACE, json.dumps(found) + "\n")


def trace_of(events: Sequence[Event], ray_events: Sequence[Event] = ()) -> list[Event]:
    """The events of a journal, and those that Ray gives of its tasks, on one time base."""
    first_us = next((1e6 * e["process_began_s"] for e in events if e["event"] == "begun"), 0.0)
    up_us = next((1e6 * e["up_s"] for e in events if e["event"] == "ray"), 0.0)
    ours = [event for event in ray_events if event["ts"] >= up_us]  # Ray may have served others
    found = [*spans(events), *_driver(events), *_of_ray(ours)]
    return _numbered([event | {"ts": round(event["ts"] - first_us, 1)} for event in found])


def spans(events: Sequence[Event]) -> list[Event]:
    """What took time: of cameras, then of CPU slots, in microseconds of the clock."""
    return [*_cameras(events), *_slots(events)]


def _cameras(events: Iterable[Event]) -> Iterator[Event]:
    for event in events:
        match event["event"]:
            case "captured":
                yield _span(_name("capture", event), "cameras", _camera(event), event)
            case "held":
                yield _span("hold", "cameras", _camera(event), event)
            case "focused":
                for camera, sweeping_s in enumerate(event["sweeping_s"]):
                    times = {"began_s": event["first_exposure_s"], "ended_s": event["time"]}
                    told = times | {"sweeping_s": sweeping_s}
                    yield _span("autofocus", "cameras", f"camera {camera}", told)


def _slots(events: Sequence[Event]) -> Iterator[Event]:
    cpus = max((event["cpus"] for event in events if event["event"] == "ray"), default=0)
    work = [(e["began_s"], e["ended_s"], e) for e in events if e["event"] in WORK]
    for (_, _, event), slot, _ in in_slots(work, cpus):
        yield _span(_name(VERBS[event["event"]], event), "CPU slots", f"CPU slot {slot}", event)


def _driver(events: Iterable[Event]) -> Iterator[Event]:
    for event in events:
        place = {"pid": "driver", "tid": "loop", "ts": 1e6 * event.get("time", 0)}
        if event["event"] in MOMENTS:
            name = _name(event["event"], event)
            yield place | {"ph": "i", "s": "g", "name": name, "args": _told(event)}
        if "in_flight" in event:
            yield place | {"ph": "C", "name": "in flight", "args": {"batches": event["in_flight"]}}


def _of_ray(ray_events: Iterable[Event]) -> Iterator[Event]:
    for event in ray_events:
        name = event["cat"].removeprefix("task::")  # the other is the function's
        yield event | {"name": name, "pid": f"Ray: node {event['pid']}"}


def _span(name: str, process: str, thread: str, event: Event) -> Event:
    began_us, ended_us = 1e6 * event["began_s"], 1e6 * event["ended_s"]
    times = {"ts": began_us, "dur": round(max(0.0, ended_us - began_us), 1)}
    return {"ph": "X", "name": name, "pid": process, "tid": thread, "args": _told(event)} | times


def _name(verb: str, event: Event) -> str:
    """In the words that Ray's tasks are called by."""
    return " ".join([verb, *place_of(event)])


def place_of(event: Event) -> list[str]:
    """Where something happened: which field, or else which camera; none if neither is told."""
    keys = ("stripe", "field") if "stripe" in event else ("camera",)
    return [f"{key} {event[key]}" for key in keys if key in event]


def _camera(event: Event) -> str:
    return f"camera {event['camera']}"


def _told(event: Event) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key not in PLACED}


def _numbered(found: Sequence[Event]) -> list[Event]:
    """Processes and threads by number, as the format wants them, and their names beside."""
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
