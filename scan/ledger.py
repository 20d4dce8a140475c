"""Which field comes next: the driver's decisions, free of Ray and of the clock.

A field goes from *waiting* through *capturing* and *captured* to *stacked* and *detected*, or is
*lost*. A capture needs a credit, which comes back when the batch is stacked. Objects are looked for
once a field and all its neighbours are settled, because a field sees its neighbours' cores.
"""

from bisect import insort
from collections.abc import Collection, Iterator

from scan.credits import Credits
from scan.plan import Field, ScanPlan

QUEUED_PER_CAMERA = 2  # one is being captured, one waits in the actor: no camera waits for us
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
        self.paused: set[int] = set()  # cameras that are being started anew
        self._planned = len(plan.fields)  # counted once: it is asked for at every turn of the loop
        cameras = range(plan.cameras)
        self._waiting = [[f for f in plan.fields_of(c) if f not in self.stacked] for c in cameras]
        self._capturing: list[list[Field]] = [[] for _ in cameras]
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
        """Fields to capture now, the camera that lags most first; each takes a credit."""
        while self.has_room and (cameras := self._hungry_cameras()):
            camera = max(cameras, key=lambda index: len(self._waiting[index]))
            field = self._waiting[camera].pop(0)
            self._capturing[camera].append(field)
            self.credits.take()
            yield field

    def _hungry_cameras(self) -> list[int]:
        return [
            index
            for index, waiting in enumerate(self._waiting)
            if waiting
            and index not in self.paused
            and len(self._capturing[index]) < QUEUED_PER_CAMERA
        ]

    def held_cameras(self) -> set[int]:
        """Cameras that stand still because there is no room for their batch."""
        if self.has_room:
            return set()
        return {index for index in self._hungry_cameras() if not self._capturing[index]}

    def under_exposure(self, camera: int) -> Field | None:
        """The field that the camera was asked for first; the others wait in its queue."""
        return next(iter(self._capturing[camera]), None)

    def in_queues(self) -> list[Field]:
        """Fields that wait in the actors behind the one that is under exposure."""
        return [field for fields in self._capturing for field in fields[1:]]

    def was_captured(self, field: Field) -> None:
        """A capture call ended, well or not; its camera is free for the next."""
        self._capturing[self.plan.camera_of(field.stripe)].remove(field)

    def put_back(self, field: Field) -> None:
        """A batch will not come: its field waits again, before its successors."""
        self.credits.give_back()
        waiting = self._waiting[self.plan.camera_of(field.stripe)]
        insort(waiting, field, key=lambda other: (other.stripe, other.field))

    def failed(self, field: Field, reason: str) -> bool:
        """A capture failed or its batch vanished: whether the field will be captured again; if not,
        it is lost for that reason."""
        self.put_back(field)
        self._attempts[field] = self._attempts.get(field, 0) + 1
        if self._attempts[field] > self.retries:
            self._waiting[self.plan.camera_of(field.stripe)].remove(field)
            self.lost[field] = reason
        return field not in self.lost

    def abandon(self, camera: int, reason: str) -> list[Field]:
        """A camera is gone for good: the fields that waited for it are lost for that reason."""
        gone, self._waiting[camera] = self._waiting[camera], []
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
