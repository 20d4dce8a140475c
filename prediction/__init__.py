"""Predictors, which detect objects: opened once in the driver and sent to the tasks.

Invariant: every user error is raised when a predictor is opened, nothing is downloaded, and nothing
is estimated from a single field.
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
Origin = tuple[int, int]  # row and column in the mosaic


class Predictor(Protocol):
    """Detects objects; can be pickled."""

    def estimate_statistics(
        self, samples: Samples, diameter_px: float | None
    ) -> DetectionStatistics:
        """Estimate the statistics of one scan from focused images of it."""

    def detect(self, image: Array, statistics: DetectionStatistics, origin: Origin) -> Array:
        """Return labels (y, x) int32 of a region whose first pixel lies at `origin`."""

    def to_event(self) -> dict[str, str]:
        """Return the values of the journal event."""


@dataclass(frozen=True, kw_only=True)
class ModelStatistics(DetectionStatistics):
    """Statistics of a scan for a user's model.

    Attributes
    ----------
    reach_px : int
        Width of the halo that the model needs around a core; a key of the journal.
    normalisation : tuple of float
        What the model subtracts and divides by, in its own order.
    """

    reach_px: int
    normalisation: Normalisation = ()

    @property
    def halo_px(self) -> int:
        """Width of the halo around a core."""
        return self.reach_px

    @property
    def filter_reach_px(self) -> int:
        """Width of the margin of a region in which the model lacks its neighbourhood."""
        return max(0, self.reach_px - ceil(CLUMP * self.diameter_px))


def statistics_from(event: Mapping[str, Any]) -> DetectionStatistics:
    """Return the statistics in a journal event, bit for bit as they were written."""
    kind = ModelStatistics if "reach_px" in event else DetectionStatistics
    names = (each.name for each in fields(kind))  # an earlier version wrote fewer
    values: dict[str, Any] = {name: event[name] for name in names if name in event}
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
    return kind(**values)
