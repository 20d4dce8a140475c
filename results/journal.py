"""The journal of a run: one JSON object per line, appended and flushed when an event happens.

A line is written only after what it states is on disk. The events are records of `scan.events`;
each line has a checksum (`scan.lines`).
"""

import errno
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from config import is_file
from results.files import not_written
from scan.clock import now_s
from scan.events import Begun, Event
from scan.lines import LineReader, line_of

JOURNAL = "events.jsonl"
Kind = TypeVar("Kind", bound=Event)


def read_journal(path: Path) -> list[Event]:
    """Return the events of a journal, none if there is no file.

    A last line without its line break is ignored; another line that is wrong is read as Damaged.
    """
    return Tail(path).read()


class Tail:
    """Reads a journal while it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0
        self._lines = LineReader()

    def read(self) -> list[Event]:
        """Return the events that were appended since the last call."""
        if not is_file(self._path):
            return []
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read_bytes += len(whole + newline)
        return self._lines.read(whole.split(b"\n")) if newline else []


class EventIndex:
    """Events by kind, in the order in which they were written."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.events = list(events)
        self._by_kind: dict[type[Event], list[Event]] = defaultdict(list)
        for event in self.events:
            self._by_kind[type(event)].append(event)

    def of(self, kind: type[Kind]) -> list[Kind]:
        """Return all events of a kind."""
        return self._by_kind.get(kind, [])  # type: ignore[return-value]

    def last(self, kind: type[Kind]) -> Kind | None:
        """Return the last event of a kind, or None."""
        return next(reversed(self.of(kind)), None)


def latest(events: Sequence[Event]) -> Sequence[Event]:
    """Return the events of the last run into a folder."""
    began = max((k for k, event in enumerate(events) if isinstance(event, Begun)), default=0)
    return events[began:]


class Journal:
    """Appends events to a file and passes them to listeners.

    Parameters
    ----------
    path : Path
        The file; created if it does not exist. A torn last line is removed.
    listeners : callables that take an event
        Called after the line is on disk.
    clock : callable
        Returns the wall-clock time of an event in seconds.
    """

    def __init__(
        self,
        path: Path,
        *listeners: Callable[[Event], None],
        clock: Callable[[], float] = now_s,
    ) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._file.truncate(path.read_bytes().rfind(b"\n") + 1)
        self._broken = False
        self._listeners = listeners
        self._clock = clock
        self._seen: set[type[Event]] = set()

    def write(self, event: Event) -> None:
        """Append an event with the time of now.

        StorageError when it cannot be written. The file then ends with a whole line, and later
        events are only passed to the listeners.
        """
        stamped = event.model_copy(update={"time": round(self._clock(), 6)})
        self._append(line_of(stamped))
        self._seen.add(type(event))
        for listener in self._listeners:
            with suppress(OSError):  # a closed terminal does not end a scan
                listener(stamped)

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

    def seen(self, kind: type[Event]) -> bool:
        """Return whether an event of this kind was written through this object."""
        return kind in self._seen

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
