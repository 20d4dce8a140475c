"""What is said while files are read one by one, which may take minutes."""

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

log = logging.getLogger(__name__)

MANY = 200  # what is faster is not told

Result = TypeVar("Result")


def counted(results: Iterable[Result], what: str, total: int, many: int = MANY) -> Iterator[Result]:
    """Yield results; if they are many, with a line in the log, and on a terminal with a bar.

    Without a log, as where the scan is a function that another program calls, nothing is shown.
    """
    if total < many or not log.isEnabledFor(logging.INFO):
        yield from results
        return
    log.info("%s: %d", what, total)
    bars = Console(file=sys.stdout)
    hidden = not sys.stdout.isatty()
    yield from track(results, what, total, console=bars, transient=True, disable=hidden)
