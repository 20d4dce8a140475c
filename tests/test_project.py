"""What describes the project says the same everywhere: requirements, version, license."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from config import VERSION

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL = PROJECT["optional-dependencies"]


def required(file: str) -> list[str]:
    """The requirements of a file, without comments; other files that it names are left out."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    plain = (line.partition("#")[0].strip() for line in lines)
    return [line for line in plain if line and not line.startswith("-r ")]


@pytest.mark.parametrize(
    ("file", "table"),
    [
        ("requirements.txt", PROJECT["dependencies"]),
        ("requirements-models.txt", OPTIONAL["models"]),
        ("requirements-microscope.txt", OPTIONAL["microscope"]),
        ("requirements-dev.txt", OPTIONAL["dev"][1:]),
    ],
)
def test_requirements_are_those_of_the_project(file: str, table: list[str]) -> None:
    """Requirements files and pyproject.toml list the same, each package once."""
    names = [re.split(r"[\[><=]", line)[0] for line in table]

    assert table == required(file)
    assert len(set(names)) == len(names)


def test_the_version_is_the_same_everywhere() -> None:
    """The program, its metadata, the citation and the latest entry of the changelog agree."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert PROJECT["version"] == VERSION == citation["version"]
    assert re.findall(r"^## (\S+)", changes, re.M)[0] == VERSION


def test_the_license_is_the_same_everywhere() -> None:
    """The license file is the one that metadata and citation name."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))

    assert PROJECT["license"] == citation["license"] == "BSD-3-Clause"
    assert "the stripe scan authors" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_a_forge_runs_what_developers_run() -> None:
    """The workflow of the forge runs .ci/run on the oldest Python that is supported."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    (python,) = (
        step["with"]["python-version"] for step in steps if "python" in step.get("uses", "")
    )

    assert any(".ci/run" in step.get("run", "") for step in steps)
    assert PROJECT["requires-python"] == f">={python}"
