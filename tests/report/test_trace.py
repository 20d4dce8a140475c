"""The trace: valid in Chrome's format, true to the journal, on Ray's time base."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import chain, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.trace import TRACE, TraceEvent, ray_events_of, trace_of, write_trace
from results.cpu_slots import in_slots
from results.journal import JOURNAL, Journal, read_journal
from scan.events import Begun, Event, Stacked
from tests.results.scans import events_of_a_scan, resumed_scan
from tests.scan.samples import sample

RAY: list[TraceEvent] = [  # as ray.timeline() gives it; the journal's first run began at 100 s
    {"cat": cat, "name": name, "pid": "10.0.0.1", "tid": tid, "ts": ts, "dur": 300.0, "ph": "X",
     "cname": "generic_work", "args": {}}
    for cat, name, tid, ts in (
        ("task::stack stripe 0 field 0", "tasks.stack_batch", "worker:a", 105.1e6),
        ("task:execute", "task:execute", "worker:a", 105.1e6),
        ("submit_task", "submit_task", "driver:b", 105.0e6),
        ("task::of another scan", "tasks.stack_batch", "worker:a", 99e6),
    )
]  # fmt: skip

JOURNALS = {"one run": events_of_a_scan(), "resumed": resumed_scan(), "nothing": []}


@pytest.mark.parametrize("events", JOURNALS.values(), ids=JOURNALS)
@pytest.mark.parametrize("rays", [RAY, []], ids=["with events of Ray", "without"])
def test_the_trace_keeps_to_the_format(events: list[Event], rays: list[TraceEvent]) -> None:
    """Every event has what its kind needs; every process and thread is numbered and named once."""
    trace = trace_of(events, rays)

    names = [(e["name"], e["pid"], e["tid"]) for e in trace if e["ph"] == "M"]
    processes = {pid for kind, pid, _ in names if kind == "process_name"}
    threads = {(pid, tid) for kind, pid, tid in names if kind == "thread_name"}
    assert len(names) == len(processes) + len(threads)
    assert {e["ph"] for e in trace} <= {"M", "X", "i", "C"}
    for event in (e for e in trace if e["ph"] != "M"):
        assert event["ts"] >= 0
        assert event["name"]
        assert event["pid"] in processes
        assert (event["pid"], event["tid"]) in threads
        assert event["ph"] != "X" or event["dur"] >= 0
        assert event["ph"] != "i" or event["s"] in "gpt"
        assert event["ph"] != "C" or event["args"]["batches"] >= 0
    assert json.loads(json.dumps(trace, allow_nan=False)) == trace


def shown(trace: list[TraceEvent]) -> dict[tuple[str, str], list[TraceEvent]]:
    """The events of a trace by the names of their process and thread, in order of time."""
    name = {(e["name"], e["pid"], e["tid"]): e["args"]["name"] for e in trace if e["ph"] == "M"}
    found = defaultdict(list)
    for event in sorted((e for e in trace if e["ph"] != "M"), key=lambda e: e["ts"]):
        thread = name["thread_name", event["pid"], event["tid"]]
        found[name["process_name", event["pid"], 0], thread].append(event)
    return found


def test_a_scan_is_shown_where_it_happened() -> None:
    """Cameras, CPU slots and the driver show each event of the journal once, at its time."""
    places = shown(trace_of(events_of_a_scan()))
    found = {
        place: [
            (e["ph"], e["name"], e["ts"] / 1e6, e.get("dur", 0) / 1e6)
            for e in events
            if e["ph"] != "C"
        ]
        for place, events in places.items()
    }

    assert found == {
        ("cameras", "camera 0"): [
            ("X", "autofocus", 3.0, 1.0),
            ("X", "capture stripe 0 field 0", 4.0, 1.0),
            ("X", "capture stripe 0 field 1", 5.0, 1.0),
            ("X", "hold", 5.1, 0.25),
        ],
        ("CPU slots", "CPU slot 0"): [
            ("X", "stack stripe 0 field 0", 5.1, 0.2),
            ("X", "describe", 5.5, 0.53),
            ("X", "detect stripe 0 field 0", 6.3, 0.2),
        ],
        ("CPU slots", "CPU slot 1"): [
            ("X", "warm up", 5.5, 0.52),
            ("X", "stack stripe 0 field 1", 6.04, 0.2),
            ("X", "detect stripe 0 field 1", 6.4, 0.2),
        ],
        ("driver", "loop"): [
            ("i", "retried stripe 0 field 1", 5.4, 0),
            ("i", "restarted camera 0", 5.5, 0),
            ("i", "lost stripe 0 field 2", 6.5, 0),
        ],
    }
    assert places["cameras", "camera 0"][1]["args"]["slips_ms"] == [0.1, 0.3]
    assert places["driver", "loop"][-1]["args"] == {"reason": "camera"}


def test_batches_in_flight_are_counted() -> None:
    """The counter has the values of captured and stacked events, at their time."""
    events = [
        sample(Begun, time=10.0, process_began_s=10.0),
        sample(Stacked, time=11.5, began_s=11.0, ended_s=11.4, in_flight=3),
    ]
    counted = [(e["ts"], e["args"]) for e in trace_of(events) if e["ph"] == "C"]

    assert counted == [(1.5e6, {"batches": 3})]


def test_all_runs_of_a_folder_are_shown() -> None:
    """Of a resumed run the captures of both runs are there, on one time base."""
    captures = [e for e in trace_of(resumed_scan()) if e["name"].startswith("capture")]

    assert [e["ts"] / 1e6 for e in captures] == [4, 5, 903]


def test_events_of_ray_are_included() -> None:
    """Ray's events keep their times, by node and worker; those of earlier scans are left out."""
    places = shown(trace_of(events_of_a_scan(), RAY))

    found = [(e["name"], e["ts"]) for e in places["Ray: node 10.0.0.1", "worker:a"]]
    assert found == [("stack stripe 0 field 0", 5.1e6), ("task:execute", 5.1e6)]
    assert len(places["Ray: node 10.0.0.1", "driver:b"]) == 1


MOMENT = st.integers(0, 50)


@given(st.lists(st.tuples(MOMENT, st.integers(1, 20)), max_size=30), st.integers(0, 4))
def test_tasks_of_one_slot_never_overlap(work: list[tuple[int, int]], cpus: int) -> None:
    """Each task has one slot to itself; there are no more slots than CPUs, or than run at once."""
    tasks = [(float(began), float(began + length), None) for began, length in work]
    slots = defaultdict(list)
    for task, slot, since_s in in_slots(tasks, cpus):
        assert since_s == max((ended_s for _, ended_s, _ in slots[slot]), default=0)
        slots[slot].append(task)

    most = max((sum(b <= t[0] < e for b, e, _ in tasks) for t in tasks), default=0)
    assert Counter(chain(*slots.values())) == Counter(tasks)
    assert all(one[1] <= two[0] for each in slots.values() for one, two in pairwise(each))
    assert len(slots) <= max(cpus, most)


def test_the_trace_of_a_folder_is_written_whole(tmp_path: Path) -> None:
    """The file is what viewers open, made from the journal; a damaged line costs itself."""
    with Journal(tmp_path / JOURNAL) as journal:
        for event in events_of_a_scan():
            journal.write(event)
    with (tmp_path / JOURNAL).open("a") as file:
        file.write("torn\n")

    write_trace(tmp_path, read_journal(tmp_path / JOURNAL), RAY)

    trace = json.loads((tmp_path / TRACE).read_text())["traceEvents"]
    assert sum(e["name"].startswith("stack") for e in trace) == 3
    assert {path.name for path in tmp_path.iterdir()} == {JOURNAL, TRACE}


def test_a_trace_is_made_again_with_what_ray_recorded(tmp_path: Path) -> None:
    """Ray is gone, so its events are those of the trace before; a torn trace is replaced."""
    with Journal(tmp_path / JOURNAL) as journal:
        for event in events_of_a_scan():
            journal.write(event)
    events = read_journal(tmp_path / JOURNAL)
    assert ray_events_of(tmp_path, events) == []
    write_trace(tmp_path, read_journal(tmp_path / JOURNAL), RAY)
    first = (tmp_path / TRACE).read_text()

    write_trace(tmp_path, events, ray_events_of(tmp_path, events))
    again = (tmp_path / TRACE).read_text()
    (tmp_path / TRACE).write_text(first[: len(first) // 2])

    assert again == first
    assert "Ray: node" in first
    assert ray_events_of(tmp_path, events) == []
