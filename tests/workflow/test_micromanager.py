"""Scans with Micro-Manager's own core in capture actors: its devices for tests, no hardware."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymmcore
import pytest

import main
from driver import run
from microscope import ZStack
from tests.microscope.devices import ADAPTERS, BEADS, config_of
from tests.workflow.faults import Fault, Script, with_script
from tests.workflow.left import digest_of, events_in

GEOMETRY = {
    "microscope": "micromanager", "adapters": str(ADAPTERS), "stripes": 3, "fields": 2,
    "planes": 5, "exposure_ms": 2.0, "settle_ms": 0.0, "focus_samples": 2, "watchdog_s": 20.0,
    "roi_px": [0, 0, 256, 256], "focus_range_um": 44.0, "focus_center_um": 1.0,
}  # fmt: skip


def scan(folder: Path, *configs: tuple[str, ...], **more: Any) -> int:
    """Scan with a microscope for each configuration; returns the exit code."""
    paths = []
    for number, lines in enumerate(configs):
        place = folder.parent / f"{folder.name}-{number}"
        place.mkdir()
        paths.append(str(config_of(place, *lines)))
    source = {"mm_config": paths[0]} if len(paths) == 1 else {"microscopes": paths}
    source = source if paths else {}
    file = folder.with_suffix(".toml")
    file.write_text(as_toml(GEOMETRY | source | more))
    return main.main(["--plain", "--config", str(file), "--out", str(folder)])


def as_toml(values: dict[str, Any]) -> str:
    """Plain values as TOML, for which JSON will do."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


@pytest.fixture(scope="module")
def alone(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a scan with one microscope and three stripes."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert scan(folder, BEADS) == 0
    return folder


def test_one_microscope_takes_the_stripes_in_turn(alone: Path) -> None:
    """One process takes every field in order."""
    captured = events_in(alone, "captured")

    places = [(stripe, field) for stripe in range(3) for field in range(2)]
    in_time = sorted(captured, key=lambda event: float(event["began_s"]))
    assert [(event["stripe"], event["field"]) for event in in_time] == places
    assert len({event["process"] for event in captured}) == 1
    assert {event["camera"] for event in captured} == {0}


def test_autofocus_finds_the_plane_of_the_beads(alone: Path) -> None:
    """Every sample is accepted, and every field is focused within 0.3 um of where beads lie."""
    (focused,) = events_in(alone, "focused")

    assert focused["kept"] == focused["sampled"] == 6
    assert max(abs(z_um) for *_, z_um in focused["centres_um"]) < 0.3


def test_several_microscopes_share_the_stripes(alone: Path, tmp_path: Path) -> None:
    """Two microscopes that see the same take stripes in turn, each in a process of its own, and
    give the answer of one."""
    assert scan(tmp_path / "run", BEADS, BEADS) == 0

    captured = events_in(tmp_path / "run", "captured")
    assert {(event["stripe"], event["camera"]) for event in captured} == {(0, 0), (1, 1), (2, 0)}
    assert len({event["process"] for event in captured}) == 2
    assert digest_of(tmp_path / "run") == digest_of(alone)


@pytest.mark.parametrize("focus", ["none", "hardware"])
def test_the_demo_configuration_runs(local_ray: None, tmp_path: Path, focus: str) -> None:
    """Micro-Manager's own demo shows waves that are sharp at any height: it can be scanned."""
    demo = str(ADAPTERS / "MMConfig_demo.cfg")
    few = {"stripes": 2, "planes": 3, "mm_config": demo, "focus": focus}

    assert scan(tmp_path / "run", **few) == 0

    (focused,) = events_in(tmp_path / "run", "focused")
    assert {z_um for *_, z_um in focused["centres_um"]} == {1.0}  # the device stays where it is
    assert focused["mode"] == focus
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "complete"


def driver_crash(batch: ZStack) -> ZStack:
    """The driver of the camera follows a null pointer, in native code."""
    core = pymmcore.CMMCore()
    core.setDeviceAdapterSearchPaths([str(ADAPTERS)])
    core.loadDevice("Camera", "DemoCamera", "DCam")
    core.initializeAllDevices()
    core.setProperty("Camera", "SimulateCrash", "Dereference Null Pointer")
    raise AssertionError


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Fault], None]:
    """Let the microscope fail once so at the second field of the second stripe."""
    resolve = run.resolve_setup

    def follow(fault: Fault) -> None:
        (tmp_path / "script").mkdir()
        script = Script(tmp_path / "script", {(1, 1): (fault, 1)})
        monkeypatch.setattr(run, "resolve_setup", lambda given: with_script(resolve(given), script))

    return follow


def test_a_driver_that_crashes_costs_a_capture(
    alone: Path, tmp_path: Path, scripted: Callable[[Fault], None]
) -> None:
    """The process dies in native code; a new one opens the microscope and takes the field again."""
    scripted(driver_crash)

    assert scan(tmp_path / "run", BEADS, exposure_ms=40.0) == 0  # the batch before is home by then
    assert digest_of(tmp_path / "run") == digest_of(alone)
    (again,), (restarted,) = (events_in(tmp_path / "run", k) for k in ("retried", "restarted"))
    assert (again["stripe"], again["field"], again["step"]) == (1, 1, "capture")
    assert restarted["camera"] == 0
    assert len({event["process"] for event in events_in(tmp_path / "run", "captured")}) == 2


MISTAKES = {
    "no such file": ({"mm_config": "/none.cfg"}, "/none.cfg: expected"),
    "beyond the stage": ({"stage_limits_um": [0, 0, 200, 9999]}, "x within 0 … 200 µm"),
    "beyond the focus": ({"focus_limits_um": [-20, 90]}, "z within -20 … 90 µm"),
    "no such binning": ({"binning": 3}, "binning"),
    "no such part": ({"roi_px": [0, 0, 9999, 9999]}, "roi_px within 512 x 512 px"),
}


@pytest.mark.parametrize(("given", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_reported_before_anything_moves(
    local_ray: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: dict[str, Any],
    said: str,
) -> None:
    """What the microscope cannot do is one line and exit code 2, and no folder is left."""
    code = scan(tmp_path / "run", BEADS, **given)

    output = capsys.readouterr().err
    assert code == 2
    assert said in output
    assert output.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_microscopes_that_differ_are_refused(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames of several microscopes must fit into one mosaic."""
    other = tuple(line.replace("16bit", "8bit") for line in BEADS)

    assert scan(tmp_path / "run", BEADS, other) == 2
    assert "256 x 256 pixels of uint16" in capsys.readouterr().err


def test_a_run_goes_on_with_its_microscope(alone: Path, tmp_path: Path) -> None:
    """A run that was cut short is resumed: what is on disk is not captured again, same digest."""
    folder = shutil.copytree(alone, tmp_path / "run")
    lines = (alone / "events.jsonl").read_text().splitlines(keepends=True)
    first = [line for line in lines if '"stacked"' in line][:2]
    known = [line for line in lines if re.search('"(begun|ray|focused|described)"', line)]
    (folder / "events.jsonl").write_text("".join((*known, *first)))

    assert main.main(["--plain", "--resume", str(folder)]) == 0
    assert len(events_in(folder, "captured")) == 4
    assert digest_of(folder) == digest_of(alone)
