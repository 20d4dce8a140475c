"""Names of files and folders: whatever the user writes, one line says what is wrong with it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import main
from config import SettingsError, validate
from driver import run_scan
from results.files import require_regular_files
from scan.errors import InputError

OPTIONS = {
    "--out": ["--out"],
    "--resume": ["--resume"],
    "--report": ["--report"],
    "--config": ["--config"],
    "--replay-path": ["--microscope", "replay", "--replay-path"],
    "--predictor": ["--predictor"],
}


def pipe(path: Path) -> str:
    """A pipe that nobody writes to."""
    os.mkfifo(path)
    return str(path)


def loop(path: Path) -> str:
    """A link to itself."""
    path.symlink_to(path)
    return str(path)


def odd(path: Path) -> str:
    """A file whose name would clear the screen, and more."""
    named = path.with_name("\x1b[2J\n\u202e")
    named.write_text("no settings")
    return str(named)


def below(path: Path) -> str:
    """A file taken for a folder."""
    path.write_text("")
    return f"{path}/run"


NAMES: dict[str, Callable[[Path], str]] = {
    "empty": lambda path: "",
    "blank": lambda path: "  ",
    "too long": lambda path: str(path.with_name("x" * 300)),
    "too deep": lambda path: str(path) + "/x" * 3000,
    "with a NUL": lambda path: f"{path}\0",
    "below a file": below,
    "a pipe": pipe,
    "a device": lambda path: "/dev/zero",
    "a link to itself": loop,
    "below a link to itself": lambda path: f"{loop(path)}/run",
    "escape codes": odd,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("option", OPTIONS)
def test_odd_names_are_refused_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    option: str,
    name: Callable[[Path], str],
) -> None:
    """Exit code 2, one line that a terminal can show, and nothing is written or waited for."""
    monkeypatch.chdir(tmp_path)
    text = name(tmp_path / "a")
    before = sorted(tmp_path.rglob("*"))

    code = main.main([*OPTIONS[option], f"onnx:{text}" if option == "--predictor" else text])

    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert err.rstrip("\n").isprintable()
    assert sorted(tmp_path.rglob("*")) == before


DENIED = {"no rights": errno.EACCES, "read-only": errno.EROFS, "stale": errno.ESTALE}


@pytest.mark.parametrize("number", DENIED.values(), ids=DENIED)
@pytest.mark.parametrize("option", ["--out", "--resume", "--report", "--config"])
@pytest.mark.parametrize("method", ["stat", "mkdir", "iterdir", "open"])
def test_what_may_not_be_used_is_refused_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    option: str,
    number: int,
    method: str,
) -> None:
    """Whatever the system refuses to do with a folder or a file, one line says so."""
    folder = tmp_path / "run"
    original = getattr(Path, method)

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.is_relative_to(folder):
            raise OSError(number, os.strerror(number), str(self))
        return original(self, *arguments, **options)

    monkeypatch.setattr(Path, method, refuse)
    if method != "mkdir":
        os.mkdir(folder)  # noqa: PTH102  (pathlib's is refused)
    if method == "open":
        with open(folder / "scan.toml", "w") as file:  # noqa: PTH123
            file.write("stripes = 1\n")

    code = main.main([option, str(folder), *["--fields", "1"][: 2 * (option == "--resume")]])

    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert err.count("\n") == 1


EMPTY = {
    "replay_path": {"microscope": "replay"},
    "mm_config": {"microscope": "micromanager"},
    "adapters": {},
    "address": {},
    "predictor": {},
    "capture_on": {},
    "microscope": {},
}


@pytest.mark.parametrize("text", ["", " ", "\t", "a\nb", "\x1b[2J"])
@pytest.mark.parametrize("key", EMPTY)
def test_empty_values_are_refused(key: str, text: str) -> None:
    """A value of a settings file that names nothing, or more than a line, is wrong."""
    with pytest.raises(SettingsError, match=key):
        validate({**EMPTY[key], key: text})


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_name_of_a_model_or_a_microscope_is_refused(text: str) -> None:
    """Also in a list, and behind the kind of a model."""
    with pytest.raises(SettingsError, match="microscopes"):
        validate({"microscope": "micromanager", "microscopes": [text]})
    for kind in ("onnx", "bioimageio"):
        with pytest.raises(SettingsError, match="predictor"):
            validate({"predictor": f"{kind}:{text}"})


@pytest.mark.parametrize("out", ["", " "])
def test_no_scan_begins_in_an_unnamed_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    """From Python, too, an empty name is not the default folder."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputError, match="an empty name"):
        run_scan(validate({}), out)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["events.jsonl", ".owner", "stacked.ome.zarr/0/c/0/0"])
def test_only_regular_files_of_a_run_are_opened(tmp_path: Path, name: str) -> None:
    """A pipe in a run folder is refused before anything in there is read."""
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "scan.toml").write_text("")
    os.mkfifo(tmp_path / name)

    with pytest.raises(InputError, match="a regular file, got a pipe"):
        require_regular_files(tmp_path)
    for option in ("--resume", "--report"):
        assert main.main([option, str(tmp_path)]) == 2
