"""Views of a run for people: report, live page, trace and terminal progress.

All are made from the journal and the files of a run folder; the scan does not wait for them.
`report` fills the page with `charts`, whose numbers come from `columns` and whose images come from
`preview`; `live` serves the same page while a scan runs, in a process of its own (`server`).
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from report.trace import ray_events_of, write_trace
from results.storage import location_of
from scan.errors import InputError, ScanError, StorageError
from scan.text import describe

log = logging.getLogger(__name__)


def write_report(folder: Path) -> Path:
    """Write the report of a run folder; returns its file."""
    from report import report  # half a second that the first exposure need not wait for

    return report.write_report(folder)


def write_again(folder: Path) -> None:
    """Write report and trace of a run that exists; InputError if that cannot be done."""
    try:
        write_report(folder)
        write_trace(folder, ray_events_of(folder))
    except StorageError as error:
        raise InputError(*error.args) from None
    except ScanError:
        raise
    except Exception as error:  # files may be damaged in any way
        hint = "resume the run, which repairs them"
        got = describe(error)
        raise InputError(location_of(folder), "a run whose files are whole", got, hint) from error


def write_views(folder: Path, task_events: Callable[[], Sequence[Any]]) -> None:
    """Write report and trace; the results are complete, so no error here ends the run.

    `task_events` gives Ray's own record of its tasks; it is called meanwhile, as it takes a second.
    """
    with ThreadPoolExecutor() as waiting:
        ray_events = waiting.submit(task_events)
        for write in (write_report, lambda folder: write_trace(folder, ray_events.result())):
            try:
                write(folder)
            except (ScanError, OSError):
                pass  # a disk that fails has been reported
            except Exception as error:
                log.error("no report or no trace: %s", error)
