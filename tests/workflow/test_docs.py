"""README and docs: commands and Python run here as they are written, links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, get_args
from urllib.error import URLError
from urllib.request import urlopen

import cv2
import numpy as np
import psutil
import pytest

import imaging
import main
import report.live
import tasks
from config import VERSION
from results.store import DEPTH, STACKED, create_mosaics, read_region
from scan import events
from scan.layout import make_plan
from scan.records import StackJob
from tests.microscope.devices import ADAPTERS, PRODUCT
from tests.prediction.networks import model_folder, smoothing
from tests.workflow.left import events_in, summary_of

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "kubernetes" / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
EVERYTHING = "\n".join(TEXTS.values())
COMMANDS = {
    typed.partition("  #")[0].strip()
    for typed in re.findall(r"python (main\.py[^`\n]*)", EVERYTHING)
}
BENCHMARKS = sorted(
    {" ".join(typed.split()) for typed in re.findall(r"python (benchmarks/[^`]*)`", EVERYTHING)}
)
SMALLEST = [
    "--plain", "--stripes=1", "--fields=1", "--field-px=128", "--planes=3", "--exposure-ms=1",
    "--focus-samples=1",
]  # fmt: skip
WITHIN_S = 60.0


def block(first_line: str) -> str:
    """The block of code of README or docs that begins so."""
    return str(re.search(rf"```\w*\n({re.escape(first_line)}.*?)```", EVERYTHING, re.S)[1])  # type: ignore[index]


# ---------------------------------------------------------------------------------- commands


@pytest.fixture
def folder(local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scan(*options: str, size: list[str] = SMALLEST) -> Path:
    """Scan in this process, on the Ray of the session; returns the folder that is left."""
    assert main.main([*size, *options]) == 0
    (run,) = Path("runs").iterdir()
    assert summary_of(run)["status"] == "complete"
    return run


def settings_of(run: Path) -> dict[str, Any]:
    """The settings that a run was made with."""
    return tomllib.loads((run / "scan.toml").read_text())


def simulated(folder: Path) -> None:
    """Without options the simulated slide is scanned into a folder named by the time."""
    run = scan()
    assert settings_of(run)["microscope"] == "simulated"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ", run.name)


def live(folder: Path) -> None:
    """The page is served while the scan runs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pages: list[str] = []
    looking = threading.Thread(target=lambda: pages.append(fetched(f"http://127.0.0.1:{port}")))
    predict = main.ScanLoop.predict

    def predict_once_seen(loop: main.ScanLoop) -> Any:
        looking.join()
        return predict(loop)

    looking.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main.ScanLoop, "predict", predict_once_seen)
        patch.setattr(report.live, "LOWEST_PRIORITY", 0)  # other tests take all CPUs
        scan("--live", str(port))
    assert "running · stripe scan</title>" in pages[0]


def fetched(url: str) -> str:
    """The page at a URL, as soon as it is served."""
    until_s = time.monotonic() + WITHIN_S
    while True:
        try:
            with urlopen(url, timeout=WITHIN_S) as answer:
                return str(answer.read().decode())
        except URLError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.02)


def replay(folder: Path) -> None:
    """A folder of single planes is one field."""
    recorded = folder / "recorded"
    recorded.mkdir()
    grain = np.random.default_rng(0).integers(0, 4000, (128, 128)).astype(np.uint16)
    for plane, blur in enumerate((3.0, 0.1, 3.0)):
        cv2.imwrite(str(recorded / f"z{plane}.png"), cv2.GaussianBlur(grain, (0, 0), blur))
    run = scan("--microscope", "replay", "--replay-path", str(recorded))
    assert summary_of(run)["fields"]["stacked"] == 1


def micromanager(config: Path, *more: str) -> None:
    """The devices of a configuration are driven; the settings file names their adapters."""
    Path("adapters.toml").write_text(f"adapters = '{ADAPTERS}'\n")
    size = [option for option in SMALLEST if "field-px" not in option]
    options = ["--microscope", "micromanager", "--mm-config", str(config)]
    run = scan(*options, *more, "--config", "adapters.toml", size=size)
    assert Path(settings_of(run)["mm_config"]) == config


def own_config(folder: Path) -> None:
    """A configuration file from anywhere."""
    config = folder / "MMConfig.cfg"
    config.write_bytes(PRODUCT.read_bytes())
    micromanager(config)


@contextmanager
def head() -> Iterator[str]:
    """A Ray that `ray start` has started, with three CPUs; all its processes end with it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with temporary_folder() as place:
        command = [
            RAY, "start", "--head", "--block", "--num-cpus=3", "--node-ip-address=127.0.0.1",
            f"--port={address.rpartition(':')[2]}", f"--temp-dir={place}",
            "--include-dashboard=false", "--object-store-memory=100000000", "--disable-usage-stats",
        ]  # fmt: skip
        log = place / "log"
        with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
            try:
                until_s = time.monotonic() + WITHIN_S
                while "--block" not in log.read_text():
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < until_s
                    time.sleep(0.1)
                yield address
            finally:
                started = psutil.Process(process.pid).children(recursive=True)
                process.terminate()
                _, alive = psutil.wait_procs(started, timeout=10)
                for each in alive:
                    each.kill()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of a short name: the sockets of Ray lie in it."""
    with tempfile.TemporaryDirectory(prefix="docs-", ignore_cleanup_errors=True) as place:
        yield Path(place)


def address(folder: Path) -> None:
    """The Ray at the address is joined: the run has its three CPUs."""
    with head() as there:
        run = subprocess.run(
            [sys.executable, str(ROOT / "main.py"), *SMALLEST,
             "--address", there, "--out", str(folder / "run")],
            capture_output=True, text=True, timeout=WITHIN_S, check=False,
        )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert [event["cpus"] for event in events_in(folder / "run", "ray")] == [3]
    assert summary_of(folder / "run")["status"] == "complete"


def out(folder: Path) -> None:
    """The folder that was named holds the run, and no other is made."""
    assert main.main([*SMALLEST, "--out", str(folder / "shared" / "run")]) == 0
    assert summary_of(folder / "shared" / "run")["status"] == "complete"
    assert not (folder / "runs").exists()


def predictor(spec: str) -> None:
    """The run used that predictor."""
    run = scan("--predictor", spec)
    (begun,) = events_in(run, "begun")
    assert begun["identity"]["predictor"].partition(":")[0] == spec.partition(":")[0]


def onnx(folder: Path) -> None:
    """A network in a file."""
    (folder / "model.onnx").write_bytes(smoothing())
    predictor("onnx:model.onnx")


def bioimageio(folder: Path) -> None:
    """A model folder."""
    model_folder(folder / "model")
    predictor("bioimageio:model")


def own_python(folder: Path) -> None:
    """The module of the docs, in the current folder."""
    (folder / "my_model.py").write_text(block("# my_model.py"))
    predictor("my_model:factory")


def stress(folder: Path) -> None:
    """The summary says what was burnt."""
    run = scan("--stress", "--stress-seconds=0.01")
    assert summary_of(run)["stress"] == {"burners": os.cpu_count(), "seconds": 0.01}


def register(folder: Path) -> None:
    """The summary says how far fields were moved."""
    run = scan("--register-fields")
    found = summary_of(run)["registration"]
    assert found["matched"] + found["unmatched"] == summary_of(run)["fields"]["planned"]


def resume(folder: Path) -> None:
    """A run whose journal ends before the answer is finished, with the same digest and without
    another capture."""
    run = scan()
    before, journal = summary_of(run), run / "events.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(line for line in lines if json.loads(line)["event"] in KEPT))
    (run / "objects.csv").unlink()
    assert main.main(["--plain", "--resume", str(run)]) == 0
    after = summary_of(run)
    assert after["digest"] == before["digest"]
    assert after["fields"]["resumed"] == len(events_in(run, "captured")) == 1


KEPT = ("begun", "ray", "focused", "captured", "stacked")


def write_report(folder: Path) -> None:
    """The report of a run is written."""
    run = scan()
    assert not (run / "report.html").exists()
    assert main.main(["--report", str(run)]) == 0
    assert "<html" in (run / "report.html").read_text()


def verify(folder: Path) -> None:
    """A changed row is found, and a resume mends it: every field is read back, none is captured."""
    run = scan()
    assert main.main(["--verify", str(run)]) == 0
    table = (run / "objects.csv").read_text()
    (run / "objects.csv").write_text(table.replace("1", "2"))
    assert main.main(["--verify", str(run)]) == 1
    assert main.main(["--resume", str(run)]) == 0
    assert main.main(["--verify", str(run)]) == 0
    assert (run / "objects.csv").read_text() == table
    assert len(events_in(run, "captured")) == len({*map(place_of, events_in(run, "captured"))})


def place_of(event: dict[str, Any]) -> tuple[int, int]:
    """Stripe and field of an event."""
    return event["stripe"], event["field"]


def usage(folder: Path) -> None:
    """The help is shown."""
    with pytest.raises(SystemExit, match="0"):
        main.main(["--help"])


def version(folder: Path) -> None:
    """The version is that of the settings."""
    with redirect_stdout(StringIO()) as said, pytest.raises(SystemExit, match="0"):
        main.main(["--version"])
    assert said.getvalue() == f"stripe scan {VERSION}\n"


RUNS: dict[str, Callable[[Path], None]] = {
    "main.py": simulated,
    "main.py --live 8000": live,
    "main.py --microscope replay --replay-path FOLDER": replay,
    "main.py --microscope micromanager --mm-config MMConfig.cfg": own_config,
    "main.py --microscope micromanager --mm-config microscope/beads.cfg": lambda _: micromanager(
        PRODUCT
    ),
    "main.py --microscope micromanager --mm-config MMConfig_demo.cfg --focus none": (
        lambda _: micromanager(ADAPTERS / "MMConfig_demo.cfg", "--focus", "none")
    ),
    "main.py --address 10.0.0.1:6379 --out /shared/run": address,
    "main.py --out /shared/run": out,
    "main.py --predictor onnx:model.onnx": onnx,
    "main.py --predictor bioimageio:FOLDER": bioimageio,
    "main.py --predictor my_model:factory": own_python,
    "main.py --stress": stress,
    "main.py --register-fields": register,
    "main.py --resume runs/2026-11-23T04-12-52Z": resume,
    "main.py --report FOLDER": write_report,
    "main.py --verify DIR": verify,
    "main.py --help": usage,
    "main.py --version": version,
}


def test_every_command_is_known_here() -> None:
    """A command that comes into a page, or leaves it, comes here or leaves."""
    assert set(RUNS) == COMMANDS


@pytest.mark.parametrize("typed", RUNS)
def test_a_command_does_what_it_is_there_for(folder: Path, typed: str) -> None:
    """Each command, once, with the smallest geometry: it ends well and leaves what it promises."""
    RUNS[typed](folder)


@pytest.mark.parametrize("command", BENCHMARKS)
def test_a_benchmark_takes_its_options(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Benchmarks take minutes, so only their help is asked: it names all options of the pages."""
    name, *options = shlex.split(command)
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    before = dict(os.environ)
    try:
        with pytest.raises(SystemExit, match="0"):
            runpy.run_path(str(ROOT / name), run_name="__main__")
    finally:
        os.environ.clear()
        os.environ.update(before)

    usage = " ".join(capsys.readouterr().out.split())
    named = [option for option in options if re.match(r"--|[a-z]+ [a-z]+", option)]
    assert [option for option in named if option not in usage] == []


def test_benchmarks_that_are_named_exist() -> None:
    """Each file of benchmarks that a page names exists."""
    named = set(re.findall(r"benchmarks/\w+\.py", EVERYTHING))

    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def test_requirements_that_are_named_exist() -> None:
    """Each file that pip is to install from exists."""
    named = set(re.findall(r"pip install -r (\S+)", EVERYTHING))

    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


# ------------------------------------------------------------------------------------ Python

SNIPPETS = {
    "from imaging.stacking import focus_stack": "tests/imaging/test_stacking.py",
    "# my_stacking.py": "here",
    "# my_model.py": "here and tests/prediction/test_user_code.py",
    "# my_scan.py": "tests/prediction/test_scan_predictor.py",
    "import napari": "tests/workflow/test_scan.py",
    "from config import Settings": "here",
}


def test_all_python_is_run() -> None:
    """Every block of Python in the pages is executed by a test."""
    assert set(re.findall(r"```python\n(.*)", EVERYTHING)) == set(SNIPPETS)


def test_a_scan_from_python(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines of the docs scan; its summary has the keys that the docs explain, no other."""
    names: dict[str, Any] = {}
    exec(block("from config import Settings"), names)

    said = capsys.readouterr().out
    assert said.startswith("complete")
    assert said.count("\n") == 1
    left = summary_of(folder / "runs" / "from-python")
    assert left == json.loads(json.dumps(names["summary"]))
    _, _, table = TEXTS["docs/outputs.md"].partition("## Keys of summary.json")
    table, _, _ = table.partition("\n## ")
    keys = " ".join(re.findall(r"^\| (`.*?) \|", table, re.M))
    assert set(re.findall(r"`([a-z_]+)[.`]", keys)) == set(left)


def test_own_stacking_takes_the_place_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the lines of the docs the mosaic holds what they make, here the brightest plane."""
    (tmp_path / "my_stacking.py").write_text(block("# my_stacking.py"))
    monkeypatch.syspath_prepend(tmp_path)
    page = TEXTS["docs/focus-stacking.md"]
    old, new = re.findall(r"`(from \w[\w.]* import focus_stack)`", page)
    source = (ROOT / "imaging" / "batches.py").read_text()
    assert source.count(old) == 1
    assert (ROOT / "prediction" / "warm_up.py").read_text().count(old) == 1
    changed = ModuleType("imaging.batches")
    exec(compile(source.replace(old, new), "batches.py", "exec"), vars(changed))
    monkeypatch.setattr(imaging, "batches", changed, raising=False)

    plan = make_plan((1,), (64, 64), 0, 1.0, steered=True)
    frames = np.random.default_rng(1).integers(0, 4000, (5, 64, 64)).astype(np.uint16)
    create_mosaics(tmp_path, plan, frames.dtype)
    heights_um = tuple(map(float, range(5)))
    tasks.stack_batch._function(
        StackJob(str(tmp_path), plan.fields[0], heights_um, align=False), frames
    )

    whole = slice(64), slice(64)
    np.testing.assert_array_equal(read_region(tmp_path / STACKED, *whole), frames.max(axis=0))
    np.testing.assert_array_equal(read_region(tmp_path / DEPTH, *whole), frames.argmax(axis=0))


# ------------------------------------------------------------------------------------- pages


def test_the_settings_page_is_up_to_date() -> None:
    """The page is what the code would generate now."""
    generated = runpy.run_path(str(ROOT / "docs" / "generate_settings.py"))["page"]()

    assert TEXTS["docs/settings.md"] == generated, "run python docs/generate_settings.py"


def test_all_kinds_of_events_are_explained() -> None:
    """The page of outputs explains every kind of event that is written."""
    table = TEXTS["docs/outputs.md"].partition("## Kinds of events")[2]
    kinds = {
        value
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, events.Event)
        for value in get_args(kind.model_fields["event"].annotation)
    }

    assert set(re.findall(r"^\| `(\w+)` ", table, re.M)) == kinds - {"damaged"}


def anchors(text: str) -> set[str]:
    """The names by which the headings of a page can be linked, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_each_fault_that_is_told_of_has_a_test() -> None:
    """The table of what happens names, for each row, a test that exists."""
    text = (ROOT / "docs" / "faults-and-resume.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    shown = [re.search(r"\[`(.+)`\]\(\.\./(tests/\S+)\) \|$", row) for row in rows]
    named = [match.groups() for match in shown if match]

    table = rows[rows.index("| what happens | what the run does | shown by |") + 2 :]
    assert len(named) == len(table) > 20
    for name, file in named:
        assert f"def test_{name.replace(' ', '_')}(" in (ROOT / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    """Each link to a file or a heading of the project has its target."""
    dead = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", TEXTS[page]):
        path, _, heading = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or (heading and heading not in anchors(file.read_text())):
            dead.append(target)

    assert dead == []


def test_every_page_is_linked_from_the_readme() -> None:
    """No page of docs is hidden."""
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", TEXTS["README.md"]))

    assert {name for name in TEXTS if name.startswith("docs/")} == linked
