"""The figures of the comparison of orchestrators follow from the times."""

from __future__ import annotations

import pytest

from benchmarks.workload import SETTLE_S, Capture, Timeline, Work, Workload, least_s, waits_ms

WORK = Workload(stripes=2, fields=2, planes=1, cpus=1)


def timeline() -> Timeline:
    """Two cameras, of which the second begins later and pauses; one CPU slot."""
    captures = {
        (0, 0): Capture(10.0, 11.0, ()),
        (0, 1): Capture(11.0 + SETTLE_S, 12.0 + SETTLE_S, ()),
        (1, 0): Capture(10.5, 11.5, ()),
        (1, 1): Capture(14.0, 15.0, ()),
    }
    works = {
        (0, 0): Work(11.01, 11.71, 0.6),
        (1, 0): Work(11.72, 12.32, 0.6),
        (0, 1): Work(12.35, 12.95, 0.6),
        (1, 1): Work(15.02, 15.62, 0.6),
    }
    return Timeline(0.0, captures, works, 0.0)


def test_waits_begin_when_batch_and_slot_are_there() -> None:
    """A batch that waits for the slot counts from when that is free."""
    assert waits_ms(timeline(), 1) == pytest.approx([10, 10, 30, 20])


def test_a_perfect_orchestrator_neither_waits_nor_pauses() -> None:
    """Batches at 1, 1.5, 2 and 2.5 s after the first exposure, 0.6 s of stacking each."""
    assert least_s(WORK, timeline()) == pytest.approx(1 + 4 * 0.6, abs=0.01)
