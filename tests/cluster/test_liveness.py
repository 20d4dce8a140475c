"""Ray's own processes: which is gone is known soon, and no moment of silence ends a scan."""

from __future__ import annotations

import socket
import threading

import pytest

from cluster import liveness
from cluster.liveness import Liveness, connects
from scan.errors import ScanError

SOMEWHERE = ("192.0.2.1", 6379)


def watched(monkeypatch: pytest.MonkeyPatch, *answers: bool | None) -> Liveness:
    """The head of a cluster that answers so, a check after another; a second lies between them."""
    coming, now_s = iter(answers), iter(range(100))
    monkeypatch.setattr(liveness, "connects", lambda address: next(coming))
    monkeypatch.setattr(liveness.time, "monotonic", lambda: float(next(now_s)))
    return Liveness({"its head": SOMEWHERE})


GONE = {
    "answers": ([True] * 9, False),
    "refuses once": ([True, False], True),
    "silent for a moment": ([True, None, None, None, True, None, None, True], False),
    "silent for long": ([True, *[None] * 6], True),
}


@pytest.mark.parametrize(("answers", "gone"), GONE.values(), ids=list(GONE))
def test_refusal_is_death_and_silence_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, answers: list[bool | None], gone: bool
) -> None:
    """A port that refuses has lost its process; one that is silent may be cut off for seconds."""
    ray = watched(monkeypatch, *answers)

    found = [ray.gone() for _ in answers]

    assert (found[-1] is not None) is gone


def test_it_is_told_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the process, and stays: nothing is asked any more."""
    ray = watched(monkeypatch, *[False])
    ray.gone()

    with pytest.raises(ScanError, match="Ray: expected its head to answer, got a connection ref"):
        ray.require()


@pytest.mark.parametrize("noticed", [True, False], ids=["notices", "is blocked"])
def test_a_driver_that_is_blocked_is_ended(monkeypatch: pytest.MonkeyPatch, noticed: bool) -> None:
    """A driver that waits for a dead head is ended with the error; one that notices ends itself."""
    ended: list[ScanError] = []
    monkeypatch.setattr(liveness, "end_driver", ended.append)
    monkeypatch.setattr(liveness, "CHECK_S", 0.0)
    monkeypatch.setattr(liveness, "GRACE_S", 0.0)
    ray = watched(monkeypatch, *[True, False])
    ray.noticed = noticed

    ray.watch(threading.Event())

    assert [error.subject for error in ended] == ([] if noticed else ["Ray"])


def test_a_port_tells_whether_its_process_lives() -> None:
    """A process that listens is there, and one that is gone refuses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert connects(address) is True
    assert connects(address) is False
