"""The data of the report's charts as columns of numbers, from the journal and the table."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from report.naming import FAULTS, Fault, field_name, sentence
from report.trace import spans
from results.journal import EventIndex
from results.registration import seams
from scan.events import (
    Begun,
    Captured,
    Detected,
    Event,
    Focused,
    Lost,
    Placed,
    RayStarted,
    Retried,
    RunFailed,
    Stacked,
    Warned,
)
from scan.plan import Place

Columns = dict[str, Any]

MAX_BARS = 8_000  # of the timeline; above that, bars that follow closely are joined
MAX_BORDERS = 5_000  # fields with borders; more would cover the mosaic
MAX_OBJECTS = 20_000  # with a tooltip
MAX_MARKS = 2_000  # of lost fields, of faults, of samples
MAX_HEIGHTS = 20_000  # of the focus surface
BINS = 30
FIELD = {"name": "", "state": "planned", "reason": "", "objects": 0}
BOX = ("left", "right", "top", "bottom")
SAMPLE = ("name", "x_um", "y_um", "z_um")
ARROWS = ("x_um", "y_um", "to_x", "to_y", "name", "text")
ARROW = 0.7  # length of the longest arrow, in fields
BAR = ("lane", "left", "right", "text", "kind")
MAX_GAP_S = 1e8  # of a gap between bars: they are joined before
MIN_MS = 0.01  # shown on a logarithmic scale


class Geometry:
    """The positions of fields in the mosaic, in µm, from the journal's first line."""

    def __init__(self, begun: Begun) -> None:
        self.pixel_um = pixel_um = begun.pixel_size_um
        self.counts, self._absent = begun.stripes, set(begun.absent)
        self.rows_um = np.multiply(begun.row_cuts, pixel_um) - pixel_um / 2  # borders of pixels
        self.columns_um = np.multiply(begun.column_cuts, pixel_um) - pixel_um / 2
        self.height_um = float(np.ptp(self.rows_um))
        self.width_um = float(np.ptp(self.columns_um))
        self.left_um, self.top_um = float(self.columns_um[0]), float(self.rows_um[0])

    def places(self) -> Iterator[Place]:
        """Return every field, stripe by stripe."""
        places = ((s, f) for s, count in enumerate(self.counts) for f in range(count))
        return (place for place in places if place not in self._absent)

    def core(self, place: Place) -> dict[str, float]:
        """Return the borders of a field's core."""
        (top, bottom), (left, right) = (
            (float(cuts[at]), float(cuts[at + 1]))
            for cuts, at in zip((self.rows_um, self.columns_um), place, strict=True)
        )
        return {"left": left, "right": right, "top": top, "bottom": bottom}

    def center(self, place: Place) -> tuple[float, float]:
        """Return the centre of a field's core, x and y."""
        core = self.core(place)
        return (core["left"] + core["right"]) / 2, (core["top"] + core["bottom"]) / 2


def histogram(values: ArrayLike, scale: str = "linear") -> Columns:
    """Count values in bins of equal width on a linear or log scale.

    Bins of integers are centred on integers.
    """
    found = np.asarray(values)
    found = found[np.isfinite(found)]
    if not found.size:
        return {"left": [], "right": [], "count": []}
    if scale == "log":
        found = np.maximum(found, MIN_MS)
        edges = np.geomspace(found.min(), found.max() * 1.001, BINS)
    elif np.issubdtype(found.dtype, np.integer):
        step = np.ptp(found) // BINS + 1
        edges = np.arange(found.min(), found.max() + step + 1, step) - 0.5
    else:
        pad = max(1e-6 * float(np.abs(found).max()), MIN_MS)  # so that equal values have a bin
        edges = np.linspace(found.min() - pad, found.max() + pad, BINS + 1)
    counts, _ = np.histogram(found, edges)
    return {"left": edges[:-1], "right": edges[1:], "count": counts}


def objects(rows: Mapping[str, NDArray[np.float64]], pixel_um: float) -> Columns:
    """Return objects for the mosaic; of too many, every k-th."""
    chosen = thinned(len(rows["label"]))
    columns: Columns = {
        name: np.nan_to_num(values[chosen]).astype(np.float32 if name != "label" else np.float64)
        for name, values in rows.items()
    }
    return columns | {"radius_um": columns["diameter_um"] / 2 + 2 * pixel_um}


def thinned(objects: int) -> slice:
    """Return which of the objects are shown one by one: every k-th of too many."""
    return slice(None, None, objects // MAX_OBJECTS + 1)


def fields(geometry: Geometry, events: Sequence[Event]) -> dict[str, Columns]:
    """Return the borders of stripes, fields and lost fields, and the state of each field."""
    state: dict[Place, Columns] = {}
    for event in events:
        match event:
            case Begun():  # fields that were lost are tried again
                state = {p: known for p, known in state.items() if known["state"] != "lost"}
            case Captured() | Stacked():
                state[event.place] = {"state": event.event}
            case Detected():
                state[event.place] = {"state": event.event, "objects": event.objects}
            case Lost():
                state[event.place] = {"state": event.event, "reason": event.reason}
    shown = geometry.places() if sum(geometry.counts) <= MAX_BORDERS else ()
    lost = [place for place in sorted(state) if state[place]["state"] == "lost"]
    stripes = [
        geometry.core((k, 0)) | {"right": float(geometry.columns_um[count])}
        for k, count in enumerate(geometry.counts)
    ]

    def listed(places: Iterable[Place]) -> Columns:
        rows = (
            geometry.core(p) | FIELD | state.get(p, {}) | {"name": field_name(p)} for p in places
        )
        return _table(rows, (*BOX, *FIELD))

    return {
        "fields": listed(shown),
        "lost": listed(_some(lost)),
        "stripes": _table(stripes, BOX),
    }


def _some(marks: Sequence[Any]) -> Sequence[Any]:
    """At most MAX_MARKS marks: every k-th."""
    return marks[:: len(marks) // MAX_MARKS + 1]


def _table(rows: Iterable[Columns], names: Iterable[str]) -> Columns:
    """Rows as columns."""
    found = list(rows)
    return {name: [row[name] for row in found] for name in names}


def focus(geometry: Geometry, focused: Focused | None) -> dict[str, Columns]:
    """Return the focus surface from above and from the side, kept and rejected samples."""
    rejected = focused.rejected if focused else ()
    reasons = {(r["stripe"], r["field"]): r["reason"] for r in rejected}
    samples = [
        dict(zip(SAMPLE, (field_name((s, f)), *geometry.center((s, f)), z_um), strict=True))
        | {"reason": reasons.get((s, f), "")}
        for s, f, z_um in (focused.samples if focused else ())
    ]
    heights = {(s, f): z for s, f, z in (focused.centres_um if focused else ())}
    every = sum(geometry.counts) // MAX_HEIGHTS + 1
    shown = list(heights)[::every]
    profiles = [list(range(0, count, every)) for count in geometry.counts]
    return {
        "surface": _table((geometry.core(p) | {"z_um": heights[p]} for p in shown), (*BOX, "z_um")),
        "profile": {
            "x_um": [[geometry.center((s, f))[0] for f in fs] for s, fs in enumerate(profiles)],
            "z_um": [[heights.get((s, f), np.nan) for f in fs] for s, fs in enumerate(profiles)],
        },
        "kept": _table(_some([s for s in samples if not s["reason"]]), (*SAMPLE, "reason")),
        "rejected": _table(_some([s for s in samples if s["reason"]]), (*SAMPLE, "reason")),
    }


def registration(geometry: Geometry, events: Sequence[Event]) -> dict[str, Columns]:
    """Return arrows from where fields should lie to where they do, enlarged so that they are seen,
    and one of a round length as a scale; fields without a match, which lie by the word of the
    stage; errors of seams before and after."""
    placed = {event.place: event for event in events if isinstance(event, Placed)}
    longest_px = max((float(np.hypot(*e.offset_px)) for e in placed.values()), default=0.0)
    narrowest_um = min(
        float(np.diff(cuts).min()) for cuts in (geometry.rows_um, geometry.columns_um)
    )
    enlarged_um = ARROW * narrowest_um / max(longest_px, 1e-9)  # for a pixel
    rows = []
    for place, event in placed.items():
        (x, y), (down, across) = geometry.center(place), event.offset_px
        text = f"{across:+.1f}, {down:+.1f} px, {event.agreeing} matches"
        ends = {
            "x_um": x,
            "y_um": y,
            "to_x": x + across * enlarged_um,
            "to_y": y + down * enlarged_um,
        }
        rows.append(ends | {"name": field_name(place), "text": text, "matched": event.agreeing > 0})
    sure, others = ([row for row in rows if row["matched"] == sign] for sign in (True, False))
    found = seams(EventIndex(events)).values()
    return {
        "offsets": _table(_some(sure), ARROWS),
        "by_stage": _table(_some(others), ARROWS),
        "arrow_scale": _table(_arrow_scale(geometry, longest_px, enlarged_um), ARROWS),
        "seam_before": histogram([before for before, _ in found]),
        "seam_after": histogram([after for _, after in found]),
    }


def _arrow_scale(geometry: Geometry, longest_px: float, enlarged_um: float) -> Iterator[Columns]:
    """An arrow of 1, 2 or 5 times a power of ten pixels above the mosaic, if there are arrows."""
    if not longest_px:
        return
    decade = 10.0 ** np.floor(np.log10(longest_px))
    length_px = float(max(k * decade for k in (1, 2, 5) if k * decade <= longest_px))
    above_um = geometry.height_um / len(geometry.counts) / 5
    x, y = geometry.left_um, geometry.top_um - above_um
    times = enlarged_um / geometry.pixel_um
    text = (
        f"{length_px:g} px = {length_px * geometry.pixel_um:.3g} µm (arrows {times:.3g} x longer)"
    )
    ends = {"x_um": x, "y_um": y, "to_x": x + length_px * enlarged_um, "to_y": y}
    yield ends | {"name": "scale", "text": text}


def faults(events: Iterable[Event]) -> list[Columns]:
    """Return faults: their time, their lane (empty if no camera is concerned), and a sentence."""
    return [
        {"at": event.time, "lane": _lane(event), "text": sentence(event)}
        for event in events
        if isinstance(event, FAULTS)
    ]


def _lane(fault: Fault) -> str:
    match fault:
        case Warned() | RunFailed():
            return ""
        case Retried() if fault.camera is None or fault.step not in ("capture", "focus"):
            return ""
    return f"camera {fault.camera}"


def timeline(
    events: Sequence[Event], kinds: Sequence[str], found: Sequence[Columns] | None = None
) -> dict[str, Columns]:
    """Return bars of tasks and captures and marks of faults, in seconds since program start.

    `found` are the spans of these events, if they were computed already.
    """
    begun = EventIndex(events).of(Begun)
    zero_s = begun[0].process_began_s if begun else 0.0
    bars = [
        _bar(span["tid"], span["name"], kind, span["ts"] / 1e6 - zero_s, span["dur"] / 1e6)
        for span in (spans(events) if found is None else found)
        if (kind := next((kind for kind in kinds if span["name"].startswith(kind)), None))
    ]
    marks = [_bar(f["lane"], f["text"], "fault", f["at"] - zero_s, 0) for f in faults(events)]
    return {"timeline": _table(_fewer(bars), BAR), "faults": _table(_some(marks), BAR)}


def lanes(events: Sequence[Event], found: Sequence[Columns] | None = None) -> list[str]:
    """Return the lanes of the timeline: one per camera and per CPU slot.

    `found` are the spans of these events, if they were computed already.
    """
    index = EventIndex(events)
    begun, up = index.last(Begun), index.last(RayStarted)
    known = [f"camera {k}" for k in range(begun.cameras if begun else 0)]
    known += [f"CPU slot {k}" for k in range(up.cpus if up else 0)]
    found = spans(events) if found is None else found
    return list(dict.fromkeys([*known, *(span["tid"] for span in found)]))


def _bar(lane: str, text: str, kind: str, left: float, seconds: float) -> Columns:
    times = {"left": round(left, 4), "right": round(left + seconds, 4)}
    return {"lane": lane, "text": text, "kind": kind, **times}


def _order(bar: Columns) -> tuple[str, str, float]:
    return bar["lane"], bar["kind"], bar["left"]


def _fewer(bars: list[Columns]) -> list[Columns]:
    """At most MAX_BARS bars: those that follow closely in a lane are joined."""
    bars, gap_s = sorted(bars, key=_order), 1e-3
    if len(bars) <= MAX_BARS:
        return bars
    begins, ended = np.array([bar["left"] for bar in bars]), _ended_before(bars)
    while np.count_nonzero(begins >= ended + gap_s) > MAX_BARS and 2 * gap_s < MAX_GAP_S:
        gap_s *= 2
    return _joined(bars, gap_s)


def _ended_before(bars: Sequence[Columns]) -> NDArray[np.float64]:
    """When all bars before each one of its lane and kind had ended; before any time for the first
    of them, which begins a bar however large the gap."""
    ended, latest = [], 0.0
    for last, bar in pairwise([{"lane": None, "kind": None}, *bars]):
        if (last["lane"], last["kind"]) != (bar["lane"], bar["kind"]):
            latest = -np.inf
        ended.append(latest)
        latest = max(latest, bar["right"])
    return np.array(ended)


def _joined(bars: Iterable[Columns], gap_s: float) -> list[Columns]:
    joined: list[Columns] = []
    for bar in bars:
        last = joined[-1] if joined else None
        if last and _order(last)[:2] == _order(bar)[:2] and bar["left"] < last["right"] + gap_s:
            last |= {"right": max(last["right"], bar["right"]), "text": f"many times {bar['kind']}"}
        else:
            joined.append(dict(bar))
    return joined
