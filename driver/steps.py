"""The steps of the workflow as types, and how a step can end.

A step holds all that is needed to submit it, so it can be submitted again as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.failures import Failure
from prediction.scan_predictor import ScanPredictor
from scan.focusing import FocusJob, FocusPeak
from scan.plan import Field
from scan.records import CaptureRecord, DetectionJob, OfJob, StackJob, SweepRecord
from scan.registration import MatchFields, PlaceField

Reference = Any  # ray.ObjectRef; tests use plain values


@dataclass(frozen=True)
class StartCamera:
    """Wait until the process of a camera answers."""

    camera: int
    name = "start camera"


@dataclass(frozen=True)
class WarmUp:
    """Import and compile in a CPU slot what stacking and detection need, after the cameras."""

    started: Sequence[Reference]
    name = "warm up"


@dataclass(frozen=True)
class Sweep:
    """Measure the sharpness of a field at several heights."""

    field: Field
    z_um: tuple[float, ...]
    camera: int
    name = "sweep"


@dataclass(frozen=True)
class FindZPositions:
    """Fit the focus surface through the peaks; `planes` are references to the sharpest planes,
    those of accepted peaks first."""

    job: FocusJob
    peaks: Mapping[Field, FocusPeak]
    sweeps: Sequence[tuple[Field, SweepRecord]]
    planes: Sequence[Reference]
    name = "find z-positions"


@dataclass(frozen=True)
class EstimateStatistics:
    """Estimate what objects look like from autofocus images (a reference)."""

    samples: Reference
    name = "estimate statistics"


@dataclass(frozen=True)
class Capture:
    """Expose the z-stack of a field: a batch."""

    field: Field
    z_um: tuple[float, ...]
    camera: int
    name = "capture"


@dataclass(frozen=True)
class StackBatch(OfJob):
    """Focus-stack a batch, given by its reference."""

    job: StackJob
    batch: Reference
    captured: CaptureRecord
    name = "stack"


@dataclass(frozen=True)
class DetectObjects(OfJob):
    """Detect the objects of one field."""

    job: DetectionJob
    statistics: Any
    asked_s: float  # wall-clock
    name = "detect"


@dataclass(frozen=True)
class PredictScan:
    """Make the answer of the whole scan from what tasks wrote: checksums by stripe and field."""

    written: Mapping[tuple[int, int], tuple[int, ...]]
    predictor: ScanPredictor
    name = "predict"


Exposure = Sweep | Capture  # done by a camera: repeated only if its result is lost
Task = (
    FindZPositions | EstimateStatistics | StackBatch | MatchFields | PlaceField
    | DetectObjects | PredictScan
)  # fmt: skip
Step = StartCamera | WarmUp | Sweep | Capture | Task


@dataclass(frozen=True)
class Pending:
    """A remote call in flight: what to wait for, and the step to submit it again by."""

    reference: Reference
    step: Step
    payload: Reference | None  # the second return value, such as frames; never fetched here
    attempt: int


@dataclass(frozen=True)
class Done:
    """A step ended well."""

    step: Step
    result: Any
    payload: Reference | None


@dataclass(frozen=True)
class Failed:
    """A step failed, for so many times."""

    step: Step
    failure: Failure
    attempt: int


@dataclass(frozen=True)
class Withdrawn:
    """An exposure was asked for and never began: it was cancelled, or its camera died before."""

    step: Exposure


Outcome = Done | Failed | Withdrawn
