"""A run folder of an earlier version of the program is resumed by this one."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

import main

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "interrupted_run.tar.gz"
DIGEST = "49421f53049ab063b229cf3054c5902f821d40409b18365c55e1ecaecede91ce"


@pytest.mark.usefixtures("local_ray")
def test_a_run_of_an_earlier_version_is_resumed(tmp_path: Path) -> None:
    """Journal, settings and mosaics that an interrupted run of an earlier version left are read,
    its fields are kept, and the digest is that of an undisturbed run of that version."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "interrupted_run"

    code = main.main(["--plain", "--resume", str(folder)])

    summary = json.loads((folder / "summary.json").read_text())
    assert code == 0
    assert summary["digest"] == DIGEST
    assert summary["fields"]["resumed"] > 0
