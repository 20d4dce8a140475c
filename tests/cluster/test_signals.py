"""Ctrl-C, SIGTERM and the end of a terminal: heeded between steps, and at once when repeated."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from cluster.signals import Stop

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def terminal() -> Iterator[None]:
    """A process that ends with its terminal, independent of how the tests were started."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_is_noted_and_the_second_raised(number: int) -> None:
    """While the loop runs the first signal is only noted, also where it comes twice at once; the
    second interrupts the loop."""
    now_s = [0.0]
    stop = Stop(clock=lambda: now_s[0])
    with stop.on_signals(), stop.deferred():
        signal.raise_signal(number)
        now_s[0] += 0.1
        signal.raise_signal(number)
        assert stop.requested
        now_s[0] += 1.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_the_loop_a_signal_interrupts(number: int) -> None:
    """Where nothing can be torn, as in autofocus, the first signal interrupts at once."""
    stop = Stop()
    with stop.on_signals():
        with stop.deferred():
            pass
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert stop.requested


def test_handlers_are_given_back() -> None:
    """After a run every signal does what it did before; what nohup ignores stays ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        handlers = [signal.getsignal(number) for number in SIGNALS]
        with Stop().on_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert [signal.getsignal(number) for number in SIGNALS] == handlers
    finally:
        signal.signal(signal.SIGHUP, before)
