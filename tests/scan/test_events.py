"""The journal's events are a file format: what is written is read, also by later versions."""

from __future__ import annotations

import json

import pytest

from scan.events import Damaged, Described, Finished, Retried, Stacked, parse

STACKED = {
    "time": 2.0, "event": "stacked", "stripe": 0, "field": 3, "camera": 0, "asked_s": 1.0,
    "began_s": 1.1, "ended_s": 1.2, "cpu_s": 0.1, "in_flight": 2, "checksums": [7, 8],
}  # fmt: skip
LINES = {
    "a field": STACKED,
    "keys that are left out": {"time": 1.0, "event": "retried", "step": "focus", "reason": "?"},
    "statistics by name": {
        "time": 1.0, "event": "described", "began_s": 1.0, "ended_s": 2.0, "cpu_s": 1.0,
        "contrast": 3.5,
    },
}  # fmt: skip
DAMAGED = {
    "torn": b'{"time": 1.0, "event": "stac',
    "no object": b"[1]",
    "no event": b'{"time": 1.0}',
    "an unknown event": b'{"event": "moved"}',
    "a key is missing": json.dumps({"event": "lost", "stripe": 0}).encode(),
    "a wrong type": json.dumps(STACKED | {"field": "three"}).encode(),
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_an_event_is_read_as_it_was_written(line: dict[str, object]) -> None:
    """A line becomes a record and the same line again; keys without a value are not written."""
    assert json.loads(parse(json.dumps(line)).to_json()) == line


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_a_line_that_is_no_event_is_damaged(line: bytes) -> None:
    """A torn, foreign or incomplete line is read as damaged, never as half an event."""
    assert parse(line) == Damaged()


def test_unknown_keys_are_ignored_except_in_statistics() -> None:
    """An older or newer program may write further keys; those of `described` are statistics."""
    stacked = parse(json.dumps(STACKED | {"repeats": 0}))
    described = parse(json.dumps(LINES["statistics by name"]))

    assert stacked == Stacked(**{k: v for k, v in STACKED.items() if k != "event"})
    assert isinstance(described, Described)
    assert described.statistics == {"contrast": 3.5}


def test_keys_added_later_have_defaults() -> None:
    """The shortest lines that were ever written are still read."""
    assert parse('{"event": "finished", "status": "complete"}') == Finished(status="complete")
    assert parse('{"event": "retried", "step": "stack"}') == Retried(step="stack")
