"""Autofocus as data: sample fields, heights of sweeps and stacks, and the result."""

from dataclasses import dataclass

from config import Settings
from scan.events import Focused
from scan.plan import Field, ScanPlan

COARSE_STEP_UM = 4.0  # under two depths of focus at NA 0.5: the peak covers several steps
FINE_STEP_UM = 1.0
FINE_REACH_UM = 5.0  # beyond the coarse step, so that a fine peak lies inside the fine sweep
WIDENING_FACTOR = 2.0  # a sweep that peaks at its edge is repeated once at twice its length


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
    restarted : tuple of int
        Cameras whose process was restarted meanwhile.
    failed : tuple of RejectedSample
        Sweeps that had to be repeated.
    samples : tuple of (stripe, field, z_um)
        Measured height of every sample, accepted or not.
    """

    first_exposure_s: float
    sweeping_s: tuple[float, ...]
    sampled: int
    kept: int
    rejected: tuple[RejectedSample, ...]
    surface: str
    residual_um: float
    centres_um: dict[tuple[int, int], float]
    restarted: tuple[int, ...] = ()
    failed: tuple[RejectedSample, ...] = ()
    samples: tuple[tuple[int, int, float], ...] = ()

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
        )


def sample_fields(plan: ScanPlan, per_stripe: int) -> list[Field]:
    """Return the fields to focus on: evenly spaced along every stripe, both ends included."""
    chosen: list[Field] = []
    for stripe in plan.stripes:
        count = min(per_stripe, len(stripe))
        last = len(stripe) - 1
        indices = {round(k * last / max(1, count - 1)) for k in range(count)}
        chosen += [stripe[index] for index in sorted(indices)]
    return chosen


def sweep_heights(centre_um: float, reach_um: float, step_um: float) -> tuple[float, ...]:
    """Return heights from `reach_um` below to `reach_um` above the centre, rounded to nm."""
    steps = max(1, round(reach_um / step_um))
    return stack_heights(centre_um, 2 * steps + 1, step_um)


def stack_heights(centre_um: float, planes: int, step_um: float) -> tuple[float, ...]:
    """Return the heights of a z-stack around its centre, rounded to nm."""
    return tuple(round(centre_um + (k - (planes - 1) / 2) * step_um, 3) for k in range(planes))


@dataclass(frozen=True)
class FocusJob:
    """What autofocus needs to know of the scan; recorded heights cannot be chosen."""

    plan: ScanPlan
    settings: Settings
    planes: int
    z_step_um: float
    recorded_z_um: tuple[float, ...] | None = None

    def planes_at(self, centre_um: float) -> tuple[float, ...]:
        """Return the heights of a z-stack's planes around a field's best height."""
        return self.recorded_z_um or stack_heights(centre_um, self.planes, self.z_step_um)
