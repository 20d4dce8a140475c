"""The care of cameras: which is being started, which must answer until when, and what a camera that
died was exposing. Free of Ray; the caller brings the clock."""

from scan.ledger import Ledger
from scan.plan import Field
from scan.watchdog import START_S, Watchdog


class CameraCare:
    """What is known of each stripe's camera beyond the fields that it was asked for.

    Parameters
    ----------
    ledger : Ledger
        Of the scan; nothing is asked of a stripe that is paused there.
    allowed_s : float
        Within which a capture must end.
    """

    def __init__(self, ledger: Ledger, allowed_s: float) -> None:
        self._ledger = ledger
        self._allowed_s = allowed_s
        self._watchdog = Watchdog()
        self._felled: dict[int, tuple[Field | None, str]] = {}  # under exposure, and why
        self._given_up: set[int] = set()  # did not open

    def starts(self, stripe: int, reason: str, now_s: float) -> bool:
        """A camera's process starts, for that reason anew; False if that is known already."""
        if stripe in self._ledger.paused:
            return False
        self._felled.setdefault(stripe, (self._ledger.under_exposure(stripe), reason))
        self._ledger.paused.add(stripe)
        self._watchdog.expect(stripe, now_s + START_S)
        return True

    def started(self, stripe: int, error: str = "") -> str:
        """It has started, or never will; returns why it had to, and why it did not."""
        self._ledger.paused.discard(stripe)
        self._watchdog.dismiss(stripe)
        _, reason = self._felled.pop(stripe)
        if error and stripe not in self._given_up:
            return _joined(reason, f"the camera could not be opened: {error}")
        return reason

    def expect(self, stripe: int, now_s: float) -> None:
        """If a camera has something to do, it must answer in time."""
        if stripe in self._ledger.paused:
            return
        if self._ledger.under_exposure(stripe):
            self._watchdog.expect(stripe, now_s + self._allowed_s)
        else:
            self._watchdog.dismiss(stripe)

    def answered(self, stripe: int) -> None:
        """A batch has come: if its camera was to be ended for silence, that was too early."""
        if stripe not in self._ledger.paused:
            self._felled.pop(stripe, None)

    def silent(self, now_s: float) -> list[tuple[int, bool]]:
        """Cameras that count as hung, each told once, and whether that was while they started: such
        a one is given up, the others are to be started anew."""
        hung = [(stripe, stripe in self._ledger.paused) for stripe in self._watchdog.overdue(now_s)]
        for stripe, starting in hung:
            silence = f"no answer from the camera within {self._allowed_s:.0f} s"
            if starting:
                silence = f"the camera did not open within {START_S:.0f} s"
                self._given_up.add(stripe)
            victim, reason = self._felled.get(stripe, (self._ledger.under_exposure(stripe), ""))
            self._felled[stripe] = victim, _joined(reason, silence)
        return hung

    def felled(self, stripe: int) -> tuple[Field | None, str]:
        """What a camera that died was exposing, and why it died."""
        return self._felled[stripe]


def _joined(*reasons: str) -> str:
    return "; ".join(filter(None, reasons))
