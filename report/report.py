"""The report of a run: one self-contained page, made from the run folder alone.

The live view is the same page; it replaces the data of the charts' named sources.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from numpy.typing import NDArray

from config import SETTINGS_FILE
from report import REPORT, classes, columns
from report.charts import KINDS, Charts, as_json
from report.columns import Columns, Geometry
from report.current import mark_of
from report.preview import Preview
from report.trace import TraceEvent, spans
from results.cpu_slots import dispatch_waits_ms
from results.files import readable, require_regular_files, write_atomically
from results.journal import JOURNAL, EventIndex, Kind, Tail, latest
from results.storage import location_of, storage_at
from results.store import STACKED
from results.summary import (
    Summary,
    end_s,
    format_summary,
    slips_ms,
    summarise,
)
from results.table import read_part, read_table, read_texts
from scan.errors import InputError
from scan.events import (
    Begun,
    Detected,
    Event,
    Finished,
    Focused,
    Placed,
    Predicted,
    RayStarted,
    Stacked,
)
from scan.plan import Place

MAX_NAMED = 100  # lost fields, faults
NUMBERS = {  # keys of the summary: name on the page and format
    "fields.detected": ("fields detected", ",d"),
    "fields.planned": ("fields planned", ",d"),
    "objects": ("objects", ",d"),
    "timing.wall": ("s in total", ".1f"),
    "timing.startup": ("s to the first exposure", ".2f"),
    "timing.answer": ("s from last exposure to answer", ".2f"),
    "timing.ratio": ("x the least time possible", ".2f"),
    "dispatch_ms.slot_free.p50": ("ms to stacking, median", ".1f"),
    "dispatch_ms.slot_free.max": ("ms to stacking, longest", ".1f"),
    "exposure_slip_ms.p50": ("ms of exposure slip, median", ".2f"),
    "exposure_slip_ms.max": ("ms of exposure slip, longest", ".2f"),
    "z_positions.kept": ("focus samples kept", ",d"),
    "z_positions.sampled": ("focus samples taken", ",d"),
    "z_positions.residual_um": ("µm off the focus surface", ".2f"),
    "memory.peak_batches_in_flight": ("batches in flight, maximum", ",d"),
    "memory.credits": ("credits (batches)", ",d"),
    "memory.spilled_mb": ("MB spilled to disk", ".1f"),
    "retries.capture": ("captures repeated", ",d"),
    "retries.actor_restarts": ("cameras restarted", ",d"),
}
HISTOGRAMS = {  # labels of their axes, scale if not linear
    "diameter_um": ("diameter, µm", "objects"),
    "intensity": ("mean intensity", "objects"),
    "z_um": ("height, µm", "objects"),
    "per_field": ("objects in a field", "fields"),
    "dispatch": ("ms from batch and free CPU slot to stacking", "batches", "log"),
    "slip": ("ms that an exposure began late", "exposures", "log"),
}
SEAMS = {
    "seam_before": ("px that two fields lie wrong", "seams"),
    "seam_after": ("px that two fields lie wrong", "seams"),
}
MEASURED = {
    "label": "label",
    "x_um": "x_um",
    "y_um": "y_um",
    "z_um": "z_um",
    "diameter_um": "equivalent_diameter_area",
    "intensity": "intensity_mean",
    "score": "score",
}
LAYERS = {"image": "image/jpeg", "depth": "image/webp", "outlines": "image/webp"}


def type_of(layer: str) -> str:
    """Return the type of a layer's file; of one channel it is that of the image."""
    return LAYERS.get(layer, LAYERS["image"])


class Report:
    """The report of a run folder as far as its run has come; `update` reads new events.

    Parameters
    ----------
    folder : Path
        The run folder.
    running : bool
        Whether the run is still active, so that a missing end is not a failure.
    events : sequence of Event, optional
        The journal of a run that has ended, if it was read already.
    """

    def __init__(
        self, folder: Path, running: bool = False, events: Sequence[Event] | None = None
    ) -> None:
        self.folder, self.running = folder.resolve(), running
        self.location = location_of(self.folder)
        self._storage = storage_at(self.location)
        self._tail = Tail(folder / JOURNAL) if events is None else None
        self._events: list[Event] = list(events or ())
        self._of_kind = {type(event): event for event in self._events}  # the last of each
        self._summary: Summary | None = None  # of the events so far, as are the spans
        self._spans: list[TraceEvent] | None = None
        self._parts: dict[Place, dict[str, NDArray[np.float64]]] = {}
        self._preview: Preview | None = None
        self._drawn = 0
        self.update()

    def update(self) -> None:
        """Read the events that were appended since the last call."""
        new = self._tail.read() if self._tail else []
        if new:
            self._events += new
            self._of_kind |= {type(event): event for event in new}
            self._summary = self._spans = None

    @property
    def state_s(self) -> float:
        """The time of the last event, which identifies a state of the run."""
        return end_s(self._events)

    def _last(self, kind: type[Kind]) -> Kind | None:
        """The last event of a kind, or None."""
        return self._of_kind.get(kind)  # type: ignore[return-value]

    def _timed(self) -> list[TraceEvent]:
        """What took time in the last run, as far as it has come."""
        if self._spans is None:
            self._spans = spans(latest(self._events))
        return self._spans

    @property
    def geometry(self) -> Geometry | None:
        """The positions of fields; None before the first event."""
        begun = self._last(Begun)
        return Geometry(begun) if begun else None

    @property
    def _cpus(self) -> int:
        up = self._last(RayStarted)
        return up.cpus if up else 0

    # ------------------------------------------------------------------------------ in words

    def summary(self) -> Summary:
        """Return the summary as far as the run has come."""
        if self._summary is None:
            self._summary = summarise(self._events)
            if self.running and not EventIndex(latest(self._events)).of(Finished):
                self._summary["status"] = "running"
        return self._summary

    def texts(self) -> dict[str, Any]:
        """Return the texts and numbers of the page."""
        summary = self.summary()
        faults = [fault["text"] for fault in columns.faults(self._events)]
        return {
            "status": summary["status"],
            "verdict": _verdict(summary),
            "details": [
                line for line in format_summary(summary)[1:] if not line.startswith("lost: ")
            ],
            "faults": faults[-MAX_NAMED:],
            "more_faults": max(0, len(faults) - MAX_NAMED),
            "numbers": [*_count(summary["prediction"]), *_numbers(summary)],
            "channels": summary["channels"] if len(summary["channels"]) > 1 else [],
        }

    def _fixed(self) -> dict[str, Any]:
        """The last section of the page, which no event changes."""
        folder = quote(self.location)
        settings, begun = self.folder / SETTINGS_FILE, self._last(Begun)
        file = self._storage.path_to_quote(SETTINGS_FILE)
        return {
            "folder": self.location,
            "settings": settings.read_text() if settings.exists() else "",
            "versions": begun.versions if begun else {},
            "repeat": f"python main.py --config {quote(file)}",
            "resume": f"python main.py --resume {folder}",
        }

    # ----------------------------------------------------------------------------- in charts

    def sources(self) -> dict[str, Columns]:
        """Return the data of every chart, by the name of their source."""
        begun, last = self._last(Begun), latest(self._events)
        if not begun:
            return {}
        geometry, rows = Geometry(begun), self._rows(begun)
        counts = {e.place: e.objects for e in self._events if isinstance(e, Detected)}
        values: Mapping[str, Any] = {
            **rows,
            "per_field": list(counts.values()),
            "dispatch": dispatch_waits_ms(last, self._cpus),
            "slip": slips_ms(last),
        }
        return {
            **{name: columns.histogram(values[name], *HISTOGRAMS[name][2:]) for name in HISTOGRAMS},
            "objects": columns.objects(rows, begun.pixel_size_um),
            "classes": classes.marks(rows, self._classes()),
            **columns.fields(geometry, self._events),
            **columns.focus(geometry, self._last(Focused)),
            **columns.registration(geometry, self._events),
            **columns.timeline(last, [*KINDS], self._timed()),
            "pictures": self._pictures(geometry),
        }

    def _rows(self, begun: Begun) -> dict[str, NDArray[np.float64]]:
        """The objects detected so far, from the table or from its parts."""
        measured = dict(MEASURED)
        if begun.reference is not None:
            measured["intensity"] += f"-{begun.reference}"
        names = list(measured.values())
        if EventIndex(latest(self._events)).of(Predicted):
            rows = read_table(self.location, names)
        else:
            rows = self._rows_of_parts(names)
        return {name: rows[column] for name, column in measured.items()} | {
            "diameter_um": rows[MEASURED["diameter_um"]] * begun.pixel_size_um
        }

    def _classes(self) -> list[str]:
        """The class of each object, if a scan predictor gave any."""
        predicted = EventIndex(latest(self._events)).of(Predicted)
        return read_texts(self.location, classes.CLASS) if predicted else []

    def _rows_of_parts(self, names: list[str]) -> dict[str, NDArray[np.float64]]:
        for event in self._events:
            if isinstance(event, Detected) and event.place not in self._parts:
                self._parts[event.place] = read_part(self.location, *event.place, names)
        return {
            name: np.concatenate([np.empty(0), *(part[name] for part in self._parts.values())])
            for name in names
        }

    def preview(self) -> Preview | None:
        """Return images of the mosaics with all fields so far; None before there are mosaics."""
        begun = self._last(Begun)
        if not (begun and self._last(Focused) and self._has_mosaics()):
            return None
        self._preview = self._preview or Preview(self.location, begun.row_cuts, begun.column_cuts)
        new = self._events[self._drawn :]
        self._preview.add_stacks([event.place for event in new if isinstance(event, Stacked)])
        self._preview.add_labels([event.place for event in new if isinstance(event, Detected)])
        self._drawn = len(self._events)
        return self._preview

    def _has_mosaics(self) -> bool:
        return self._storage.read_bytes(f"{STACKED}/zarr.json") is not None

    def _pictures(self, geometry: Geometry) -> Columns:
        """The URLs of the mosaic's layers and their position in µm."""
        channels = len(self.summary()["channels"])
        layers = (*LAYERS, *(f"channel{k}" for k in range(channels) if channels > 1))
        if not self.preview():
            return {name: [] for name in (*layers, "x", "y", "w", "h")}
        return {
            **{layer: [self.show(layer)] for layer in layers},
            **{"x": [geometry.left_um], "y": [geometry.top_um]},
            **{"w": [geometry.width_um], "h": [geometry.height_um]},
        }

    def show(self, layer: str) -> str:
        """Return a layer of the mosaic as a data URL."""
        data = base64.b64encode(self.layer(layer)).decode()
        return f"data:{type_of(layer)};base64,{data}"

    def layer(self, name: str) -> bytes:
        """Return a layer of the mosaic as an image file; empty before there are mosaics."""
        preview = self.preview()
        return preview.layer(name) if preview else b""

    def depth_ends_um(self) -> tuple[float, float]:
        """Return the heights at the ends of the depth map's colour scale."""
        preview = self.preview()
        return preview.depth_ends_um() if preview else (0.0, 1.0)

    # ---------------------------------------------------------------------------- as a page

    def shape(self) -> str:
        """Return an identifier of charts and lanes; if it changes, the page must be reloaded."""
        begun = self._last(Begun)
        row_cuts = begun.row_cuts if begun else None
        predicted = self._last(Predicted)
        classified = bool(predicted and predicted.facts)
        return str(hash((str(row_cuts), self._cpus, bool(self._last(Focused)), classified)))

    def page(self, mark: str = "") -> str:
        """Return the page as HTML; `mark` is that of the run it is made of."""
        sources = self.sources()
        charts = self._charts(sources) if sources else {}
        return _template().render(
            **self.texts(),
            **self._fixed(),
            live=self.running,
            mark=mark,
            shape=self.shape(),
            bokeh=Resources(mode="inline", components=["bokeh"]).render_js(),
            charts=as_json(charts),
            names=list(charts),
            kinds=KINDS,
            classes=classes.keys(self._classes()),
        )

    def _charts(self, sources: Mapping[str, Columns]) -> dict[str, Any]:
        """The figures that have data, by name."""
        charts, geometry = Charts(sources), self.geometry
        assert geometry
        found = {
            name: charts.histogram(name, *labels)
            for name, labels in HISTOGRAMS.items()
            if self.running or len(sources[name]["count"])
        } | {"timeline": charts.timeline(columns.lanes(latest(self._events), self._timed()))}
        focused = self._last(Focused)
        if focused:
            found |= {"mosaic": charts.mosaic(geometry, self.depth_ends_um())}
        if focused and focused.surface != "none":
            found |= {"surface": charts.surface(), "profile": charts.profile()}
        if self._last(Placed):
            found |= {"registration": charts.registration()}
            found |= {name: charts.histogram(name, *SEAMS[name]) for name in SEAMS}
        return found

    def fragments(self) -> dict[str, str]:
        """Return the texts of the page that change, by their element."""
        template = _template()
        context = template.new_context(self.texts())
        return {name: "".join(template.blocks[name](context)) for name in ("verdict", "numbers")}


def _verdict(summary: Summary) -> str:
    """The result in one line: status, fields, objects, time, lost fields by name."""
    if not summary["fields"]["planned"]:
        return "starting Ray" if summary["status"] == "running" else "no run began here"
    names = [f"stripe {lost['stripe']} field {lost['field']}" for lost in summary["fields"]["lost"]]
    more = [f"{len(names) - MAX_NAMED} more"] if len(names) > MAX_NAMED else []
    lost = ", ".join(names[:MAX_NAMED] + more)
    return format_summary(summary)[0] + (f"; lost: {lost}" if lost else "")


def _numbers(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """The numbers that the summary has: key, name, and formatted value."""
    unfocused = summary["z_positions"].get("surface") == "none"  # planes were recorded
    for key, (name, form) in NUMBERS.items():
        if unfocused and key.startswith("z_positions"):
            continue
        value: Any = summary
        for part in key.split("."):
            value = (value or {}).get(part)
        if value is not None:
            yield key, name, format(value, form)


def _count(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The count of a scan predictor with its interval, as a number of the page."""
    ends = [facts.get(name) for name in ("count", "count_low", "count_high")]
    if all(isinstance(end, int | float) for end in ends):
        count, low, high = (format(end, ",.6g") for end in ends)
        yield "prediction.count", f"estimated count; 90 %: {low} to {high}", count


@cache
def _template() -> Template:
    loader = PackageLoader("report", "page")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # Bokeh's have an order
    return environment.get_template("report.html")


def write_report(folder: Path, events: Sequence[Event] | None = None) -> Path:
    """Write the report of a run folder into it; InputError if no run began there.

    `events` are those of its journal, if that was read already.
    """
    with readable(str(folder)):
        if events is None:
            require_regular_files(folder)
        report = Report(folder, events=events)
    if not report.geometry:
        got = "no journal that says where fields and cameras are"
        raise InputError(report.location, "a run folder", got, "name one that a run has left")
    write_atomically(folder / REPORT, report.page(mark_of(folder)))
    return folder / REPORT
