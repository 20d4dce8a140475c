"""How long a camera may be silent, and which has been silent for longer."""

from config import Settings
from scan.plan import ScanPlan

SLOWEST_MB_PER_S = 20.0  # of a camera link or a disk that recordings are read from


def allowed_s(settings: Settings, plan: ScanPlan, planes: int) -> float:
    """Seconds after which a capture of so many planes counts as hung.

    The time that exposures, rests, travel across the whole slide and the transfer of the frames
    take, and `watchdog_s` beyond it.
    """
    rows, columns = plan.mosaic_shape
    travel_um = max(rows, columns) * plan.pixel_size_um
    plane_ms = settings.exposure_ms + settings.settle_ms
    device_s = settings.device_timeout_s if settings.configurations else 0.0
    bytes_at_most = 4 * planes * plan.frame_shape[0] * plan.frame_shape[1]
    return (
        settings.watchdog_s
        + device_s
        + (planes * plane_ms + travel_um / settings.stage_speed_um_per_ms) / 1e3
        + bytes_at_most / (SLOWEST_MB_PER_S * 1e6)
    )


class Watchdog:
    """Until when each camera that has something to do must answer; the caller brings the clock."""

    def __init__(self) -> None:
        self._due_s: dict[int, float] = {}

    def expect(self, camera: int, due_s: float) -> None:
        """The camera must answer until then."""
        self._due_s[camera] = due_s

    def dismiss(self, camera: int) -> None:
        """Nothing is expected of the camera any more."""
        self._due_s.pop(camera, None)

    def overdue(self, now_s: float) -> list[int]:
        """Cameras that count as hung; each is told once."""
        late = [camera for camera, due_s in self._due_s.items() if now_s > due_s]
        for camera in late:
            self.dismiss(camera)
        return late
