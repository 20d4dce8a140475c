"""The built-in detector, which needs no model."""

from dataclasses import dataclass

from imaging.detection import AUTO, detect, estimate_statistics
from imaging.statistics import DetectionStatistics
from prediction import Array, Origin, Samples


@dataclass(frozen=True)
class Classic:
    """Detects objects that are brighter, or darker, than their background.

    Attributes
    ----------
    polarity : str
        "bright", "dark", or "auto": decided once by the samples of a scan.
    """

    polarity: str = AUTO

    def estimate_statistics(
        self, samples: Samples, diameter_px: float | None
    ) -> DetectionStatistics:
        """Estimate background, contrast, object size and polarity of the scan."""
        return estimate_statistics(samples, diameter_px, self.polarity)

    def detect(self, image: Array, statistics: DetectionStatistics, origin: Origin) -> Array:
        """Return labels (y, x) int32 of a region."""
        return detect(image, statistics, origin)

    def to_event(self) -> dict[str, str]:
        """Return the values of the journal event."""
        return {"predictor": "classic"}
