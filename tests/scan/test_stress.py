"""The processes that keep the cores busy end with the scan, also when it is killed."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from scan.stress import burn, burning

ABANDONED = """
from scan.stress import burning
import os, psutil
with burning(2):
    print(*(child.pid for child in psutil.Process().children()), flush=True)
    os._exit(1)
"""


def test_burners_burn_until_the_end() -> None:
    """So many foreign processes take CPU time, and none is left, also when the scan fails."""
    burners: list[psutil.Process] = []
    before = set(psutil.Process().children())

    def scan() -> None:
        with burning(2):
            burners.extend(set(psutil.Process().children()) - before)
            while any(sum(burner.cpu_times()[:2]) < 0.05 for burner in burners):
                pass
            raise RuntimeError

    with pytest.raises(RuntimeError):
        scan()

    assert len(burners) == 2
    assert not any(burner.is_running() for burner in burners)


def test_burners_end_with_a_driver_that_was_killed() -> None:
    """Burners whose parent is gone go as well."""
    run = subprocess.run([sys.executable, "-c", ABANDONED], stdout=subprocess.PIPE, check=False)
    burners = [int(number) for number in run.stdout.split()]

    _, alive = psutil.wait_procs(
        [psutil.Process(number) for number in burners if psutil.pid_exists(number)], timeout=20
    )

    assert len(burners) == 2
    assert not alive


def test_burning_takes_cpu_time() -> None:
    """A burn lasts as long as it should, and computes all the while."""
    began_s, began_cpu_s = time.monotonic(), time.thread_time()

    burn(0.2)

    assert time.monotonic() - began_s >= 0.2
    assert time.thread_time() > began_cpu_s
