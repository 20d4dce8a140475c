"""Two runs never share a place in an object store; one that was killed blocks nobody for long."""

from __future__ import annotations

import json
import socket
from itertools import count

import pytest

from results import lease
from results.lease import leased
from results.storage import storage_at
from scan.errors import InputError
from tests.results.stores import s3_store

ELSEWHERE = {"process": 7, "host": "another", "since": "2026-01-01 00:00:00 UTC"}


class Place:
    """An object with generations; other runs write it, a second after another."""

    def __init__(self, *others: dict[str, object] | None) -> None:
        self.content: bytes | None = None
        self.generation = b"0"
        self._numbers, self._others = count(1), iter(others)
        self.read_count = 0

    def read(self) -> tuple[bytes | None, bytes]:
        """As the store answers."""
        self.read_count += 1
        for other in self._others:
            self.write(json.dumps(other).encode() if other else None, self.generation)
            break
        return self.content, self.generation

    def write(self, content: bytes | None, generation: bytes) -> bytes | None:
        """A write on a condition."""
        if generation != self.generation:
            return None
        if content != self.content:
            self.content, self.generation = content, str(next(self._numbers)).encode()
        return self.generation


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds pass at once."""
    now_s = count()
    monkeypatch.setattr(lease.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(lease.time, "monotonic", lambda: float(next(now_s)))


def test_a_lease_is_held_and_given_back() -> None:
    """Meanwhile the place names its run; afterwards there is nothing left."""
    place = Place()
    with leased("s3://lab/run", place.read, place.write):
        assert json.loads(place.content or b"")["host"] == socket.gethostname()
    assert place.content is None


def test_a_lease_that_is_renewed_is_refused() -> None:
    """The message names who renews it."""
    place = Place(ELSEWHERE | {"renewals": 1}, ELSEWHERE | {"renewals": 2})

    with (
        pytest.raises(InputError, match=r"s3://lab/run: .* in use by process 7 on another since"),
        leased("s3://lab/run", place.read, place.write),
    ):
        pass
    assert place.content


GONE = {
    "not renewed": (ELSEWHERE, lease.EXPIRES_S / 2),
    "given back": (ELSEWHERE, 2),
    "process gone": ({"process": 2**30, "host": socket.gethostname()}, 1),
    "no lease": ({}, 1),
}


@pytest.mark.parametrize(("other", "reads"), GONE.values(), ids=list(GONE))
def test_a_lease_that_is_over_is_taken(other: dict[str, object], reads: float) -> None:
    """One of a run that was killed elsewhere is watched until it expires; what is known to be gone
    is not waited for."""
    others = [other, None] if reads == 2 else [other]
    place = Place(*others)

    with leased("s3://lab/run", place.read, place.write):
        assert b"renewals" in (place.content or b"")

    assert place.read_count <= max(reads, 1) + lease.EXPIRES_S * (reads > 2)


def test_the_second_of_two_that_come_at_once_is_refused() -> None:
    """Both saw the place free; only one can write it."""
    place = Place()

    def read() -> tuple[bytes | None, bytes]:
        seen = place.read()
        if not place.content:
            place.write(json.dumps(ELSEWHERE).encode(), place.generation)
        return seen

    with pytest.raises(InputError, match="in use"), leased("s3://lab/run", read, place.write):
        pass


def test_an_object_store_keeps_runs_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through S3: held, refused to another generation, given back."""
    with s3_store("lab") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        store = storage_at("s3://lab/lease")
        _, free = store._read_lease()  # type: ignore[attr-defined]
        with store.reserved():
            held = store.read_bytes(lease.LEASE)
            content, generation = store._read_lease()  # type: ignore[attr-defined]
            refused = store._write_lease(b"other", free)  # type: ignore[attr-defined]
            assert held == content
            assert refused is None
            assert generation
        assert store.read_bytes(lease.LEASE) is None
