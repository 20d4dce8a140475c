"""Registration of fields while the scan goes on: their tasks, and the images that wait for them.

Where a field lies is decided here, in float64 and by a rule that knows no time; its image waits in
the object store until then.
"""

from collections.abc import Iterable

from driver.pending import PendingSteps
from driver.run import Run
from driver.steps import MatchFields, PlaceField, Reference, StackBatch
from imaging.registration import Registration, whole_offset
from scan.plan import Field, Place
from scan.records import StackRecord
from scan.registration import MatchJob, MatchRecord, PlaceJob


class FieldRegistration:
    """Match and place the fields of a scan."""

    def __init__(self, run: Run, pending: PendingSteps) -> None:
        self._run, self._pending, self._plan = run, pending, run.setup.plan
        past = run.checkpoint
        written = [field.place for field in past.stacked if field.place in past.placed]
        self._rule = Registration(self._plan, past.placed, past.matches, written)
        self._waiting: dict[Place, tuple[StackBatch, StackRecord, Reference]] = {}

    def add(self, stack: StackBatch, record: StackRecord, image: Reference) -> None:
        """A field is focus-stacked: match it with the neighbours that are there."""
        field, setup = stack.field, self._run.setup
        self._waiting[field.place] = stack, record, image
        if places := self._rule.add(field.place):
            others = tuple(filter(None, map(self._plan.at, places)))
            job = MatchJob(field, others, setup.channels.reference, stack.job.limit_s)
            self._pending.submit(MatchFields(job, [self._waiting[f.place][2] for f in job.fields]))
        self._submit_placements()

    def add_matches(self, job: MatchJob, record: MatchRecord) -> None:
        """Fields are matched: place those around which all is measured."""
        others = [other.place for other in job.others]
        self._rule.add_matches(job.field.place, others, record.matches)
        self._submit_placements()

    def finish(self, field: Field) -> tuple[StackBatch, StackRecord, Reference]:
        """A field is written: let its image go; returns how it was stacked."""
        self._rule.release(field.place)
        return self._waiting.pop(field.place)

    def withdraw(self, fields: Iterable[Field]) -> list[Field]:
        """Images do not exist any more: the fields to capture again, which are not yet written."""
        lost = [field for field in fields if self._waiting.pop(field.place, None)]
        for field in lost:
            self._rule.forget(field.place)
        return lost

    def lose(self, *fields: Field) -> None:
        """Fields will not be in the mosaic: the others are placed without them."""
        for field in fields:
            self._rule.lose(field.place)
            self._waiting.pop(field.place, None)
        self._submit_placements()

    def _submit_placements(self) -> None:
        plan = self._plan
        for place, found in self._rule.decide():
            stack, _, image = self._waiting[place]
            field = stack.field
            offset = whole_offset(field, found.offset_px, plan.frame_shape, plan.mosaic_shape)
            of = stack.job
            job = PlaceJob(of.folder, field, of.z_um, found, offset, of.limit_s)
            self._pending.submit(PlaceField(job, image))
