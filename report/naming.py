"""How events are named for people: their subject, and which of them are faults."""

from scan.events import (
    CameraEvent,
    Event,
    FieldEvent,
    Lost,
    Restarted,
    Retried,
    RunFailed,
    Warned,
)

FAULTS = (Retried, Restarted, Lost, Warned, RunFailed)
Fault = Retried | Restarted | Lost | Warned | RunFailed


def subject_of(event: Event) -> str:
    """Return the field of an event, else its camera; empty if it has neither."""
    match event:
        case FieldEvent():
            return field_name(event.place)
        case Retried(stripe=int(stripe), field=int(field)):
            return field_name((stripe, field))
        case CameraEvent() | Retried(camera=int()):
            return f"camera {event.camera}"
    return ""


def field_name(place: tuple[int, int]) -> str:
    """Return the name of a field given as (stripe, field)."""
    return f"stripe {place[0]} field {place[1]}"


def sentence(fault: Fault) -> str:
    """Return a fault in one line: its kind, step and subject, and the reason."""
    step = fault.step if isinstance(fault, Retried) else ""
    reason = fault.message if isinstance(fault, Warned) else fault.reason
    return f"{' '.join(filter(None, (fault.event, step, subject_of(fault))))}: {reason}"
