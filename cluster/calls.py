"""What the driver asks of Ray beside submitting: fetch a record, withdraw, look after nodes."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.connection import gcs_reachable, require_gcs
from cluster.failures import failure_of
from cluster.nodes import alive_nodes, exclude_nodes

CLOSE_TIMEOUT_S = 5.0  # for cameras that still answer


class RayCalls:
    """The part of `driver.steps.RemoteCalls` that is the same for each workflow."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self.actors = actors

    def result(self, reference: ray.ObjectRef) -> Any:
        """The record that a call returned, or the Failure that it ended with."""
        try:
            return ray.get(reference)
        except RayError as error:
            return failure_of(error)

    def keep(self, reference: ray.ObjectRef) -> ray.ObjectRef:
        """Copy a value to the driver's computer, where it survives the loss of other nodes."""
        return ray.put(ray.get(reference))

    def cancel(self, reference: ray.ObjectRef) -> None:
        """Withdraw a call that has not started."""
        if gcs_reachable():
            ray.cancel(reference)

    def end_camera(self, camera: int, *, restart: bool) -> None:
        """End the process of a camera; Ray starts a new one, or never."""
        ray.kill(self.actors[camera], no_restart=not restart)

    def placement(self, dead_nodes: Collection[str]) -> Mapping[str, Any]:
        """Options by which tasks keep off the dead nodes."""
        return {"label_selector": exclude_nodes(dead_nodes)}

    def now_s(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def alive_nodes(self) -> set[str]:
        """The nodes that are alive, by Ray's identifiers."""
        return {node["NodeID"] for node in alive_nodes()}

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
