"""The short form of benchmarks/chaos.py: things die at random moments of a scan."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.chaos import SLIDE, WORKERS, events_of, kill_worker, scan, struck
from tests.workflow.left import digest_of

SMALL = [*SLIDE, "--focus-samples", "1"]


@pytest.fixture(scope="module")
def calm(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the undisturbed scan."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    assert scan(*SMALL, "--out", str(folder)) == 0
    return folder


@pytest.mark.parametrize("fault", ["stacking worker"])  # the others: python benchmarks/chaos.py
def test_random_kills_change_nothing(calm: Path, tmp_path: Path, fault: str) -> None:
    """A process of that kind dies at a random line of the journal; the digest stays."""
    generator = random.Random(fault)
    lines = len(events_of(calm / "events.jsonl"))
    for attempt in range(5):  # a task may be over before it is found
        folder, line = tmp_path / str(attempt), generator.randrange(2, lines // 2)
        with struck(folder, line, lambda: kill_worker(WORKERS[fault], generator)) as strike:
            code = scan(*SMALL, "--out", str(folder))

        assert code == 0
        assert digest_of(folder) == digest_of(calm)
        if strike.victim:
            return
    pytest.fail(f"no {fault} was met in 5 scans")
