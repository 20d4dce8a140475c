"""The report as a file: what it says, made again from its folder, and how large it becomes."""

from __future__ import annotations

import html
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command.command_line import parse
from config import validate
from imaging.pyramid import nearest_pyramid
from main import main
from report import preview
from report.report import LAYERS, MAX_NAMED, REPORT, Report, write_report
from report.trace import TRACE
from results.journal import JOURNAL, read_journal
from results.store import LABELS, STACKED, level_count, write_core
from results.table import TABLE
from scan.events import Detected, Predicted, Warned
from tests.report.runs import FakeRun, complete_run, troubled_run
from tests.scan.samples import sample

ROOT = Path(__file__).parents[2]
HOSTILE = "</script><script>alert(1)</script> \"'& {{ 7*7 }} <img src=x onerror=alert(2)>"


def just_begun(folder: Path) -> None:
    """A run whose cameras did not come yet."""
    FakeRun(folder).begin()


def focused(folder: Path) -> None:
    """A run that knows its heights and has not stacked anything."""
    run = FakeRun(folder)
    run.begin()
    run.focus()


def planes_known(folder: Path) -> None:
    """A recording: nothing was fitted."""
    run = FakeRun(folder)
    run.begin()
    run.focus(surface="none")
    run.capture(run.plan.fields[0])
    run.stack(run.plan.fields[0])


HISTOGRAMS = {"diameter_um", "intensity", "z_um", "per_field", "dispatch", "slip"}
SURFACE, PLANES_KNOWN = {"surface", "profile"}, {"dispatch", "slip"}
RUNS: dict[str, tuple[Callable[[Path], Any], str, set[str]]] = {  # verdict, further charts
    "complete": (
        complete_run,
        "complete: 6 of 6 fields, 12 objects in 2.3 s",
        {"mosaic", *SURFACE, *HISTOGRAMS},
    ),
    "troubled": (
        troubled_run,
        "partial: 5 of 6 fields, 10 objects in 2.4 s; lost: stripe 1 field 2",
        {"mosaic", *SURFACE, *HISTOGRAMS},
    ),
    "just begun": (just_begun, "failed: 0 of 6 fields in 0.2 s", set()),
    "focused": (focused, "failed: 0 of 6 fields in 0.3 s", {"mosaic", *SURFACE}),
    "with known planes": (
        planes_known,
        "failed: 0 of 6 fields and the image of 1 more in 0.5 s",
        {"mosaic", *PLANES_KNOWN},
    ),
}  # fmt: skip


def page_of(folder: Path) -> str:
    """The report of a folder."""
    return write_report(folder).read_text(encoding="utf-8")


def shown(page: str, tag: str) -> list[str]:
    """The text inside every such element that holds no other."""
    return [html.unescape(text) for text in re.findall(rf"<{tag}\b[^>]*>([^<]*)</{tag}>", page)]


def charts_of(page: str) -> list[dict[str, Any]]:
    """What Bokeh draws."""
    found = re.search(
        r'<script type="application/json" id="charts">(.*?)</script>', page, re.DOTALL
    )
    assert found
    return json.loads(found[1])


@pytest.mark.parametrize(("make", "verdict", "charts"), RUNS.values(), ids=RUNS)
def test_a_run_has_a_report_however_far_it_came(
    tmp_path: Path, make: Callable[[Path], Any], verdict: str, charts: set[str]
) -> None:
    """The verdict stands at the top in one line, and charts are drawn of what there is."""
    make(tmp_path)
    page = page_of(tmp_path)

    assert shown(page, "h1") == [verdict]
    drawn = {chart["target_id"] for chart in charts_of(page)}
    assert drawn == {"timeline", *charts}
    assert set(re.findall(r'<div class="\w+" id="(\w+)">', page)) == drawn
    assert ("No field is stacked." in shown(page, "p")) == ("mosaic" not in charts)


def test_a_report_is_made_again_byte_for_byte(tmp_path: Path) -> None:
    """`--report` makes the same bytes from the folder alone, in any process and working directory,
    and prints the path."""
    run = tmp_path / "my runs" / "r"
    troubled_run(run)
    writes = "import sys; from pathlib import Path; from report.report import write_report\n"
    subprocess.run(
        [sys.executable, "-c", writes + "write_report(Path(sys.argv[1]))", run],
        cwd=ROOT,
        check=True,
    )
    before = (run / REPORT).read_bytes()
    (run / REPORT).unlink()

    again = subprocess.run(
        [sys.executable, ROOT / "main.py", "--report", Path("my runs/r")],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert again.stdout == f"{Path('my runs/r') / REPORT}\n"
    assert again.stderr == ""
    assert (run / REPORT).read_bytes() == before
    assert json.loads((run / TRACE).read_text())["traceEvents"]


DAMAGED = {
    "a description": lambda run: (run / STACKED / "zarr.json").write_text("[]"),
    "an array": lambda run: (run / STACKED / "0" / "zarr.json").write_text("{}"),
    "paths": lambda run: redirected(run / STACKED / "zarr.json"),
    "the table": lambda run: (run / TABLE).write_text("label\nx\n"),
}


def redirected(file: Path) -> None:
    """Let the mosaic's levels lie elsewhere."""
    text = file.read_text()
    assert '"path": "0"' in text
    file.write_text(text.replace('"path": "0"', '"path": "/tmp"'))


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A report is not made from damaged files, and not from files of another folder."""
    troubled_run(tmp_path)
    DAMAGED[name](tmp_path)

    code = main(["--report", str(tmp_path)])

    err = capsys.readouterr().err
    assert (code, err.count("\n")) == ((0, 0) if name == "paths" else (2, 1)), err


NO_RUNS: dict[str, Callable[[Path], Any]] = {
    "an empty folder": lambda folder: folder.mkdir(),
    "no folder": lambda folder: None,
    "a file": lambda folder: folder.write_text("{}"),
    "a folder of something else": lambda folder: just_begun(folder) or _keep(folder, 0),
    "a journal without a run": lambda folder: just_begun(folder) or _keep(folder, 1, drop=1),
}


def _keep(folder: Path, lines: int, drop: int = 0) -> None:
    journal = (folder / JOURNAL).read_text().splitlines(keepends=True)
    (folder / JOURNAL).write_text("".join(journal[drop : drop + lines]))


@pytest.mark.parametrize("make", NO_RUNS.values(), ids=NO_RUNS)
def test_a_folder_without_a_run_has_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], Any]
) -> None:
    """One line says so, the exit code is 2, and nothing is written."""
    folder = tmp_path / "run"
    make(folder)
    before = sorted(tmp_path.rglob("*"))

    assert main(["--report", str(folder)]) == 2

    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"{folder}: expected a run folder, got")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in a folder with such a name, with such faults and such settings."""
    folder = tmp_path_factory.mktemp("hostile") / HOSTILE
    run = troubled_run(folder, reason=HOSTILE)
    (folder / "scan.toml").write_text(f"# {HOSTILE}\n")
    assert run.folder == folder
    return folder


def test_texts_of_a_run_are_escaped(hostile: Path) -> None:
    """Reasons, folder names and settings that look like markup are shown as they are."""
    page = page_of(hostile)

    assert shown(page, "li")[-1] == f"lost stripe 1 field 2: {HOSTILE}"
    assert shown(page, "footer") == [str(hostile)]
    assert f"# {HOSTILE}\n" in shown(page, "pre")
    assert "<script>alert" not in page
    assert "<img" not in page
    charts = json.dumps(charts_of(page))
    assert json.dumps(HOSTILE)[1:-1] in charts  # in the charts, too, and within their script


def test_a_report_asks_for_nothing_from_anywhere(tmp_path: Path) -> None:
    """All that the page refers to lies in the page."""
    complete_run(tmp_path)
    page = page_of(tmp_path)
    data = re.compile(r'<script type="application/json".*?</script>', re.DOTALL)
    bokeh = re.compile(r"<script[^>]*>(?:(?!</script>).){100000,}?</script>", re.DOTALL)

    ours = bokeh.sub("", data.sub("", page))
    assert 5_000 < len(ours) < 30_000
    targets = re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']?([^"'\s>]*)""", ours)
    assert targets == ["data:,"]
    assert not re.findall(r"https?:|url\(|@import|\bimport\b|fetch\(|EventSource", ours)
    urls = [
        url for chart in charts_of(page) for url in re.findall(r"data:[\w/]+", json.dumps(chart))
    ]
    assert urls == [f"data:{kind}" for kind in LAYERS.values()]
    assert not re.findall(r"https?://", json.dumps(charts_of(page)))


COMMANDS = ("plain", "with a space", "with 'quotes' and $HOME; rm *", "é")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_shown_are_those_that_repeat_the_run(tmp_path: Path, name: str) -> None:
    """Pasted into a shell, one scans the same again into a new folder and one goes on here."""
    folder = tmp_path / name
    troubled_run(folder)
    settings = validate({"stripes": 2, "fields": 3, "settle_ms": 7})
    (folder / "scan.toml").write_text(settings.to_toml())

    repeat, resume = [shlex.split(text)[2:] for text in shown(page_of(folder), "pre")[:2]]

    assert parse(repeat).settings == settings
    assert parse(repeat).resume is None
    assert parse(resume).settings == settings
    assert parse(resume).resume == folder


def test_a_complete_run_is_not_to_be_resumed(tmp_path: Path) -> None:
    """Where nothing is missing there is one command only."""
    complete_run(tmp_path)

    assert [text for text in shown(page_of(tmp_path), "pre") if "--resume" in text] == []


@pytest.mark.parametrize("lost", [1, MAX_NAMED, MAX_NAMED + 1, MAX_NAMED + 30])
def test_lost_fields_are_named_in_the_verdict(tmp_path: Path, lost: int) -> None:
    """The verdict names the lost fields; of very many the first, and how many more there are."""
    run = FakeRun(tmp_path, counts=(lost,), squares=0, frame_px=(64, 64))
    run.begin()
    for field in run.plan.fields:
        run.lose(field, "dead")

    verdict = Report(tmp_path).texts()["verdict"]
    names = [f"stripe 0 field {k}" for k in range(min(lost, MAX_NAMED))]
    more = [f"{lost - MAX_NAMED} more"] if lost > MAX_NAMED else []
    assert verdict.split("; lost: ")[1] == ", ".join(names + more)


def test_many_faults_are_listed_from_the_end(tmp_path: Path) -> None:
    """The last faults are listed, and the number of those before."""
    run = FakeRun(tmp_path)
    run.begin()
    for number in range(MAX_NAMED + 5):
        run.journal.write(Warned(message=f"number {number}"))

    texts = Report(tmp_path).texts()
    assert texts["faults"] == [f"warning: number {k}" for k in range(5, MAX_NAMED + 5)]
    assert texts["more_faults"] == 5


def test_a_field_that_was_detected_twice_counts_once(tmp_path: Path) -> None:
    """Objects of a resumed run replace those of the run before."""
    run = FakeRun(tmp_path, counts=(1,))
    run.begin()
    run.focus()
    (field,) = run.plan.fields
    run.stack(field)
    run.detect(field)
    before = Report(tmp_path).sources()
    run.begin()
    run.detect(field)

    after = Report(tmp_path).sources()
    for name in ("per_field", "diameter_um"):
        assert list(after[name]["count"]) == list(before[name]["count"])
    assert sum(after["per_field"]["count"]) == 1


# ----------------------------------------------------------------------------------- large scans

FIELDS, OBJECTS, EDGE_PX = 5_000, 60_000, 2400  # as many fields as have borders


def large_run(folder: Path) -> Report:
    """The report of a run of one large core of grain and very many events.

    All fields but the first have empty cores, so that their pixels need not be made.
    """
    run = FakeRun(folder, counts=(1,), squares=0, frame_px=(EDGE_PX, EDGE_PX))
    rng = np.random.default_rng(5)
    run.image = rng.integers(0, 2**16, run.image.shape, np.uint16)
    run.depth = rng.random(run.image.shape, np.float32)
    run.labels = rng.integers(0, 4, run.image.shape, np.uint8).astype(run.labels.dtype)
    run.begin()
    run.focus()
    (core,) = run.plan.fields
    run.stack(core)
    whole = slice(0, EDGE_PX), slice(0, EDGE_PX)
    levels = nearest_pyramid(run.labels, level_count(folder / LABELS))
    write_core(folder / LABELS, *whole, levels)
    run.journal.write(sample(Detected, objects=OBJECTS, **run._work()))
    run.journal.write(Predicted(objects=OBJECTS, answered_s=run.now_s, digest="d"))
    run.journal.close()

    begun, ray, focus, *rest = (event.to_dict() for event in read_journal(folder / JOURNAL))
    cuts = [0, *[EDGE_PX] * FIELDS]
    begun |= {"stripes": [FIELDS], "fields": FIELDS, "column_cuts": cuts}
    heights = [(0, k, 1.23 * k) for k in range(FIELDS)]
    rejected = [{"stripe": 0, "field": k, "reason": "dust " * 20} for k in range(0, FIELDS, 2)]
    focus |= {"centres_um": heights, "samples": heights, "rejected": rejected}
    events = [begun, ray, focus, *rest, *_many()]
    (folder / JOURNAL).write_text("".join(f"{json.dumps(event)}\n" for event in events))
    names = "label stripe field x_um y_um z_um equivalent_diameter_area intensity_mean score"
    rows = [",".join(f"{value:.2f}" for value in row) for row in 999 * rng.random((OBJECTS, 9))]
    (folder / TABLE).write_text("\n".join([names.replace(" ", ","), *rows]) + "\n")
    return Report(folder)


def _many() -> list[dict[str, Any]]:
    """Twenty thousand captures and tasks, too many for a timeline; every fourth field is lost."""
    events: list[dict[str, Any]] = []
    for k in range(1, 2 * FIELDS):
        began_s = 1001 + k / 20
        facts = {"time": began_s, "stripe": 0, "field": k % FIELDS or 1, "camera": 0}
        took = {**facts, "began_s": began_s, "ended_s": began_s + 0.03 + k % 7 / 1000}
        events.append(
            {"event": "captured", "slips_ms": [0.1, k / 100], "process": 7, "in_flight": 1, **took}
        )
        events.append({"event": "warmed", "cpu_s": 0.02, **took})
        if k % 4 == 0:
            events.append({"event": "lost", "reason": "its camera died " * 6, **facts})
    return events


def test_the_report_of_a_large_scan_is_small(tmp_path: Path) -> None:
    """Grain everywhere, tens of thousands of objects and events, thousands of fields, samples and
    faults: 10 MB at most, also with pictures that just fit."""
    report = large_run(tmp_path)

    page = report.page()

    drawn = [len(report.show(layer)) for layer in LAYERS]
    most = (preview.MAX_BYTES[".jpg"] + 2 * preview.MAX_BYTES[".webp"]) * 4 / 3
    assert min(drawn) > 100_000  # there is something to be small about
    assert sum(drawn) < most + 1000
    assert len(page.encode()) - sum(drawn) + most < 10_000_000
