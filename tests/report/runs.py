"""Run folders made without Ray, for tests of what people look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from skimage.measure import label

from imaging.pyramid import mean_pyramid, nearest_pyramid
from prediction.population import CLASSES
from prediction.scan_predictor import ScanPredictor
from results.journal import JOURNAL, EventIndex, Journal, read_journal
from results.store import DEPTH, LABELS, STACKED, create_mosaics, level_count, write_core
from results.summary import Summary, summarise, write_summary
from results.table import join_parts, write_part
from scan.channels import ONE_CHANNEL, Channels
from scan.events import (
    Begun,
    Captured,
    Detected,
    FieldEvent,
    Finished,
    Focused,
    Lost,
    Predicted,
    RayStarted,
    Restarted,
    Retried,
    Stacked,
    Throttled,
)
from scan.layout import label_dtype, make_plan
from scan.plan import Field, ScanPlan

FRAME_PX, OVERLAP_PX, PIXEL_UM = 160, 32, 0.5


def in_turn(table: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A scan predictor that gives objects the built-in classes in turn, and a count."""
    classes = np.resize(CLASSES, len(table["label"]))
    return {"class": classes}, {"count": 1234, "count_low": 1200, "count_high": 1300.5}


class FakeRun:
    """A run whose events are written one by one by a test.

    The mosaic is grain with bright squares; squares of one field lie in that field alone, `squares`
    of them in each. Of two channels the second shows those of the lower stripe alone. Times begin
    at 1000 s and each event comes a tenth of a second after the last.
    """

    def __init__(
        self,
        folder: Path,
        counts: tuple[int, ...] = (3, 3),
        squares: int = 2,
        frame_px: tuple[int, int] = (FRAME_PX, FRAME_PX),
        channels: Channels = ONE_CHANNEL,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.squares = folder, squares
        self.plan: ScanPlan = make_plan(counts, frame_px, OVERLAP_PX, PIXEL_UM, steered=True)
        self.now_s = 1000.0
        self.journal = Journal(folder / JOURNAL, clock=self._clock)
        self.image, self.depth, self.labels = self._specimen()
        self.channels = channels
        if channels.several:
            lower = np.where(np.arange(len(self.image)) < len(self.image) // 2, 0.2, 1)[:, None]
            self.image = np.stack([self.image, (self.image * lower).astype(np.uint16)])

    def _clock(self) -> float:
        self.now_s += 0.1
        return self.now_s

    def _specimen(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image = np.random.default_rng(1).normal(200, 10, self.plan.mosaic_shape)
        for field in self.plan.fields:
            for number in range(self.squares):
                row, column = field.rows[0] + 20 + 30 * number, field.columns[0] + 20 + 25 * number
                image[row : row + 20, column : column + 15] = 1000 + 100 * field.field
        rows, columns = np.indices(image.shape)
        depth = (rows * 0.02 - columns * 0.01).astype(np.float32)
        objects = label(image > 600).astype(label_dtype(image.shape))
        return image.astype(np.uint16), depth, objects

    def begin(self, **more: Any) -> None:
        """The journal's first two lines."""
        (self.folder / "scan.toml").write_text("stripes = 2\n")
        facts = {"process_began_s": 1000.0, "versions": {"python": "3.11"}, "identity": {}}
        facts["channels"] = self.channels.to_event()
        self.journal.write(Begun.of(self.plan, **facts, **more))
        sizes = {"object_store_bytes": 10**8, "batch_bytes": 10**6, "credits": 9}
        self.journal.write(RayStarted(up_s=1000.1, cpus=2, **sizes))

    def focus(self, rejected: int = 0, surface: str = "plane") -> None:
        """Autofocus on every field; the first so many samples are rejected."""
        create_mosaics(self.folder, self.plan, self.image.dtype, channels=self.channels)
        places = [(field.stripe, field.field) for field in self.plan.fields]
        reasons = [{"stripe": s, "field": f, "reason": "dust"} for s, f in places[:rejected]]
        centres = tuple((s, f, 1.5 * s - 0.5 * f) for s, f in places)
        self.journal.write(Focused(
            first_exposure_s=1000.3, sweeping_s=(0.1,) * len(self.plan.stripes),
            sampled=len(places), kept=len(places) - rejected, rejected=tuple(reasons),
            surface=surface, residual_um=0.25, centres_um=centres,
            samples=tuple((s, f, z + 0.1) for s, f, z in centres),
        ))  # fmt: skip

    def capture(self, field: Field) -> None:
        """A field's batch."""
        began_s = self.now_s
        self._write(Captured, field, began_s=began_s, ended_s=began_s + 0.09,
                    slips_ms=[0.1, 4.0], process=7, in_flight=1)  # fmt: skip

    def stack(self, field: Field) -> None:
        """A field's image and depth, on disk and in the journal."""
        core = slice(*field.rows), slice(*field.columns)
        levels = level_count(self.folder / STACKED)
        write_core(self.folder / STACKED, *core, mean_pyramid(self.image[..., *core], levels))
        write_core(self.folder / DEPTH, *core, mean_pyramid(self.depth[core], levels))
        self._write(Stacked, field, asked_s=self.now_s, in_flight=0, checksums=[0, 0],
                    **self._work())  # fmt: skip

    def detect(self, field: Field) -> None:
        """A field's objects, on disk and in the journal."""
        core = slice(*field.rows), slice(*field.columns)
        levels = level_count(self.folder / LABELS)
        write_core(self.folder / LABELS, *core, nearest_pyramid(self.labels[core], levels))
        numbers = np.unique(self.labels[core])[1:]
        write_part(self.folder, field.stripe, field.field, self._rows(field, numbers))
        self._write(Detected, field, objects=len(numbers), asked_s=self.now_s, checksums=[0, 0],
                    **self._work())  # fmt: skip

    def _rows(self, field: Field, numbers: np.ndarray) -> dict[str, np.ndarray]:
        places = [np.argwhere(self.labels == number) for number in numbers]
        middles = np.array([place.mean(axis=0) for place in places]).reshape(-1, 2)
        areas = np.array([len(place) for place in places], float)
        same = np.ones(len(numbers))
        return {
            "label": numbers, "stripe": same.astype(int) * field.stripe,
            "field": same.astype(int) * field.field, "x_um": middles[:, 1] * PIXEL_UM,
            "y_um": middles[:, 0] * PIXEL_UM, "z_um": 2 * same, "area": areas,
            "equivalent_diameter_area": np.sqrt(4 / np.pi * areas),
            "intensity_mean" + "-0" * self.channels.several: 1000 * same,
            "score": 0.9 * same, "touches_border": 0 * numbers,
        }  # fmt: skip

    def _work(self) -> dict[str, float]:
        return {"began_s": self.now_s + 0.01, "ended_s": self.now_s + 0.09, "cpu_s": 0.08}

    def _write(self, kind: type[FieldEvent], field: Field, **facts: Any) -> None:
        self.journal.write(kind.of(field, field.stripe, **facts))

    def lose(self, field: Field, reason: str) -> None:
        """A field that will not be in the answer."""
        self._write(Lost, field, reason=reason)

    def finish(self, status: str, predictor: str | None = None) -> Summary:
        """The answer, with the predictions of a scan predictor, and the summary."""
        events = read_journal(self.folder / JOURNAL)
        found = [event.place for event in EventIndex(events).of(Detected)]
        extend = ScanPredictor(predictor).predict if predictor else None
        objects, facts = join_parts(self.folder, found, extend)
        self.journal.write(
            Predicted(objects=objects, answered_s=self.now_s, digest="d", facts=facts)
        )
        self.journal.write(Finished(status=status, peak_batches_in_flight=3, spilled_mb=0.0,
                                    driver_cpu_s=0.5))  # fmt: skip
        self.journal.close()
        summary = summarise(read_journal(self.folder / JOURNAL))
        write_summary(self.folder, summary)
        return summary


def complete_run(folder: Path, predictor: str | None = None, **geometry: Any) -> FakeRun:
    """A run without faults."""
    run = FakeRun(folder, **geometry)
    run.begin()
    run.focus()
    for field in run.plan.fields:
        run.capture(field)
        run.stack(field)
        run.detect(field)
    run.finish("complete", predictor)
    return run


def troubled_run(folder: Path, reason: str = "its camera died") -> FakeRun:
    """A run with rejected samples, a retry, a hold, a restart and a lost field."""
    run = FakeRun(folder)
    run.begin()
    run.focus(rejected=2)
    *others, last = run.plan.fields
    for field in others:
        run.capture(field)
        run.stack(field)
        run.detect(field)
    run.journal.write(Retried(step="capture", stripe=1, field=2, camera=1, reason=reason))
    run.journal.write(Restarted(camera=1, reason=reason))
    run.journal.write(Throttled(camera=0, began_s=run.now_s, ended_s=run.now_s + 0.2))
    run.lose(last, reason)
    run.finish("partial")
    return run
