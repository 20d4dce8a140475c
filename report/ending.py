"""How a run ends: its last events, its summary and views, what is printed, the exit code."""

import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from report import write_views
from report.trace import ray_events_of
from results.files import readable
from results.journal import JOURNAL, EventIndex, Journal, read_journal
from results.run_folder import run_lock
from results.storage import location_of
from results.summary import Summary, format_summary, save_summary, summarise
from results.verification import differences
from scan.errors import InputError, ScanError, StorageError
from scan.events import CANCELLED, COMPLETE, FAILED, PARTIAL, Begun, Finished, RunFailed
from scan.text import message_of, one_line

EXIT_CODES = {COMPLETE: 0, PARTIAL: 3, FAILED: 1, CANCELLED: 130}


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Parameters
    ----------
    summary : Summary
    location : str
        Its folder or URL.
    error : BaseException or None
        What ended it, if it was an error.
    unwritten : sequence of str
        Reasons why summary, report or trace are missing; the results are there all the same.
    """

    summary: Summary
    location: str
    error: BaseException | None = None
    unwritten: Sequence[str] = ()


def journal_failure(journal: Journal, error: BaseException) -> str:
    """Write the error that ended a run, unless it was stopped; returns its status."""
    if isinstance(error, KeyboardInterrupt):
        return CANCELLED
    with suppress(StorageError):  # on a full disk
        journal.write(RunFailed(reason=message_of(error)))
    return FAILED


def end_run(
    folder: Path,
    error: BaseException | None = None,
    task_events: Callable[[], Sequence[Any]] | None = None,
) -> Ending:
    """Write summary and views of a run whose journal is closed.

    `task_events` gives Ray's own record of its tasks; by default that of an earlier trace.
    """
    events = read_journal(folder / JOURNAL)
    try:
        summary, unwritten = save_summary(folder, events), []
    except StorageError as full:
        summary, unwritten = summarise(events), [str(full)]
    unwritten += write_views(folder, events, task_events or (lambda: ray_events_of(folder, events)))
    return Ending(summary, location_of(folder), error, unwritten)


def close_run(folder: Path, error: BaseException) -> Ending:
    """End the run of a process that died, perhaps after its last event."""
    with run_lock(folder):
        ended = isinstance(read_journal(folder / JOURNAL)[-1], Finished)
        if not ended:
            with Journal(folder / JOURNAL) as journal:
                journal.write(Finished(status=journal_failure(journal, error)))
        return end_run(folder)


def print_error(error: BaseException | None) -> None:
    """Print what ended a run: one line, or the traceback of a fault of the program's own."""
    if isinstance(error, ScanError):
        print(error, file=sys.stderr)
    elif isinstance(error, Exception):
        traceback.print_exception(error)


def print_differences(folder: Path) -> int:
    """Read back what a run has written and print what differs; returns the exit code.

    InputError if no run began there.
    """
    location = location_of(folder)
    with readable(location):
        events = read_journal(folder / JOURNAL)
    if not EventIndex(events).of(Begun):
        raise InputError(location, "a run folder", "one without a run", "name one that a run left")
    different, digest = differences(location, events), summarise(events)["digest"]
    for each in different:
        print(one_line(f"differs: {each}"))
    if different:
        print(one_line(f"to mend it: python main.py --resume {quote(location)}"))
    else:
        print(
            f"as it was written: digest {digest}" if digest else "as it was written: no answer yet"
        )
    return EXIT_CODES[FAILED if different else COMPLETE]


def print_ending(ending: Ending) -> int:
    """Print how a run ended, its folder last; returns the exit code."""
    print_error(ending.error)
    print(*map(one_line, format_summary(ending.summary)), sep="\n")
    status, location = ending.summary["status"], quote(ending.location)
    if ending.unwritten:
        print(*map(one_line, ending.unwritten), sep="\n")
        print(one_line(f"to write what is missing: python main.py --report {location}"))
    if status != COMPLETE:
        print(one_line(f"to go on from here: python main.py --resume {location}"))
    print(one_line(ending.location))
    return EXIT_CODES[status]
