"""The wall clock of a scan, which is never set back."""

import time

# it goes on while the computer sleeps, where there is such a clock
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_OFFSET_S = time.time() - time.clock_gettime(_STEADY)


def now_s() -> float:
    """Return seconds of the wall clock as it was when this process started, and steady since.

    Differences are durations, also if the wall clock is set meanwhile.
    """
    return _OFFSET_S + time.clock_gettime(_STEADY)
