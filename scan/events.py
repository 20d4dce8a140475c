"""The events of the journal: one frozen record for each kind, written and read as a line of JSON.

The kinds and keys are a file format: a line of an earlier version is read, or counts as damaged.
Unknown keys are ignored. Times that end in ``_s`` are wall-clock seconds.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from scan.plan import Field as ScanField
from scan.plan import ScanPlan

# how a run can end, as `finished` says
COMPLETE, PARTIAL, FAILED, CANCELLED = "complete", "partial", "failed", "cancelled"


class Event(BaseModel):
    """What all events have: when they were written, 0 if never, and their kind."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    time: float = 0.0
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

    camera: int


class _OfField(Event):
    """An event that may concern a field of view."""

    @classmethod
    def of(cls, field: ScanField, camera: int, **facts: Any) -> Self:
        """Return the event for a field of the plan."""
        place: dict[str, Any] = {"stripe": field.stripe, "field": field.field, "camera": camera}
        return cls(**place, **facts)


class FieldEvent(_OfField):
    """An event of one field of view."""

    stripe: int
    field: int
    camera: int

    @property
    def place(self) -> tuple[int, int]:
        """The field as (stripe, field)."""
        return self.stripe, self.field


class Work(BaseModel):
    """When a task's function began and ended, and its CPU seconds."""

    began_s: float
    ended_s: float
    cpu_s: float


class Begun(Event):
    """The first event of every run into a folder: plan, versions, settings and input."""

    event: Literal["begun"] = "begun"
    process_began_s: float
    stripes: tuple[int, ...]
    layout: str
    fields: int
    row_cuts: tuple[int, ...]
    column_cuts: tuple[int, ...]
    pixel_size_um: float
    cameras: int
    versions: Mapping[str, Any]
    identity: Mapping[str, Any]

    @classmethod
    def of(cls, plan: ScanPlan, **facts: Any) -> Self:
        """Return the event for a plan; `facts` are the fields that a plan does not have."""
        counts = tuple(len(stripe) for stripe in plan.stripes)
        rows, columns = plan.mosaic_shape
        return cls(
            stripes=counts,
            layout=f"{len(counts)} stripes of {counts[0]} fields, {rows} x {columns} pixels",
            fields=len(plan.fields),
            row_cuts=plan.row_cuts,
            column_cuts=plan.column_cuts,
            pixel_size_um=plan.pixel_size_um,
            cameras=plan.cameras,
            **facts,
        )


class RayStarted(Event):
    """Ray has started or was joined: its size, and the credits of the scan."""

    event: Literal["ray"] = "ray"
    up_s: float
    cpus: int
    object_store_bytes: int
    batch_bytes: int
    credits: int


class Resumed(Event):
    """The numbers of fields of each stripe that earlier runs have finished."""

    event: Literal["resumed"] = "resumed"
    stacked: tuple[int, ...]
    detected: tuple[int, ...]


class Warned(Event):
    """A warning."""

    event: Literal["warning"] = "warning"
    message: str


class Stressed(Event):
    """The stress test runs: foreign processes, and seconds added to each stacking task."""

    event: Literal["stressed"] = "stressed"
    burners: int
    seconds: float


class WarmedUp(Event, Work):
    """A worker process has imported and compiled what tasks need."""

    event: Literal["warmed"] = "warmed"


class Focused(Event):
    """The focus surface was fitted: heights as (stripe, field, z_um), and the samples."""

    event: Literal["focused"] = "focused"
    first_exposure_s: float
    sweeping_s: tuple[float, ...]
    sampled: int
    kept: int
    rejected: tuple[Mapping[str, Any], ...]
    surface: str
    residual_um: float
    centres_um: tuple[tuple[int, int, float], ...]
    samples: tuple[tuple[int, int, float], ...] = ()


class Described(Event, Work):
    """The specimen was described: the statistics that detection uses, as further keys."""

    model_config = ConfigDict(extra="allow")

    event: Literal["described"] = "described"

    @property
    def statistics(self) -> dict[str, Any]:
        """The statistics by name."""
        return dict(self.model_extra or {})


class Captured(FieldEvent):
    """A batch was captured and is in the object store."""

    event: Literal["captured"] = "captured"
    began_s: float
    ended_s: float
    slips_ms: tuple[float, ...]
    process: int
    in_flight: int


class Stacked(FieldEvent, Work):
    """A field's core was written to the mosaics; checksums of image and depth."""

    event: Literal["stacked"] = "stacked"
    asked_s: float
    in_flight: int
    checksums: tuple[int, ...]


class Detected(FieldEvent, Work):
    """A field's objects were written to disk; checksums of labels and rows."""

    event: Literal["detected"] = "detected"
    asked_s: float
    objects: int
    checksums: tuple[int, ...]


class Lost(FieldEvent):
    """A field is given up and will be missing in the answer."""

    event: Literal["lost"] = "lost"
    reason: str


class Retried(_OfField):
    """A step failed and is repeated."""

    event: Literal["retried"] = "retried"
    stripe: int | None = None
    field: int | None = None
    camera: int | None = None
    step: str
    reason: str = ""


class Restarted(CameraEvent):
    """A camera's process was started again."""

    event: Literal["restarted"] = "restarted"
    reason: str


class Throttled(CameraEvent):
    """A camera paused because no credit was left."""

    event: Literal["held"] = "held"
    began_s: float
    ended_s: float


class Stopping(Event):
    """The run was asked to stop."""

    event: Literal["stopping"] = "stopping"


class RunFailed(Event):
    """The run ended by an error."""

    event: Literal["failed"] = "failed"
    reason: str


class Predicted(Event):
    """The table of the whole scan was written to disk."""

    event: Literal["predicted"] = "predicted"
    objects: int
    answered_s: float
    digest: str


class Finished(Event):
    """The last event of a run that was not killed."""

    event: Literal["finished"] = "finished"
    status: str
    peak_batches_in_flight: int = 0
    spilled_mb: float | None = None
    driver_cpu_s: float | None = None


class Damaged(Event):
    """A line of the journal that cannot be read as one of these events."""

    event: Literal["damaged"] = "damaged"


_KINDS = (
    Begun | RayStarted | Resumed | Warned | Stressed | WarmedUp | Focused | Described | Captured
    | Stacked | Detected | Lost | Retried | Restarted | Throttled | Stopping | RunFailed | Predicted
    | Finished | Damaged
)  # fmt: skip
_PARSER: TypeAdapter[Any] = TypeAdapter(Annotated[_KINDS, Field(discriminator="event")])


def parse(line: str | bytes) -> Event:
    """Return the event of a line of JSON; Damaged if the line is not an event."""
    try:
        return _PARSER.validate_json(line)
    except ValidationError:
        return Damaged()
