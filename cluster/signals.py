"""A request to stop, by Ctrl-C or a signal."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from signal import SIGHUP, SIGINT, SIGTERM
from typing import Any

ONE_REQUEST_S = 0.5


class Stop:
    """Note the first request while it is deferred, and raise KeyboardInterrupt otherwise.

    The second request is raised at once. A service manager sends a signal to this process and to
    the one that passes signals on: those within `ONE_REQUEST_S` are one request.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.requested = False
        self._deferred = False
        self._clock, self._requested_s = clock, -ONE_REQUEST_S

    def __call__(self, number: int, frame: Any) -> None:
        again, self.requested = self.requested, True
        before_s, self._requested_s = self._requested_s, self._clock()
        if again and self._requested_s - before_s < ONE_REQUEST_S:
            return
        if again or not self._deferred:
            raise KeyboardInterrupt

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Handle signals; SIGHUP only if nobody else does, as nohup."""
        numbers = [SIGINT, SIGTERM, *[SIGHUP] * (signal.getsignal(SIGHUP) == signal.SIG_DFL)]
        before = {number: signal.signal(number, self) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Note the first request instead of raising it."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
