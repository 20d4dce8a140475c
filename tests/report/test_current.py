"""Views that are as they would be made again are kept; all others are made again."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from config import SETTINGS_FILE
from report import REPORT, write_again, write_views
from report.current import HEAD_BYTES, is_current, mark_of
from report.trace import TRACE
from results.journal import JOURNAL, Journal, read_journal
from scan.events import Warned
from tests.report.runs import complete_run

VIEWS = (REPORT, TRACE)


def write_again_to(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file."""
    path.write_bytes(change(path.read_bytes()))


def append_event(folder: Path) -> None:
    """Another run into the folder."""
    with Journal(folder / JOURNAL) as journal:
        journal.write(Warned(message="a cloud"))


CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "nothing": (lambda run: None, set()),
    "another event": (append_event, {*VIEWS}),
    "another setting": (lambda run: (run / SETTINGS_FILE).write_text("stripes = 3\n"), {*VIEWS}),
    "report gone": (lambda run: (run / REPORT).unlink(), {REPORT}),
    "trace gone": (lambda run: (run / TRACE).unlink(), {TRACE}),
    "report cut": (lambda run: write_again_to(run / REPORT, lambda old: old[:-100]), {REPORT}),
    "trace cut": (lambda run: write_again_to(run / TRACE, lambda old: old[:-100]), {TRACE}),
    "report empty": (lambda run: (run / REPORT).write_bytes(b""), {REPORT}),
    "trace of no mark": (lambda run: (run / TRACE).write_text('{"traceEvents": []}'), {TRACE}),
}


@pytest.mark.parametrize(("change", "made"), CHANGES.values(), ids=CHANGES)
def test_only_what_does_not_fit_is_made_again(
    tmp_path: Path, change: Callable[[Path], object], made: set[str]
) -> None:
    """A view is replaced if what it shows has changed, or if it is not whole; then it fits."""
    run = tmp_path / "run"
    complete_run(run)
    assert write_views(run, read_journal(run / JOURNAL), list) == []
    change(run)
    before = {name: (run / name).stat().st_ino for name in VIEWS if (run / name).exists()}

    assert write_views(run, read_journal(run / JOURNAL), list) == []

    after = {name: (run / name).stat().st_ino for name in VIEWS}
    assert {name for name in VIEWS if before.get(name) != after[name]} == made
    assert all(is_current(run / name, mark_of(run)) for name in VIEWS)
    assert "traceEvents" in json.loads((run / TRACE).read_bytes())


def test_a_copy_elsewhere_is_another_run(tmp_path: Path) -> None:
    """The report says where the run lies, so it is made again for a folder that was moved; a
    relative name of the same folder is the same."""
    run = tmp_path / "run"
    complete_run(run)
    write_views(run, read_journal(run / JOURNAL), list)
    mark = mark_of(run)
    assert mark_of(run / ".." / "run") == mark

    moved = run.rename(tmp_path / "moved")

    assert mark_of(moved) != mark
    assert not is_current(moved / REPORT, mark_of(moved))


def test_the_report_is_made_again_where_a_user_asks(tmp_path: Path) -> None:
    """Its images may have changed without the journal; the trace, made of that alone, is kept."""
    run = tmp_path / "run"
    complete_run(run)
    write_again(run)
    before = {name: (run / name).stat().st_ino for name in VIEWS}
    assert (run / REPORT).read_bytes().index(mark_of(run).encode()) < HEAD_BYTES

    write_again(run)

    changed = {name for name in VIEWS if (run / name).stat().st_ino != before[name]}
    assert changed == {REPORT}
