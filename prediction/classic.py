"""The detector without weights."""

from imaging.detection import detect, estimate_statistics
from imaging.statistics import DetectionStatistics
from prediction import Array, Place, Samples


class Classic:
    """Finds bright objects on a dark ground."""

    def describe(self, samples: Samples, diameter_px: float | None) -> DetectionStatistics:
        """Background, contrast and object size of the scan."""
        return estimate_statistics(samples, diameter_px)

    def detect(self, image: Array, statistics: DetectionStatistics, origin: Place) -> Array:
        """Labels (y, x) int32 of one region."""
        return detect(image, statistics, origin)

    def told(self) -> dict[str, str]:
        """What the journal says of it."""
        return {"predictor": "classic"}
