"""The README: whatever it tells a newcomer to type is run here, by the same words."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

import main
from results.store import DEPTH, STACKED, create_mosaics, read_region
from scan.layout import make_plan
from scan.records import StackJob
from tests.microscope.devices import ADAPTERS, PRODUCT
from tests.prediction.networks import model_folder, smoothing

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = {
    typed.partition("  #")[0].strip()
    for typed in re.findall(r"python (main\.py[^`\n]*|benchmarks/[^`]*)", README)
}
SMALLEST = [
    "--plain", "--stripes=1", "--fields=1", "--field-px=128", "--planes=3", "--exposure-ms=1",
    "--focus-samples=1",
]  # fmt: skip


def block(first_line: str) -> str:
    """The block of code in the README that begins so."""
    return str(re.search(rf"```\w*\n({re.escape(first_line)}.*?)```", README, re.S)[1])  # type: ignore[index]


def recording(folder: Path) -> None:
    """A folder of single planes."""
    folder.mkdir()
    grain = np.random.default_rng(0).integers(0, 4000, (128, 128)).astype(np.uint16)
    for plane, blur in enumerate((3.0, 0.1, 3.0)):
        cv2.imwrite(str(folder / f"z{plane}.png"), cv2.GaussianBlur(grain, (0, 0), blur))


def begun(folder: Path) -> None:
    """A run that is to be resumed, or shown again."""
    assert main.main([*SMALLEST, "--out", str(folder)]) == 0


Prepare = Callable[[Path], object]
RUNS: dict[str, tuple[str, Prepare | None]] = {  # as typed; its words here, and what comes before
    "main.py": ("", None),
    "main.py --live 8000": ("--live 0", None),
    "main.py --microscope replay --replay-path FOLDER": (
        "--microscope replay --replay-path {place}", recording,
    ),
    "main.py --microscope micromanager --mm-config MMConfig.cfg": (
        "--microscope micromanager --mm-config {place}",
        lambda place: place.write_bytes(PRODUCT.read_bytes()),
    ),
    "main.py --microscope micromanager --mm-config microscope/beads.cfg": (
        f"--microscope micromanager --mm-config {PRODUCT}", None,
    ),
    "main.py --address 10.0.0.1:6379 --out /shared/run": ("--address 10.0.0.1:6379", None),
    "main.py --out /shared/run": ("", None),
    "main.py --predictor onnx:model.onnx": (
        "--predictor onnx:{place}", lambda place: place.write_bytes(smoothing()),
    ),
    "main.py --predictor bioimageio:FOLDER": ("--predictor bioimageio:{place}", model_folder),
    "main.py --predictor my_model:factory": (
        "--predictor my_model:factory",
        lambda place: Path("my_model.py").write_text(block("# my_model.py")),
    ),
    "main.py --stress": ("--stress --stress-seconds 0.01", None),
    "main.py --resume runs/2026-11-23T04-12-52Z": ("--resume {place}", begun),
    "main.py --report FOLDER": ("--report {place}", begun),
    "main.py --help": ("--help", None),
}  # fmt: skip


def test_every_command_is_known_here() -> None:
    """A command that comes into the README, or leaves it, comes here or leaves."""
    assert set(RUNS) == {command for command in COMMANDS if command.startswith("main.py")}


@pytest.mark.parametrize("typed", RUNS)
def test_a_command_does_what_it_is_there_for(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    """The program takes the words and comes to a good end, with something to look at."""
    words, prepare = RUNS[typed]
    place = tmp_path / "place"
    monkeypatch.chdir(tmp_path)
    if prepare:
        prepare(place)
    options = shlex.split(words.format(place=place))
    if "--help" in options:
        with pytest.raises(SystemExit, match="0"):
            main.main(options)
        return
    again = {"--resume", "--report"} & set(options)
    smallest = SMALLEST
    if "micromanager" in options:
        smallest = [option for option in SMALLEST if "field-px" not in option]
        Path("adapters.toml").write_text(f"adapters = '{ADAPTERS}'\n")
        options += ["--config", "adapters.toml"]

    assert main.main(options if again else [*smallest, *options]) == 0

    folder = place if again else next(Path("runs").iterdir())
    left = "report.html" if "--report" in again else "summary.json"
    assert (folder / left).is_file()


BENCHMARKS = sorted(command for command in COMMANDS if command.startswith("benchmarks/"))


@pytest.mark.parametrize("command", BENCHMARKS)
def test_a_benchmark_has_the_options_it_is_called_with(command: str) -> None:
    """The benchmarks take minutes, so that only their words are tried: file and options exist."""
    name, *options = command.split()
    source = (ROOT / name).read_text()
    texts = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}

    assert '__name__ == "__main__"' in source
    assert {option for option in options if option.startswith("--")} <= texts


def test_own_stacking_takes_the_place_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the README's ten lines the mosaic holds what they make, here the brightest plane."""
    (tmp_path / "my_stacking.py").write_text(block("# my_stacking.py"))
    monkeypatch.syspath_prepend(tmp_path)
    new, old = re.findall(r"`(from \w[\w.]* import focus_stack)`", README)
    source = (ROOT / "tasks.py").read_text()
    assert source.count(old) == 2
    changed = ModuleType("tasks")
    exec(compile(source.replace(old, new), "tasks.py", "exec"), vars(changed))

    plan = make_plan((1,), (64, 64), 0, 1.0, steered=True)
    frames = np.random.default_rng(1).integers(0, 4000, (5, 64, 64)).astype(np.uint16)
    create_mosaics(tmp_path, plan, frames.dtype)
    heights_um = tuple(map(float, range(5)))
    changed.stack_batch._function(
        StackJob(str(tmp_path), plan.fields[0], heights_um, align=False), frames
    )

    whole = slice(64), slice(64)
    np.testing.assert_array_equal(read_region(tmp_path / STACKED, *whole), frames.max(axis=0))
    np.testing.assert_array_equal(read_region(tmp_path / DEPTH, *whole), frames.argmax(axis=0))
