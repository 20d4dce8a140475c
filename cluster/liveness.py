"""Whether Ray itself still runs: its head, and its process on this computer (the raylet).

A thread tries to connect to both. Calls to a dead head block, in C++, until Ray ends the driver a
minute later: so the thread ends it first, if the driver does not.
"""

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ray

from cluster.watchdog import HINT, end_driver
from scan.errors import ScanError

HEAD, RAYLET = "its head", "its process on this computer"
CHECK_S = 0.5
SILENT_S = 4.0  # a head on another computer may be cut off for a moment
GRACE_S = 2.0  # for the driver to notice; it may be blocked

Address = tuple[str, int]


class Liveness:
    """Connects to addresses, again and again, and says which is gone.

    Parameters
    ----------
    addresses : mapping of str to (host, port)
        What is watched, by its name in messages.
    """

    def __init__(self, addresses: Mapping[str, Address]) -> None:
        self._answered_s = dict.fromkeys(addresses, time.monotonic())
        self._addresses = addresses
        self._gone: ScanError | None = None
        self.noticed = False

    def gone(self) -> ScanError | None:
        """Connect to each address; the error if one refuses, or was silent for `SILENT_S`."""
        for name, address in self._addresses.items():
            if self._gone:
                break
            answer = connects(address)
            now_s = time.monotonic()
            if answer:
                self._answered_s[name] = now_s
            elif answer is False or now_s - self._answered_s[name] > SILENT_S:
                got = "nothing" if answer is None else "a connection refused"
                self._gone = ScanError(
                    "Ray", f"{name} to answer", got, f"{HINT}, and resume the run"
                )
        return self._gone

    def require(self) -> None:
        """Raise the error if Ray is gone."""
        if error := self.gone():
            self.noticed = True
            raise error

    def watch(self, ended: threading.Event) -> None:
        """Watch until `ended` is set; end the driver if it does not notice that Ray is gone."""
        while not ended.wait(CHECK_S):
            if error := self.gone():
                if not ended.wait(GRACE_S) and not self.noticed:
                    end_driver(error)
                return


def connects(address: Address) -> bool | None:
    """Whether a port accepts connections; None if there is no answer within a second."""
    try:
        socket.create_connection(address, timeout=1).close()
    except ConnectionRefusedError:
        return False
    except OSError:  # a time-out; the computer cannot be reached
        return None
    return True


def ray_addresses() -> dict[str, Address]:
    """Where Ray's head and its process on this computer listen."""
    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    own = next(node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    raylet = own["NodeManagerAddress"], int(own["NodeManagerPort"])
    return {HEAD: (host, int(port)), RAYLET: raylet}


_watched: Liveness | None = None


@contextmanager
def ray_watched() -> Iterator[None]:
    """Watch the Ray that this process uses."""
    global _watched
    before, ended = _watched, threading.Event()
    _watched = Liveness(ray_addresses())
    threading.Thread(target=_watched.watch, args=(ended,), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        _watched = before


def ray_answers() -> bool:
    """Whether Ray still runs; calls to a dead head would block."""
    return (_watched or Liveness(ray_addresses())).gone() is None


def require_ray() -> None:
    """Raise ScanError if Ray is gone; it would wait for a minute and end this process."""
    (_watched or Liveness(ray_addresses())).require()
