"""Views of a run for people: report, live page, trace and terminal progress.

All are made from the journal and the files of a run folder; the scan does not wait for them.
`report` fills the page with `charts`, whose numbers come from `columns` and whose images come from
`preview`; `live` serves the same page while a scan runs, in a process of its own (`server`).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from report.current import is_current, mark_of
from report.trace import TRACE, ray_events_of, write_trace
from results.files import readable, require_regular_files
from results.journal import JOURNAL, read_journal
from results.storage import location_of
from results.summary import SUMMARY, save_summary
from scan.errors import InputError, ScanError, StorageError
from scan.events import Event
from scan.text import describe

REPORT = "report.html"


def write_report(folder: Path, events: Sequence[Event]) -> Path:
    """Write the report of a run folder, whose journal was read; returns its file."""
    from report import report  # half a second that the first exposure need not wait for

    return report.write_report(folder, events)


def write_again(folder: Path) -> None:
    """Write the report of a run that exists, and trace and summary that are missing or of another
    state of the run.

    InputError if that cannot be done.
    """
    try:
        with readable(str(folder)):
            require_regular_files(folder)
            events = read_journal(folder / JOURNAL)
        write_report(folder, events)
        if not (folder / SUMMARY).exists():
            save_summary(folder, events)
        if not is_current(folder / TRACE, mark_of(folder)):
            write_trace(folder, events, ray_events_of(folder, events))
    except StorageError as error:
        raise InputError(*error.args) from None
    except ScanError:
        raise
    except Exception as error:  # files may be damaged in any way
        hint = "resume the run, which repairs them"
        got = describe(error)
        raise InputError(location_of(folder), "a run whose files are whole", got, hint) from error


def write_views(
    folder: Path, events: Sequence[Event], task_events: Callable[[], Sequence[Any]]
) -> list[str]:
    """Write report and trace unless they are as they would be made again; returns why one is
    missing, as no error here ends the run.

    `task_events` gives Ray's own record of its tasks; it is called meanwhile, as it takes a second.
    """
    reasons, mark = [], mark_of(folder)
    with ThreadPoolExecutor() as waiting:
        ray_events = waiting.submit(task_events)
        views: dict[str, Callable[[], Any]] = {
            REPORT: lambda: write_report(folder, events),
            TRACE: lambda: write_trace(folder, events, ray_events.result()),
        }
        for name, write in views.items():
            if is_current(folder / name, mark):
                continue
            try:
                write()
            except ScanError as error:
                reasons.append(str(error))
            except Exception as error:
                reasons.append(f"no report or no trace: {describe(error)}")
    return reasons
