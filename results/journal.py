"""The journal: one JSON object a line, appended and flushed as things happen.

A line exists only after what it says is true on disk. Whoever shows a run, shows its journal.
"""

import errno
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from results.files import not_written

JOURNAL = "events.jsonl"
Event = dict[str, Any]


def read_journal(path: Path) -> list[Event]:
    """The events of earlier runs; a torn end is not believed, a damaged line reads "damaged"."""
    return Tail(path).read()


class Tail:
    """Reads a journal as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0

    def read(self) -> list[Event]:
        """The events that were added since the last time."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read_bytes += len(whole + newline)
        return [_event_of(line) for line in whole.split(b"\n")] if newline else []


def _event_of(line: bytes) -> Event:
    with suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            return event
    return {"event": "damaged"}


class Journal:
    """Appends events to a file and tells them to listeners.

    Parameters
    ----------
    path : Path
        The file; created if it is not there. A last line that a crash tore is cut off.
    listeners : callables that take an event
        Told after the line is on disk.
    clock : callable
        Gives the wall-clock time of an event in seconds.
    """

    def __init__(
        self,
        path: Path,
        *listeners: Callable[[Event], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._file.truncate(path.read_bytes().rfind(b"\n") + 1)
        self._broken = False
        self._listeners = listeners
        self._clock = clock
        self._seen: set[str] = set()

    def write(self, event: str, **facts: Any) -> None:
        """Append one event with its facts.

        StorageError when it cannot be written; the file ends with a whole line then, and later
        events are told to the listeners alone.
        """
        entry: Event = {"time": round(self._clock(), 6), "event": event, **facts}
        self._append(json.dumps(entry).encode() + b"\n")
        self._seen.add(event)
        for listener in self._listeners:
            with suppress(OSError):  # a screen that is gone ends no scan
                listener(entry)

    def _append(self, line: bytes) -> None:
        if self._broken:
            return
        before = os.fstat(self._file.fileno())
        try:
            if not before.st_nlink:
                raise FileNotFoundError(errno.ENOENT, "the folder is gone")
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._broken = True
            self._file.truncate(before.st_size)
            raise not_written(self._path, len(line), error) from error

    def seen(self, event: str) -> bool:
        """Whether such an event was written."""
        return event in self._seen

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
