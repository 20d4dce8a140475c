"""The structure of the code: who may import whom, how long things are, what is required."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ("main.py", "actors.py", "tasks.py", "config.py")
PACKAGES = (
    "command", "driver", "cluster", "scan", "microscope", "imaging", "prediction", "results",
    "report",
)  # fmt: skip
PRODUCT = [ROOT / name for name in SCRIPTS]
PRODUCT += [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
READING_PATH = [
    *(ROOT / name for name in ("main.py", "actors.py", "tasks.py")),
    *sorted((ROOT / "driver").glob("*.py")),
    *(ROOT / "scan" / name for name in ("plan.py", "state.py", "records.py")),
]
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


def code_lines(path: Path) -> int:
    """Count the lines of a file that are neither blank nor comment nor docstring."""
    text = path.read_text()
    prose = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    lines = enumerate(text.splitlines(), 1)
    return sum(
        number not in prose and bool(line.strip()) and line.strip()[0] != "#"
        for number, line in lines
    )


def test_the_reading_path_is_short() -> None:
    """The workflow can be read in an evening: the limit is that of the design, and fixed."""
    lengths = {str(path.relative_to(ROOT)): code_lines(path) for path in READING_PATH}

    assert sum(lengths.values()) < 1400, lengths


@pytest.mark.parametrize("name", ["main.py", "README.md"])
def test_what_is_read_first_is_short(name: str) -> None:
    """The workflow and the README have at most 150 lines each."""
    assert len((ROOT / name).read_text().splitlines()) <= 150


SCRIPT_RULES = {  # what a script must not import; for packages see pyproject.toml
    "main.py": {"numpy", "cv2", "scipy", "skimage", "numba"},
    "actors.py": {"main", "tasks", "driver", "prediction", "results", "report"},
    "tasks.py": {"main", "actors", "driver", "microscope", "report"},
    "config.py": {"main", "actors", "tasks", "ray", *PACKAGES},
}


@pytest.mark.parametrize("script", SCRIPT_RULES)
def test_scripts_keep_to_their_imports(script: str) -> None:
    """No script imports what the design forbids it."""
    assert not imports_of(ROOT / script) & SCRIPT_RULES[script]


def test_packages_keep_to_their_imports() -> None:
    """The contracts in pyproject.toml hold: who may import whom, and where Ray is imported."""
    # In a process of its own: it silences the loggers that it finds.
    linter = Path(sys.executable).with_name("lint-imports")
    linted = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)

    assert linted.returncode == 0, linted.stdout


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
    """Each required package is imported; imagecodecs by tifffile, grpcio by Ray."""
    lines = (ROOT / file).read_text().splitlines()
    required = {re.split(r"[\[>=]", line)[0] for line in lines if line and line[0] != "#"}
    imported = set().union(*map(imports_of, PRODUCT))

    assert {REQUIRED.get(name, name) for name in required - {"imagecodecs", "grpcio"}} <= imported


@pytest.mark.parametrize("package", ["onnxruntime", "bioimageio", "pymmcore", "bioio"])
def test_optional_packages_are_imported_where_they_are_used(package: str) -> None:
    """Optional packages are imported only where they are used."""
    for path in PRODUCT:
        modules = ast.parse(path.read_text()).body
        assert not any(
            package in ast.unparse(line)
            for line in modules
            if isinstance(line, (ast.Import, ast.ImportFrom))
        )


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Name and syntax tree of every function of the product."""
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.name}:{node.name}", node


def test_functions_are_short() -> None:
    """Nine in ten functions have at most 30 lines, none has more than 60."""
    lengths = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in functions()}

    assert [name for name, length in lengths.items() if length > 60] == []
    assert sum(length <= 30 for length in lengths.values()) >= 0.9 * len(lengths)


def test_constructors_have_few_arguments() -> None:
    """No constructor has more than eight arguments."""
    many = [
        name
        for name, node in functions()
        if node.name == "__init__" and len([*node.args.args, *node.args.kwonlyargs]) > 9
    ]

    assert many == []


def test_cameras_start_without_what_they_do_not_need() -> None:
    """A camera's process imports no library of detection: each costs the first exposure a fifth of
    a second."""
    code = "import sys, actors; print(*{'numba', 'scipy.ndimage', 'skimage'} & {*sys.modules})"

    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True
    )

    assert found.stdout.split() == []
