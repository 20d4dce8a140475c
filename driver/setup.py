"""What the microscopes will deliver; real ones are queried where they are."""

from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from actors import query_microscope
from cluster.failures import cause_of, one_line
from cluster.nodes import capture_placements
from config import Settings
from microscope.correction_files import with_fields
from microscope.opening import Setup, prepare, with_absolute_paths
from scan.errors import InputError, ScanError


def resolve_setup(settings: Settings) -> Setup:
    """Decide what the settings leave open, from the recording or from the microscopes."""
    if not settings.configurations:
        return with_fields(prepare(settings))
    settings = with_absolute_paths(settings)
    placements = capture_placements(settings, len(settings.configurations))
    answers = [
        query_microscope.options(**placed).remote(settings, camera)
        for camera, placed in enumerate(placements)
    ]
    setups = [_answer(answer, settings.camera_start_s) for answer in answers]
    for name, other in zip(settings.configurations, setups, strict=True):
        if other.frames != setups[0].frames:
            expected = f"{setups[0].frames} as of the first"
            hint = "set both to the same binning, ROI and type"
            raise InputError(name, expected, other.frames, hint)
    return with_fields(setups[0])


def _answer(answer: Any, timeout_s: float) -> Setup:
    """The setup that a microscope reported; ScanError if it did not."""
    try:
        return ray.get(answer, timeout=timeout_s)
    except GetTimeoutError:
        got = f"none within {timeout_s:g} s"
    except RayError as error:
        cause = cause_of(error)
        if isinstance(cause, ScanError):
            raise cause from None
        got = one_line(cause)
    raise ScanError("microscope", "an answer", got, "try it in Micro-Manager itself")
