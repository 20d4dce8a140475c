"""The summary of a run, from its journal alone: numbers for programs, a few lines for people.

Times are wall-clock seconds; keys and their meaning are in the documentation of outputs.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.cpu_slots import cpu_tasks, dispatch_waits_ms
from results.files import write_atomically
from results.journal import EventIndex, latest
from results.registration import format_registration, registration
from scan.errors import StorageError
from scan.events import (
    FAILED,
    Begun,
    Captured,
    Damaged,
    Described,
    Detected,
    Event,
    FieldEvent,
    Finished,
    Focused,
    Lost,
    Matched,
    Placed,
    Predicted,
    RayStarted,
    Restarted,
    Resumed,
    Retried,
    RunFailed,
    Stacked,
    Stressed,
    Throttled,
)
from scan.findings import text_of

SUMMARY = "summary.json"
LATE_S = 0.3  # of the last task, beyond one field's work: CPUs did not keep up
BUSY = 0.5  # of the CPUs meanwhile: else the work waited for something else
MIN_BOUND_S = 1e-3  # no scan is faster
MAX_LISTED_SAMPLES = 6  # a large scan has hundreds; the file has all of them
FLICKER = 0.03  # of the light: from here on, people are told
FOCUS_SAMPLES = {
    "surface": "samples kept",
    "points": "given points kept",
    "hardware": "samples of the autofocus device kept",
}
Summary = dict[str, Any]


def summarise(events: Sequence[Event]) -> Summary:
    """Return the summary of a run folder from all its events.

    A run that was cut short is summarised as far as it came. After a resume, fields and faults
    count over all runs; times are those of the last run.
    """
    ever, last = EventIndex(events), EventIndex(latest(events))
    begun, finished, failed = last.last(Begun), last.last(Finished), last.last(RunFailed)
    predicted = last.last(Predicted)
    return {
        "status": finished.status if finished else FAILED,
        "reason": failed.reason if failed else None,
        "fields": _fields(ever, last),
        "objects": predicted.objects if predicted else None,
        "prediction": dict(predicted.facts) if predicted else {},
        "digest": predicted.digest if predicted else None,
        "caveats": list(begun.caveats) if begun else [],
        "channels": [each.model_dump() for each in begun.channels] if begun else [],
        "specimen": _specimen(ever.last(Described)),
        "z_positions": _z_positions(ever.last(Focused)),
        "correction": _correction(ever.last(Focused)),
        "registration": registration(ever),
        "flicker": _flicker(ever.of(Stacked)),
        "retries": _retries(ever),
        "timing": _timing(last),
        "dispatch_ms": _dispatch(last),
        "exposure_slip_ms": _slip(last),
        "memory": _memory(last),
        "holds": _holds(ever.of(Throttled)),
        "stress": _named(last.last(Stressed), "burners", "seconds") or None,
        "driver_cpu_s": finished.driver_cpu_s if finished else None,
        "damaged_lines": len(ever.of(Damaged)),
        "versions": dict(begun.versions) if begun else {},
    }


def end_s(events: Sequence[Event]) -> float:
    """Return the time of the last event that has one (a damaged line has none), else 0."""
    return next((event.time for event in reversed(events) if event.time), 0.0)


def _named(event: Event | None, *names: str) -> dict[str, Any]:
    """Some keys of an event; an empty dictionary if there is none."""
    return {name: getattr(event, name) for name in names} if event else {}


def _z_positions(focused: Focused | None) -> dict[str, Any]:
    found = _named(focused, "mode", "sampled", "kept", "rejected", "surface", "residual_um")
    if focused and focused.mode == "none":
        found["height_um"] = focused.centres_um[0][2]
    return found | ({"rejected": list(found["rejected"])} if "rejected" in found else {})


def _correction(focused: Focused | None) -> dict[str, Any]:
    """How frames were corrected; an empty dictionary if they were not."""
    if not focused or not (record := focused.correction):
        return {}
    found: dict[str, Any] = {
        "flat": record.flat or None,
        "dark": "dark_field.tif" in dict(record.files),
    }
    found |= {"specks": record.specks, "defects": record.defects}
    if record.flat == "estimate":
        found |= {"degree": record.degree, "places": record.places, "scatter": record.scatter}
    return found


def _specimen(described: Described | None) -> dict[str, Any]:
    """What detection goes by; a run of an earlier version says less."""
    known = described.statistics if described else {}
    found = {name: known[name] for name in ("polarity", "diameter_px", "findings") if name in known}
    return found | ({"findings": list(found["findings"])} if "findings" in found else {})


def _fields(ever: EventIndex, last: EventIndex) -> dict[str, Any]:
    begun, resumed = last.last(Begun), last.last(Resumed)
    steps: dict[str, type[FieldEvent]] = {
        "captured": Captured, "stacked": Stacked, "detected": Detected,
    }  # fmt: skip
    lost = sorted(last.of(Lost), key=lambda event: event.place)
    return {
        "planned": begun.fields if begun else 0,
        **{step: len({event.place for event in ever.of(kind)}) for step, kind in steps.items()},
        "lost": [_named(event, "stripe", "field", "reason") for event in lost],
        "resumed": sum(resumed.stacked) if resumed else 0,
    }


def _flicker(stacked: Sequence[Stacked]) -> dict[str, float]:
    """Count fields whose planes differed in light by more than 3 %; the greatest difference."""
    last = {event.place: event.flicker for event in stacked}
    above = sum(flicker > FLICKER for flicker in last.values())
    return {"fields": above, "max": round(max(last.values(), default=0.0), 4)}


def _retries(ever: EventIndex) -> dict[str, int]:
    steps = [event.step for event in ever.of(Retried)]
    counts = {step: steps.count(step) for step in ("focus", "capture", "stack", "detect")}
    counts |= {step: steps.count(step) for step in ("match", "place") if step in steps}
    return {**counts, "actor_restarts": len(ever.of(Restarted))}


def _timing(run: EventIndex) -> dict[str, float]:
    begun, up, captured = run.last(Begun), run.last(RayStarted), run.of(Captured)
    focused = run.last(Focused)
    exposed_s = [focused.first_exposure_s] if focused else []
    exposed_s += [event.began_s for event in captured]
    timing: dict[str, float] = {}
    if begun and up and exposed_s:
        timing["startup"] = min(exposed_s) - begun.process_began_s
        timing["first_exposure"] = min(exposed_s) - up.up_s
    if captured:
        last_exposure_s = max(event.ended_s for event in captured)
        timing["capture"] = last_exposure_s - min(exposed_s)
        timing |= _answer(run, last_exposure_s)
    if begun:  # to the end, or as far as the journal of a killed run goes
        timing["wall"] = end_s(run.events) - begun.process_began_s
    return {name: round(max(0.0, value), 4) for name, value in timing.items()}


def _answer(run: EventIndex, last_exposure_s: float) -> dict[str, float]:
    predicted, up = run.last(Predicted), run.last(RayStarted)
    if not (predicted and up):
        return {}
    bound_s = max(lower_bound_s(run, up.cpus), MIN_BOUND_S)
    return {
        "answer": predicted.answered_s - last_exposure_s,
        "lower_bound": bound_s,
        "ratio": (predicted.answered_s - up.up_s) / bound_s,
        "missing_cpus": missing_cpus(run, last_exposure_s, up.cpus),
    }


def missing_cpus(run: EventIndex, last_exposure_s: float, cpus: int) -> int:
    """Return how many more CPUs would have kept up with the cameras, about.

    What was stacked and detected after the last exposure, beyond one field's, would have been done
    by them meanwhile. Of a recording 0, as it is read as fast as it is stacked.
    """
    begun, captured = run.last(Begun), run.of(Captured)
    work: list[Stacked | Detected] = [*run.of(Stacked), *run.of(Detected)]
    if not work or (begun and begun.input_sizes is not None):
        return 0
    after_s = sum(max(0.0, e.ended_s - max(e.began_s, last_exposure_s)) for e in work)
    one_field_s = sum(
        float(np.median([e.ended_s - e.began_s for e in events] or [0.0]))
        for events in (run.of(Stacked), run.of(Detected))
    )
    late_s = max(e.ended_s for e in work) - last_exposure_s - one_field_s
    captured_s = last_exposure_s - min(event.began_s for event in captured)
    waited_s = after_s - one_field_s
    if late_s <= LATE_S or not captured_s or waited_s < BUSY * cpus * late_s:
        return 0
    return math.ceil(waited_s / captured_s)


def lower_bound_s(run: EventIndex, cpus: int) -> float:
    """Return the least workflow time that the measured captures and CPU seconds allow.

    Cameras: the slowest camera's sweeps and captures back to back, then the stacking and detection
    of one field. CPUs: all tasks, evenly spread. Whichever is longer.
    """
    focused = run.last(Focused)
    cameras = Counter(dict(enumerate(focused.sweeping_s if focused else ())))
    for event in run.of(Captured):
        cameras[event.camera] += event.ended_s - event.began_s  # type: ignore[assignment]
    stacking_s = [event.cpu_s for event in run.of(Stacked)]
    registering_s = [event.cpu_s for event in run.of(Matched)]
    registering_s += [event.cpu_s for event in run.of(Placed)]
    detecting_s = [event.cpu_s for event in run.of(Detected)]
    last_field_s = float(np.median(stacking_s or [0]) + np.median(detecting_s or [0]))
    by_cameras_s = max(cameras.values()) + last_field_s
    by_cpus_s = (sum(stacking_s) + sum(registering_s) + sum(detecting_s)) / cpus
    return float(max(by_cameras_s, by_cpus_s))


def _dispatch(run: EventIndex) -> dict[str, dict[str, float]]:
    """Time from a batch being complete to its stacking; idle where a CPU was free at that moment.

    `slot_free` counts all of them, from when both the batch was complete and a CPU slot was free.
    """
    up, stacked = run.last(RayStarted), run.of(Stacked)
    cpus = up.cpus if up else 0
    asked_s = np.array([event.asked_s for event in stacked])
    waits_ms = 1e3 * (np.array([event.began_s for event in stacked]) - asked_s)
    free = _demand(run, asked_s) < cpus
    waits = {
        "slot_free": dispatch_waits_ms(run.events, cpus),
        "idle": waits_ms[free],
        "waited_for_cpu": waits_ms[~free],
    }
    return {name: _spread(values, (50, 95, 99)) for name, values in waits.items()}


def _demand(run: EventIndex, moments_s: NDArray[np.float64]) -> NDArray[np.intp]:
    """Count the tasks that ran, or waited for a CPU, just before each moment."""
    work = cpu_tasks(run.events)
    asked_s = np.sort([getattr(event, "asked_s", event.began_s) for event in work])
    ended_s = np.sort([event.ended_s for event in work])
    return np.searchsorted(asked_s, moments_s) - np.searchsorted(ended_s, moments_s)


def _slip(run: EventIndex) -> dict[str, float]:
    spread = _spread(slips_ms(run.events), (50, 99))
    return {name: value for name, value in spread.items() if name != "n"}


def slips_ms(events: Iterable[Event]) -> list[float]:
    """Return how much later than its stage allowed each exposure of a run began."""
    captured = (event for event in events if isinstance(event, Captured))
    return [slip for event in captured for slip in event.slips_ms]


def _spread(
    values: Sequence[float] | NDArray[np.float64], percentiles: Sequence[int]
) -> dict[str, float]:
    if not len(values):
        return {"n": 0}
    spread = {f"p{p}": round(float(np.percentile(values, p)), 3) for p in percentiles}
    return {"n": len(values), **spread, "max": round(float(max(values)), 3)}


def _holds(holds: Sequence[Throttled]) -> dict[str, float]:
    """Count how often, and for how many seconds, cameras paused because no credit was left."""
    seconds = sum(event.ended_s - event.began_s for event in holds)
    return {"n": len(holds), "seconds": round(seconds, 3)}


def _memory(run: EventIndex) -> dict[str, Any]:
    up, finished = run.last(RayStarted), run.last(Finished)
    in_flight = max((event.in_flight for event in run.of(Captured)), default=0)
    peak = finished.peak_batches_in_flight if finished else in_flight
    return {
        "object_store_mb": round(up.object_store_bytes / 1e6, 1) if up else 0.0,
        "peak_live_mb": round(peak * up.batch_bytes / 1e6, 1) if up else 0.0,
        "spilled_mb": finished.spilled_mb if finished else None,
        "peak_batches_in_flight": peak,
        "credits": up.credits if up else None,
    }


def write_summary(folder: Path, summary: Summary) -> None:
    """Write the summary into a run folder."""
    write_atomically(folder / SUMMARY, json.dumps(summary, indent=2) + "\n")


def save_summary(folder: Path, events: Sequence[Event]) -> Summary:
    """Write the summary of a run folder, made from its journal, and return it."""
    summary = summarise(events)
    try:
        write_summary(folder, summary)
    except StorageError:
        if summary["status"] != FAILED:  # else the disk is why it failed
            raise
    return summary


def format_summary(summary: Summary) -> list[str]:
    """Return the summary for people, a line each; lost fields come last, by name."""
    return [
        _result(summary),
        *_prediction(summary["prediction"]),
        *_channels(summary["channels"]),
        *_focus(summary["z_positions"]),
        *_times(summary),
        *_stress(summary),
        *_faults(summary),
        *format_registration(summary["registration"]),
        *_dark(summary["specimen"]),
        *_corrected(summary["correction"]),
        *(f"check the counts: {doubt}" for doubt in doubts(summary)),
        *_uneven(summary),
        *(f"note: {caveat}" for caveat in summary["caveats"]),
        *(
            f"lost: stripe {lost['stripe']} field {lost['field']}: {lost['reason']}"
            for lost in summary["fields"]["lost"]
        ),
    ]


def _result(summary: Summary) -> str:
    fields, wall_s = summary["fields"], summary["timing"].get("wall", 0)
    objects = "" if summary["objects"] is None else f", {summary['objects']} objects"
    more = fields["stacked"] - fields["detected"]
    stacked = f" and the image of {more} more" if more > 0 else ""
    counts = f"{fields['detected']} of {fields['planned']} fields"
    return f"{summary['status']}: {counts}{stacked}{objects} in {wall_s:.1f} s"


def _prediction(facts: Mapping[str, Any]) -> list[str]:
    """What the scan predictor found, in a line."""
    shown = (f"{n} {v:g}" if isinstance(v, float) else f"{n} {v}" for n, v in facts.items())
    return [f"prediction: {', '.join(shown)}"] if facts else []


def _channels(channels: Sequence[Mapping[str, Any]]) -> list[str]:
    """The channels of the mosaic in their order; empty if there is one."""
    names = (each["name"] + " (reference)" * each["reference"] for each in channels)
    return [f"channels: {', '.join(names)}"] if len(channels) > 1 else []


def _focus(focus: Mapping[str, Any]) -> list[str]:
    """How well the focus surface fits, and the rejected samples; empty for recorded planes."""
    mode = focus.get("mode", "surface")
    if mode == "none":
        return [f"focus: none, all fields at {focus['height_um']:g} um"]
    if not focus or focus["surface"] == "none":
        return []
    kept = f"{focus['kept']} of {focus['sampled']} {FOCUS_SAMPLES[mode]}"
    residual = f"residual {focus['residual_um']:.2f} um"
    rejected = [
        f"    without stripe {sample['stripe']} field {sample['field']}: {sample['reason']}"
        for sample in focus["rejected"][:MAX_LISTED_SAMPLES]
    ]
    more = len(focus["rejected"]) - len(rejected)
    rest = [f"    and {more} more, in {SUMMARY}"] if more else []
    return [f"focus: {kept}, {focus['surface']}, {residual}", *rejected, *rest]


def _dark(specimen: Mapping[str, Any]) -> list[str]:
    """What was counted, where it is not what users expect."""
    return ["objects are darker than the ground"] if specimen.get("polarity") == "dark" else []


def _corrected(correction: Mapping[str, Any]) -> list[str]:
    """By what frames were divided, and whether the dark was subtracted first."""
    dirt = _dirt(correction)
    if not (correction.get("flat") or correction.get("dark")):
        return dirt
    dark = "dark field" if correction["dark"] else "no dark field"
    if correction["flat"] != "estimate":
        flat = "flat field, " if correction["flat"] else ""
        return [f"frames corrected: {flat}{dark}", *dirt]
    scatter = f"{correction['places']} places that agree within {100 * correction['scatter']:.1f} %"
    return [f"frames corrected: flat field estimated from {scatter}, {dark}", *dirt]


def _dirt(correction: Mapping[str, Any]) -> list[str]:
    """What the camera shows at the same pixels of every field, and what was done about it."""
    share = f"{100 * correction.get('defects', 0):.2g} % of the pixels"
    if correction.get("specks"):
        specks = f"{correction['specks']} specks or hot pixels in every field ({share})"
        return [f"the camera shows {specks}; they were filled in, clean the sensor"]
    if correction.get("defects"):
        return [f"{share} show the same in every field; check that the stage moves"]
    return []


def doubts(summary: Summary) -> list[str]:
    """Return what makes the counts of a run doubtful, as texts."""
    return [text_of(code) for code in summary["specimen"].get("findings", ())]


def _times(summary: Summary) -> list[str]:
    timing, slip = summary["timing"], summary["exposure_slip_ms"]
    ready = summary["dispatch_ms"]["slot_free"]
    lines = []
    if "answer" in timing:
        ratio = f"{timing['ratio']:.2f} x the least time possible"
        lines.append(f"answer {timing['answer']:.2f} s after the last exposure; {ratio}")
    if more := int(timing.get("missing_cpus", 0)):
        cpus = "1 more would" if more == 1 else f"{more} more would"
        lines.append(f"CPUs were the limit: about {cpus} have kept up with the cameras")
    if ready.get("n"):
        spread = f"(median, at most {ready['max']:.0f} ms)"
        lines.append(
            f"stacking began {ready['p50']:.0f} ms after batch and CPU were there {spread}"
        )
    if slip:
        spread = f"(median, at most {slip['max']:.1f} ms)"
        lines.append(f"exposures began {slip['p50']:.2f} ms late {spread}")
    return lines


def _stress(summary: Summary) -> list[str]:
    """Retries and crashes under load, with --stress."""
    stress, retries = summary["stress"], summary["retries"]
    if not stress:
        return []
    load = f"{stress['burners']} foreign processes, {stress['seconds']:g} s more for each stack"
    restarts = retries["actor_restarts"]
    crashes = restarts + retries["stack"] + retries["detect"]
    total = sum(retries.values()) - restarts
    return [f"under stress ({load}): {total} retries, {crashes} crashes"]


def _faults(summary: Summary) -> list[str]:
    """Retries, holds, resumed fields and damaged lines in one line; empty if there were none."""
    holds, resumed = summary["holds"], summary["fields"]["resumed"]
    names = {"actor_restarts": "camera restarted"}
    parts = [
        f"{count} x {names.get(step, f'{step} again')}"
        for step, count in summary["retries"].items()
        if count
    ]
    parts += [f"cameras held for {holds['seconds']:.1f} s"] if holds["n"] else []
    parts += [f"{resumed} fields from before"] if resumed else []
    damaged = summary["damaged_lines"]
    parts += [f"{damaged} x damaged line in the journal"] if damaged else []
    return [", ".join(parts)] if parts else []


def _uneven(summary: Summary) -> list[str]:
    """One line if the light flickered between planes; empty if it was steady."""
    flicker = summary["flicker"]
    if not flicker["fields"]:
        return []
    counts = f"{flicker['fields']} of {summary['fields']['stacked']} fields"
    most = f"{100 * flicker['max']:.0f} % at most"
    return [f"light flickers between the planes of {counts} ({most}); evened out, check the lamp"]
