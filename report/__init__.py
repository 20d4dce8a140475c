"""Views of a run for people: report, live page, trace and terminal progress.

All are made from the journal and the files of a run folder; the scan does not wait for them.
`report` fills the page with `charts`, whose numbers come from `columns` and whose images come from
`preview`; `live` serves the same page while a scan runs, in a process of its own (`server`).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from report.trace import ray_events_of, write_trace
from results.storage import location_of
from results.summary import SUMMARY, save_summary
from scan.errors import InputError, ScanError, StorageError
from scan.text import describe


def write_report(folder: Path) -> Path:
    """Write the report of a run folder; returns its file."""
    from report import report  # half a second that the first exposure need not wait for

    return report.write_report(folder)


def write_again(folder: Path) -> None:
    """Write report and trace of a run that exists, and its summary if it has none.

    InputError if that cannot be done.
    """
    try:
        write_report(folder)
        if not (folder / SUMMARY).exists():
            save_summary(folder)
        write_trace(folder, ray_events_of(folder))
    except StorageError as error:
        raise InputError(*error.args) from None
    except ScanError:
        raise
    except Exception as error:  # files may be damaged in any way
        hint = "resume the run, which repairs them"
        got = describe(error)
        raise InputError(location_of(folder), "a run whose files are whole", got, hint) from error


def write_views(folder: Path, task_events: Callable[[], Sequence[Any]]) -> list[str]:
    """Write report and trace; returns why one is missing, as no error here ends the run.

    `task_events` gives Ray's own record of its tasks; it is called meanwhile, as it takes a second.
    """
    reasons = []
    with ThreadPoolExecutor() as waiting:
        ray_events = waiting.submit(task_events)
        for write in (write_report, lambda folder: write_trace(folder, ray_events.result())):
            try:
                write(folder)
            except ScanError as error:
                reasons.append(str(error))
            except Exception as error:
                reasons.append(f"no report or no trace: {describe(error)}")
    return reasons
