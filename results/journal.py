"""The journal: one JSON object a line, appended and flushed as things happen.

A line exists only after what it says is true on disk. Whoever shows a run, shows its journal.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

Event = dict[str, Any]


class Journal:
    """Appends events to a file and tells them to listeners.

    Parameters
    ----------
    path : Path
        The file; created if it is not there.
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
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._listeners = listeners
        self._clock = clock
        self._seen: set[str] = set()

    def write(self, event: str, **facts: Any) -> None:
        """Append one event with its facts."""
        entry: Event = {"time": round(self._clock(), 6), "event": event, **facts}
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        self._seen.add(event)
        for listener in self._listeners:
            listener(entry)

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
