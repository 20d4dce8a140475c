"""Which field comes next: the driver's decisions, free of Ray and of the clock.

A field goes from *waiting* through *capturing* and *captured* to *stacked* and *detected*, or is
*lost*. A capture needs a credit, which comes back when the batch is stacked. Objects are looked for
once a field and all its neighbours are settled, because a field sees its neighbours' cores.
"""

from bisect import insort
from collections.abc import Collection, Iterator

from scan.credits import Credits
from scan.plan import Field, ScanPlan

QUEUED_PER_STRIPE = 2  # one is being captured, one waits in the actor: no camera waits for us
QUEUED_DETECTIONS = 256  # cameras that outrun the CPUs would pile them up, and the loop with them


class Ledger:
    """The state of every field, and what may begin now.

    Parameters
    ----------
    plan, credits : of the scan.
    retries : int
        Captures of a field that may be tried again before it is lost.
    stacked, detected : collections of Field
        What an earlier run has left on disk.
    """

    def __init__(
        self,
        plan: ScanPlan,
        credits: Credits,
        retries: int,
        stacked: Collection[Field] = (),
        detected: Collection[Field] = (),
    ) -> None:
        self.plan = plan
        self.credits = credits
        self.retries = retries
        self.stacked: set[Field] = set(stacked)
        self.detected: set[Field] = set(detected)
        self.lost: dict[Field, str] = {}
        self.paused: set[int] = set()  # stripes whose camera is being started anew
        self._planned = len(plan.fields)  # counted once: it is asked for at every turn of the loop
        self._waiting = [[f for f in stripe if f not in self.stacked] for stripe in plan.stripes]
        self._capturing: list[list[Field]] = [[] for _ in plan.stripes]
        self._attempts: dict[Field, int] = {}
        self._detecting: set[Field] = set(detected)
        self._searches = 0  # under way

    @property
    def finished(self) -> bool:
        """Whether every field is detected or lost."""
        return len(self.detected) + len(self.lost) == self._planned

    @property
    def under_way(self) -> bool:
        """Whether a capture, a stacking or a detection has begun and not ended."""
        return bool(self.credits.taken or self._searches)

    @property
    def has_room(self) -> bool:
        """Whether another batch may be asked for."""
        return self.credits.left > 0 and self._searches < QUEUED_DETECTIONS

    def captures_to_begin(self) -> Iterator[Field]:
        """Fields to capture now, the stripe that lags most first; each takes a credit."""
        while self.has_room and (stripes := self._hungry_stripes()):
            stripe = max(stripes, key=lambda index: len(self._waiting[index]))
            field = self._waiting[stripe].pop(0)
            self._capturing[stripe].append(field)
            self.credits.take()
            yield field

    def _hungry_stripes(self) -> list[int]:
        return [
            index
            for index, waiting in enumerate(self._waiting)
            if waiting
            and index not in self.paused
            and len(self._capturing[index]) < QUEUED_PER_STRIPE
        ]

    def held_stripes(self) -> set[int]:
        """Stripes whose camera stands still because there is no room for its batch."""
        if self.has_room:
            return set()
        return {index for index in self._hungry_stripes() if not self._capturing[index]}

    def under_exposure(self, stripe: int) -> Field | None:
        """The field that the stripe's camera was asked for first; the others wait in its queue."""
        return next(iter(self._capturing[stripe]), None)

    def in_queues(self) -> list[Field]:
        """Fields that wait in the actors behind the one that is under exposure."""
        return [field for fields in self._capturing for field in fields[1:]]

    def was_captured(self, field: Field) -> None:
        """A capture call ended, well or not; its camera is free for the next."""
        self._capturing[field.stripe].remove(field)

    def put_back(self, field: Field) -> None:
        """A batch will not come: its field waits again, before its successors."""
        self.credits.give_back()
        insort(self._waiting[field.stripe], field, key=lambda other: other.field)

    def failed(self, field: Field, reason: str) -> bool:
        """A capture failed or its batch vanished: whether the field will be captured again; if not,
        it is lost for that reason."""
        self.put_back(field)
        self._attempts[field] = self._attempts.get(field, 0) + 1
        if self._attempts[field] > self.retries:
            self._waiting[field.stripe].remove(field)
            self.lost[field] = reason
        return field not in self.lost

    def abandon(self, stripe: int, reason: str) -> list[Field]:
        """A camera is gone for good: the fields that waited for it are lost for that reason."""
        gone, self._waiting[stripe] = self._waiting[stripe], []
        self.lost |= dict.fromkeys(gone, reason)
        return gone

    def was_stacked(self, field: Field) -> None:
        """The field's core lies in the mosaic and its batch is gone from the object store."""
        self.credits.give_back()
        self.stacked.add(field)

    def detections_to_begin(self, settled: Field) -> Iterator[Field]:
        """Fields whose surroundings are complete now that `settled` is stacked or lost."""
        for field in (settled, *self.plan.neighbours(settled)):
            if self._can_detect(field):
                self._detecting.add(field)
                self._searches += 1
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
        self._searches -= 1
        self.detected.add(field)

    def was_not_detected(self, field: Field, reason: str) -> None:
        """The field's search failed; it is lost for that reason."""
        self._searches -= 1
        self.lost[field] = reason
