"""The lines of a journal: what has changed since it was written is not believed, by nobody."""

from __future__ import annotations

import json
import random
from zlib import crc32

import pytest

from report import columns
from report.columns import Geometry
from report.trace import trace_of
from results.summary import format_summary, summarise
from scan.checkpoint import Checkpoint
from scan.events import Begun, Damaged, Detected, Event, Lost, Stacked, Warned
from scan.layout import make_plan
from scan.lines import LineReader, line_of
from tests.results.scans import resumed_scan
from tests.scan.samples import sample

PLAN = make_plan((3,), (64, 64), 0, 1.0, steered=True)
EVENTS = resumed_scan()
LINES = [line_of(event).rstrip(b"\n") for event in EVENTS]
OLD_LINES = [event.to_json().encode() for event in EVENTS]  # of earlier versions
FLIPS = 300


def flipped(line: bytes, bit: int) -> bytes:
    """A line with one bit changed."""
    data = bytearray(line)
    data[bit // 8] ^= 1 << bit % 8
    return bytes(data)


def test_lines_are_read_as_they_were_written() -> None:
    """With and without checksums, also when a new version goes on in an old journal."""
    middle = len(EVENTS) // 2

    assert LineReader().read(LINES) == EVENTS
    assert LineReader().read(OLD_LINES) == EVENTS
    assert LineReader().read(OLD_LINES[:middle] + LINES[middle:]) == EVENTS


def test_any_flipped_bit_is_noticed() -> None:
    """One bit, in a digit as anywhere else, makes just this line Damaged."""
    for at in range(1, len(LINES)):
        for bit in range(0, 8 * len(LINES[at]), 11):
            lines = [LINES[0], flipped(LINES[at], bit)]

            assert LineReader().read(lines) == [EVENTS[0], Damaged()], (at, bit)


def test_a_line_without_its_checksum_is_not_an_old_one() -> None:
    """After a line with a checksum, there are no lines of earlier versions."""
    assert LineReader().read([*LINES[:2], OLD_LINES[2], LINES[3]])[2] == Damaged()


FOREIGN = {
    "a stripe": sample(Stacked, stripe=1),
    "a field": sample(Detected, field=3),
    "a lost field": sample(Lost, field=3, reason="camera"),
    "another plan": sample(Begun),
}


@pytest.mark.parametrize("event", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("known", [True, False], ids=["after the plan", "before it"])
def test_what_the_plan_does_not_have_is_damaged(event: Event, known: bool) -> None:
    """Reports look up fields in the plan, wherever in the journal that is."""
    plan, line = LINES[0], line_of(event).rstrip(b"\n")
    lines = [plan, line] if known or isinstance(event, Begun) else [b"", line, plan]

    assert LineReader().read(lines)[1] == Damaged()


def read_by_all(events: list[Event]) -> None:
    """What everybody makes of a journal; all count the same damaged lines."""
    checkpoint = Checkpoint.of(events, PLAN)
    checkpoint.require_same_run({}, "run")
    summary = summarise(events)
    json.dumps([summary, trace_of(events)], allow_nan=False)
    format_summary(summary)
    for begun in [event for event in events if isinstance(event, Begun)][-1:]:
        columns.fields(Geometry(begun), events)
        columns.focus(Geometry(begun), checkpoint.focused)
    columns.timeline(events, ("capture", "stack"))
    columns.faults(events)
    columns.lanes(events)
    assert summary["damaged_lines"] == checkpoint.damaged == events.count(Damaged())


@pytest.mark.parametrize("lines", [LINES, OLD_LINES], ids=["with checksums", "of old"])
def test_damaged_journals_are_read_by_all(lines: list[bytes]) -> None:
    """Bits flipped anywhere, one to five of them, end no reader with an error; with checksums each
    line is what was written, or counts as damaged."""
    generator = random.Random(1)
    for _ in range(FLIPS):
        whole = b"\n".join(lines)
        for _ in range(generator.randint(1, 5)):
            whole = flipped(whole, generator.randrange(8 * len(whole)))
        events = LineReader().read(whole.split(b"\n"))

        read_by_all(events)
        assert lines is OLD_LINES or all(each in (*EVENTS, Damaged()) for each in events)


EXTREMES = [0, 1, -1, 2**31, 2**53, 10**400, 1e-300, 1e300, True, None, "", "x", [], {}, [[]]]


def test_any_value_in_a_line_is_read_by_all() -> None:
    """Each value of each kind of event, replaced by an extreme one, is refused when it is read or
    does no harm."""
    for event in {type(event): event for event in reversed(EVENTS)}.values():
        at = EVENTS.index(event)
        for key in event.to_dict():
            for value in EXTREMES:
                line = json.dumps(event.to_dict() | {key: value}).encode()
                events = LineReader().read([*OLD_LINES[:at], line, *OLD_LINES[at + 1 :]])
                if events[at] != Damaged():
                    read_by_all(events)


def test_the_checksum_is_the_last_key() -> None:
    """Other programs read a line as JSON, and can compute its checksum."""
    line = line_of(Warned(time=1.5, message="full"))
    body = b'{"time": 1.5, "event": "warning", "message": "full"'

    assert line == body + b', "crc": "%08x"}\n' % crc32(body)
    assert json.loads(line)["message"] == "full"
