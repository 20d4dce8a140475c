"""The journal's events are a file format: what is written is read, also by later versions."""

from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest

from imaging.statistics import DetectionStatistics
from prediction import ModelStatistics
from scan.events import (
    Begun,
    Damaged,
    Described,
    Event,
    Finished,
    Focused,
    Lost,
    Predicted,
    RayStarted,
    Retried,
    Stacked,
    WarmedUp,
    parse,
)
from scan.records import AnswerRecord, WorkRecord
from tests.scan.samples import sample

STACKED = {
    "time": 2.0, "event": "stacked", "stripe": 0, "field": 3, "camera": 0, "asked_s": 1.0,
    "began_s": 1.1, "ended_s": 1.2, "cpu_s": 0.1, "in_flight": 2, "checksums": [7, 8],
    "flicker": 0.0,
}  # fmt: skip
STATISTICS = {
    "background": 100.0, "noise": 5.0, "contrast": 3.5, "diameter_px": 30.0, "large_px": 90.0,
    "long_px": 0.0, "alike": "", "polarity": "dark", "findings": ["few"],
}  # fmt: skip
LINES: dict[str, dict[str, object]] = {
    "a field": STACKED,
    "keys that are left out": {"time": 1.0, "event": "retried", "step": "focus", "reason": "?"},
    "statistics by name": {
        "time": 1.0, "event": "described", "began_s": 1.0, "ended_s": 2.0, "cpu_s": 1.0,
        **STATISTICS,
    },
    "statistics of a model": {
        "time": 1.0, "event": "described", "began_s": 1.0, "ended_s": 2.0, "cpu_s": 1.0,
        **STATISTICS,
        "reach_px": 64, "normalisation": [0.5],
    },
    "corrected frames": sample(Focused).to_dict() | {
        "correction": {
            "flat": "estimate", "degree": 4, "places": 18, "scatter": 0.004, "specks": 2,
            "defects": 0.001,
            "files": [["flat_field.tif", 7]],
        }
    },
}  # fmt: skip
DAMAGED = {
    "torn": b'{"time": 1.0, "event": "stac',
    "no object": b"[1]",
    "no event": b'{"time": 1.0}',
    "an unknown event": b'{"event": "moved"}',
    "a key is missing": json.dumps({"event": "lost", "stripe": 0}).encode(),
    "a wrong type": json.dumps(STACKED | {"field": "three"}).encode(),
    "a number as text": json.dumps(STACKED | {"field": "3"}).encode(),
    "a field below 0": json.dumps(STACKED | {"field": -1}).encode(),
    "a field beyond all": json.dumps(STACKED | {"field": 10**6}).encode(),
    "a time that is none": json.dumps(STACKED | {"ended_s": math.nan}).encode(),
    "a statistic is missing": json.dumps(
        {k: v for k, v in LINES["statistics by name"].items() if k != "contrast"}
    ).encode(),
    "half the statistics of a model": json.dumps(
        {k: v for k, v in LINES["statistics of a model"].items() if k != "normalisation"}
    ).encode(),
    "a sample without reason": sample(Focused)
    .to_json()
    .replace('"rejected": []', '"rejected": [{"stripe": 0, "field": 0}]')
    .encode(),
    "a correction by no file": sample(Focused)
    .to_json()
    .replace('"rejected": []', '"rejected": [], "correction": {"files": [["../flat.tif", 1]]}')
    .encode(),
    "no CPU": json.dumps(sample(RayStarted).to_dict() | {"cpus": 0}).encode(),
    "cuts of other fields": json.dumps(sample(Begun).to_dict() | {"row_cuts": [0]}).encode(),
    "cuts in disorder": json.dumps(sample(Begun).to_dict() | {"row_cuts": [64, 0]}).encode(),
    "an unknown end": b'{"event": "finished", "status": "compiete"}',
    "no text": b'{"event": "warning", "message": "\xff"}',
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_an_event_is_read_as_it_was_written(line: dict[str, object]) -> None:
    """A line becomes a record and the same line again; keys without a value are not written."""
    assert json.loads(parse(json.dumps(line)).to_json()) == line


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_a_line_that_is_no_event_is_damaged(line: bytes) -> None:
    """A torn, foreign or incomplete line is read as damaged, never as half an event."""
    assert parse(line) == Damaged()


def test_unknown_keys_are_ignored() -> None:
    """An older or newer program may write further keys."""
    stacked = parse(json.dumps(STACKED | {"repeats": 0}))
    described = parse(json.dumps(LINES["statistics by name"] | {"repeats": 0}))

    assert stacked == Stacked(**{k: v for k, v in STACKED.items() if k != "event"})
    assert isinstance(described, Described)
    assert described.statistics == STATISTICS | {"findings": ("few",)}


def test_reasons_are_one_line() -> None:
    """What a library or a file name says is printed by many: it is escaped and cut once, here."""
    reason = "\x1b[31mred\nand \u202eback" + "x" * 10**7

    lost = sample(Lost, reason=reason)

    assert lost.reason.startswith(r"\x1b[31mred\nand \u202eback")
    assert lost.reason.isprintable()
    assert len(lost.reason) < 500


def test_keys_added_later_have_defaults() -> None:
    """The shortest lines that were ever written are still read."""
    assert parse('{"event": "finished", "status": "complete"}') == Finished(status="complete")
    assert parse('{"event": "retried", "step": "stack"}') == Retried(step="stack")


@pytest.mark.parametrize(
    ("record", "event"),
    [
        (DetectionStatistics, Described),
        (ModelStatistics, Described),
        (WorkRecord, WarmedUp),
        (AnswerRecord, Predicted),
    ],
)
def test_the_journal_holds_all_that_a_record_says(record: type, event: type[Event]) -> None:
    """What a run is resumed from is written: no field of a record is dropped in silence."""
    assert {field.name for field in fields(record)} <= set(event.model_fields)
