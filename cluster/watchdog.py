"""A process that outlives the driver and says how it ended.

Ray's core ends its driver when one of Ray's own processes dies: in C++, so that no `except`, no
`finally` and no exit handler runs. Only another process can still close the journal, tell the user
and give the right exit code. So the program forks before it imports anything large: the child is
the driver, and the parent waits for it.
"""

import atexit
import ctypes
import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cluster.screen import keep_screen
from scan.errors import ScanError

FROM_KERNEL = 0x80  # SI_KERNEL: a terminal sent it, to the child as well
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
EXIT_S = 15.0  # within which a driver ends that has said its exit code; Ray may hang
EXPECTED = "the driver", "its process to run to its end"
HINT = "see Ray's logs in session_latest of its temporary folder"
MAX_SAID_BYTES = 2**16  # what a pipe holds


@dataclass(frozen=True)
class Death:
    """The end of a driver that did not say its exit code.

    Parameters
    ----------
    error : ScanError
        What is known of it.
    location : str or None
        Folder or URL of the run; None if there was none yet.
    stopped : bool
        Whether it was asked to stop.
    """

    error: ScanError
    location: str | None
    stopped: bool


death: Death | None = None  # in the parent: of its child
_to_parent: int | None = None  # in the child: the pipe


def fork_driver() -> None:
    """Return in a child process. The parent passes signals on, waits, and exits as the child does.

    If the child dies without a word the parent returns, too, with `death` set. Does nothing under a
    debugger.
    """
    if sys.gettrace():
        return
    keep_screen()
    from_child, to_parent = os.pipe()
    parent, before = os.getpid(), signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    requests = {signal.SIGINT, signal.SIGTERM}  # to stop
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup leaves it
        requests.add(signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, requests)
    child = os.fork()
    if child:
        os.close(to_parent)
        status, stopped = _wait_for(child, {*requests, signal.SIGCHLD})
        _follow(status, stopped, _said(from_child))
    else:
        os.close(from_child)
        _become_driver(parent, to_parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _wait_for(child: int, signals: set[signal.Signals]) -> tuple[int, bool]:
    """Pass signals on until a child ends: its exit code, and whether it was asked to stop."""
    stopped = False
    while True:
        number, known = _next_signal(signals)
        if number != signal.SIGCHLD:
            stopped = True
            if not known:
                os.kill(child, number)
        elif (ended := os.waitpid(child, os.WNOHANG))[0]:
            return os.waitstatus_to_exitcode(ended[1]), stopped


def _next_signal(signals: set[signal.Signals]) -> tuple[int, bool]:
    """Wait for a signal; whether the child got it as well."""
    if sys.platform == "linux":
        came = signal.sigwaitinfo(signals)
        return came.si_signo, came.si_code == FROM_KERNEL
    number = signal.sigwait(signals)
    return number, number == signal.SIGINT and sys.stdin is not None and sys.stdin.isatty()


def _said(from_child: int) -> dict[str, Any]:
    """What the child said; processes that it started may still hold its end of the pipe."""
    os.set_blocking(from_child, False)
    said: dict[str, Any] = {}
    with suppress(BlockingIOError):
        for line in os.read(from_child, MAX_SAID_BYTES).splitlines():
            said |= json.loads(line)
    os.close(from_child)
    return said


def _follow(status: int, stopped: bool, said: dict[str, Any]) -> None:
    global death
    if "code" in said:
        sys.exit(said["code"])
    if "exits" in said and status >= 0 and not stopped:  # Ray exits on SIGTERM while it starts
        sys.exit(status)
    error = ScanError(*said.get("error", (*EXPECTED, _got(status), HINT)))
    if not stopped:  # now: what closes the run takes seconds to import
        print(error, file=sys.stderr, flush=True)
    death = Death(error, said.get("location"), stopped)


def _got(status: int) -> str:
    if status == 1:
        return "exit code 1 from Ray, as when one of its processes on this computer dies"
    if status == -signal.SIGKILL:
        return "SIGKILL: by hand, or for lack of memory"
    if status < 0:
        return f"{signal.Signals(-status).name}, in compiled code"
    return f"exit code {status}"


def _become_driver(parent: int, to_parent: int) -> None:
    global _to_parent
    _to_parent = to_parent
    atexit.register(_say, exits=True)  # the first to register is the last that runs
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    else:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _say(**words: object) -> None:
    if _to_parent is not None:
        with suppress(OSError):
            os.write(_to_parent, json.dumps(words).encode() + b"\n")


def say_location(location: str) -> None:
    """Tell the watchdog where the run is, so that it can close its journal."""
    _say(location=location)


def say_code(code: int) -> None:
    """Tell the watchdog the exit code; this process ends within `EXIT_S`, whatever hangs."""
    if _to_parent is not None:
        _say(code=code)
        last = threading.Timer(EXIT_S, os._exit, [code])
        last.daemon = True
        last.start()


def end_driver(error: ScanError) -> None:
    """End this process at once; the watchdog tells the error. Does nothing without a watchdog."""
    if _to_parent is not None:
        _say(error=error.args)
        os._exit(1)
