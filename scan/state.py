"""The state of every field, and which comes next. No Ray, no clock.

A field *waits*, is captured, *stacked* and *detected*, or is *lost*. A capture takes a credit,
which is released when the batch is stacked; where fields are registered, the image takes room until
its place is known. Objects are detected once a field and all its neighbours are stacked or lost,
because a field sees its neighbours' cores.
"""

from bisect import insort
from collections.abc import Collection, Iterator

from scan.credits import Credits
from scan.plan import Field, ScanPlan

MAX_DETECTIONS = 256  # in flight; cameras that are faster than the CPUs would pile them up


class ScanState:
    """Which fields wait, are done or lost, and the credits.

    Parameters
    ----------
    plan : ScanPlan
    credits : Credits
    stacked, detected : collections of Field
        What an earlier run left on disk.
    """

    def __init__(
        self,
        plan: ScanPlan,
        credits: Credits,
        stacked: Collection[Field] = (),
        detected: Collection[Field] = (),
    ) -> None:
        self.plan, self.credits = plan, credits
        self.stacked: set[Field] = set(stacked)
        self.detected: set[Field] = set(detected)
        self.lost: dict[Field, str] = {}
        self._planned = len(plan.fields)  # counted once: it is needed at each turn of the loop
        self._waiting = [
            [field for field in plan.fields_of(camera) if field not in self.stacked]
            for camera in range(plan.cameras)
        ]
        self._detecting: set[Field] = set(detected)
        self._detections = 0  # in flight

    @property
    def finished(self) -> bool:
        """Whether every field is detected or lost."""
        return len(self.detected) + len(self.lost) == self._planned

    @property
    def in_flight(self) -> bool:
        """Whether a capture, a stacking or a detection was submitted and has not ended."""
        return bool(self.credits.taken or self._detections)

    @property
    def has_room(self) -> bool:
        """Whether another batch may be captured."""
        return self.credits.left > 0 and self._detections < MAX_DETECTIONS

    def cameras_with_fields(self) -> list[int]:
        """Cameras for which fields wait."""
        return [camera for camera, waiting in enumerate(self._waiting) if waiting]

    def next_capture(self, cameras: Collection[int]) -> Field:
        """The next field of the camera that has most left; it takes a credit."""
        camera = max(cameras, key=lambda index: len(self._waiting[index]))
        self.credits.take()
        return self._waiting[camera].pop(0)

    def requeue(self, field: Field) -> None:
        """No batch will come: the field waits again, before its successors."""
        self.credits.release(field)
        waiting = self._waiting[self.plan.camera_of(field.stripe)]
        insort(waiting, field, key=lambda other: (other.stripe, other.field))

    def lose_batch(self, field: Field, reason: str) -> None:
        """The field is lost between capture and mosaic; its credit is released."""
        self.credits.release(field)
        self.lost[field] = reason

    def drop_camera(self, camera: int, reason: str) -> list[Field]:
        """The camera is used no more: fields that wait for it are lost."""
        dropped, self._waiting[camera] = self._waiting[camera], []
        self.lost |= dict.fromkeys(dropped, reason)
        return dropped

    def mark_unplaced(self, field: Field) -> None:
        """The field is focus-stacked, and its place is not yet known."""
        self.credits.keep_image(field)

    def mark_stacked(self, field: Field) -> None:
        """The field's core lies in the mosaic; its batch is gone from the object store."""
        self.credits.release(field)
        self.stacked.add(field)

    def detections_to_submit(self, settled: Field) -> Iterator[Field]:
        """Fields whose neighbours are all there, now that `settled` is stacked or lost."""
        for field in (settled, *self.plan.neighbours(settled)):
            if self._can_detect(field):
                self._detecting.add(field)
                self._detections += 1
                yield field

    def _can_detect(self, field: Field) -> bool:
        return (
            field in self.stacked
            and field not in self._detecting
            and all(
                other in self.stacked or other in self.lost for other in self.plan.neighbours(field)
            )
        )

    def mark_detected(self, field: Field) -> None:
        """The field's objects lie on disk."""
        self._detections -= 1
        self.detected.add(field)

    def lose_detection(self, field: Field, reason: str) -> None:
        """The field's detection failed; it is lost."""
        self._detections -= 1
        self.lost[field] = reason
