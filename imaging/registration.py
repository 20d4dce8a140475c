"""Registration while the scan goes on: which fields are matched and placed, and what is written.

Fields are reported as they are focus-stacked or lost, in any order; a field is placed once the
fields around it are measured. Where it is placed does not depend on that order: see
`imaging.placement`. Its core stays where it is in the mosaic, and is filled with the pixels that
lie there: whole pixels of one field, neither smoothed nor blended.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.placement import Known, neighbours_before, place_field, predecessors, window
from scan.matches import MIN_OVERLAP_PX, Match, Offset, Pair, Placement, pair_of
from scan.plan import Field, Place, ScanPlan, Span
from scan.registration import MatchJob

Array = NDArray[Any]


def match_overlap(one: Field, other: Field, images: tuple[Array, Array]) -> Match | None:
    """Return the shift that two overlapping fields (y, x) show; None if that is not enough.

    The fields may be given in either order; the shift is that of the later in raster order.
    """
    from imaging.matching import cut, match, overlap_of  # takes long, and the driver has no need

    if other.place < one.place:
        return match_overlap(other, one, images[::-1])
    down, across = (
        there - here for here, there in zip(one.origin_px, other.origin_px, strict=True)
    )
    shape = images[0].shape[0], images[0].shape[1]
    if min(overlap_of(shape, (down, across))) < MIN_OVERLAP_PX:
        return None
    first, second = cut(images[0], (down, across)), cut(images[1], (-down, -across))
    return match(first, second, (down, across), shape)


def matches_of(job: MatchJob, stacked: Sequence[Any]) -> tuple[Match | None, ...]:
    """Return the match of a field with each of the others; its focus stack is the first."""
    images = (each.image for each in stacked)
    own, *others = (image[job.channel] if image.ndim > 2 else image for image in images)
    pairs = zip(job.others, others, strict=True)
    return tuple(match_overlap(job.field, other, (own, image)) for other, image in pairs)


def whole_offset(
    field: Field, offset_px: Offset, frame_shape: tuple[int, int], mosaic_shape: tuple[int, int]
) -> tuple[int, int]:
    """Return by how many whole pixels (y, x) a field is written off its nominal place.

    A larger offset than its overlap with a neighbour allows is limited to that.
    """
    cores, frames = (field.rows, field.columns), zip(frame_shape, mosaic_shape, strict=True)
    axes = zip(offset_px, cores, field.origin_px, frames, strict=True)
    down, across = (_limited(*axis) for axis in axes)
    return down, across


def _limited(offset_px: float, core: Span, origin: int, sizes: tuple[int, int]) -> int:
    frame, mosaic = sizes
    most = core[0] - origin if core[0] > 0 else frame
    least = core[1] - origin - frame if core[1] < mosaic else -frame
    return min(max(round(offset_px), least), most)


def core_at(image: Array, field: Field, offset: tuple[int, int]) -> Array:
    """Return the core of a field whose frame lies off its nominal place by whole pixels.

    The image is (y, x), or (c, y, x) if there are several channels. At the border of the mosaic,
    where the frame may show nothing, its last pixel is repeated.
    """
    taken, missing = [], []
    for part, move, size in zip(field.core_in_frame(), offset, image.shape[-2:], strict=True):
        start, stop = part.start - move, part.stop - move
        taken.append(slice(max(start, 0), min(stop, size)))
        missing.append((max(-start, 0), max(stop - size, 0)))
    core = image[..., taken[0], taken[1]]
    if not np.any(missing):
        return core
    return np.pad(core, [(0, 0)] * (image.ndim - 2) + missing, mode="edge")


class Registration:
    """What is known of where all fields lie.

    Parameters
    ----------
    plan : ScanPlan
    placed : mapping of (stripe, field) to Placement
        What earlier runs have decided.
    matches : mapping of pairs to Match or None
        What they have measured; None where two fields do not show enough.
    stacked : collection of (stripe, field)
        Fields that lie in the mosaic.
    """

    def __init__(
        self,
        plan: ScanPlan,
        placed: Mapping[Place, Placement],
        matches: Mapping[Pair, Match | None],
        stacked: Collection[Place] = (),
    ) -> None:
        self.placed, self.matches = dict(placed), dict(matches)
        self._lengths = plan.counts
        self._measured, self._written, self._lost = set(stacked), set(stacked), set(plan.absent)
        self._decided = [0] * len(plan.stripes)  # fields of each stripe, from the first on
        self._known = Known(self._measured, self.placed, self.matches)
        self._below = defaultdict[Place, int](lambda: 1)  # stripes below that a field has to see
        self._begun = set(matches)
        self._again: list[Place] = []

    def add(self, place: Place) -> list[Place]:
        """A field is stacked: return the neighbours with which it can be matched now."""
        self._measured.add(place)
        if place in self.placed:
            self._again.append(place)
        pairs = {other: pair_of(place, other) for other in self._neighbours(place)}
        there = self._measured - self._written
        new = [other for other, pair in pairs.items() if other in there and pair not in self._begun]
        self._begun.update(pairs[other] for other in new)
        return new

    def add_matches(
        self, place: Place, others: Sequence[Place], found: Sequence[Match | None]
    ) -> None:
        """A field is matched with others."""
        self.matches |= {pair_of(place, o): each for o, each in zip(others, found, strict=True)}

    def release(self, place: Place) -> None:
        """A field is written: its image is needed no more."""
        self._written.add(place)

    def forget(self, place: Place) -> None:
        """The image of a field is gone: it will be captured again, and matched again if its place
        is not decided yet."""
        self._measured.discard(place)
        if place in self.placed:
            return
        for other in self._neighbours(place):
            if other not in self._written:
                pair = pair_of(place, other)
                self._begun.discard(pair)
                self.matches.pop(pair, None)

    def lose(self, place: Place) -> None:
        """A field will not be in the mosaic: the others are placed without it."""
        self._measured.discard(place)
        self._lost.add(place)

    def decide(self) -> Iterator[tuple[Place, Placement]]:
        """Place the fields that can be placed now; those of earlier runs keep their places."""
        for place in self._again:
            yield place, self.placed[place]
        self._again.clear()
        for stripe, length in enumerate(self._lengths):  # each follows those above it only
            if self._decided[stripe] < length:
                yield from self._decide_in(stripe)
                if not self._decided[stripe]:
                    return  # nor can any below have begun

    def _decide_in(self, stripe: int) -> Iterator[tuple[Place, Placement]]:
        """Go on along a stripe as far as possible."""
        while self._decided[stripe] < self._lengths[stripe]:
            place = stripe, self._decided[stripe]
            if not self._follows_decided(place):
                return
            if place not in self.placed and place not in self._lost:
                found = self._found(place)
                if not found:
                    return
                self.placed[place] = found
                yield place, found
            self._decided[stripe] += 1

    def _neighbours(self, place: Place) -> list[Place]:
        s, f = place
        around = [(s + y, f + x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
        return [each for each in around if self._exists(each)]

    def _exists(self, place: Place) -> bool:
        s, f = place
        return 0 <= s < len(self._lengths) and 0 <= f < self._lengths[s]

    def _follows_decided(self, place: Place) -> bool:
        before = [(s, min(f, self._lengths[s] - 1)) for s, f in predecessors(place) if s >= 0]
        return all(self._decided[s] > f for s, f in before)

    def _found(self, place: Place) -> Placement | None:
        """Where a field lies; None as long as not all stripes that decide it are measured."""
        while self._surrounded(place, below := self._below[place]):
            beyond = set(window(place, below + 1)) - set(window(place, below))
            there = [each for each in beyond if self._exists(each)]
            if found := place_field(place, self._known, below, there):
                return found
            self._below[place] += 1  # what it saw so far does not change
        return None

    def _surrounded(self, place: Place, below: int) -> bool:
        """Whether all that a field sees is measured and matched, or lost."""
        seen = [each for each in reversed(list(window(place, below))) if self._exists(each)]
        if not all(each in self._measured or each in self._lost for each in seen):
            return False
        known = {each for each in seen if each in self._measured}
        pairs = ((one, two) for two in known for one in neighbours_before(two) if one in known)
        return all(pair in self.matches for pair in pairs)
