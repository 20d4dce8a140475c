"""The live view: the report of a run, served while the scan runs.

The server is a separate process with the lowest priority. It reads only the run folder, so it does
not slow the scan.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select

from results.journal import JOURNAL
from scan.errors import UserMistake

POLL_INTERVAL_S = 0.2
SHUTDOWN_WAIT_S = 3.0  # for open pages to be informed of the end
LOWEST_PRIORITY = 19  # niceness


@contextmanager
def live_view(folder: Path, at: tuple[str, int] | None) -> Iterator[None]:
    """Serve the run in this folder at an address and port, if any, until the block ends."""
    if not at:
        yield
        return
    with _listening(*at) as listener:
        address, port = listener.getsockname()[:2]
        given = (str(folder), str(listener.fileno()), str(_size(folder)))
        server = subprocess.Popen(
            [sys.executable, "-m", "report.live", *given],
            stdin=subprocess.PIPE,  # closed when this process ends, however it ends
            stderr=subprocess.DEVNULL,  # the terminal belongs to the scan
            pass_fds=[listener.fileno()],
            cwd=Path(__file__).parents[1],
            start_new_session=True,  # Ctrl-C must not reach it
        )
    os.setpriority(os.PRIO_PROCESS, server.pid, LOWEST_PRIORITY)
    with suppress(OSError):  # Linux with autogroups schedules sessions, not processes
        Path(f"/proc/{server.pid}/autogroup").write_text(str(LOWEST_PRIORITY))
    shown = f"[{address}]" if ":" in address else address
    print(f"live view at http://{shown}:{port}", flush=True)
    try:
        yield
    finally:
        assert server.stdin
        server.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            server.wait(SHUTDOWN_WAIT_S)
        server.kill()
        server.wait()


def _listening(address: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family)
    except (OSError, ValueError, TypeError) as error:  # also a name that no computer can have
        number = getattr(error, "errno", None) or 0
        got = os.strerror(number) if number > 0 else str(error)
        hint = "choose another, or 0 for any that is free"
        raise UserMistake(f"--live {port}", "a free port", got, hint) from None


def _size(folder: Path) -> int:
    """Size of the journal in bytes; -1 if there is none."""
    return (folder / JOURNAL).stat().st_size if (folder / JOURNAL).exists() else -1


def _await_run(folder: Path, size_before: int) -> None:
    """Wait for the first event, because imports would delay the start of Ray; exit if the scan
    ends before."""
    while _size(folder) == size_before:
        if select([sys.stdin], [], [], POLL_INTERVAL_S)[0]:
            sys.exit()


if __name__ == "__main__":
    _await_run(Path(sys.argv[1]), int(sys.argv[3]))
    from report.server import run

    run(Path(sys.argv[1]), int(sys.argv[2]))
