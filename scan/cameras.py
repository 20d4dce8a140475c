"""The care of cameras: which is being started, which must answer until when, and what a camera that
died was exposing. Free of Ray; the caller brings the clock."""

from scan.ledger import Ledger
from scan.plan import Field
from scan.watchdog import Watchdog


class CameraCare:
    """What is known of each camera beyond the fields that it was asked for.

    Parameters
    ----------
    ledger : Ledger
        Of the scan; nothing is asked of a camera that is paused there.
    allowed_s, start_s : float
        Within which a capture must end, and a camera must have started.
    """

    def __init__(self, ledger: Ledger, allowed_s: float, start_s: float) -> None:
        self._ledger = ledger
        self._allowed_s, self._start_s = allowed_s, start_s
        self._watchdog = Watchdog()
        self._felled: dict[int, tuple[Field | None, str]] = {}  # under exposure, and why
        self._given_up: set[int] = set()  # did not open

    def starts(self, camera: int, reason: str, now_s: float) -> bool:
        """A camera's process starts, for that reason anew; False if that is known already."""
        if camera in self._ledger.paused:
            return False
        self._felled.setdefault(camera, (self._ledger.under_exposure(camera), reason))
        self._ledger.paused.add(camera)
        self._watchdog.expect(camera, now_s + self._start_s)
        return True

    def started(self, camera: int, error: str = "") -> str:
        """It has started, or never will; returns why it had to, and why it did not."""
        self._ledger.paused.discard(camera)
        self._watchdog.dismiss(camera)
        _, reason = self._felled.pop(camera)
        if error and camera not in self._given_up:
            return _joined(reason, f"the camera could not be opened: {error}")
        return reason

    def expect(self, camera: int, now_s: float) -> None:
        """If a camera has something to do, it must answer in time."""
        if camera in self._ledger.paused:
            return
        if self._ledger.under_exposure(camera):
            self._watchdog.expect(camera, now_s + self._allowed_s)
        else:
            self._watchdog.dismiss(camera)

    def answered(self, camera: int) -> None:
        """A batch has come: if its camera was to be ended for silence, that was too early."""
        if camera not in self._ledger.paused:
            self._felled.pop(camera, None)

    def silent(self, now_s: float) -> list[tuple[int, bool]]:
        """Cameras that count as hung, each told once, and whether that was while they started: such
        a one is given up, the others are to be started anew."""
        hung = [(camera, camera in self._ledger.paused) for camera in self._watchdog.overdue(now_s)]
        for camera, starting in hung:
            silence = f"no answer from the camera within {self._allowed_s:.0f} s"
            if starting:
                silence = f"the camera did not open within {self._start_s:.0f} s"
                self._given_up.add(camera)
            victim, reason = self._felled.get(camera, (self._ledger.under_exposure(camera), ""))
            self._felled[camera] = victim, _joined(reason, silence)
        return hung

    def felled(self, camera: int) -> tuple[Field | None, str]:
        """What a camera that died was exposing, and why it died."""
        return self._felled[camera]


def _joined(*reasons: str) -> str:
    return "; ".join(filter(None, reasons))
