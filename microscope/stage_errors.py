"""How the simulated stage misses its targets: by an amount that only the target decides.

So a place that is photographed twice gives the same image, in any process and after any fault.
"""

from dataclasses import dataclass

import numpy as np

from scan.plan import ScanPlan


@dataclass(frozen=True)
class StageErrors:
    """Where the stage stands instead of where it was sent.

    Attributes
    ----------
    seed : int
        Of the random part, 0 or more.
    error_um : float
        Standard deviation of the random part along either axis.
    rotation_deg : float
        By how much the camera is turned against the stage: steps to the right show as steps to the
        right and up.
    drift_um : float
        Added from field to field, to the right, stripe after stripe.
    step_um : (float, float)
        Distance of neighbouring fields along x and y, by which the drift counts them.
    fields : int
        Fields of a stripe.
    """

    seed: int = 0
    error_um: float = 0.0
    rotation_deg: float = 0.0
    drift_um: float = 0.0
    step_um: tuple[float, float] = (1.0, 1.0)
    fields: int = 1

    def at(self, x_um: float, y_um: float) -> tuple[float, float]:
        """Return how far right and down of (x_um, y_um) the stage stands, in um."""
        angle = np.deg2rad(self.rotation_deg)
        right = x_um * (np.cos(angle) - 1) + y_um * np.sin(angle)
        down = y_um * (np.cos(angle) - 1) - x_um * np.sin(angle)
        number = round(y_um / self.step_um[1]) * self.fields + round(x_um / self.step_um[0])
        right += self.drift_um * number
        if self.error_um:
            nm = [round(1000 * value) % 2**64 for value in (x_um, y_um)]
            random = np.random.default_rng([self.seed, *nm]).normal(0, self.error_um, 2)
            right, down = right + random[0], down + random[1]
        return float(right), float(down)


EXACT = StageErrors()


def stage_errors(
    plan: ScanPlan, seed: int, *, error_um: float, rotation_deg: float, drift_um: float
) -> StageErrors:
    """Return the errors of a stage that visits the fields of a plan."""
    first = plan.stripes[0]
    across = plan.pixel_size_um * max(plan.frame_shape[1] // 2, 1)
    down = plan.pixel_size_um * max(plan.frame_shape[0] // 2, 1)
    if len(first) > 1:
        across = (first[-1].x_um - first[0].x_um) / (len(first) - 1)
    if len(plan.stripes) > 1:
        down = (plan.stripes[-1][0].y_um - first[0].y_um) / (len(plan.stripes) - 1)
    return StageErrors(seed, error_um, rotation_deg, drift_um, (across, down), len(first))
