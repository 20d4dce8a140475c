"""A microscope that fails by script: which fault, at which field, how often; gates, no chance."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from microscope import Microscope, ZStack
from microscope.opening import Setup
from scan.errors import CaptureError

Place = tuple[int, int]


def camera_error(batch: ZStack) -> ZStack:
    """The driver of the camera reports a failure."""
    raise CaptureError("camera", "a frame", "none", "check the cable")


def library_error(batch: ZStack) -> ZStack:
    """A library raises an error of its own."""
    raise RuntimeError("device 'Camera' is busy")


def killed(batch: ZStack) -> ZStack:
    """The process is killed, as when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def segfault(batch: ZStack) -> ZStack:
    """The driver library follows a null pointer."""
    ctypes.string_at(0)
    raise AssertionError


def hang(batch: ZStack) -> ZStack:
    """The camera never answers."""
    threading.Event().wait()
    raise AssertionError


def dropped_frame(batch: ZStack) -> ZStack:
    """One plane is missing."""
    return replace(batch, frames=batch.frames[1:])


def blank_frame(batch: ZStack) -> ZStack:
    """One plane is all zero."""
    return with_plane(batch, np.zeros_like(batch.frames[2]))


def stuck_frame(batch: ZStack) -> ZStack:
    """One plane is that before it, once more."""
    return with_plane(batch, batch.frames[1])


def saturated_frame(batch: ZStack) -> ZStack:
    """One plane is white."""
    return with_plane(batch, np.full_like(batch.frames[2], 65535))


def with_plane(batch: ZStack, plane: np.ndarray) -> ZStack:
    frames = batch.frames.copy()
    frames[2] = plane
    return replace(batch, frames=frames)


Fault = Callable[[ZStack], ZStack]


@dataclass(frozen=True)
class Script:
    """What goes wrong when a field's z-stack is captured, and how often before all is well.

    Every firing leaves a file in `folder`, so that a new process knows of those before it.
    The first sweep of a field fails as `sweeps` has it; after `lives` openings no microscope can be
    opened, or opening one never ends.
    """

    folder: Path
    faults: Mapping[Place, tuple[Fault, int]]
    sweeps: Mapping[Place, Fault] = field(default_factory=dict)
    lives: int = 999
    opening_hangs: bool = False

    def fires(self, name: str, times: int) -> bool:
        """Whether this is one of the first so many calls."""
        for number in range(times):
            try:
                (self.folder / f"{name}-{number}").touch(exist_ok=False)
                return True
            except FileExistsError:
                pass
        return False


class Scripted:
    """A microscope that does what its script says, and otherwise what the real one does."""

    def __init__(self, microscope: Microscope, setup: Setup, script: Script) -> None:
        self._microscope, self._script, self._planes = microscope, script, setup.settings.planes
        self._places = {(f.x_um, f.y_um): (f.stripe, f.field) for f in setup.plan.fields}
        self.frame_shape, self.dtype = microscope.frame_shape, microscope.dtype

    def stack(self, x_um: float, y_um: float, z_um: Sequence[float], channel: int = 0) -> ZStack:
        """A z-stack, or the fault that the script has for it."""
        batch = self._microscope.stack(x_um, y_um, z_um, channel)
        place, script = self._places[x_um, y_um], self._script
        fault, times = script.faults.get(place, (None, 0))
        sweeping = len(z_um) != self._planes
        if sweeping:
            fault, times = script.sweeps.get(place), 1
        name = f"{place}{' sweep' * sweeping}"
        return fault(batch) if fault and script.fires(name, times) else batch

    def stop(self) -> None:
        """Leave a trace, so that a test can tell that it was asked."""
        self._microscope.stop()
        (self._script.folder / "stopped").touch()

    def close(self) -> None:
        """Pass it on."""
        self._microscope.close()


def with_script(setup: Setup, script: Script) -> Setup:
    """The same scan with a microscope that fails by script."""
    opener = setup.opener

    def opened(given: Setup, camera: int) -> Microscope:
        if script.opening_hangs:
            threading.Event().wait()
        if not script.fires("opened", script.lives):
            raise CaptureError("camera", "a camera", "none", "plug it in")
        return Scripted(opener(given, camera), given, script)

    return replace(setup, opener=opened)
