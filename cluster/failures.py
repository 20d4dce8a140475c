"""Ray's exceptions, sorted by what the driver does about them: one policy for each kind."""

from dataclasses import dataclass
from enum import Enum, auto

from ray.exceptions import (
    LocalRayletDiedError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)

from scan import text
from scan.errors import ScanError, StorageError
from scan.text import MAX_REASON_CHARS, message_of


class FailureKind(Enum):
    """What failed."""

    CANCELLED = auto()  # a capture that waited in its camera's queue was withdrawn
    CAMERA_DIED = auto()  # the process of a capture actor
    BATCH_LOST = auto()  # the images are gone with the node that held them
    WORKER_DIED = auto()  # the process of a task: killed, out of memory, hung, its node lost
    RAY_DIED = auto()  # Ray on this computer
    ERROR = auto()  # the function raised an error


@dataclass(frozen=True)
class Failure:
    """Why a remote call has no result: its kind, the reason in one line, and the error itself."""

    kind: FailureKind
    reason: str
    error: BaseException

    @property
    def ends_scan(self) -> bool:
        """Whether a function failed by more than its field: a full disk, an unforeseen error."""
        foreseen = isinstance(self.error, ScanError) and not isinstance(self.error, StorageError)
        return self.kind is FailureKind.ERROR and not foreseen


def failure_of(error: RayError) -> Failure:
    """The failure that an exception of Ray stands for."""
    cause = cause_of(error)
    if isinstance(error, RayTaskError) and isinstance(cause, RayActorError):
        return _batch_lost(cause)  # an argument that its camera did not deliver
    match cause:
        case TaskCancelledError():
            return Failure(FailureKind.CANCELLED, "cancelled", cause)
        case LocalRayletDiedError():
            return Failure(FailureKind.RAY_DIED, "Ray's local process died", cause)
        case RayActorError():
            return Failure(FailureKind.CAMERA_DIED, "the process of the camera died", cause)
        case ObjectLostError():
            return _batch_lost(cause)
        case WorkerCrashedError():
            reason = (
                "its worker process died: killed, out of memory, beyond task_timeout_s, or ended "
                "by the predictor"
            )
            return Failure(FailureKind.WORKER_DIED, reason, cause)
        case RayError():
            return Failure(FailureKind.WORKER_DIED, one_line(cause), cause)
    return Failure(FailureKind.ERROR, one_line(cause), cause)


def _batch_lost(cause: BaseException) -> Failure:
    reason = "the images were lost with the node that held them"
    return Failure(FailureKind.BATCH_LOST, reason, cause)


def cause_of(error: BaseException) -> BaseException:
    """What a remote function raised, or the failure of Ray itself."""
    return error.cause if isinstance(error, RayTaskError) else error


def last_line(error: BaseException) -> str:
    """The last line of an error, where Ray puts the cause of an actor's death."""
    last = (message_of(error).strip().splitlines() or [type(error).__name__])[-1]
    return text.one_line(last, MAX_REASON_CHARS)


def one_line(error: BaseException) -> str:
    """The first line of an error; with its type unless it is one of ours."""
    first = (message_of(error).strip().splitlines() or [""])[0]
    named = first if isinstance(error, ScanError) else f"{type(error).__name__}: {first}"
    return text.one_line(named, MAX_REASON_CHARS)
