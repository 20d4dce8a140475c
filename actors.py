"""The capture actor: one per stripe, owner of one microscope.

Capture is a physical act. Ray never repeats a call by itself (``max_task_retries=0``); the driver
asks again, counts it and gives up in the end. The actor takes no CPU slot, so that a restart need
not wait behind stacking.
"""

import os
import time
from typing import Any

import cv2
import numpy as np
import ray

from imaging.focus import middle, sharpness
from microscope import ZStack
from microscope.opening import Setup, open_microscope
from microscope.soundness import require_sound
from scan.pages import touch_store
from scan.plan import Field
from scan.records import CaptureRecord, SweepRecord

SWEEP_CROP_PX = 1024  # the middle of the frame says enough about focus, and large frames cost time


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)
class CaptureActor:
    """Photographs fields; calls are served one after another, as a stage needs it."""

    def __init__(self, setup: Setup) -> None:
        cv2.setNumThreads(1)  # the other cores belong to stacking
        self._setup = setup
        self._microscope = open_microscope(setup)

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
            require_sound(batch.frames, shape, setup.dtype, setup.settings.saturated_limit)
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
