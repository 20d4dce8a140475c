"""All that the driver asks of Ray; a test plays it without Ray."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.connection import gcs_reachable, require_gcs
from cluster.failures import failure_of
from cluster.nodes import cpu_slots

CLOSE_TIMEOUT_S = 5.0  # for cameras that still answer


class RemoteCalls(ABC):
    """The remote calls of a workflow; what they are is for its script to say.

    Parameters
    ----------
    actors : sequence of actor handles
        The cameras.
    """

    def __init__(self, actors: Sequence[Any]) -> None:
        self.actors = actors

    @abstractmethod
    def submit(self, step: Any) -> tuple[Any, Any]:
        """Start the call of a step: the reference to wait for, and one to pass on, if any."""

    @abstractmethod
    def wait(self, references: list[Any], timeout_s: float) -> Sequence[Any]:
        """Block until one resolves, or for so long; return all that have. Nothing is fetched."""

    def result(self, reference: Any) -> Any:
        """The record that a call returned, or the Failure that it ended with."""
        try:
            return ray.get(reference)
        except RayError as error:
            return failure_of(error)

    def store(self, value: Any) -> Any:
        """Put a value into the object store of the driver's computer; returns its reference."""
        return ray.put(value)

    def cancel(self, reference: Any) -> None:
        """Withdraw a call that has not started."""
        if gcs_reachable():
            ray.cancel(reference)

    def end_camera(self, camera: int, *, restart: bool) -> None:
        """End the process of a camera; Ray starts a new one, or never."""
        ray.kill(self.actors[camera], no_restart=not restart)

    def now_s(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def cpu_slots(self) -> int:
        """CPU slots of the cluster."""
        return cpu_slots()

    def require_alive(self) -> None:
        """Raise ScanError if the head of the cluster is gone."""
        require_gcs()


def close_cameras(actors: Sequence[Any]) -> None:
    """Stop the stages, close the microscopes and end the processes of the cameras."""
    if gcs_reachable():
        closing: list[Any] = [actor.close.remote() for actor in actors]
        ray.wait(closing, num_returns=len(closing), timeout=CLOSE_TIMEOUT_S)
        for actor in actors:
            ray.kill(actor)
