"""Autofocus as data: sample fields, heights of stacks, and the result."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from config import ESTIMATE, Settings
from scan.correction import NO_FIELDS, UNCORRECTED, Correction, CorrectionRecord
from scan.events import Focused, FocusMode
from scan.plan import Field, ScanPlan

MIN_RECORDED_SAMPLES = 9
RECORDED_SAMPLES = 0.05  # of the fields of a recording: each is read twice

Heights = tuple[float, ...]
Point = tuple[float, float, float]  # x_um, y_um, z_um


@dataclass(frozen=True)
class FocusPeak:
    """The sharpest height of a sweep; `reason` says why it is rejected, if it is.

    `at_edge` marks a sweep that ends where it is sharp: a longer one may find the peak. `failed`
    marks one that was not exposed at all.
    """

    z_um: float
    _: KW_ONLY
    at_edge: bool = False
    failed: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class RejectedSample:
    """A sample that the focus surface ignores, and why."""

    stripe: int
    field: int
    reason: str


@dataclass(frozen=True)
class FocusResult:
    """The best focus height of every field, and how it was found.

    Attributes
    ----------
    first_exposure_s : float
        Wall-clock time of the first exposure.
    sweeping_s : tuple of float
        Seconds that each camera spent on sweeps.
    sampled, kept : int
        Sample fields, and how many of them the surface uses.
    rejected : tuple of RejectedSample
    surface : str
        Kind of surface.
    residual_um : float
        Median distance of a kept sample from the surface fitted without it.
    centres_um : dict
        Best height by (stripe, field).
    samples : tuple of (stripe, field, z_um)
        Measured height of every sample, accepted or not.
    correction : CorrectionRecord
        How frames are corrected.
    mode : str
        The setting `focus`. Given points count as samples that are kept, but are no fields.
    """

    first_exposure_s: float
    sweeping_s: tuple[float, ...]
    sampled: int
    kept: int
    rejected: tuple[RejectedSample, ...]
    surface: str
    residual_um: float
    centres_um: dict[tuple[int, int], float]
    samples: tuple[tuple[int, int, float], ...] = ()
    correction: CorrectionRecord = UNCORRECTED
    mode: FocusMode = "surface"

    def to_event(self) -> Focused:
        """Return what the journal says of it."""
        return Focused(
            first_exposure_s=self.first_exposure_s,
            sweeping_s=self.sweeping_s,
            sampled=self.sampled,
            kept=self.kept,
            rejected=tuple(vars(sample) for sample in self.rejected),
            surface=self.surface,
            residual_um=round(self.residual_um, 4),
            centres_um=tuple((*place, z_um) for place, z_um in self.centres_um.items()),
            samples=self.samples,
            correction=None if self.correction == UNCORRECTED else self.correction,
            mode=self.mode,
        )


def surface_limits_um(z_um: Sequence[float]) -> tuple[float, float]:
    """Return the least and greatest height that a surface through such samples may have."""
    lowest, highest = min(z_um), max(z_um)
    margin = 0.25 * (highest - lowest) + 1.0
    return lowest - margin, highest + margin


def sample_fields(plan: ScanPlan, per_stripe: int) -> list[Field]:
    """Return the fields to focus on: evenly spaced along every stripe, both ends included."""
    return [field for stripe in plan.stripes for field in evenly_spaced(stripe, per_stripe)]


def evenly_spaced(fields: Sequence[Field], count: int) -> list[Field]:
    """Return so many fields of a sequence in their order, both ends included."""
    count, last = min(count, len(fields)), len(fields) - 1
    indices = {round(k * last / max(1, count - 1)) for k in range(count)}
    return [fields[index] for index in sorted(indices)]


def stack_heights(centre_um: float, planes: int, step_um: float) -> tuple[float, ...]:
    """Return the heights of a z-stack around its centre, rounded to nm."""
    return tuple(round(centre_um + (k - (planes - 1) / 2) * step_um, 3) for k in range(planes))


@dataclass(frozen=True)
class FocusJob:
    """What autofocus needs to know of the scan; recorded heights cannot be chosen.

    `correction` has the fields that the settings name, `folder` is that of the run, and `kept` is
    the correction that an earlier run began with.
    `points` are the heights that a user gives, at positions of the plan; `reference` is the number
    of the channel that focuses.
    """

    plan: ScanPlan
    settings: Settings
    planes: int
    z_step_um: float
    recorded_z_um: tuple[float, ...] | None = None
    points: tuple[Point, ...] = ()
    correction: Correction = NO_FIELDS
    folder: str = ""
    kept: CorrectionRecord | None = None
    reference: int = 0

    @property
    def estimate_flat(self) -> bool:
        """Whether the flat field is estimated from the autofocus images."""
        return self.settings.flat_field == ESTIMATE

    @property
    def samples(self) -> list[Field]:
        """The fields to sweep. Recorded heights need no focus: a few show the specimen, all that
        the settings name only if they show the flat field."""
        samples = sample_fields(self.plan, self.settings.focus_samples)
        if self.recorded_z_um is None or self.estimate_flat:
            return samples
        few = max(MIN_RECORDED_SAMPLES, round(RECORDED_SAMPLES * len(self.plan.fields)))
        return samples if few >= len(samples) else evenly_spaced(self.plan.fields, few)

    def planes_at(self, centre_um: float) -> tuple[float, ...]:
        """Return the heights of a z-stack's planes around a field's best height."""
        return self.recorded_z_um or stack_heights(centre_um, self.planes, self.z_step_um)
