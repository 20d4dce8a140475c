"""Events for tests: a test gives the keys that it is about, the others have plain defaults."""

from __future__ import annotations

from typing import Any, TypeVar

from scan.events import (
    Begun,
    Captured,
    Described,
    Detected,
    Event,
    Finished,
    Focused,
    Lost,
    RayStarted,
    Restarted,
    Resumed,
    Retried,
    Stacked,
    Swept,
    Throttled,
    WarmedUp,
)

FIELD = {"stripe": 0, "field": 0, "camera": 0}
TIMES = {"began_s": 0.0, "ended_s": 0.0}
WORK = TIMES | {"cpu_s": 0.0}
DEFAULTS: dict[type[Event], dict[str, Any]] = {
    Begun: {
        "process_began_s": 0.0, "stripes": [1], "layout": "", "fields": 1, "row_cuts": [0, 64],
        "column_cuts": [0, 64], "pixel_size_um": 1.0, "cameras": 1, "versions": {}, "identity": {},
    },
    RayStarted: {
        "up_s": 0.0, "cpus": 2, "object_store_bytes": 10**8, "batch_bytes": 10**6, "credits": 9,
    },
    Focused: {
        "first_exposure_s": 0.0, "sweeping_s": [], "sampled": 0, "kept": 0, "rejected": [],
        "surface": "plane", "residual_um": 0.1, "centres_um": [],
    },
    Described: WORK | {
        "background": 100.0, "noise": 5.0, "contrast": 500.0, "diameter_px": 10.0,
    },
    WarmedUp: WORK,
    Captured: FIELD | TIMES | {"slips_ms": [], "process": 7, "in_flight": 0},
    Stacked: FIELD | WORK | {"asked_s": 0.0, "in_flight": 0, "checksums": [1, 2]},
    Detected: FIELD | WORK | {"asked_s": 0.0, "objects": 0, "checksums": [3, 4]},
    Lost: FIELD | {"reason": ""},
    Retried: {"step": "capture"},
    Swept: FIELD | {"planes": 13, "done": 0, "samples": 2},
    Restarted: {"camera": 0, "reason": ""},
    Throttled: TIMES | {"camera": 0},
    Resumed: {"stacked": [0], "detected": [0]},
    Finished: {"status": "complete"},
}  # fmt: skip
Kind = TypeVar("Kind", bound=Event)


def sample(kind: type[Kind], **facts: Any) -> Kind:
    """Return an event of a kind with these facts and defaults for all others."""
    return kind(**(DEFAULTS.get(kind, {}) | facts))
