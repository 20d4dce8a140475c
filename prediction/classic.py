"""The built-in detector, which needs no model."""

from imaging.detection import detect, estimate_statistics
from imaging.statistics import DetectionStatistics
from prediction import Array, Origin, Samples


class Classic:
    """Detects bright objects on a dark background."""

    def estimate_statistics(
        self, samples: Samples, diameter_px: float | None
    ) -> DetectionStatistics:
        """Estimate background, contrast and object size of the scan."""
        return estimate_statistics(samples, diameter_px)

    def detect(self, image: Array, statistics: DetectionStatistics, origin: Origin) -> Array:
        """Return labels (y, x) int32 of a region."""
        return detect(image, statistics, origin)

    def to_event(self) -> dict[str, str]:
        """Return the values of the journal event."""
        return {"predictor": "classic"}
