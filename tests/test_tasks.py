"""Autofocus with scripted cameras: what fails is asked for again, what keeps failing is told; and
work that is modest without making its process so."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError

import tasks
from config import validate
from scan.errors import FocusError
from scan.focusing import FocusJob, FocusResult
from scan.plan import Field, make_plan
from scan.records import SweepRecord


class Remote:
    """A method that is called remotely and answered when its reference is fetched."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.method = method

    def remote(self, *given: Any) -> Callable[[], Any]:
        return lambda: self.method(*given)


class ScriptedCamera:
    """A camera in focus at 3 um whose first sweeps fail as often as the script says."""

    def __init__(self, failures: int) -> None:
        self.failures, self.process = failures, 100
        self.sweep, self.ready = Remote(self._sweep), Remote(self._ready)

    def _sweep(self, field: Field, z_um: tuple[float, ...]) -> tuple[SweepRecord, np.ndarray]:
        if self.failures:
            self.failures -= 1
            self.process += 1
            raise ActorDiedError
        curve = tuple(float(np.exp(-((z - 3) ** 2) / 50)) for z in z_um)
        return SweepRecord(z_um, curve, 1e-3, 10.0, 11.0), np.zeros((64, 64), np.uint16)

    def _ready(self) -> int:
        return self.process


def focus_with(failures: int, monkeypatch: pytest.MonkeyPatch) -> FocusResult:
    """Autofocus on one stripe of one field."""
    monkeypatch.setattr(tasks.ray, "get", lambda ref, timeout: ref())
    settings = validate({"stripes": 1, "fields": 1, "retries": 2})
    camera = ScriptedCamera(failures)
    job = FocusJob(make_plan((1,), (64, 64), 0, 1.0, steered=True), settings, 15, 1.0)
    result, _ = tasks.find_z_positions._function([camera], job)
    return result


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_failed_sweep_is_asked_for_again(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that dies during autofocus is awaited, asked again and counted."""
    result = focus_with(failures, monkeypatch)

    assert result.kept == 1
    assert result.centres_um[0, 0] == pytest.approx(3.0, abs=0.01)
    assert result.restarted == (0,) * failures
    assert len(result.failed) == failures


def test_a_camera_that_keeps_failing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no sweep comes back, the scan cannot begin, and the reason is the sweep's."""
    with pytest.raises(FocusError, match="the sweep failed"):
        focus_with(9, monkeypatch)


def test_modest_work_leaves_its_process_as_it_is() -> None:
    """Work runs at lower priority in a thread of its own, always the same; the caller keeps its."""
    before = os.nice(0)

    niceness, work = tasks.modestly(os.nice, 0)
    threads = {tasks.modestly(threading.get_ident)[0] for _ in range(3)}

    assert niceness == max(before, tasks.WORK_NICENESS)
    assert os.nice(0) == before
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert work.began_s <= work.ended_s


def test_what_fails_modestly_fails_as_it_is() -> None:
    """An error reaches the caller with its type, so that Ray can tell it."""
    with pytest.raises(ZeroDivisionError):
        tasks.modestly(divmod, 1, 0)
