"""Each fault leaves the answer of the calm scan, or a report of what is missing."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray
import tifffile

import main
import tasks
from driver import run, setup
from results.journal import JOURNAL, read_journal
from results.summary import format_summary
from results.table import PARTS
from results.verification import differences
from scan.records import DetectionJob, DetectionRecord, StackJob, StackRecord
from tests.workflow import faults
from tests.workflow.faults import Fault, Place, Script, with_script
from tests.workflow.left import events_in, summary_of

SMALL = ["--stripes", "2", "--fields", "3", "--planes", "7", "--field-px", "128"]
QUICK = ["--plain", "--exposure-ms", "1"]
SETTINGS = "settle_ms = 0\nfocus_samples = 2\nwatchdog_s = 3\ntask_timeout_s = 60\n"

Scan = Callable[..., tuple[int, dict[str, Any]]]


def scan(folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Run the program in this process; returns exit code and summary."""
    file = folder.with_suffix(".toml")
    file.write_text(SETTINGS)
    code = main.main([*QUICK, *SMALL, "--config", str(file), "--out", str(folder), *options])
    return code, summary_of(folder)


def resume(folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Go on in a folder; returns exit code and summary."""
    code = main.main(["--plain", "--resume", str(folder), *options])
    return code, summary_of(folder)


@pytest.fixture(scope="module")
def calm(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the undisturbed scan."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    assert scan(folder)[0] == 0
    return folder


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give the program's microscopes a script of faults; without one they are well again."""
    prepare = setup.prepare

    def follow(plan: Mapping[Place, tuple[Fault, int]], **more: Any) -> None:
        folder = tmp_path / "script"
        folder.mkdir(exist_ok=True)
        script = Script(folder, plan, **more)
        monkeypatch.setattr(setup, "prepare", lambda given: with_script(prepare(given), script))

    return follow


PASSING = {
    (0, 0): (faults.camera_error, "expected a frame, got none"),
    (0, 1): (faults.dropped_frame, "(6, 128, 128)"),
    (0, 2): (faults.killed, "the process of the camera died"),
    (1, 0): (faults.blank_frame, "plane 2 all zero"),
    (1, 1): (faults.stuck_frame, "plane 2 equal to the one before"),
    (1, 2): (faults.saturated_frame, "100% of plane 2"),
}
PASSING_TOO = {
    (0, 0): (faults.library_error, "RuntimeError: device 'Camera' is busy"),
    (0, 1): (faults.segfault, "the process of the camera died"),
    (1, 1): (faults.hang, "no answer from the camera within 3 s"),
}


@pytest.mark.parametrize("plan", [PASSING, PASSING_TOO], ids=["frames", "processes"])
def test_faults_that_pass_cost_a_capture_each(
    calm: Path,
    tmp_path: Path,
    scripted: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    plan: dict[Place, tuple[Fault, str]],
) -> None:
    """Each fault costs one more capture of its own field, journaled with its reason; same digest.
    A plan so large that Ray keeps it in its store is still there for a camera that restarts, and
    Ray does not complain on the screen."""
    scripted({place: (fault, 1) for place, (fault, _) in plan.items()})
    prepare, padding = setup.prepare, ("a warning that fills the setup" * 10_000,)
    monkeypatch.setattr(setup, "prepare", lambda given: replace(prepare(given), warnings=padding))

    code, summary = scan(tmp_path / "run")

    retried = {
        (e["stripe"], e["field"]): e["reason"] for e in events_in(tmp_path / "run", "retried")
    }
    deadly = (faults.killed, faults.segfault, faults.hang)
    assert code == 0
    assert summary["digest"] == summary_of(calm)["digest"]
    assert summary["retries"]["capture"] == len(plan) == len(retried)
    assert all(reason in retried[place] for place, (_, reason) in plan.items())
    assert summary["retries"]["actor_restarts"] == sum(f in deadly for f, _ in plan.values()) > 0
    assert summary["memory"]["spilled_mb"] == 0
    assert "constructor arguments" not in capfd.readouterr().err


SWEEPS = {
    (0, 0): (faults.camera_error, "expected a frame, got none"),
    (0, 2): (faults.killed, "the sweep failed: "),
    (1, 0): (faults.hang, "no answer from the camera within 3 s"),
}


def test_faults_during_autofocus_are_survived(
    calm: Path, tmp_path: Path, scripted: Callable[..., None]
) -> None:
    """A sweep that fails, dies or hangs is repeated, with its reason; the surface is the same."""
    scripted({}, sweeps={place: fault for place, (fault, _) in SWEEPS.items()})

    code, summary = scan(tmp_path / "run")

    retried = [
        ((e["stripe"], e["field"]), e["reason"]) for e in events_in(tmp_path / "run", "retried")
    ]
    assert code == 0
    assert summary["digest"] == summary_of(calm)["digest"]
    assert summary["retries"]["focus"] == len(retried) >= len(SWEEPS)
    for place, (_, reason) in SWEEPS.items():
        assert [why for at, why in retried if at == place and reason in why]
    assert summary["retries"]["actor_restarts"] == 2  # not for an error that the camera raised


LASTING = {
    (0, 1): (faults.camera_error, "expected a frame, got none"),
    (1, 2): (faults.blank_frame, "plane 2 all zero"),
}


def test_what_is_lost_is_named_and_can_be_resumed(
    calm: Path, tmp_path: Path, scripted: Callable[..., None]
) -> None:
    """Faults that last lose just their fields, exit 3; resumed with a sound camera nothing else is
    captured again, and the digest is that of the calm run."""
    folder = tmp_path / "run"
    scripted({place: (fault, 99) for place, (fault, _) in LASTING.items()})
    code, summary = scan(folder)
    reasons = {
        (each["stripe"], each["field"]): each["reason"] for each in summary["fields"]["lost"]
    }

    scripted({})
    captured = len(events_in(folder, "captured"))
    again, resumed = resume(folder)

    assert code == 3
    assert reasons.keys() == LASTING.keys()
    assert all(reason in reasons[place] for place, (_, reason) in LASTING.items())
    assert again == 0
    assert len(events_in(folder, "captured")) == captured + 2
    assert len(events_in(folder, "focused")) == 1
    assert resumed["digest"] == summary_of(calm)["digest"]
    assert differences(folder, read_journal(folder / JOURNAL)) == []
    assert resumed["fields"]["resumed"] == 4
    assert not (folder / PARTS).exists()


def test_a_camera_that_cannot_be_opened_again_loses_what_it_had_left(
    local_ray: None, tmp_path: Path, scripted: Callable[..., None]
) -> None:
    """Where a dead camera cannot be replaced its fields are lost, for a reason; the rest counts."""
    scripted({(0, 1): (faults.killed, 99)}, lives=1)

    code, summary = scan(tmp_path / "run", "--stripes", "1")

    lost = summary["fields"]["lost"]
    assert code == 3
    assert [each["field"] for each in lost] == [1, 2]
    assert all("; the camera could not be opened: " in each["reason"] for each in lost)
    assert "expected a camera, got none; plug it in" in lost[0]["reason"]
    assert summary["fields"]["detected"] == 1


def test_stress_changes_the_times_alone(calm: Path, tmp_path: Path) -> None:
    """Under full load the answer is the same, the summary says what was burnt, and who burnt is
    gone."""
    code, summary = scan(tmp_path / "run", "--stress", "--stress-seconds", "0.3")

    burnt_s = [each["ended_s"] - each["began_s"] for each in events_in(tmp_path / "run", "stacked")]
    assert code == 0
    assert summary["digest"] == summary_of(calm)["digest"]
    assert summary["stress"] == {"burners": os.cpu_count(), "seconds": 0.3}
    assert summary_of(calm)["stress"] is None
    assert summary["dispatch_ms"]["slot_free"]["n"] == 6
    assert min(burnt_s) >= 0.3
    assert any(line.startswith("under stress (") for line in format_summary(summary))
    assert not [each for each in psutil.Process().children() if "sum(range" in str(each.cmdline())]


def cut(calm: Path, folder: Path, length: int) -> Path:
    """A copy of a finished run whose journal ends after so many bytes."""
    shutil.copytree(calm, folder)
    journal = folder / "events.jsonl"
    journal.write_bytes(journal.read_bytes()[:length])
    return folder


def test_a_journal_cut_anywhere_is_resumed(calm: Path, tmp_path: Path) -> None:
    """Cut at a byte, however little is left, the run resumes to the same digest; no field whose
    stacking is still in the journal is captured again."""
    journal = (calm / "events.jsonl").read_bytes()
    length = random.Random(0).randrange(len(journal) - 1)
    folder = cut(calm, tmp_path / "run", length)
    whole = journal[:length].rpartition(b"\n")[0].splitlines()
    known = [event for event in map(json.loads, whole) if event["event"] == "stacked"]

    code, summary = resume(folder)

    assert code == 0
    assert summary["digest"] == summary_of(calm)["digest"]
    assert differences(folder, read_journal(folder / JOURNAL)) == []
    assert summary["fields"]["resumed"] == len(known)
    after = (folder / "events.jsonl").read_bytes().splitlines()[len(whole) :]
    assert sum(json.loads(line)["event"] == "captured" for line in after) == 6 - len(known)


def killed() -> None:
    """The worker is killed, as when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def hangs() -> None:
    """The task never returns, as on a dead network disk."""
    threading.Event().wait()


FAILING = {("stack", 0, 1): [killed, hangs], ("detect", 1, 1): [killed, killed]}


@ray.remote(num_cpus=1, max_retries=0)
def failing_stack(job: StackJob, frames: Any) -> StackRecord:
    """Stacking that fails after it wrote all there is to write."""
    return fail_at_first(tasks.stack, tasks.stack_batch, job, frames)


@ray.remote(num_cpus=1, max_retries=0)
def failing_detection(job: DetectionJob, predictor: Any, statistics: Any) -> DetectionRecord:
    """Detection that fails after it wrote all there is to write."""
    return fail_at_first(tasks.detect, tasks.detect_objects, job, predictor, statistics)


def work_and(fault: Callable[[], None], work: Callable[..., Any], *given: Any) -> None:
    """Fail after the work is done."""
    work(*given)
    fault()


def fail_at_first(work: Callable[..., Any], task: Any, job: Any, *given: Any) -> Any:
    """Run a task; its first attempts fail as `FAILING` says, each leaves a mark.

    They have a twelfth of the task's time, so that a hang is a short one.
    """
    faults = FAILING.get((work.__name__, job.field.stripe, job.field.field), ())
    for attempt, fault in enumerate(faults):
        mark = Path(job.folder).parent / "marks" / f"{work.__name__} {attempt}"
        if not mark.exists():
            mark.touch()
            return tasks._timed(work_and, fault, work, job, *given, limit_s=job.limit_s / 12)
    return task._function(job, *given)


def test_workers_that_die_or_hang_cost_no_exposure(
    calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stacking and a detection whose worker is killed, or hangs beyond its limit, on every
    attempt but the last: each is repeated and counted, nothing is captured again, same digest."""
    (tmp_path / "marks").mkdir()
    monkeypatch.setattr(tasks, "stack_batch", failing_stack)
    monkeypatch.setattr(tasks, "detect_objects", failing_detection)

    code, summary = scan(tmp_path / "run")

    assert code == 0
    assert summary["digest"] == summary_of(calm)["digest"]
    assert (summary["retries"]["stack"], summary["retries"]["detect"]) == (2, 2)
    assert len(events_in(tmp_path / "run", "captured")) == 6
    assert summary["retries"]["capture"] == summary["retries"]["actor_restarts"] == 0


@ray.remote(num_cpus=1, max_retries=0)
def stack_on_a_full_disk(job: StackJob, frames: Any) -> StackRecord:
    """Stacking that cannot write the third field of a stripe."""
    if job.field.field < 2:
        return tasks.stack_batch._function(job, frames)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        return tasks.stack_batch._function(job, frames)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.views
def test_a_full_disk_stops_the_scan_and_can_be_resumed(
    calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When a result cannot be written the scan stops with one clear message and a whole journal;
    with room again it is resumed to the same digest."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(tasks, "stack_batch", stack_on_a_full_disk)
        code, summary = scan(folder)
    said = capsys.readouterr()

    again, resumed = resume(folder)

    assert code == 1
    assert summary["status"] == "failed"
    assert re.search(
        r"expected to write \d+ bytes, got File too large \(\d+ bytes free on \S+\)", said.err
    )
    assert said.err.count("\n") == 1
    assert f"python main.py --resume {folder}" in said.out
    assert again == 0
    assert resumed["digest"] == summary_of(calm)["digest"]


@ray.remote(num_cpus=1, max_retries=0)
def stack_after_removing_all(job: StackJob, frames: Any) -> StackRecord:
    """Stacking in a run folder that somebody removes."""
    shutil.rmtree(job.folder, ignore_errors=True)
    return tasks.stack_batch._function(job, frames)


@pytest.mark.views
def test_a_folder_that_is_gone_stops_the_scan(
    local_ray: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """When the run folder vanishes the scan stops with one message, and makes no new one."""
    monkeypatch.setattr(tasks, "stack_batch", stack_after_removing_all)
    folder = tmp_path / "run"

    code = main.main([*QUICK, *SMALL, "--out", str(folder)])

    said = capsys.readouterr().err
    assert code == 1
    assert re.search(r"folder is gone|No such file or directory", said)
    assert said.count("\n") == 1
    assert not folder.exists()


def test_too_little_room_is_told_before_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk too small for the results is refused before Ray starts, with both numbers."""
    free = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    monkeypatch.setattr(run, "ray_running", None)

    code = main.main(["--out", str(tmp_path / "run")])

    said = capsys.readouterr().err
    assert code == 2
    assert re.search(r"room for \d{8} bytes of results, got 1000000 bytes free", said)
    assert not (tmp_path / "run").exists()


def test_another_input_is_not_resumed(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recording whose pixels changed is refused; moved, or copied without its times, it is the
    same recording."""
    pixels = np.random.default_rng(0).integers(100, 900, (5, 96, 96)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    folder = tmp_path / "run"
    replay = ["--microscope", "replay", "--replay-path", str(tmp_path / "a.tif")]
    assert main.main(["--plain", *replay, "--out", str(folder)]) == 0

    (tmp_path / "a.tif").rename(tmp_path / "b.tif")
    moved = resume(folder, "--replay-path", str(tmp_path / "b.tif"))[0]
    os.utime(tmp_path / "b.tif", (1e9, 1e9))
    copied = resume(folder, "--replay-path", str(tmp_path / "b.tif"))[0]
    pixels[3, 40, 40] += 1
    tifffile.imwrite(tmp_path / "b.tif", pixels, photometric="minisblack")
    capsys.readouterr()
    changed = main.main(["--resume", str(folder), "--replay-path", str(tmp_path / "b.tif")])

    assert (moved, copied) == (0, 0)
    assert changed == 2
    expected = "expected stripe 0 field 0 with the pixels that were scanned, got others"
    assert expected in capsys.readouterr().err


def test_a_recording_of_other_sizes_is_not_resumed(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files of other sizes than those that were scanned are refused without reading pixels."""
    pixels = np.random.default_rng(0).integers(100, 900, (5, 96, 96)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    folder = tmp_path / "run"
    replay = ["--microscope", "replay", "--replay-path", str(tmp_path / "a.tif")]
    assert main.main(["--plain", *replay, "--out", str(folder)]) == 0

    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", description="again")

    assert main.main(["--resume", str(folder)]) == 2
    assert re.search(r"expected input \d+ as begun, got \d+", capsys.readouterr().err)


def test_edited_settings_are_not_resumed(
    calm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Settings that were changed in the run's own file are refused by name; nothing is touched."""
    folder = cut(calm, tmp_path / "run", 3000)
    file = folder / "scan.toml"
    file.write_text(file.read_text().replace("exposure_ms = 1.0", "exposure_ms = 2.0"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}

    code = main.main(["--resume", str(folder)])

    assert code == 2
    assert "expected exposure_ms 1.0 as begun, got 2.0" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert after == before


def test_a_complete_run_has_nothing_to_resume(
    calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resuming what is complete starts no Ray, changes no result, and restores the summary."""
    folder = tmp_path / "run"
    shutil.copytree(calm, folder)
    (folder / "summary.json").unlink()
    monkeypatch.setattr(run, "ray_running", None)

    code, summary = resume(folder)

    assert code == 0
    assert summary == summary_of(calm)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "half a chunk": lambda run: half(run / "stacked.ome.zarr/0/c/0/1"),
    "a chunk gone": lambda run: (run / "depth.ome.zarr/0/c/1/0").unlink(),
    "labels gone": lambda run: shutil.rmtree(run / "stacked.ome.zarr/labels/objects/0/c"),
    "an array's description torn": lambda run: half(run / "depth.ome.zarr/0/zarr.json"),
    "a stray file": lambda run: (run / "stacked.ome.zarr/0/c/0/1.__lock").write_bytes(b"1"),
    "the table gone": lambda run: (run / "objects.csv").unlink(),
}


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_what_is_damaged_on_disk_is_healed_not_believed(calm: Path, tmp_path: Path) -> None:
    """A run that lost its last line, with every kind of damage on its disk, resumes to the same
    digest, and captures again just the fields whose pixels were hit."""
    journal = (calm / "events.jsonl").read_bytes()
    folder = cut(calm, tmp_path / "run", len(journal) - 5)
    for damage in DAMAGES.values():
        damage(folder)

    code, summary = resume(folder)

    assert code == 0
    assert summary["digest"] == summary_of(calm)["digest"]
    assert differences(folder, read_journal(folder / JOURNAL)) == []
    assert not list(folder.rglob("*.__lock"))
