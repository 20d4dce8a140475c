"""A request to stop, by Ctrl-C or a signal."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGHUP, SIGINT, SIGTERM
from typing import Any


class Stop:
    """Note the first request while it is deferred, and raise KeyboardInterrupt otherwise.

    The second request is raised at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

    def __call__(self, number: int, frame: Any) -> None:
        again, self.requested = self.requested, True
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
