"""The capture actor: one for each camera, owner of one microscope.

Capture is a physical act. Ray never repeats a call by itself (``max_task_retries=0``); the driver
asks again, counts it and gives up in the end. The actor takes no CPU slot, so that a restart need
not wait behind stacking.
"""

import os
from typing import Any

import cv2
import numpy as np
import ray

from cluster.workers import prefault_object_store
from config import Settings
from imaging.focus import center_slice, sharpness
from microscope import ZStack
from microscope.frame_checks import require_valid_frames
from microscope.opening import Setup, open_microscope, survey
from scan.checksums import crc_of_arrays
from scan.clock import now_s
from scan.plan import Field
from scan.records import CaptureRecord, SweepRecord
from scan.sweeps import is_fine

SWEEP_CROP_PX = 1024  # the centre of the frame says enough about focus; large frames cost time

Frames = np.ndarray[Any, Any]
Batch = Frames | tuple[Frames, ...]  # of one channel, or of several


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)
class CaptureActor:
    """Expose fields; calls are served one after another, as a stage needs it."""

    def __init__(self, setup: Setup, camera: int) -> None:
        cv2.setNumThreads(1)  # the other cores belong to stacking
        self._setup = setup
        self._microscope = open_microscope(setup, camera)

    @ray.method(num_returns=2)
    def capture(self, field: Field, z_um: tuple[float, ...]) -> tuple[CaptureRecord, Batch]:
        """Expose the z-stack of a field: a small record, and the batch (z, y, x) or several."""
        heights = enumerate(self._setup.channels.heights(z_um))
        stacks = [self._expose(field, each_um, channel) for channel, each_um in heights]
        batch = tuple(stack.frames for stack in stacks)
        record = CaptureRecord(
            z_um,
            began_s=stacks[0].began_s[0],
            ended_s=stacks[-1].ended_s,
            complete_s=now_s(),
            slips_ms=tuple(
                round(1e3 * (began - due), 3)
                for stack in stacks
                for began, due in zip(stack.began_s, stack.due_s, strict=True)
            ),
            process=os.getpid(),
            checksum=crc_of_arrays(batch) if self._setup.recording else None,
        )
        return record, batch if len(batch) > 1 else batch[0]

    @ray.method(num_returns=2)
    def sweep(self, field: Field, z_um: tuple[float, ...]) -> tuple[SweepRecord, Frames]:
        """Measure the sharpness at each height: a record, and the sharpest plane's centre.

        An autofocus device, if used, begins at the middle of these and decides the heights.
        """
        if self._setup.settings.focus == "hardware":
            begin_um = sum(z_um) / len(z_um)
            found_um = self._microscope.autofocus(field.x_um, field.y_um, begin_um)
            z_um = self._setup.focus_job.planes_at(found_um)
        batch = self._expose(field, z_um, self._setup.channels.reference)
        rows, columns = (center_slice(edge, SWEEP_CROP_PX) for edge in batch.frames.shape[1:])
        frames = batch.frames[:, rows, columns]
        curve, noise = sharpness(frames, fine=is_fine(z_um))
        record = SweepRecord(z_um, tuple(curve.tolist()), noise, batch.began_s[0], batch.ended_s)
        sharpest = int(np.argmax(curve)) if curve.any() else len(frames) // 2
        return record, (batch.frames if self._setup.whole_samples else frames)[sharpest]

    def _expose(self, field: Field, z_um: tuple[float, ...], channel: int) -> ZStack:
        """Take a z-stack; CaptureError if frames of a real exposure are damaged."""
        batch = self._microscope.stack(field.x_um, field.y_um, z_um, channel)
        setup = self._setup
        if setup.recorded_z_um is None:  # a recording cannot be exposed again
            shape = (len(z_um), *setup.plan.frame_shape)
            limit = setup.settings.saturated_limit
            require_valid_frames(batch.frames, shape, setup.dtype, limit, setup.bits)
        return batch

    @ray.method(max_task_retries=-1)
    def ready(self, stored: Any, prefault_bytes: int) -> int:
        """The niceness of the process, once it lives; may be repeated, unlike a capture.

        `stored` is any value of the object store: fetching it maps the store into this process.
        """
        prefault_object_store(prefault_bytes)
        return os.nice(0)

    def close(self) -> None:
        """Stop the stage and release the microscope."""
        self._microscope.stop()
        self._microscope.close()


@ray.remote(num_cpus=0, max_calls=1, max_retries=0)
def query_microscope(settings: Settings, camera: int) -> Setup:
    """What a microscope will deliver, asked by a process that ends and releases it."""
    return survey(settings, camera)
