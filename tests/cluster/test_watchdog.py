"""A driver that dies without a word: another process says so, with the right exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BEGIN = """
import os, signal, sys, time
from cluster import watchdog
signal.signal(1, signal.SIG_DFL)  # nohup, from which tests may run, ignores it
watchdog.fork_driver()
if watchdog.death:
    death = watchdog.death
    print("died", death.stopped, death.location, death.error, flush=True)
    sys.exit(1)
print("driver", os.getpid(), flush=True)
"""


def driver(does: str) -> subprocess.Popen[str]:
    """A program that forks its driver, which does this."""
    command = [sys.executable, "-c", BEGIN + does]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


def output_of(run: subprocess.Popen[str]) -> str:
    """What a program prints until its end."""
    with run:
        return run.communicate(timeout=20)[0]


ORDERLY = {
    "returns": ("", 0),
    "exits": ("sys.exit(2)", 2),
    "says its code, then crashes": ("watchdog.say_code(3); os.abort()", 3),
    "raises": ("raise ValueError('unforeseen')", 1),
}


@pytest.mark.parametrize(("does", "code"), ORDERLY.values(), ids=list(ORDERLY))
def test_the_exit_code_is_the_drivers(does: str, code: int) -> None:
    """A driver that ends as Python does is not spoken for, nor one that crashes after its code."""
    run = driver(does)

    output = output_of(run)

    assert run.returncode == code
    assert "died" not in output


DEATHS = {
    "Ray ends it": ("os._exit(1)", "exit code 1 from Ray"),
    "ends with success": ("os._exit(0)", "got exit code 0"),
    "is killed": ("os.kill(os.getpid(), 9)", "SIGKILL: by hand, or for lack of memory"),
    "crashes": ("os.abort()", "SIGABRT, in compiled code"),
    "a reason": (
        "from scan.errors import ScanError\n"
        "watchdog.end_driver(ScanError('Ray', 'its head', 'nothing', 'resume'))",
        "Ray: expected its head, got nothing; resume",
    ),
}


@pytest.mark.parametrize(("does", "message"), DEATHS.values(), ids=list(DEATHS))
def test_a_death_is_told(does: str, message: str) -> None:
    """However a driver dies, its parent knows where the run is, and what came."""
    run = driver("watchdog.say_location('runs/a\\n b')\n" + does)

    output = output_of(run)

    assert run.returncode == 1
    assert "died False runs/a\n b" in output
    assert message in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("group", [False, True], ids=["alone", "group"])
def test_a_request_to_stop_is_passed_on(number: signal.Signals, group: bool) -> None:
    """A signal to the program, or to all its processes, reaches the driver, which ends as it
    wants."""
    run = driver(
        "got = []\nfor each in (1, 2, 15): signal.signal(each, lambda n, frame: got.append(n))\n"
        "print('ready', flush=True)\nwhile not got: time.sleep(0.001)\n"
        "print('stopped by', got[0])\nwatchdog.say_code(130)"
    )
    assert run.stdout is not None
    while run.stdout.readline() != "ready\n":
        pass

    (os.killpg if group else os.kill)(run.pid, number)
    output = output_of(run)

    assert run.returncode == 130
    assert output == f"stopped by {number.value}\n"


@pytest.mark.parametrize(
    "does",
    ["", "signal.signal(15, lambda n, frame: sys.exit(n))\n"],
    ids=["killed", "as Ray handles it"],
)
def test_a_driver_that_a_signal_ends_was_stopped(does: str) -> None:
    """A signal that ends the driver before it can handle one is no failure."""
    run = driver(does + "print(flush=True)\nfor _ in range(2000): time.sleep(0.01)")
    assert run.stdout is not None
    run.stdout.readline()
    run.stdout.readline()

    run.terminate()

    assert "died True None" in output_of(run)


def test_no_driver_is_left_behind() -> None:
    """Who kills the program kills its driver, which would otherwise print on."""
    run = driver("time.sleep(20)")
    assert run.stdout is not None
    run.stdout.readline()

    run.kill()

    with run:
        assert run.communicate(timeout=10)[0] == ""  # both have closed it
