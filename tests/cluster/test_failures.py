"""Each exception of Ray is one kind of failure."""

from __future__ import annotations

import pytest
from ray import exceptions as rays

from cluster.failures import FailureKind, failure_of
from scan.errors import CaptureError


def task_error(cause: Exception) -> rays.RayTaskError:
    """The error that Ray raises where a remote function raised that."""
    return rays.RayTaskError("stack_batch", "traceback", cause).as_instanceof_cause()


ERRORS = {
    "cancelled": (rays.TaskCancelledError(), FailureKind.CANCELLED, "cancelled"),
    "actor died": (
        rays.ActorDiedError(),
        FailureKind.CAMERA_DIED,
        "the process of the camera died",
    ),
    "actor restarts": (
        rays.ActorUnavailableError("restarting", b"1" * 16),
        FailureKind.CAMERA_DIED,
        "the process of the camera died",
    ),
    "worker died": (
        rays.WorkerCrashedError(),
        FailureKind.WORKER_DIED,
        "its worker process died: killed, out of memory, beyond task_timeout_s, or ended by the "
        "predictor",
    ),
    "out of memory": (rays.OutOfMemoryError("96 %"), FailureKind.WORKER_DIED, "OutOfMemoryError: "),
    "node died": (rays.NodeDiedError("gone"), FailureKind.WORKER_DIED, "NodeDiedError: gone"),
    "raylet died": (rays.LocalRayletDiedError(), FailureKind.RAY_DIED, "Ray's local process died"),
    "object lost": (
        rays.ObjectLostError("ab" * 14, None, ""),
        FailureKind.BATCH_LOST,
        "the images were lost",
    ),
    "owner died": (
        rays.OwnerDiedError("ab" * 14, None, ""),
        FailureKind.BATCH_LOST,
        "the images were lost",
    ),
    "argument lost": (
        task_error(rays.ObjectLostError("ab" * 14, None, "")),
        FailureKind.BATCH_LOST,
        "the images were lost",
    ),
    "argument not delivered": (
        task_error(rays.ActorDiedError()),
        FailureKind.BATCH_LOST,
        "the images were lost",
    ),
    "error of ours": (
        task_error(CaptureError("camera", "a frame", "none", "check the cable")),
        FailureKind.ERROR,
        "camera: expected a frame, got none; check the cable",
    ),
    "foreign error": (
        task_error(ZeroDivisionError("by zero\nmore")),
        FailureKind.ERROR,
        "ZeroDivisionError: by zero",
    ),
}


@pytest.mark.parametrize(("error", "kind", "reason"), ERRORS.values(), ids=list(ERRORS))
def test_an_exception_is_one_kind_of_failure(
    error: rays.RayError, kind: FailureKind, reason: str
) -> None:
    """The kind decides the policy; the reason is one line."""
    found = failure_of(error)

    assert found.kind is kind
    assert found.reason.startswith(reason)
    assert "\n" not in found.reason


def test_a_reason_is_short() -> None:
    """A reason of any length is cut, as each field may have one."""
    assert len(failure_of(task_error(ValueError("x" * 10_000))).reason) <= 420
