"""What each camera is doing: its exposures, its deadline, its restarts. No Ray; the caller has the
clock.

A camera exposes the first of its queue; the others wait in its process. When the process dies, only
that first exposure has failed.
"""

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

MAX_QUEUED = 2  # one is exposed, one waits in the actor: no camera waits for the driver


class Exposure(Hashable, Protocol):
    """A z-stack that a camera is asked for."""

    @property
    def camera(self) -> int:
        """The camera that takes it."""

    @property
    def z_um(self) -> tuple[float, ...]:
        """The heights of its planes."""


@dataclass
class _Camera:
    queue: list[Exposure] = field(default_factory=list)
    starting: bool = False
    dropped: bool = False
    deadline_s: float | None = None
    reasons: list[str] = field(default_factory=list)  # why it has to start again

    @property
    def reason(self) -> str:
        return "; ".join(filter(None, self.reasons))


class CameraSupervisor:
    """Decide which cameras may be asked, which count as hung, and what a dead one has cost.

    Parameters
    ----------
    cameras : int
        Number of cameras.
    retries : int
        How often an exposure that failed may be repeated.
    capture_timeout_s : callable
        Seconds after which an exposure of so many planes counts as hung.
    start_timeout_s : float
        Seconds in which a camera process must have started.
    """

    def __init__(
        self,
        cameras: int,
        retries: int,
        capture_timeout_s: Callable[[int], float],
        start_timeout_s: float,
    ) -> None:
        self._cameras = [_Camera() for _ in range(cameras)]
        self._retries = retries
        self._capture_timeout_s, self._start_timeout_s = capture_timeout_s, start_timeout_s
        self._attempts: Counter[Exposure] = Counter()
        # Exposures of processes that died: why, or None for those that only waited there.
        self._orphans: dict[Exposure, str | None] = {}

    # -------------------------------------------------------------------------- questions

    def available(self, camera: int) -> bool:
        """Whether the camera may be asked for another exposure."""
        state = self._cameras[camera]
        return not (state.starting or state.dropped) and len(state.queue) < MAX_QUEUED

    def idle(self, camera: int) -> bool:
        """Whether the camera has nothing to expose."""
        return not self._cameras[camera].queue

    def dropped(self, camera: int) -> str | None:
        """Why the camera is used no more; None if it is in use."""
        state = self._cameras[camera]
        return state.reason if state.dropped else None

    def queued(self) -> list[Exposure]:
        """Exposures that wait in a camera process behind the one in progress."""
        return [exposure for state in self._cameras for exposure in state.queue[1:]]

    # -------------------------------------------------------------------------- exposures

    def mark_submitted(self, exposure: Exposure, now_s: float) -> None:
        """The camera was asked for an exposure."""
        queue = self._cameras[exposure.camera].queue
        queue.append(exposure)
        if len(queue) == 1:
            self._arm(exposure.camera, now_s)

    def mark_ended(self, exposure: Exposure, now_s: float) -> None:
        """The camera answered, well or not."""
        if exposure in self._orphans:  # in the last moment before its process was ended
            del self._orphans[exposure]
            return
        self._cameras[exposure.camera].queue.remove(exposure)
        self._arm(exposure.camera, now_s)

    def orphaned(self, exposure: Exposure) -> bool:
        """Whether the death of the exposure's process is known."""
        return exposure in self._orphans

    def claim_orphan(self, exposure: Exposure) -> str | None:
        """Why the exposure failed when its process died; None if it had not begun."""
        return self._orphans.pop(exposure)

    def may_retry(self, exposure: Exposure) -> bool:
        """Count a failure of the exposure; whether it may be repeated."""
        self._attempts[exposure] += 1
        return self._attempts[exposure] <= self._retries

    # -------------------------------------------------------------------------- processes

    def take_hung(self, now_s: float) -> list[tuple[int, bool, str]]:
        """Take the cameras past their deadline: whether they may be restarted, and why.

        Each is reported once. One that hangs while it starts is dropped: it is not restarted.
        """
        found = []
        for camera, state in enumerate(self._cameras):
            if state.deadline_s is None or now_s <= state.deadline_s:
                continue
            state.deadline_s = None
            if state.starting:
                reason = f"the camera did not open within {self._start_timeout_s:.0f} s"
                state.dropped = True
                state.reasons.append(reason)
            else:
                limit_s = self._capture_timeout_s(len(state.queue[0].z_um))
                reason = f"no answer from the camera within {limit_s:.0f} s"
            found.append((camera, not state.dropped, reason))
        return found

    def mark_starting(self, camera: int, reason: str, now_s: float) -> bool:
        """The camera's process has to start, for that reason; False if it does already, or if the
        camera was dropped."""
        state = self._cameras[camera]
        if state.starting or state.dropped:
            return False
        for place, exposure in enumerate(state.queue):
            self._orphans[exposure] = None if place else reason
        deadline_s = now_s + self._start_timeout_s
        self._cameras[camera] = _Camera(starting=True, deadline_s=deadline_s, reasons=[reason])
        return True

    def mark_started(self, camera: int) -> str:
        """The process answers; returns why it had to start again, empty at the first start."""
        reason = self._cameras[camera].reason
        self._cameras[camera] = _Camera()
        return reason

    def mark_dropped(self, camera: int, error: str) -> None:
        """The process cannot start; the camera is used no more."""
        state = self._cameras[camera]
        if not state.dropped:
            state.reasons.append(f"the camera could not be opened: {error}")
        state.dropped, state.deadline_s = True, None

    def _arm(self, camera: int, now_s: float) -> None:
        """Set the deadline of the exposure that is first in the queue."""
        state = self._cameras[camera]
        state.deadline_s = (
            now_s + self._capture_timeout_s(len(state.queue[0].z_um)) if state.queue else None
        )
