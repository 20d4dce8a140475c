"""The detector without weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imaging.detection import detect, estimate_statistics
from imaging.statistics import DetectionStatistics


@dataclass(frozen=True)
class Classic:
    """Finds bright objects on a dark ground."""

    def describe(
        self, samples: Sequence[np.ndarray], diameter_px: float | None
    ) -> DetectionStatistics:
        """Background, contrast and object size of the scan."""
        return estimate_statistics(samples, diameter_px)

    def detect(
        self, image: np.ndarray, statistics: DetectionStatistics, origin: tuple[int, int]
    ) -> np.ndarray:
        """Labels (y, x) int32 of one region."""
        return detect(image, statistics, origin)

    def told(self) -> dict[str, str]:
        """What the journal says of it."""
        return {"predictor": "classic"}
