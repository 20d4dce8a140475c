"""Touching the object store's memory changes nothing but the time of its first use."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from scan.pages import touch_store

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

            touch_store(asked)

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
    touch_store(SIZE)
