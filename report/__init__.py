"""Views of a run for people: report, live page, trace and terminal progress.

All are made from the journal and the files of a run folder; the scan does not wait for them.
`report` fills the page with `charts`, whose numbers come from `columns` and whose images come from
`preview`; `live` serves the same page while a scan runs, in a process of its own (`server`).
"""

from pathlib import Path


def write_report(folder: Path) -> Path:
    """Write the report of a run folder; returns its file."""
    from report import report  # half a second that the first exposure need not wait for

    return report.write_report(folder)
