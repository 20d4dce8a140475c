"""The small values that travel between driver, actors and tasks. Frames travel as references."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scan.channels import ONE_CHANNEL, Channels
from scan.correction import UNCORRECTED, CorrectionRecord
from scan.plan import Field, Span


@dataclass(frozen=True)
class CaptureRecord:
    """What a capture actor reports about one batch; all times are wall-clock seconds.

    `z_um` are the heights of the reference channel.

    `complete_s` is stamped when the batch leaves the actor's hands, `slips_ms` holds for each plane
    how much later than possible its exposure began, `process` is the process
    id of the actor. `checksum` is that of the pixels, if they come from a recording.
    """

    z_um: tuple[float, ...]
    began_s: float
    ended_s: float
    complete_s: float
    slips_ms: tuple[float, ...]
    process: int
    checksum: int | None = None


@dataclass(frozen=True)
class SweepRecord:
    """One focus sweep: heights, their sharpness, and when its exposures began and ended."""

    z_um: tuple[float, ...]
    sharpness: tuple[float, ...]
    noise: float
    began_s: float
    ended_s: float


@dataclass(frozen=True)
class WorkRecord:
    """When a task's function began and ended, and the CPU seconds that it took."""

    began_s: float
    ended_s: float
    cpu_s: float


@dataclass(frozen=True)
class StackRecord:
    """A field's core lies in the mosaics of the image and of depth, with these checksums; without
    any its image has to be placed first.

    `flicker` is the difference in light between its planes, root mean square; 0 if there was none.
    """

    checksums: tuple[int, ...]
    work: WorkRecord
    flicker: float = 0.0


@dataclass(frozen=True)
class DetectionRecord:
    """A field's objects lie in the label image and in the table, with these checksums."""

    objects: int
    checksums: tuple[int, int]
    work: WorkRecord


@dataclass(frozen=True)
class AnswerRecord:
    """The table of the whole scan lies on disk since `answered_s`."""

    objects: int
    answered_s: float
    digest: str
    facts: Mapping[str, float | int | str]  # of the scan predictor


@dataclass(frozen=True)
class StackJob:
    """What a stacking task needs in addition to the batch."""

    folder: str
    field: Field
    z_um: tuple[float, ...]
    align: bool
    burn_s: float = 0.0  # under stress
    limit_s: float | None = None  # after which the task counts as hung
    correction: CorrectionRecord = UNCORRECTED
    channels: Channels = ONE_CHANNEL
    register: bool = False  # its place is found before it is written


@dataclass(frozen=True)
class DetectionJob:
    """What a detection task needs: it reads its pixels from the mosaic in the run folder."""

    folder: str
    field: Field
    surroundings: tuple[Span, Span]
    pixel_size_um: float
    limit_s: float | None = None  # after which the task counts as hung
    channel: int = 0  # in which objects are detected, if there are several
    gaps: tuple[tuple[Span, Span], ...] = ()  # around the field that no field has written


class OfJob:
    """A step whose job says of which field it is."""

    job: Any

    @property
    def field(self) -> Field:
        """The field."""
        return self.job.field
