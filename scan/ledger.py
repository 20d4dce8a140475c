"""Which field comes next: the driver's decisions, free of Ray and of the clock.

A field goes from *waiting* through *capturing* and *captured* to *stacked* and *detected*, or is
*lost*. A capture needs a credit, which comes back when the batch is stacked. Objects are looked for
once a field and all its neighbours are settled, because a field sees its neighbours' cores.
"""

from collections import deque
from collections.abc import Iterator

from scan.credits import Credits
from scan.plan import Field, ScanPlan

QUEUED_PER_STRIPE = 2  # one is being captured, one waits in the actor: no camera waits for us


class Ledger:
    """The state of every field, and what may begin now."""

    def __init__(self, plan: ScanPlan, credits: Credits, retries: int) -> None:
        self.plan = plan
        self.credits = credits
        self.retries = retries
        self.stacked: set[Field] = set()
        self.detected: set[Field] = set()
        self.lost: dict[Field, str] = {}
        self.paused: set[int] = set()  # stripes whose camera is being started anew
        self._waiting = [deque(stripe) for stripe in plan.stripes]
        self._capturing = [0] * len(plan.stripes)
        self._attempts: dict[Field, int] = {}
        self._detecting: set[Field] = set()

    @property
    def finished(self) -> bool:
        """Whether every field is detected or lost."""
        return len(self.detected) + len(self.lost) == len(self.plan.fields)

    def captures_to_begin(self) -> Iterator[Field]:
        """Fields to capture now, the stripe that lags most first; each takes a credit."""
        while self.credits.left and (stripes := self._hungry_stripes()):
            stripe = max(stripes, key=lambda index: len(self._waiting[index]))
            self._capturing[stripe] += 1
            self.credits.take()
            yield self._waiting[stripe].popleft()

    def _hungry_stripes(self) -> list[int]:
        return [
            index
            for index, waiting in enumerate(self._waiting)
            if waiting and index not in self.paused and self._capturing[index] < QUEUED_PER_STRIPE
        ]

    def was_captured(self, field: Field) -> None:
        """A capture call ended, well or not; its camera is free for the next."""
        self._capturing[field.stripe] -= 1

    def failed(self, field: Field, reason: str) -> bool:
        """A batch did not come or vanished: whether it will be captured again, before its
        successors; if not, the field is lost for that reason."""
        self.credits.give_back()
        self._attempts[field] = self._attempts.get(field, 0) + 1
        if self._attempts[field] > self.retries:
            self.lost[field] = reason
            return False
        self._waiting[field.stripe].appendleft(field)
        return True

    def was_stacked(self, field: Field) -> None:
        """The field's core lies in the mosaic and its batch is gone from the object store."""
        self.credits.give_back()
        self.stacked.add(field)

    def detections_to_begin(self, settled: Field) -> Iterator[Field]:
        """Fields whose surroundings are complete now that `settled` is stacked or lost."""
        for field in (settled, *self.plan.neighbours(settled)):
            if self._can_detect(field):
                self._detecting.add(field)
                yield field

    def _can_detect(self, field: Field) -> bool:
        return (
            field in self.stacked
            and field not in self._detecting
            and all(
                other in self.stacked or other in self.lost for other in self.plan.neighbours(field)
            )
        )

    def was_detected(self, field: Field) -> None:
        """The field's objects lie in the table."""
        self.detected.add(field)
