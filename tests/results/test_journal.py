"""The journal: an event is on disk before it is shown, and whole lines survive any crash."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path

import pytest

from results.journal import JOURNAL, EventIndex, Journal, read_journal
from scan.errors import StorageError
from scan.events import Captured, Damaged, Detected, Event, Lost, Stopping, Warned
from tests.scan.samples import sample


def test_a_line_is_on_disk_before_listeners_are_called(tmp_path: Path) -> None:
    """When a listener is called, the line can be read from the file; it has the time."""
    path, received = tmp_path / "events.jsonl", []

    def listen(event: Event) -> None:
        received.append(read_journal(path)[-1] == event)

    with Journal(path, listen, clock=lambda: 1.5) as journal:
        journal.write(sample(Captured, field=3))
        journal.write(sample(Lost, field=4, reason="camera"))

    assert received == [True, True]
    assert journal.seen(Lost)
    assert not journal.seen(Detected)
    assert [event.time for event in read_journal(path)] == [1.5, 1.5]


def test_events_are_found_by_kind() -> None:
    """An index gives all events of a kind in their order, the last one, or none."""
    index = EventIndex([Warned(message="a"), sample(Lost), Warned(message="b")])

    assert [event.message for event in index.of(Warned)] == ["a", "b"]
    assert index.last(Warned) == Warned(message="b")
    assert index.of(Stopping) == []
    assert index.last(Stopping) is None


def journal_of(folder: Path, events: list[Event]) -> bytes:
    """Write a journal of these events and return its bytes."""
    with Journal(folder / JOURNAL) as journal:
        for event in events:
            journal.write(event)
    return (folder / JOURNAL).read_bytes()


TORN_ENDS = {
    "nothing": b"",
    "half a line": b'{"time": 1.0, "event": "sta',
    "a line without its end": b'{"time": 1.0, "event": "stacked"}',
    "zeros": bytes(64),
}


@pytest.mark.parametrize("end", TORN_ENDS.values(), ids=TORN_ENDS)
def test_a_torn_end_is_removed(tmp_path: Path, end: bytes) -> None:
    """What a crash left after the last whole line is ignored, and removed by the next run."""
    whole = journal_of(tmp_path, [Stopping(), Warned(message="full")])
    (tmp_path / JOURNAL).write_bytes(whole + end)

    events = read_journal(tmp_path / JOURNAL)
    unread = (tmp_path / JOURNAL).read_bytes()
    Journal(tmp_path / JOURNAL).close()

    assert [type(event) for event in events] == [Stopping, Warned]
    assert unread == whole + end
    assert (tmp_path / JOURNAL).read_bytes() == whole


DAMAGED_LINES = {
    "a number": b"12",
    "no event": b'{"time": 1.0}',
    "an event of no kind": b'{"event": 3}',
    "a flipped byte": b'{"time": 1.0, "evemt: "stacked"}',
    "zeros": bytes(20),
}


@pytest.mark.parametrize("line", DAMAGED_LINES.values(), ids=DAMAGED_LINES)
def test_a_damaged_line_affects_no_other(tmp_path: Path, line: bytes) -> None:
    """A line that cannot be read becomes Damaged; the lines after it are read."""
    whole = journal_of(tmp_path, [Stopping()])
    (tmp_path / JOURNAL).write_bytes(whole + line + b"\n" + whole)

    events = read_journal(tmp_path / JOURNAL)

    assert [type(event) for event in events] == [Stopping, Damaged, Stopping]


def test_a_journal_cut_at_any_byte_keeps_its_whole_lines(tmp_path: Path) -> None:
    """For every possible length, exactly the whole lines are read and kept."""
    whole = journal_of(tmp_path, [Warned(message=str(k)) for k in range(20)])

    for length in range(len(whole) + 1):
        (tmp_path / JOURNAL).write_bytes(whole[:length])
        events = read_journal(tmp_path / JOURNAL)
        Journal(tmp_path / JOURNAL).close()

        lines = whole[:length].count(b"\n")
        assert [event.message for event in EventIndex(events).of(Warned)] == [
            str(k) for k in range(lines)
        ]
        assert (tmp_path / JOURNAL).read_bytes() == whole[: whole.rfind(b"\n", 0, length) + 1]


def test_a_closed_terminal_does_not_end_a_scan(tmp_path: Path) -> None:
    """When a listener fails like a closed pipe, the journal continues."""

    def closed(event: Event) -> None:
        raise BrokenPipeError

    received: list[Event] = []
    with Journal(tmp_path / JOURNAL, closed, received.append) as journal:
        journal.write(Stopping())
        journal.write(Warned(message="full"))

    assert len(received) == len(read_journal(tmp_path / JOURNAL)) == 2


def test_a_missing_journal_has_no_events(tmp_path: Path) -> None:
    """Reading a journal that does not exist returns nothing and creates nothing."""
    assert read_journal(tmp_path / JOURNAL) == []
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """A line that does not fit is removed and reported once; listeners get later events."""
    received: list[Event] = []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(tmp_path / JOURNAL, received.append) as journal:
        journal.write(Stopping())
        whole = (tmp_path / JOURNAL).read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, limits[1]))
        try:
            with pytest.raises(
                StorageError, match=r"events.jsonl: expected to write \d+ bytes.*free"
            ):
                journal.write(Warned(message="x" * 100))
            journal.write(Stopping())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert (tmp_path / JOURNAL).read_bytes() == whole
    assert [type(event) for event in received] == [Stopping, Stopping]


def test_a_removed_folder_is_reported(tmp_path: Path) -> None:
    """Writing into a removed folder raises StorageError."""
    folder = tmp_path / "run"
    folder.mkdir()
    with Journal(folder / JOURNAL) as journal:
        journal.write(Stopping())
        shutil.rmtree(folder)

        with pytest.raises(StorageError, match="the folder is gone"):
            journal.write(Stopping())
