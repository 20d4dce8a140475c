"""Compiled loops are kept by the text of their file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ONE_LOOP = """
import numpy as np
from imaging.kernels import copy_row
copy_row(np.zeros(4, np.uint16), np.zeros(4, np.float32))
print(sum(copy_row.stats.cache_hits.values()))
"""


def hits_in(copy: Path, cache: Path) -> int:
    """How many loops a new process takes from the cache, in a copy of the package."""
    ended = subprocess.run(
        [sys.executable, "-c", ONE_LOOP],
        cwd=copy,
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return int(ended.stdout)


def test_a_copy_of_the_program_compiles_nothing_again(tmp_path: Path) -> None:
    """Code that one copy has compiled is used by another, until the text of its file changes; it
    is compiled, too, where the folder of compiled code cannot be written."""
    first, second = tmp_path / "first", tmp_path / "second"
    for copy in (first, second):
        shutil.copytree(
            ROOT / "imaging", copy / "imaging", ignore=shutil.ignore_patterns("__pycache__")
        )
    cache, not_a_folder = tmp_path / "cache", tmp_path / "file"
    not_a_folder.touch()

    assert hits_in(first, cache) == 0
    assert hits_in(second, cache) == 1
    with (second / "imaging" / "kernels.py").open("a") as file:
        file.write("\nCHANGED = True\n")
    assert hits_in(second, cache) == 0
    assert hits_in(second, not_a_folder) == 0
