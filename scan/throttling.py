"""Cameras that stand still because there is no room for their batch: for how long."""

from collections.abc import Callable, Collection

from scan.clock import now_s
from scan.events import Event, Throttled


class Throttling:
    """Write an event when a camera that stood still goes on.

    Parameters
    ----------
    write : callable
        Takes the event.
    """

    def __init__(self, write: Callable[[Event], object]) -> None:
        self._write = write
        self._since_s: dict[int, float] = {}

    def note(self, idle: Collection[int]) -> None:
        """These cameras stand still, and no others."""
        for camera in self._since_s.keys() - set(idle):
            began_s = self._since_s.pop(camera)
            self._write(Throttled(camera=camera, began_s=began_s, ended_s=now_s()))
        for camera in set(idle) - self._since_s.keys():
            self._since_s[camera] = now_s()
