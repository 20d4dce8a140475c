"""The events of small scans, for tests of what is made from a journal."""

from __future__ import annotations

from scan.events import (
    Begun,
    Captured,
    Described,
    Detected,
    Event,
    Finished,
    Focused,
    Lost,
    Predicted,
    RayStarted,
    Restarted,
    Resumed,
    Retried,
    Stacked,
    Swept,
    Throttled,
    WarmedUp,
)
from tests.scan.samples import sample


def events_of_a_scan() -> list[Event]:
    """A scan of one stripe: field 0 complete, field 1 captured twice after its camera died, field 2
    lost; the camera held once."""
    slips_ms = [0.1, 0.3]
    return [
        sample(Begun, time=102.0, process_began_s=100.0, stripes=[3], fields=3,
               column_cuts=[0, 64, 128, 192], versions={"ray": "2"}),
        sample(RayStarted, time=102.0, up_s=102.0, cpus=2, object_store_bytes=200_000_000),
        sample(Swept, time=103.5, done=1),
        sample(Swept, time=104.0, field=2, done=2),
        sample(Focused, time=104.0, first_exposure_s=103.0, sweeping_s=[0.8], sampled=2, kept=2),
        sample(Captured, time=105.0, began_s=104.0, ended_s=105.0, slips_ms=slips_ms),
        sample(Stacked, time=105.4, asked_s=105.092, began_s=105.1, ended_s=105.3, cpu_s=0.2),
        Retried(time=105.4, stripe=0, field=1, camera=0, step="capture", reason="camera"),
        Restarted(time=105.5, camera=0, reason="camera"),
        Throttled(time=105.6, camera=0, began_s=105.1, ended_s=105.35),
        sample(Captured, time=106.0, field=1, began_s=105.0, ended_s=106.0, slips_ms=slips_ms,
               process=8),
        sample(Stacked, time=106.4, field=1, asked_s=106.0, began_s=106.04, ended_s=106.24,
               cpu_s=0.2),
        WarmedUp(time=106.2, began_s=105.5, ended_s=106.02, cpu_s=0.5),
        sample(Described, time=106.2, began_s=105.5, ended_s=106.03, cpu_s=0.5, diameter_px=30.0),
        sample(Lost, time=106.5, field=2, reason="camera"),
        sample(Detected, time=106.6, objects=5, asked_s=106.25, began_s=106.3, ended_s=106.5,
               cpu_s=0.2),
        sample(Detected, time=106.7, field=1, objects=2, asked_s=106.25, began_s=106.4,
               ended_s=106.6, cpu_s=0.2),
        Predicted(time=107.0, objects=7, answered_s=107.0, digest="d"),
        Finished(time=108.0, status="partial", peak_batches_in_flight=3, spilled_mb=0.0,
                 driver_cpu_s=0.5),
    ]  # fmt: skip


def resumed_scan() -> list[Event]:
    """The scan above, resumed a day later: field 2 is there now."""
    later: list[Event] = [
        sample(Begun, process_began_s=1000.0, stripes=[3], fields=3, column_cuts=[0, 64, 128, 192]),
        sample(RayStarted, up_s=1002.0, cpus=2),
        Resumed(stacked=(2,), detected=(1,)),
        sample(Captured, field=2, began_s=1003.0, ended_s=1004.0, slips_ms=[0.2]),
        Predicted(objects=9, answered_s=1005.0, digest="e"),
        Finished(status="complete"),
    ]
    return events_of_a_scan() + [event.model_copy(update={"time": 1006.0}) for event in later]
