"""What earlier runs into the same folder have done, as their journal tells it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from scan.plan import Field, ScanPlan

Event = dict[str, Any]


@dataclass
class Past:
    """The state in which a folder was left; empty for a new one.

    `begun`, `focused` and `described` hold the journal's lines; `stacked` and `detected` hold, for
    every field whose result is good, the checksums of what lies on disk.
    """

    plan: ScanPlan
    begun: Event | None = None
    focused: Event | None = None
    described: Event | None = None
    complete: bool = False
    stacked: dict[Field, Sequence[int]] = field(default_factory=dict)
    detected: dict[Field, Sequence[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, events: Iterable[Event], plan: ScanPlan) -> Self:
        """The state after these events."""
        past = cls(plan)
        for event in events:
            handler = getattr(past, f"_on_{event['event']}", None)
            with suppress(KeyError, IndexError, TypeError):  # a damaged line tells nothing
                if handler:
                    handler(event)
        for place in list(past.detected):
            if not past.stacked.keys() >= {place, *plan.neighbours(place)}:
                del past.detected[place]  # it saw a hole, which may be filled now
        return past

    @property
    def centres_um(self) -> dict[tuple[int, int], float]:
        """The best height of every field, by (stripe, field), as autofocus found it."""
        told = self.focused["centres_um"] if self.focused else ()
        return {(stripe, field): z_um for stripe, field, z_um in told}

    def forget(self, field: Field) -> None:
        """The field is not stacked after all; whoever looked at it must look again."""
        self.stacked.pop(field, None)
        for other in (field, *self.plan.neighbours(field)):
            self.detected.pop(other, None)

    def _on_begun(self, event: Event) -> None:
        self.begun, self.complete = self.begun or event, False

    def _on_damaged(self, event: Event) -> None:
        self.detected.clear()  # it may have told of a field that they had not seen

    def _on_focused(self, event: Event) -> None:
        self.focused = event

    def _on_described(self, event: Event) -> None:
        self.described = event

    def _on_stacked(self, event: Event) -> None:
        # Whoever was searched before saw a hole here: this field was lost then.
        self.forget(self._field(event))
        self.stacked[self._field(event)] = event["checksums"]

    def _on_detected(self, event: Event) -> None:
        self.detected[self._field(event)] = event["checksums"]

    def _on_finished(self, event: Event) -> None:
        self.complete = event["status"] == "complete"

    def _field(self, event: Event) -> Field:
        return self.plan.stripes[event["stripe"]][event["field"]]


def per_stripe(fields: Iterable[Field], plan: ScanPlan) -> list[int]:
    """How many of the fields lie in each stripe."""
    counts = Counter(field.stripe for field in fields)
    return [counts[stripe] for stripe in range(len(plan.stripes))]
