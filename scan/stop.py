"""A request to stop: what a signal does to a scan."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGHUP, SIGINT, SIGTERM
from typing import Any


class Stop:
    """Ctrl-C and SIGTERM: noted while the loop runs, which then comes home; raised elsewhere.

    The second one is raised wherever it comes.
    """

    def __init__(self) -> None:
        self.asked = False
        self._gentle = False

    def __call__(self, number: int, frame: Any) -> None:
        again, self.asked = self.asked, True
        if again or not self._gentle:
            raise KeyboardInterrupt

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Listen to these signals; to a terminal's end only if nobody else does, as nohup."""
        numbers = [SIGINT, SIGTERM, *[SIGHUP] * (signal.getsignal(SIGHUP) == signal.SIG_DFL)]
        before = {number: signal.signal(number, self) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def gently(self) -> Iterator[None]:
        """Note the first signal instead of raising."""
        self._gentle = True
        try:
            yield
        finally:
            self._gentle = False
