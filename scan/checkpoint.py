"""The checkpoint of a run folder: what earlier runs have finished, according to their journal."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from zlib import crc32

from config import current_names
from scan.correction import UNCORRECTED, CorrectionRecord
from scan.errors import InputError
from scan.events import (
    COMPLETE,
    Begun,
    Captured,
    Damaged,
    Described,
    Detected,
    Event,
    FieldEvent,
    Finished,
    Focused,
    Matched,
    Placed,
    RayStarted,
    Stacked,
)
from scan.matches import Match, Pair, Placement, pair_of
from scan.plan import Field, Place, ScanPlan


@dataclass
class Checkpoint:
    """The state in which a folder was left; empty for a new one.

    Attributes
    ----------
    begun : Begun or None
        The first run into the folder.
    focused, described : Focused, Described or None
        The last focus surface and the last statistics of the specimen.
    complete : bool
        Whether the last run finished with every field in the answer.
    damaged : int
        Number of lines that cannot be read. What they said is done again; nothing else is, because
        the files are compared with the checksums of the lines that can be read.
    stacked, detected : dict
        For every field with a valid result, the checksums of its files.
    recorded : dict
        For every field that was read from a recording, the checksum of its pixels.
    placed, matches : dict
        Where fields were placed, which is final, and what pairs of neighbours have shown.
    """

    plan: ScanPlan
    begun: Begun | None = None
    focused: Focused | None = None
    described: Described | None = None
    complete: bool = False
    damaged: int = 0
    identity_crc: int | None = None  # of the last run
    stacked: dict[Field, Sequence[int]] = field(default_factory=dict)
    detected: dict[Field, Sequence[int]] = field(default_factory=dict)
    recorded: dict[Field, int] = field(default_factory=dict)
    placed: dict[Place, Placement] = field(default_factory=dict)
    matches: dict[Pair, Match | None] = field(default_factory=dict)

    @classmethod
    def of(cls, events: Iterable[Event], plan: ScanPlan) -> Self:
        """Return the state after these events."""
        checkpoint = cls(plan)
        for event in events:
            checkpoint._apply(event)
        for place in list(checkpoint.detected):
            if not checkpoint.stacked.keys() >= {place, *plan.neighbours(place)}:
                del checkpoint.detected[place]  # a neighbour was missing and may be stacked now
        if not (checkpoint.focused and checkpoint.described):
            checkpoint.detected.clear()  # their statistics are unknown and are estimated again
        return checkpoint

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a resume says about the journal."""
        lines = "1 line" if self.damaged == 1 else f"{self.damaged} lines"
        said = f"{lines} of the journal could not be read; what was in there is done again"
        return (said,) if self.damaged else ()

    @property
    def centres_um(self) -> dict[tuple[int, int], float]:
        """The best focus height of every field, by (stripe, field)."""
        centres = self.focused.centres_um if self.focused else ()
        return {(stripe, field): z_um for stripe, field, z_um in centres}

    @property
    def correction(self) -> CorrectionRecord | None:
        """How the frames of the run are corrected; None if that is not known."""
        return (self.focused.correction or UNCORRECTED) if self.focused else None

    def require_same_run(self, fingerprint: Mapping[str, Any], location: str) -> None:
        """Raise InputError unless what would be scanned now has the answer of the run that began
        here.

        Without a line that says what was scanned, nothing on disk is trusted.
        """
        if not self.begun:
            if self.identity_crc != crc_of(fingerprint):
                self.focused, self.described, self.stacked, self.detected = None, None, {}, {}
            return
        before = current_names(self.begun.identity)
        for name, value in fingerprint.items():
            expected, got = f"{name} {before.get(name)} as begun", str(value)
            if name not in before:
                expected, got = "a run of this program", "one of another version"
            if before.get(name) != value:
                hint = "bring that back, or use a new folder"
                raise InputError(f"--resume {location}", expected, got, hint)

    def invalidate(self, field: Field) -> None:
        """Drop the stack of a field, and the detections that used its pixels."""
        self.stacked.pop(field, None)
        for other in (field, *self.plan.neighbours(field)):
            self.detected.pop(other, None)

    def require_placed(self) -> None:
        """Invalidate the fields whose place is unknown, or a match with a neighbour: their images
        are needed again."""
        for each in list(self.stacked):
            pairs = {pair_of(each.place, other.place) for other in self.plan.neighbours(each)}
            if each.place not in self.placed or not self.matches.keys() >= pairs:
                self.invalidate(each)

    def _apply(self, event: Event) -> None:
        match event:
            case Begun():
                self.begun, self.complete = self.begun or event, False
            case RayStarted():
                self.identity_crc = event.identity_crc
            case Focused() if self._covers(event):
                self.focused = event
            case Described():
                if not self.described or self.described.statistics != event.statistics:
                    self.detected.clear()  # made with others, whose line was damaged
                self.described = event
            case Captured(checksum=int(checksum)) if field := self._field(event):
                self.recorded[field] = checksum
            case Matched():
                for fact in event.matches:
                    pair = pair_of(event.place, (fact.stripe, fact.field))
                    self.matches[pair] = fact.match
            case Placed():
                self.placed[event.place] = Placement(event.offset_px, event.agreeing)
            case Stacked() if field := self._field(event):
                self.invalidate(field)  # its neighbours were detected while it was missing
                self.stacked[field] = event.checksums
            case Detected() if field := self._field(event):
                self.detected[field] = event.checksums
            case Finished():
                self.complete = event.status == COMPLETE
            case Damaged():
                self.damaged += 1

    def _covers(self, focused: Focused) -> bool:
        """Whether a focus surface has a height for every field."""
        heights = {(stripe, field) for stripe, field, _ in focused.centres_um}
        return heights >= {each.place for each in self.plan.fields}

    def _field(self, event: FieldEvent) -> Field | None:
        """The field of an event; None if the plan has no such field."""
        return self.plan.at(event.place)


def crc_of(fingerprint: Mapping[str, Any]) -> int:
    """Return the checksum of what decides an answer."""
    return crc32(json.dumps(fingerprint, sort_keys=True).encode())


def per_stripe(fields: Iterable[Field], plan: ScanPlan) -> list[int]:
    """Count the fields of each stripe."""
    counts = Counter(field.stripe for field in fields)
    return [counts[stripe] for stripe in range(len(plan.stripes))]
