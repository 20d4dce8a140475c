"""The steps that match and place fields, and the small values that travel with their tasks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scan.matches import Match, Placement
from scan.plan import Field
from scan.records import OfJob, WorkRecord


@dataclass(frozen=True)
class MatchJob:
    """What a matching task needs in addition to the images: that of the field, then the others'."""

    field: Field
    others: tuple[Field, ...]
    channel: int  # in which fields are matched, if there are several
    limit_s: float | None = None  # after which the task counts as hung

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields whose images are needed."""
        return self.field, *self.others


@dataclass(frozen=True)
class PlaceJob:
    """What a placing task needs in addition to the image: `offset_px` are whole pixels (y, x)."""

    folder: str
    field: Field
    z_um: tuple[float, ...]
    placement: Placement
    offset_px: tuple[int, int]
    limit_s: float | None = None  # after which the task counts as hung

    @property
    def fields(self) -> tuple[Field, ...]:
        """The field whose image is needed."""
        return (self.field,)


@dataclass(frozen=True)
class MatchRecord:
    """The matches of a field with some neighbours; None where they do not show enough."""

    matches: tuple[Match | None, ...]
    work: WorkRecord


@dataclass(frozen=True)
class PlaceRecord:
    """A field's core lies in the mosaics at its place, with these checksums."""

    checksums: tuple[int, int]
    work: WorkRecord


class Register(OfJob):
    """A step of registration: its job, and references of the images that it needs.

    Its field is the one that was stacked last, or is written.
    """

    __match_args__ = ("job",)
    name: str


@dataclass(frozen=True)
class MatchFields(Register):
    """Match a field with neighbours; its own image is the first."""

    job: MatchJob
    images: Sequence[Any]
    name = "match"


@dataclass(frozen=True)
class PlaceField(Register):
    """Write a field at its place."""

    job: PlaceJob
    image: Any
    name = "place"
