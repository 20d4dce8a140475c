"""What finds the objects: a predictor is opened once in the driver and sent to the tasks.

The law of this room: whatever a user can get wrong is told when a predictor is opened, nothing is
ever downloaded, and nothing is learned from a single field.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import ceil
from typing import Any, Protocol

from numpy.typing import NDArray

from imaging.statistics import CLUMP, DetectionStatistics

Array = NDArray[Any]
Samples = Sequence[Array]  # focused images (y, x) of one scan
Normalisation = tuple[float, ...]
Place = tuple[int, int]  # row and column in the mosaic


class Predictor(Protocol):
    """Finds objects; can be pickled."""

    def describe(self, samples: Samples, diameter_px: float | None) -> DetectionStatistics:
        """What the objects and pixels of one scan have in common, from focused images of it."""

    def detect(self, image: Array, statistics: DetectionStatistics, origin: Place) -> Array:
        """Labels (y, x) int32 of one region that begins at `origin` in the mosaic."""

    def told(self) -> dict[str, str]:
        """What the journal says of it."""


@dataclass(frozen=True)
class ModelStatistics(DetectionStatistics):
    """What a user's model needs to know of a scan.

    Attributes
    ----------
    reach_px : int
        Pixels that the model needs around a core.
    normalisation : tuple of float
        What the model subtracts and divides by, in its own order.
    """

    reach_px: int
    normalisation: Normalisation = ()

    @property
    def halo_px(self) -> int:
        """Pixels a region needs around its core."""
        return self.reach_px

    @property
    def filter_reach_px(self) -> int:
        """Pixels from a region's end within which the model misses what lies beyond it."""
        return max(0, self.reach_px - ceil(CLUMP * self.diameter_px))


def statistics_from(told: Mapping[str, Any]) -> DetectionStatistics:
    """The statistics that a journal's line tells; bit for bit those that were written."""
    kind = ModelStatistics if "reach_px" in told else DetectionStatistics
    facts: dict[str, Any] = {each.name: told[each.name] for each in fields(kind)}
    if "normalisation" in facts:
        facts["normalisation"] = tuple(facts["normalisation"])
    return kind(**facts)
