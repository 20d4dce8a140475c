"""Worker processes: priority, time limit, pages of the object store."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster.workers import WORK_NICENESS, prefault_object_store, run_low_priority

ROOT = Path(__file__).parents[2]

SIZE = 64 * mmap.PAGESIZE
LINUX = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux")


@LINUX
@pytest.mark.parametrize(("asked", "ready"), [(SIZE, SIZE), (SIZE // 4, SIZE // 4), (0, 0)])
def test_pages_are_ready_and_unchanged(tmp_path: Path, asked: int, ready: int) -> None:
    """So many bytes of the mapped store are resident afterwards, and say what they said before."""
    with (tmp_path / "plasma").open("w+b") as file:
        os.truncate(file.fileno(), SIZE)
        with mmap.mmap(file.fileno(), SIZE) as store:
            store[: mmap.PAGESIZE] = b"x" * mmap.PAGESIZE
            before = resident_bytes(str(tmp_path / "plasma"))

            prefault_object_store(asked)

            assert before <= mmap.PAGESIZE
            assert resident_bytes(str(tmp_path / "plasma")) == max(ready, before)
            assert store[: mmap.PAGESIZE] == b"x" * mmap.PAGESIZE


def resident_bytes(name: str) -> int:
    """Bytes of a mapped file that are in this process's page table."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if name in line:
            return next(int(each.split()[1]) for each in lines if each.startswith("Rss")) * 1024
    return 0


def test_without_a_store_nothing_happens() -> None:
    """A process that has not mapped the store is left alone."""
    prefault_object_store(SIZE)


def test_work_runs_at_low_priority_in_one_thread() -> None:
    """Work runs at lower priority in one thread; the process keeps its own."""
    before = os.nice(0)

    niceness = run_low_priority(os.nice, 0)
    threads = {run_low_priority(threading.get_ident) for _ in range(3)}

    assert niceness == max(before, WORK_NICENESS)
    assert os.nice(0) == before
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_an_error_keeps_its_type() -> None:
    """What the function raises reaches the caller as it is."""
    with pytest.raises(ZeroDivisionError):
        run_low_priority(divmod, 1, 0)


HANGS = {
    "waits": "threading.Event().wait()",
    "computes": "[None for _ in iter(int, 1)]",
    "holds Python's lock": "ctypes.PyDLL(None).sleep(60)",
}


@pytest.mark.parametrize("work", HANGS.values(), ids=list(HANGS))
def test_work_beyond_its_limit_ends_the_process(work: str) -> None:
    """The process ends in each kind of hang, and its log shows where."""
    code = (
        "import ctypes, threading\nfrom cluster.workers import run_low_priority\n"
        f"run_low_priority(lambda: {work}, limit_s=0.2)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip

    assert run.returncode == 1
    assert "Timeout" in run.stderr
    assert "<lambda>" in run.stderr


def test_work_within_its_limit_is_left_alone() -> None:
    """A limit that is not reached has no effect, also later."""
    assert run_low_priority(divmod, 7, 2, limit_s=0.05) == (3, 1)
    threading.Event().wait(0.1)  # past the limit
