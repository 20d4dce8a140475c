"""All that the driver asks of Ray; a test plays it without Ray."""

import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.failures import failure_of
from cluster.liveness import ray_answers, require_ray
from cluster.nodes import cpu_slots, exclude_idle_heads

CLOSE_TIMEOUT_S = 5.0  # for cameras that still answer


class RemoteCalls(ABC):
    """The remote calls of a workflow; what they are is for its script to say.

    Parameters
    ----------
    actors : sequence of actor handles
        The cameras.
    functions : sequence of remote functions, optional
        Those that the steps call; they are exported now, while Ray's head is there.
    """

    def __init__(self, actors: Sequence[Any], functions: Sequence[Any] = ()) -> None:
        self.actors = actors
        selector = exclude_idle_heads()  # an empty one would cost time at each call
        self._options = {"label_selector": selector} if selector else {}
        for function in functions:
            export(function, actors[0])

    def start(self, step: Any, function: Any, *arguments: Any) -> Any:
        """Call a remote function, by the name of its step and field where there is one."""
        named = {"name": f"{step.name} {step.field.name}"} if hasattr(step, "field") else {}
        return function.options(**named, **self._options).remote(*arguments)

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
        if ray_answers():
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
        """Raise ScanError if Ray itself is gone."""
        require_ray()


def export(function: Any, starting: Any) -> None:
    """Send a remote function to Ray's head, which blocks if that is dead, before it is needed.

    Ray does so at the first call, so here is one that waits for an actor that still starts, and is
    withdrawn.
    """
    parameters = inspect.signature(function._function).parameters.values()
    needed = sum(each.kind is each.POSITIONAL_OR_KEYWORD for each in parameters)
    started = starting.__ray_ready__.remote()
    ray.cancel(function.options(num_returns=1).remote(*[started] * needed))


def close_cameras(actors: Sequence[Any]) -> None:
    """Stop the stages, close the microscopes and end the processes of the cameras."""
    if ray_answers():
        closing: list[Any] = [actor.close.remote() for actor in actors]
        ray.wait(closing, num_returns=len(closing), timeout=CLOSE_TIMEOUT_S)
        for actor in actors:
            ray.kill(actor)
