"""The lines of the journal: an event each, with a checksum of its own as the last key.

A line is read as Damaged if its bytes have changed, if it is no event, or if its field is not in
the plan. Earlier versions wrote no checksums; their lines are read as long as none with a checksum
came before.
"""

import re
from collections.abc import Iterable
from zlib import crc32

from scan.events import Begun, Damaged, Event, FieldEvent, Focused, Retried, parse

CHECKSUM = re.compile(rb', "crc": "([0-9a-f]{8})"\}')
CHECKSUM_CHARS = len(b', "crc": "00000000"}')


def line_of(event: Event) -> bytes:
    """Return an event as a line of the journal, with its line break."""
    body = event.to_json().encode()[:-1]
    return body + b', "crc": "%08x"}\n' % crc32(body)


class LineReader:
    """Reads lines in the order in which they were written."""

    def __init__(self) -> None:
        self._sealed = False  # whether a line with a checksum was read
        self._begun: Begun | None = None

    def read(self, lines: Iterable[bytes]) -> list[Event]:
        """Return an event for each line, without its line break."""
        events = [self._event(line) for line in lines]
        if not self._begun:  # its own line may be damaged, that of the next run says the same
            self._begun = next((event for event in events if isinstance(event, Begun)), None)
        return [event if self._fits(event) else Damaged() for event in events]

    def _event(self, line: bytes) -> Event:
        body, end = line[:-CHECKSUM_CHARS], line[-CHECKSUM_CHARS:]
        if checksum := CHECKSUM.fullmatch(end):
            if crc32(body) != int(checksum[1], 16):
                return Damaged()
            self._sealed = True
        return Damaged() if self._sealed and not checksum else parse(line)

    def _fits(self, event: Event) -> bool:
        """Whether an event is about fields that the plan has."""
        begun = self._begun
        if not begun:
            return True
        places: list[tuple[int, int]] = []
        match event:
            case Begun():
                plans = ((e.stripes, e.absent, e.row_cuts, e.column_cuts) for e in (begun, event))
                return len(set(plans)) == 1
            case FieldEvent():
                places = [event.place]
            case Retried():
                places = [(event.stripe or 0, event.field or 0)]
            case Focused():
                places = [each[:2] for each in (*event.centres_um, *event.samples)]
                places += [(each["stripe"], each["field"]) for each in event.rejected]
        counts = begun.stripes
        return all(
            stripe < len(counts) and field < counts[stripe] and (stripe, field) not in begun.absent
            for stripe, field in places
        )
