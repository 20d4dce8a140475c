"""A place in an object store is used by one run at a time: a lease, renewed while the run lives.

Clocks of two computers need not agree: a lease is over when nobody renews it while another run
watches, or when its process is gone from this computer.
"""

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any

import psutil

from scan.errors import InputError, StorageError

LEASE = ".lease"
RENEW_S = 10.0
EXPIRES_S = 40.0  # without being renewed; a driver may be frozen for a while
WATCH_S = 1.0

Stamped = tuple[bytes | None, bytes]
"""Content of an object, or None, and its generation."""
Read = Callable[[], Stamped]
Write = Callable[[bytes | None, bytes], bytes | None]

log = logging.getLogger(__name__)


@contextmanager
def leased(place: str, read: Read, write: Write) -> Iterator[None]:
    """Hold the lease of a place; InputError if another run renews it.

    Parameters
    ----------
    place : str
        Its URL, for messages.
    read : callable
        Reads the lease.
    write : callable
        Writes or removes it if its generation is still the given one; returns the new generation,
        or None if another one was written meanwhile.
    """
    before = _await_end_of_other(place, read)
    generation = write(_content(0), before)
    if generation is None:
        raise _in_use(place, read()[0])
    ended, held = Event(), [generation]
    thread = Thread(target=_renew, args=(place, write, ended, held), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(StorageError):  # it expires
            write(None, held[0])


def _await_end_of_other(place: str, read: Read) -> bytes:
    """Return the generation to replace, once no other run holds the lease."""
    content, generation = read()
    until_s = time.monotonic() + EXPIRES_S
    if content and not _process_is_gone(content):
        log.info("%s was used by %s: watching for %.0f s", place, _owner(content), EXPIRES_S)
        while time.monotonic() < until_s:
            time.sleep(WATCH_S)
            now, changed = read()
            if now and changed != generation:
                raise _in_use(place, now)
            if not now:
                return changed
    return generation


def _renew(place: str, write: Write, ended: Event, held: list[bytes]) -> None:
    renewals = 0
    while not ended.wait(RENEW_S):
        renewals += 1
        with suppress(StorageError):  # tried again soon
            generation = write(_content(renewals), held[0])
            if generation is None:
                log.error("%s is used by another run as well: stop one of them", place)
                return
            held[0] = generation


def _content(renewals: int) -> bytes:
    process = psutil.Process()
    began = datetime.fromtimestamp(process.create_time(), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    owner = {"process": os.getpid(), "host": socket.gethostname(), "since": began}
    return json.dumps(owner | {"renewals": renewals}).encode()


def _said(content: bytes | None) -> dict[str, Any]:
    with suppress(ValueError):
        said = json.loads(content or b"")
        if isinstance(said, dict):
            return said
    return {}


def _process_is_gone(content: bytes) -> bool:
    said = _said(content)
    if said.get("host") != socket.gethostname():
        return False
    process = said.get("process")
    return isinstance(process, int) and not psutil.pid_exists(process)


def _owner(content: bytes | None) -> str:
    said = _said(content)
    if not said:
        return "another run"
    return f"process {said.get('process')} on {said.get('host')} since {said.get('since')}"


def _in_use(place: str, content: bytes | None) -> InputError:
    expected, got = "a place that no run is using", f"one in use by {_owner(content)}"
    return InputError(place, expected, got, "wait until that run is over, or stop it")
