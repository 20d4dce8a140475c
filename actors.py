"""The capture actor: one for each camera, owner of one microscope; and where it may live.

Capture is a physical act. Ray never repeats a call by itself (``max_task_retries=0``); the driver
asks again, counts it and gives up in the end. The actor takes no CPU slot, so that a restart need
not wait behind stacking.
"""

import os
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import cv2
import numpy as np
import ray

from config import Settings
from imaging.focus import middle, sharpness
from microscope import ZStack
from microscope.opening import Setup, open_microscope, survey
from microscope.soundness import require_sound
from scan.errors import UserMistake
from scan.pages import touch_store
from scan.plan import Field
from scan.records import CaptureRecord, SweepRecord

SWEEP_CROP_PX = 1024  # the middle of the frame says enough about focus, and large frames cost time
MICROSCOPE = "microscope"  # resource of the nodes that have one
HEAD = "node:__internal_head__"  # resource by which Ray itself marks its head
A_SHARE = 0.001  # of it is all that a microscope of software asks for: any number has room
PLACE_S = 30.0  # nodes may be about to join


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)
class CaptureActor:
    """Photographs fields; calls are served one after another, as a stage needs it."""

    def __init__(self, setup: Setup, camera: int) -> None:
        cv2.setNumThreads(1)  # the other cores belong to stacking
        self._setup = setup
        self._microscope = open_microscope(setup, camera)

    @ray.method(num_returns=2)
    def capture(
        self, field: Field, z_um: tuple[float, ...]
    ) -> tuple[CaptureRecord, np.ndarray[Any, Any]]:
        """Photograph the z-stack of a field: a small record, and the batch (z, y, x)."""
        batch = self._photograph(field, z_um)
        slips = tuple(
            1e3 * (began - due) for began, due in zip(batch.began_s, batch.due_s, strict=True)
        )
        record = CaptureRecord(
            z_um,
            batch.began_s[0],
            batch.ended_s,
            time.time(),
            slips,
            os.getpid(),
            os.nice(0),
        )
        return record, batch.frames

    def sweep(
        self, field: Field, z_um: tuple[float, ...]
    ) -> tuple[SweepRecord, np.ndarray[Any, Any]]:
        """Measure the sharpness at each height; the record, and the sharpest plane's middle."""
        batch = self._photograph(field, z_um)
        rows, columns = (middle(edge, SWEEP_CROP_PX) for edge in batch.frames.shape[1:])
        frames = batch.frames[:, rows, columns]
        curve, noise = sharpness(frames)
        record = SweepRecord(z_um, tuple(curve.tolist()), noise, batch.began_s[0], batch.ended_s)
        return record, frames[int(np.argmax(curve))]

    def _photograph(self, field: Field, z_um: tuple[float, ...]) -> ZStack:
        """Take a z-stack; damaged frames of a live camera are a CaptureError."""
        batch = self._microscope.stack(field.x_um, field.y_um, z_um)
        setup = self._setup
        if setup.recorded_z_um is None:  # what was recorded is not taken again
            shape = (len(z_um), *setup.plan.frame_shape)
            limit = setup.settings.saturated_limit
            require_sound(batch.frames, shape, setup.dtype, limit, setup.bits)
        return batch

    @ray.method(max_task_retries=-1)
    def ready(self, stored: Any = None, size_bytes: int = 0) -> int:
        """The process, once it lives; unlike a capture it may be asked until it does.

        Whoever sends something `stored` has that much of the object store at hand from then on.
        """
        touch_store(size_bytes)
        return os.getpid()

    def close(self) -> None:
        """Stop the stage and release the microscope."""
        self._microscope.stop()
        self._microscope.close()


@ray.remote(num_cpus=0, max_calls=1, max_retries=0)
def survey_microscope(settings: Settings, camera: int) -> Setup:
    """What a microscope will deliver, found out in a process that ends and leaves it to others."""
    return survey(settings, camera)


def where_cameras_live(settings: Settings) -> dict[str, Any]:
    """Options for actors and tasks that use a microscope: which nodes, and how much of them.

    Of the resource a real microscope takes one whole. UserMistake after half a minute in which the
    nodes that are needed did not come.
    """
    real = bool(settings.configurations)
    name, _, label = (settings.capture_on or MICROSCOPE).partition("=")
    if label:
        advice = f"start Ray on the microscope's computer with --labels={name}={label}"
        await_nodes(f"node of label {name}={label}", 1, lambda: _labelled(name, label), advice)
        return {"label_selector": {name: label}}
    needed_there = settings.capture_on or (real and len(alive_nodes()) > 1)
    if not (needed_there or ray.cluster_resources().get(name)):
        return {"label_selector": beside_idle_heads()}
    needed = len(settings.configurations) or A_SHARE
    advice = (
        f"start Ray on the microscope's computer with --resources='{{\"{name}\": 1}}', or end the "
        "scan that uses it"
    )
    await_nodes(f"of resource {name}", needed, lambda: _free(name), advice)
    return {"resources": {name: 1 if real else A_SHARE}}


def beside_idle_heads(gone: Collection[str] = ()) -> dict[str, str]:
    """Labels of any node but those that are gone, and a head without work of its own."""
    idle = [node["NodeID"] for node in alive_nodes() if not has_work(node)]
    shunned = ",".join([*idle, *sorted(gone)])
    return {"ray.io/node-id": f"!in({shunned})"} if shunned else {}


def has_work(node: Mapping[str, Any]) -> bool:
    """Whether a node is more than a head without CPUs."""
    offered = node["Resources"]
    return HEAD not in offered or bool(offered.get("CPU") or offered.get(MICROSCOPE))


def alive_nodes() -> list[dict[str, Any]]:
    """What Ray tells of the nodes that are there."""
    return [node for node in ray.nodes() if node["Alive"]]


def _labelled(name: str, label: str) -> int:
    return sum(node["Labels"].get(name) == label for node in alive_nodes())


def _free(resource: str) -> float:
    return float(ray.available_resources().get(resource, 0))


def await_nodes(what: str, needed: float, count: Callable[[], float], advice: str) -> None:
    """Wait for nodes to join; UserMistake that names what is missing when they do not."""
    give_up_s, told = time.monotonic() + PLACE_S, False
    while (found := count()) < needed:
        if not told:
            print(f"waiting for {needed:g} {what}", flush=True)
            told = True
        if time.monotonic() > give_up_s:
            came = f"{found:g} free within {PLACE_S:.0f} s"
            raise UserMistake("Ray cluster", f"{needed:g} {what}", came, advice)
        time.sleep(0.5)
