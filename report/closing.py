"""The last events of a run that failed, also where its own process died before it wrote them."""

from contextlib import suppress
from pathlib import Path

from report import write_views
from results.journal import JOURNAL, Journal, read_journal
from results.run_folder import run_lock
from results.summary import Summary, save_summary
from scan.errors import StorageError
from scan.events import CANCELLED, FAILED, Finished, RunFailed
from scan.text import message_of


def journal_failure(journal: Journal, error: BaseException) -> str:
    """Write the error that ended a run, unless it was stopped; returns its status."""
    if isinstance(error, KeyboardInterrupt):
        return CANCELLED
    with suppress(StorageError):  # on a full disk
        journal.write(RunFailed(reason=message_of(error)))
    return FAILED


def close_run(folder: Path, error: BaseException) -> tuple[Summary, bool]:
    """Close the run of a process that died, and write its summary and views.

    Returns the summary, and whether the run was still open; it may have died after its last event.
    """
    with run_lock(folder):
        is_open = not isinstance(read_journal(folder / JOURNAL)[-1], Finished)
        if is_open:
            with Journal(folder / JOURNAL) as journal:
                journal.write(Finished(status=journal_failure(journal, error)))
        summary = save_summary(folder)
        write_views(folder, list)
    return summary, is_open
