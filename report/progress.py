"""The terminal display of a running scan; a listener of the journal."""

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from report.naming import subject_of
from scan.events import (
    Begun,
    Captured,
    Detected,
    Event,
    Lost,
    RayStarted,
    Resumed,
    Retried,
    Stacked,
    Stopping,
    Swept,
    Warned,
)
from scan.text import one_line

STOPPING = "stopping: waiting for running tasks (Ctrl-C again to stop immediately)"
STEPS = ("captured", "stacked", "detected")
MAX_STRIPES = 3  # with bars of their own: a hundred would not fit a terminal
SHOWN_LOGS = ("driver", "cluster", "microscope", "prediction", "results", "report")


class PlainProgress(AbstractContextManager["PlainProgress"]):
    """One line per event, for logs and pipes."""

    def __enter__(self) -> Self:
        print("starting Ray", flush=True)
        return self

    def __call__(self, event: Event) -> None:
        plain = {k: value for k, value in event.to_dict().items() if isinstance(value, str | int)}
        print(f"{plain.pop('event'):<10}", *(f"{k}={v}" for k, v in plain.items()), flush=True)

    def __exit__(self, *failure: object) -> None:
        """Do nothing."""


class LiveProgress(AbstractContextManager["LiveProgress"]):
    """Bars of all steps and of the slowest stripes, and a line with batches, objects and losses."""

    def __init__(self) -> None:
        columns = TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn()
        self._bars = Progress(*columns, TimeRemainingColumn(compact=True), expand=True)
        self._slowest = Progress(*columns, expand=True)  # of other stripes each time: no rate
        self._line = Text("starting Ray …")
        self._live = Live(
            Group(self._line, self._bars, self._slowest),
            console=Console(stderr=False),
            refresh_per_second=8,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._rows: list[TaskID] = []
        self._fields: tuple[int, ...] = ()  # of each stripe
        self._done: Counter[tuple[int, str]] = Counter()  # by stripe and step
        self._lost = self._in_flight = self._objects = 0

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case Begun():
                self._add_bars(event)
            case Resumed():
                self._set_bars(event)
            case RayStarted():
                self._line.plain = f"autofocus on sample fields, {event.cpus} CPUs …"
            case Swept():
                self._bars.update(
                    self._tasks["focused"], completed=event.done, total=event.samples, visible=True
                )
            case Captured() | Stacked() | Detected():
                self._advance(event)
            case Lost():
                self._lost += 1
                self._count(event.stripe, "lost", 1)
                self._print(f"lost {subject_of(event)}: {event.reason}", "red")
            case Retried():
                of = f" of {subject_of(event)}" if event.field is not None else ""
                self._print(f"{event.step}{of} again: {event.reason}", "yellow")
            case Warned():
                self._print(f"warning: {event.message}", "yellow")
            case Stopping():
                self._print(STOPPING, "yellow")

    def _print(self, line: str, style: str) -> None:
        self._live.console.print(line, style=style, highlight=False, markup=False)

    def _add_bars(self, begun: Begun) -> None:
        self._fields = begun.fields_of_stripes
        self._tasks["focused"] = self._bars.add_task("focused", total=None, visible=False)
        for step in STEPS:
            self._tasks[step] = self._bars.add_task(step, total=begun.fields)
        rows = range(min(MAX_STRIPES, len(self._fields)))
        self._rows = [self._slowest.add_task("") for _ in rows]
        self._show_slowest()

    def _set_bars(self, resumed: Resumed) -> None:
        counts = zip(STEPS, (resumed.stacked, resumed.stacked, resumed.detected), strict=True)
        for step, of_stripes in counts:
            for stripe, done in enumerate(of_stripes):
                self._count(stripe, step, done)

    def _advance(self, event: Captured | Stacked | Detected) -> None:
        if isinstance(event, Detected):
            self._objects += event.objects
        else:
            self._in_flight = event.in_flight
        self._count(event.stripe, event.event, 1)
        self._line.plain = (
            f"{self._in_flight} batches in flight, {self._objects} objects, "
            f"{self._lost} fields lost"
        )

    def _count(self, stripe: int, step: str, fields: int) -> None:
        self._done[stripe, step] += fields
        if step in self._tasks:
            self._bars.advance(self._tasks[step], fields)
        self._show_slowest()

    def _show_slowest(self) -> None:
        """Show the stripes of which the smallest part is detected or lost."""
        part = {
            stripe: (self._done[stripe, "detected"] + self._done[stripe, "lost"]) / fields
            for stripe, fields in enumerate(self._fields)
        }
        for row, stripe in zip(self._rows, sorted(part, key=part.__getitem__), strict=False):
            detected, total = self._done[stripe, "detected"], self._fields[stripe]
            name = f"stripe {stripe} detected"
            self._slowest.update(row, description=name, completed=detected, total=total)


def progress(*, plain: bool) -> PlainProgress | LiveProgress:
    """Return the live display, or plain lines if asked for or if there is no terminal."""
    return PlainProgress() if plain or not sys.stdout.isatty() else LiveProgress()


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return one_line(record.getMessage())


@contextmanager
def log_shown() -> Iterator[None]:
    """Print the log messages of this program, not those of its libraries, on standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_OneLine())
    levels = {logger: logger.level for logger in map(logging.getLogger, SHOWN_LOGS)}
    for logger in levels:
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.removeHandler(handler)
            logger.setLevel(level)
