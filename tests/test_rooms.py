"""Who may import whom: the rooms of the design, and what only some may use."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("scan", "microscope", "imaging", "prediction", "results", "report")
FORBIDDEN = {
    "main.py": {"numpy", "cv2", "scipy", "skimage", "numba"},
    "actors.py": {"tasks", "prediction", "results", "report"},
    "tasks.py": {"actors", "microscope", "report"},
    "config.py": {"main", "actors", "tasks", "driver", *ROOMS},
    "driver": {"main"},
    "scan": {"ray", "imaging", "prediction", "results", "report", "microscope"},
    "microscope": {"ray", "results", "report", "imaging", "prediction"},
    "imaging": {"ray", "results", "report", "prediction", "microscope", "time", "pathlib", "os"},
    "prediction": {"ray", "results", "report", "microscope", "time"},
    "results": {"ray", "imaging", "prediction", "microscope", "report"},
    "report": {"ray", "imaging", "prediction", "microscope"},
}
REQUIRED = {  # import name of each requirement
    "bioimageio.core": "bioimageio",
    "opencv-python-headless": "cv2",
    "scikit-image": "skimage",
    "tomli-w": "tomli_w",
}


def imports_of(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def files_of(room: str) -> list[Path]:
    """The Python files of a room, or the file itself."""
    return [ROOT / room] if room.endswith(".py") else sorted((ROOT / room).rglob("*.py"))


PRODUCT = [path for room in FORBIDDEN for path in files_of(room)]


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_keeps_to_its_imports(room: str) -> None:
    """No room imports what the design forbids it."""
    for path in files_of(room):
        assert not imports_of(path) & FORBIDDEN[room], path


def test_the_top_level_holds_no_further_script() -> None:
    """At the top stand the four scripts of the design and no other."""
    assert {path.name for path in ROOT.glob("*.py")} == {
        "main.py",
        "actors.py",
        "tasks.py",
        "config.py",
    }


@pytest.mark.parametrize(
    "file", [f"requirements{kind}.txt" for kind in ("", "-models", "-microscope")]
)
def test_every_requirement_is_imported(file: str) -> None:
    """Whatever is required is imported; imagecodecs by tifffile, grpcio by Ray."""
    lines = (ROOT / file).read_text().splitlines()
    required = {re.split(r"[\[>=]", line)[0] for line in lines if line and line[0] != "#"}
    imported = set().union(*map(imports_of, PRODUCT))

    assert {REQUIRED.get(name, name) for name in required - {"imagecodecs", "grpcio"}} <= imported


@pytest.mark.parametrize("package", ["onnxruntime", "bioimageio", "pymmcore"])
def test_optional_packages_are_imported_where_they_are_used(package: str) -> None:
    """Whoever has no model of his own needs no package for it."""
    for path in PRODUCT:
        modules = ast.parse(path.read_text()).body
        assert not any(
            package in ast.unparse(line)
            for line in modules
            if isinstance(line, (ast.Import, ast.ImportFrom))
        )


def functions() -> list[tuple[str, int]]:
    """Name and length of every function of the product."""
    return [
        (f"{path.name}:{node.name}", (node.end_lineno or 0) - node.lineno + 1)
        for path in PRODUCT
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    ]


def test_functions_are_short() -> None:
    """Nine in ten functions have at most 30 lines, none has more than 60."""
    lengths = [length for _, length in functions()]

    assert [name for name, length in functions() if length > 60] == []
    assert sum(length <= 30 for length in lengths) >= 0.9 * len(lengths)
