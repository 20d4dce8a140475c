"""The events of the journal: one frozen record for each kind, written and read as a line of JSON.

The kinds and keys are a file format: a line of an earlier version is read, or counts as damaged.
Unknown keys are ignored. Times that end in ``_s`` are wall-clock seconds. Values are checked when
a line is read, and nowhere else; whether events fit together is checked by `scan.lines`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from config import MAX_FIELDS
from scan.correction import CorrectionRecord
from scan.matches import Match
from scan.plan import Field as ScanField
from scan.plan import ScanPlan
from scan.text import MAX_REASON_CHARS, one_line

# how a run can end, as `finished` says
COMPLETE, PARTIAL, FAILED, CANCELLED = "complete", "partial", "failed", "cancelled"

Number = Annotated[float, Field(ge=-1e15, le=1e15)]  # neither infinite nor NaN
Positive = Annotated[float, Field(gt=0, le=1e15)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Index = Annotated[int, Field(ge=0, lt=MAX_FIELDS)]
Slots = Annotated[int, Field(ge=1, le=10**6)]  # of CPUs, of cameras
Text = Annotated[str, AfterValidator(lambda text: one_line(text, MAX_REASON_CHARS))]


class Event(BaseModel):
    """What all events have: when they were written, 0 if never, and their kind."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    time: Number = 0.0
    event: str

    def to_dict(self) -> dict[str, Any]:
        """Return the event as JSON has it, time and kind first; keys that are None are left out."""
        values = self.model_dump(mode="json")
        values = {"time": self.time, "event": self.event} | values
        return {key: value for key, value in values.items() if value is not None}

    def to_json(self) -> str:
        """Return the event as a line of JSON without its line break."""
        return json.dumps(self.to_dict())


class CameraEvent(Event):
    """An event of one camera."""

    camera: Index


class _OfField(Event):
    """An event that may concern a field of view."""

    @classmethod
    def of(cls, field: ScanField, camera: int, **facts: Any) -> Self:
        """Return the event for a field of the plan."""
        place: dict[str, Any] = {"stripe": field.stripe, "field": field.field, "camera": camera}
        return cls(**place, **facts)


class FieldEvent(_OfField):
    """An event of one field of view."""

    stripe: Index
    field: Index
    camera: Index

    @property
    def place(self) -> tuple[int, int]:
        """The field as (stripe, field)."""
        return self.stripe, self.field


class Work(BaseModel):
    """When a task's function began and ended, and its CPU seconds."""

    began_s: Number
    ended_s: Number
    cpu_s: Number


class ChannelFact(BaseModel):
    """A channel of the mosaic; the reference focuses, and objects are detected in it."""

    model_config = ConfigDict(frozen=True)

    name: Text
    colour: Annotated[str, Field(pattern="^[0-9A-F]{6}$")]
    reference: bool


class Begun(Event):
    """The first event of every run into a folder: plan, versions, settings and input.

    `stripes` has for each stripe the number of columns up to its last field, of which `absent` have
    none. `caveats` say what of the input is not scanned, or was taken for something else.
    `channels` are those of the settings or of a recording; earlier versions had one, without a
    name. `input_sizes` changes with the sizes of recorded files, but not with their times.
    """

    event: Literal["begun"] = "begun"
    process_began_s: Number
    stripes: Annotated[tuple[Index, ...], Field(min_length=1, max_length=MAX_FIELDS)]
    layout: Text
    fields: Count
    row_cuts: tuple[Count, ...]
    column_cuts: tuple[Count, ...]
    pixel_size_um: Positive
    cameras: Slots
    versions: Mapping[str, Any]
    identity: Mapping[str, Any]
    caveats: tuple[Text, ...] = ()
    channels: Annotated[tuple[ChannelFact, ...], Field(max_length=100)] = ()
    input_sizes: Count | None = None
    absent: tuple[tuple[Index, Index], ...] = ()

    @property
    def fields_of_stripes(self) -> tuple[int, ...]:
        """The number of fields of each stripe."""
        lacking = Counter(stripe for stripe, _ in self.absent)
        return tuple(count - lacking[stripe] for stripe, count in enumerate(self.stripes))

    @property
    def reference(self) -> int | None:
        """The number of the channel that focuses; None if there is one channel alone."""
        references = [k for k, each in enumerate(self.channels) if each.reference]
        return references[0] if len(self.channels) > 1 and references else None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Cuts are borders of all cores, which the report draws and the driver counts."""
        rows, columns = len(self.stripes), max(self.stripes)
        missing = set(self.absent)
        inside = all(s < rows and f < self.stripes[s] for s, f in missing)
        if not inside or sum(self.stripes) - len(missing) != self.fields:
            raise ValueError("other numbers of fields")
        for cuts, count in ((self.row_cuts, rows), (self.column_cuts, columns)):
            if len(cuts) != count + 1 or any(a > b for a, b in pairwise(cuts)):
                raise ValueError("other cuts than cores")
        return self

    @classmethod
    def of(cls, plan: ScanPlan, **facts: Any) -> Self:
        """Return the event for a plan; `facts` are the fields that a plan does not have."""
        counts, (rows, columns) = plan.counts, plan.mosaic_shape
        most = f"up to {max(counts)}" if plan.absent or min(counts) < max(counts) else counts[0]
        return cls(
            stripes=counts,
            layout=f"{len(counts)} stripes of {most} fields, {rows} x {columns} pixels",
            fields=len(plan.fields),
            row_cuts=plan.row_cuts,
            column_cuts=plan.column_cuts,
            pixel_size_um=plan.pixel_size_um,
            cameras=plan.cameras,
            absent=plan.absent,
            **facts,
        )


class RayStarted(Event):
    """Ray has started or was joined: its size, and the credits of the scan.

    `identity_crc` is a checksum of what `begun` says in `identity`, should that line be damaged.
    """

    event: Literal["ray"] = "ray"
    up_s: Number
    cpus: Slots
    object_store_bytes: Count
    batch_bytes: Count
    credits: Count
    identity_crc: Count | None = None


class Resumed(Event):
    """The numbers of fields of each stripe that earlier runs have finished."""

    event: Literal["resumed"] = "resumed"
    stacked: tuple[Count, ...]
    detected: tuple[Count, ...]


class Warned(Event):
    """A warning."""

    event: Literal["warning"] = "warning"
    message: Text


class Stressed(Event):
    """The stress test runs: foreign processes, and seconds added to each stacking task."""

    event: Literal["stressed"] = "stressed"
    burners: Count
    seconds: Number


class WarmedUp(Event, Work):
    """A worker process has imported and compiled what tasks need."""

    event: Literal["warmed"] = "warmed"


class Swept(FieldEvent):
    """A sample field was swept over so many planes: `done` of `samples` have their last peak."""

    event: Literal["swept"] = "swept"
    planes: Count
    done: Count
    samples: Count


class Rejection(BaseModel):
    """A sample that the focus surface ignores, and why."""

    stripe: Index
    field: Index
    reason: Text


def _rejection(sample: Mapping[str, Any]) -> dict[str, Any]:
    return Rejection.model_validate(sample, strict=True).model_dump()


FocusMode = Literal["surface", "none", "points", "hardware"]
Height = tuple[Index, Index, Number]  # stripe, field, z_um


class Focused(Event):
    """The focus surface was fitted: heights as (stripe, field, z_um), and the samples.

    `correction` is missing if frames are used as they are. `mode` is the setting `focus`; earlier
    versions had surface alone.
    """

    event: Literal["focused"] = "focused"
    first_exposure_s: Number
    sweeping_s: tuple[Number, ...]
    sampled: Count
    kept: Count
    rejected: tuple[Annotated[Mapping[str, Any], AfterValidator(_rejection)], ...]
    surface: Text
    residual_um: Number
    centres_um: tuple[Height, ...]
    samples: tuple[Height, ...] = ()
    correction: CorrectionRecord | None = None
    mode: FocusMode = "surface"


class Described(Event, Work):
    """The specimen was described: the statistics that detection uses; the last two of a model.

    Those from `large_px` to `findings` are missing in runs of earlier versions.
    """

    event: Literal["described"] = "described"
    background: Number
    noise: Positive
    contrast: Annotated[Number, Field(ge=0)]
    diameter_px: Positive
    large_px: Annotated[Number, Field(ge=0)] = 0.0
    long_px: Annotated[Number, Field(ge=0)] = 0.0
    alike: Literal["", "discs", "width"] = ""
    polarity: Literal["bright", "dark"] = "bright"
    findings: tuple[Text, ...] = ()
    reach_px: Count | None = None
    normalisation: tuple[Number, ...] | None = None

    @property
    def statistics(self) -> dict[str, Any]:
        """The statistics by name."""
        of_model = {"reach_px", "normalisation"} if self.reach_px is None else set()
        others = {*Event.model_fields, *Work.model_fields, *of_model}
        names = set(Described.model_fields) - others
        return {name: getattr(self, name) for name in sorted(names)}

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.reach_px is None) != (self.normalisation is None):
            raise ValueError("half of a model")
        return self


class Captured(FieldEvent):
    """A batch was captured and is in the object store; its checksum, if it was recorded."""

    event: Literal["captured"] = "captured"
    began_s: Number
    ended_s: Number
    slips_ms: tuple[Number, ...]
    process: Count
    in_flight: Count
    checksum: Count | None = None


class Stacked(FieldEvent, Work):
    """A field's core was written to the mosaics; checksums of image and depth.

    `flicker` is the difference in light between its planes, root mean square; earlier versions did
    not measure it.
    """

    event: Literal["stacked"] = "stacked"
    asked_s: Number
    in_flight: Count
    checksums: tuple[Count, ...]
    flicker: Annotated[float, Field(ge=0, le=1e15)] = 0.0


class MatchFact(BaseModel):
    """What the overlap with a neighbour showed; nothing but the neighbour if that was not enough.

    `shift_px` says how much farther the later of both in raster order lies from the other than the
    stage says, (y, x); `covariance_px2` how well that is known.
    """

    model_config = ConfigDict(frozen=True)

    stripe: Index
    field: Index
    shift_px: tuple[Number, Number] | None = None
    covariance_px2: tuple[Number, Number, Number] | None = None
    ncc: Number | None = None

    @property
    def match(self) -> Match | None:
        """The match, if there is one."""
        if self.shift_px is None or self.covariance_px2 is None or self.ncc is None:
            return None
        return Match(self.shift_px, self.covariance_px2, self.ncc)


def match_facts(
    others: Sequence[ScanField], matches: Sequence[Match | None]
) -> tuple[MatchFact, ...]:
    """Return what the journal says of the matches of a field with others."""
    return tuple(
        MatchFact(stripe=other.stripe, field=other.field, **(vars(match) if match else {}))
        for other, match in zip(others, matches, strict=True)
    )


class Matched(FieldEvent, Work):
    """A field was matched with neighbours that were focus-stacked before it."""

    event: Literal["matched"] = "matched"
    matches: Annotated[tuple[MatchFact, ...], Field(max_length=8)]


class Placed(FieldEvent, Work):
    """A field's core was written at its place; `stacked` follows, with the checksums.

    `offset_px` (y, x) is how far from the stage's word the field lies, `written_px` the same in
    whole pixels as far as its overlaps allow, `agreeing` how many of its matches agree with it.
    """

    event: Literal["placed"] = "placed"
    offset_px: tuple[Number, Number]
    written_px: tuple[int, int]
    agreeing: Count


class Detected(FieldEvent, Work):
    """A field's objects were written to disk; checksums of labels and rows."""

    event: Literal["detected"] = "detected"
    asked_s: Number
    objects: Count
    checksums: tuple[Count, ...]


class Lost(FieldEvent):
    """A field is given up and will be missing in the answer."""

    event: Literal["lost"] = "lost"
    reason: Text


class Retried(_OfField):
    """A step failed and is repeated."""

    event: Literal["retried"] = "retried"
    stripe: Index | None = None
    field: Index | None = None
    camera: Index | None = None
    step: Text
    reason: Text = ""


class Restarted(CameraEvent):
    """A camera's process was started again."""

    event: Literal["restarted"] = "restarted"
    reason: Text


class Throttled(CameraEvent):
    """A camera paused because no credit was left."""

    event: Literal["held"] = "held"
    began_s: Number
    ended_s: Number


class Stopping(Event):
    """The run was asked to stop."""

    event: Literal["stopping"] = "stopping"


class RunFailed(Event):
    """The run ended by an error."""

    event: Literal["failed"] = "failed"
    reason: Text


class Predicted(Event):
    """The table of the whole scan was written to disk."""

    event: Literal["predicted"] = "predicted"
    objects: Count
    answered_s: Number
    digest: Text
    facts: Mapping[str, float | int | str] = {}  # pydantic copies it


class Finished(Event):
    """The last event of a run that was not killed."""

    event: Literal["finished"] = "finished"
    status: Annotated[str, Field(pattern=f"^({COMPLETE}|{PARTIAL}|{FAILED}|{CANCELLED})$")]
    peak_batches_in_flight: Count = 0
    spilled_mb: Number | None = None
    driver_cpu_s: Number | None = None


class Damaged(Event):
    """A line of the journal that cannot be read as one of these events."""

    event: Literal["damaged"] = "damaged"


_KINDS = (
    Begun | RayStarted | Resumed | Warned | Stressed | WarmedUp | Swept | Focused | Described
    | Captured | Matched | Placed | Stacked | Detected | Lost | Retried | Restarted | Throttled
    | Stopping | RunFailed | Predicted | Finished | Damaged
)  # fmt: skip
_PARSER: TypeAdapter[Any] = TypeAdapter(Annotated[_KINDS, Field(discriminator="event")])


def parse(line: str | bytes) -> Event:
    """Return the event of a line of JSON; Damaged if the line is not an event."""
    try:
        return _PARSER.validate_json(line, strict=True)
    except ValidationError:
        return Damaged()
