"""How long a camera may take for a capture."""

from config import Settings
from scan.plan import ScanPlan

MIN_MB_PER_S = 20.0  # of a camera link, or of a disk from which recordings are read


def capture_timeout_s(settings: Settings, plan: ScanPlan, planes: int) -> float:
    """Seconds after which a capture of so many planes counts as hung.

    The time of exposures, rests, travel across the whole slide and transfer of the frames, and
    `watchdog_s` beyond it.
    """
    rows, columns = plan.mosaic_shape
    travel_um = max(rows, columns) * plan.pixel_size_um
    exposures_ms = planes * (settings.exposure_ms + settings.settle_ms)
    for channel in settings.channels[1:]:  # a sweep takes one of them, and may last longer, then
        each_ms = (channel.exposure_ms or settings.exposure_ms) + settings.settle_ms
        exposures_ms += (channel.planes or planes) * each_ms
    device_s = settings.device_timeout_s if settings.configurations else 0.0
    max_bytes = (
        4 * planes * max(1, len(settings.channels)) * plan.frame_shape[0] * plan.frame_shape[1]
    )
    return (
        settings.watchdog_s
        + device_s
        + (exposures_ms + travel_um / settings.stage_speed_um_per_ms) / 1e3
        + max_bytes / (MIN_MB_PER_S * 1e6)
    )
