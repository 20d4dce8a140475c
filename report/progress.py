"""What a person sees while a scan runs; a listener of the journal."""

import sys
from contextlib import AbstractContextManager
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

from results.journal import Event

STOPPING = "stopping when what is under way has ended; Ctrl-C again stops at once"
STEPS = ("captured", "stacked", "detected")


class PlainProgress(AbstractContextManager["PlainProgress"]):
    """One line per event, for logs and pipes."""

    def __enter__(self) -> Self:
        print("starting Ray", flush=True)
        return self

    def __call__(self, event: Event) -> None:
        plain = {key: value for key, value in event.items() if isinstance(value, str | int)}
        print(f"{plain.pop('event'):<10}", *(f"{k}={v}" for k, v in plain.items()), flush=True)

    def __exit__(self, *failure: object) -> None:
        """Nothing to put away."""


class LiveProgress(AbstractContextManager["LiveProgress"]):
    """A bar per stripe and step, and a line with what is in flight."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            expand=True,
        )
        self._line = Text("starting Ray …")
        self._live = Live(
            Group(self._line, self._bars),
            console=Console(stderr=False),
            refresh_per_second=8,
            transient=True,
        )
        self._tasks: dict[tuple[int, str], TaskID] = {}
        self._lost = self._in_flight = self._objects = 0

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler:
            handler(event)
        if event["event"] in STEPS:
            self._in_flight = event.get("in_flight", self._in_flight)
            self._advance(event)

    def _on_begun(self, event: Event) -> None:
        for stripe, fields in enumerate(event["stripes"]):
            for step in STEPS:
                name = f"stripe {stripe}  {step}" if step == STEPS[0] else f"          {step}"
                self._tasks[stripe, step] = self._bars.add_task(name, total=fields)

    def _on_resumed(self, event: Event) -> None:
        for step, counts in (
            ("captured", event["stacked"]),
            ("stacked", event["stacked"]),
            ("detected", event["detected"]),
        ):
            for stripe, done in enumerate(counts):
                self._bars.update(self._tasks[stripe, step], completed=done)

    def _on_stopping(self, event: Event) -> None:
        self._live.console.print(STOPPING, style="yellow")

    def _on_ray(self, event: Event) -> None:
        self._line.plain = f"focusing on sample fields of every stripe, {event['cpus']} CPUs …"

    def _on_warning(self, event: Event) -> None:
        self._live.console.print(f"warning: {event['message']}", style="yellow", highlight=False)

    def _on_retried(self, event: Event) -> None:
        place = f" of stripe {event['stripe']} field {event['field']}" if "field" in event else ""
        told = f"{event['step']}{place} again: {event['reason']}"
        self._live.console.print(told, style="yellow", highlight=False)

    def _on_lost(self, event: Event) -> None:
        self._lost += 1
        self._live.console.print(
            f"lost stripe {event['stripe']} field {event['field']}: {event['reason']}", style="red"
        )

    def _advance(self, event: Event) -> None:
        self._objects += event.get("objects", 0)
        self._bars.advance(self._tasks[event["stripe"], event["event"]])
        self._line.plain = (
            f"{self._in_flight} batches in flight, {self._objects} objects, "
            f"{self._lost} fields lost"
        )


def progress(plain: bool) -> PlainProgress | LiveProgress:
    """The live display, or plain lines where no terminal listens."""
    return PlainProgress() if plain or not sys.stdout.isatty() else LiveProgress()
