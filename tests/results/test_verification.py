"""What runs left is read back and compared with the checksums of the tasks that wrote it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imaging.pyramid import mean_pyramid, nearest_pyramid
from results.digest import digest_of
from results.store import (
    DEPTH,
    LABELS,
    STACKED,
    create_mosaics,
    level_count,
    write_core,
)
from results.table import TABLE, join_parts, table_checksum, write_part
from results.verification import differences, verify
from scan.checkpoint import Checkpoint
from scan.events import Begun, Detected, Event, Predicted, Stacked
from scan.layout import make_plan
from scan.plan import Field, ScanPlan
from tests.results.test_table import columns

PLAN = make_plan((2, 2), (64, 64), 0, 1.0, steered=True)
WORK = {"camera": 0, "began_s": 1.0, "ended_s": 2.0, "cpu_s": 1.0, "asked_s": 1.0}


def wrote(folder: Path, field: Field, seed: int = 0) -> tuple[int, ...]:
    """Write a field, as tasks do; the checksums of image, depth, labels and rows."""
    core = slice(*field.rows), slice(*field.columns)
    shape = tuple(span.stop - span.start for span in core)
    pixels = np.random.default_rng([seed, field.stripe, field.field]).integers(1, 9, shape)
    sums = []
    for name, kind in ((STACKED, np.uint16), (DEPTH, np.float32), (LABELS, np.uint32)):
        pyramid = nearest_pyramid if name == LABELS else mean_pyramid
        levels = pyramid(pixels.astype(kind), level_count(folder / name))
        sums.append(write_core(folder / name, *core, levels))
    first = 10 * field.stripe + 5 * field.field + 1
    return (*sums, write_part(folder, field.stripe, field.field, columns(first)))


def event_of_begin(plan: ScanPlan) -> Begun:
    """The first event of a run."""
    return Begun.of(plan, process_began_s=0.0, versions={}, identity={})


@pytest.fixture
def run(tmp_path: Path) -> list[Event]:
    """The journal of a run into the folder of the test, in which the last field was lost."""
    create_mosaics(tmp_path, PLAN, np.dtype(np.uint16))
    events: list[Event] = [event_of_begin(PLAN)]
    written = {}
    for field in PLAN.fields[:-1]:
        sums = wrote(tmp_path, field)
        place = {"stripe": field.stripe, "field": field.field}
        events.append(Stacked(**place, **WORK, in_flight=0, checksums=sums[:2]))
        events.append(Detected(**place, **WORK, objects=1, checksums=sums[2:]))
        written[field.stripe, field.field] = sums
    join_parts(tmp_path, list(written))
    digest = digest_of(written, table_checksum(tmp_path))
    return [*events, Predicted(objects=3, answered_s=3.0, digest=digest)]


def test_what_was_written_is_found(tmp_path: Path, run: list[Event]) -> None:
    """A run whose results are as its tasks wrote them has no differences."""
    assert differences(tmp_path, run) == []


@pytest.mark.parametrize("name", [STACKED, DEPTH, LABELS])
def test_a_changed_core_is_named(tmp_path: Path, run: list[Event], name: str) -> None:
    """If a pixel of any image changes, the field and the image are named, and no other."""
    field = PLAN.fields[1]
    core = slice(*field.rows), slice(*field.columns)
    levels = [np.ones((64 >> k, 64 >> k)) for k in range(level_count(tmp_path / name))]
    kind = {STACKED: np.uint16, DEPTH: np.float32, LABELS: np.uint32}[name]

    write_core(tmp_path / name, *core, [level.astype(kind) for level in levels])

    assert differences(tmp_path, run) == [f"stripe 0 field 1 of {name}"]


@pytest.mark.parametrize("damage", [b"", b"no chunk"], ids=["empty", "torn"])
def test_a_damaged_chunk_costs_its_own_core_alone(
    tmp_path: Path, run: list[Event], damage: bytes
) -> None:
    """Cores are read many at once; one that cannot be read is named, and no other."""
    chunk = tmp_path / DEPTH / "0" / "c" / "0" / "1"
    assert chunk.stat().st_size > len(damage)

    chunk.write_bytes(damage)

    assert differences(tmp_path, run) == [f"stripe 0 field 1 of {DEPTH}"]


@pytest.mark.parametrize("limit_px", [1, 3 * 64 * 64, 2**22], ids=["one", "three", "all"])
@pytest.mark.parametrize("lost", [(), (2,), (0, 3, 4)], ids=str)
def test_cores_are_read_as_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_px: int, lost: tuple[int, ...]
) -> None:
    """Whatever fields are there and however many are read at once: the same checksums."""
    monkeypatch.setattr("results.verification.MAX_READ_PX", limit_px)
    plan = make_plan((2, 6), (64, 64), 0, 1.0, steered=True)
    create_mosaics(tmp_path, plan, np.dtype(np.uint16))
    checkpoint = Checkpoint(plan)
    for field in plan.fields:
        if field.field not in lost:
            sums = wrote(tmp_path, field)
            checkpoint.stacked[field], checkpoint.detected[field] = sums[:2], sums[2:]
    before = dict(checkpoint.stacked), dict(checkpoint.detected)
    changed = next(field for field in checkpoint.stacked if field.stripe == 1)

    verify(tmp_path, checkpoint)
    assert (checkpoint.stacked, checkpoint.detected) == before
    wrote(tmp_path, changed, seed=1)
    verify(tmp_path, checkpoint)
    assert before[0].keys() - checkpoint.stacked.keys() == {changed}


@pytest.mark.parametrize("change", ["edited", "gone"])
def test_a_changed_table_is_named(tmp_path: Path, run: list[Event], change: str) -> None:
    """If a row of the table changes, or the table is gone, it is named."""
    table = tmp_path / TABLE
    if change == "edited":
        table.write_text(table.read_text().replace("6", "7"))
    else:
        table.unlink()

    assert differences(tmp_path, run) == [TABLE]


def test_what_was_written_last_counts(tmp_path: Path, run: list[Event]) -> None:
    """A field that was stacked again, with other pixels, is compared with its last checksums."""
    field = PLAN.fields[0]
    sums = wrote(tmp_path, field, seed=1)
    place = {"stripe": field.stripe, "field": field.field}
    again = Stacked(**place, **WORK, in_flight=0, checksums=sums[:2])
    labels = Detected(**place, **WORK, objects=1, checksums=sums[2:])

    assert differences(tmp_path, [*run[:-1], again, labels]) == []
    assert differences(tmp_path, run[:-1]) == [
        f"stripe 0 field 0 of {name}" for name in (STACKED, DEPTH, LABELS)
    ]


def test_the_digest_covers_every_checksum() -> None:
    """Any other checksum, place or table gives another digest; the order of fields does not."""
    fields = {(0, 0): (1, 2, 3, 4), (0, 1): (5, 6)}
    others = [
        fields | {(0, 0): (9, 2, 3, 4)},
        fields | {(0, 0): (1, 9, 3, 4)},
        fields | {(0, 0): (1, 2, 9, 4)},
        {(0, 0): (1, 2, 3, 4), (0, 2): (5, 6)},
        {(0, 0): (1, 2, 3, 4)},
    ]

    digests = [digest_of(each, 7) for each in (fields, *others)] + [digest_of(fields, 8)]

    assert len(set(digests)) == len(digests)
    assert digest_of(dict(reversed(fields.items())), 7) == digests[0]
