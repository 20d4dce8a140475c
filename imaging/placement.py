"""Where fields lie: offsets from the stage's word that agree with the matches of neighbours.

The place of a field is final before the scan has ended. The rule depends on the plan and the pixels
alone, never on the order in which tasks end: field (s, f) follows the fields before it in its
stripe and those up to f + 1 in the stripe above, which are final, and looks ahead to the next
stripe. So stripes may be captured one after another or side by side, and no field waits for the end
of its stripe.

Chains of fields that begin apart on the stage's word and meet later are the danger: once they are
final, each stripe below has a bad seam where they meet. So a field that is not yet joined to final
ones, by matches that are seen, waits for a second and a third stripe if they may join it. Where a
specimen is dense no field waits; in a sparse one about one in a hundred does. What is contradictory
all the same is shared among the seams around.

Fields are given by (stripe, field), offsets and shifts by (y, x) in pixels. Sums are in a fixed
order and in float64.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scan.matches import Match, Offset, Pair, Placement
from scan.plan import Place

Floats = NDArray[np.float64]

AHEAD = 2  # fields beyond it that a field sees in the last stripe of those below
SKEW = 1  # and so many more in each stripe above; up to so many beyond it are final there
MAX_BELOW = 3  # stripes for which a field waits; images of so many are kept then
ABOVE = 2  # stripes that have a say
BACK = 6  # fields before it in each of them
STRIPES_BACK, FIELDS_BACK = 4, 8  # of which the usual offset is taken
NEAREST = 12  # of these, the nearest: their median is expected of the next
USUAL_ERROR_PX = 5.0  # of a stage, until matches tell
MIN_ERROR_PX = 1.0
FEW = 4  # matches from which the stage error is not estimated
# stage errors, as large as two standard errors of their estimate allow: what lies farther from the
# stage's word is no match
GATE = 4.5
FLOOR_PX = 0.05  # of the accuracy of a match
# residuals at which matches lose their weight. Down to 1 px a contradiction would be one bad seam,
# and not shared; with 6 px wrong matches move fields
KERNELS_PX = (16.0, 8.0, 4.0, 3.0, 3.0, 3.0)
AT_ONE_PX = 0.5  # residual up to which no match contradicts another
AGREES_PX = 1.5  # residual up to which a match agrees with the offsets
DECIMALS = 3  # of offsets, in the journal too


def neighbours_before(place: Place) -> tuple[Place, ...]:
    """Return the neighbours of a field that come before it in raster order."""
    s, f = place
    return (s - 1, f - 1), (s - 1, f), (s - 1, f + 1), (s, f - 1)


def predecessors(place: Place) -> tuple[Place, Place]:
    """Return the two fields that must be placed before a field; all others follow from these."""
    s, f = place
    return (s, f - 1), (s - 1, f + SKEW)


def window(place: Place, below: int = 1) -> Iterator[Place]:
    """Yield the fields whose matches with each other decide where a field lies, in raster order,
    if it sees so many stripes below its own."""
    s, f = place
    for stripe in range(s - ABOVE, s + below + 1):
        last = f + AHEAD + SKEW * (s + below - stripe)
        yield from ((stripe, field) for field in range(f - BACK, last + 1))


def follows(place: Place, other: Place) -> bool:
    """Return whether a field is placed after another, so that the other is final."""
    s, f = place
    return other[1] < f if other[0] == s else other[0] < s and other[1] <= f + SKEW * (s - other[0])


@dataclass(frozen=True)
class Known:
    """What a decision knows.

    Attributes
    ----------
    measured : collection of (stripe, field)
        Fields whose pixels are known: lost ones are missing.
    placed : mapping of (stripe, field) to Placement
        Of at least the fields that it follows.
    matches : mapping of pairs to Match or None
        Between neighbours; None, or missing, where they do not show enough.
    """

    measured: Collection[Place]
    placed: Mapping[Place, Placement]
    matches: Mapping[Pair, Match | None]


def place_field(
    place: Place, known: Known, below: int, beyond: Collection[Place]
) -> Placement | None:
    """Return the offset of a field that sees so many stripes below its own; None if one stripe
    more may join it, by fields `beyond`, to final ones from which it is apart.

    It is apart if no chain of matches leads from it to a field that is final, as far as it sees. If
    the chain ends before the border of what it sees, or nothing is final, waiting is of no use.
    """
    seen = _Seen(place, known, below)
    usual, count = _usual_offset(place, known.placed)
    if count and below < MAX_BELOW and seen.may_be_joined(place, beyond):
        return None
    prior = 1 / (seen.error_px**2 * (1 + 1.5 / max(count, 1)))
    system = _System(seen.free, seen.fixed, seen.matches, prior, usual)
    offsets, agree = system.solve()
    own_offset = offsets[seen.free.index(place)]
    if not count:  # the first field of all: others lie by its fraction of a pixel, so it has none
        own_offset = np.rint(own_offset)
    y, x = own_offset.tolist()
    own = sum(place in pair for good, pair in zip(agree, system.pairs, strict=True) if good)
    return Placement((round(y, DECIMALS), round(x, DECIMALS)), own)


def _adjacent(one: Place, other: Place) -> bool:
    return abs(one[0] - other[0]) <= 1 and abs(one[1] - other[1]) <= 1


class _Seen:
    """Fields that a field sees, and their matches with each other that are within reach.

    `fixed` are the offsets of those that are final, `free` are the others; `error_px` is the
    stage's, by these matches.
    """

    def __init__(self, place: Place, known: Known, below: int) -> None:
        placed = known.placed
        seen = [each for each in window(place, below) if each in known.measured]
        final = [each for each in seen if each in placed and follows(place, each)]
        self.fixed = {each: placed[each].offset_px for each in final}
        self.free = [each for each in seen if each not in self.fixed]
        among = set(seen)
        pairs = [(one, two) for two in seen for one in neighbours_before(two) if one in among]
        found = {pair: match for pair in pairs if (match := known.matches.get(pair))}
        self.error_px = stage_error_px(list(found.values()))
        gate_px = GATE * math.sqrt(2) * self.error_px * (1 + 2 / math.sqrt(max(len(found), FEW)))
        self.matches = {p: m for p, m in found.items() if max(map(abs, m.shift_px)) <= gate_px}

    def may_be_joined(self, place: Place, beyond: Collection[Place]) -> bool:
        """Whether chains of matches lead from a field to no fixed one, but to the border of what is
        seen."""
        joined = defaultdict[Place, list[Place]](list)
        for one, two in self.matches:
            joined[one].append(two)
            joined[two].append(one)
        island, todo = {place}, [place]
        while todo:
            new = set(joined[todo.pop()]) - island
            if new & self.fixed.keys():
                return False
            island |= new
            todo += new
        return any(_adjacent(one, other) for one in island for other in beyond)


def stage_error_px(matches: Collection[Match]) -> float:
    """Return the error of the stage per axis, a standard deviation, from shifts of neighbours.

    A shift has twice the variance; the median absolute deviation ignores wrong matches.
    """
    if len(matches) < FEW:
        return USUAL_ERROR_PX
    shifts = np.array([match.shift_px for match in matches])
    apart = np.abs(shifts - np.median(shifts, axis=0))
    return max(MIN_ERROR_PX, 1.4826 * float(np.median(apart)) / np.sqrt(2))


def _usual_offset(place: Place, placed: Mapping[Place, Placement]) -> tuple[Floats, int]:
    """The median offset of the nearest placed fields, and their number; the stage's word if none.

    An offset from the absolute position would fail where the stage drifts or the camera is turned.
    """
    s, f = place
    near = [
        ((s - stripe) ** 2 + (f - field) ** 2, stripe, field)
        for stripe in range(s - STRIPES_BACK, s + 1)
        for field in range(f - FIELDS_BACK, f + SKEW * (s - stripe) + 1)
        if (stripe, field) in placed and follows(place, (stripe, field))
    ]
    found = [placed[stripe, field].offset_px for _, stripe, field in sorted(near)[:NEAREST]]
    return (np.median(found, axis=0) if found else np.zeros(2)), len(found)


class _System:
    """Offsets of the free fields by weighted least squares, in which bad matches lose weight."""

    def __init__(
        self,
        free: list[Place],
        fixed: Mapping[Place, Offset],
        matches: Mapping[Pair, Match],
        prior: float,
        usual: Floats,
    ) -> None:
        self.pairs = [pair for pair in matches if not (pair[0] in fixed and pair[1] in fixed)]
        index = {place: k for k, place in enumerate(free)}
        self._prior, self._usual, self._count = prior, usual, len(free)
        ends = [[index.get(place, len(free)) for place in pair] for pair in self.pairs]
        self._first, self._second = np.array(ends, int).reshape(-1, 2).T  # fixed ones are the last
        known = np.array([matches[pair].covariance_px2 for pair in self.pairs]).reshape(-1, 3)
        spread = known[:, [0, 2, 2, 1]].reshape(-1, 2, 2) + FLOOR_PX**2 * np.eye(2)
        self._weights = np.linalg.inv(spread)
        here, there = (
            np.array([fixed.get(pair[k], (0.0, 0.0)) for pair in self.pairs]).reshape(-1, 2)
            for k in (0, 1)
        )
        shifts = np.array([matches[pair].shift_px for pair in self.pairs]).reshape(-1, 2)
        self._shifts = shifts + here - there  # from free to free, or from or to a fixed place

    def solve(self) -> tuple[Floats, NDArray[np.bool_]]:
        """Offsets (n, 2), and which matches agree with them.

        The kernel begins wide and narrows: else the first guess would decide between matches that
        contradict each other (graduated non-convexity, Blake and Zisserman 1987).
        """
        offsets = self._least_squares(np.ones(len(self.pairs)))
        for width_px in KERNELS_PX:
            residuals = self._residuals(offsets)
            if residuals.max(initial=0) <= AT_ONE_PX:
                break
            kept = 1 / (1 + (residuals / width_px) ** 2) ** 2
            offsets = self._least_squares(kept)
        return offsets, self._residuals(offsets) <= AGREES_PX

    def _residuals(self, offsets: Floats) -> Floats:
        """By how many pixels each match contradicts the offsets."""
        ends = np.vstack([offsets, np.zeros(2)])
        apart = ends[self._second] - ends[self._first]
        return np.asarray(np.linalg.norm(apart - self._shifts, axis=1))

    def _least_squares(self, kept: Floats) -> Floats:
        n, one, two = self._count, self._first, self._second
        weights = self._weights * kept[:, None, None]
        pulls = np.einsum("kab,kb->ka", weights, self._shifts)
        normal, pull = np.zeros((n + 1, n + 1, 2, 2)), np.zeros((n + 1, 2))
        for rows, columns, sign in ((one, one, 1), (two, two, 1), (one, two, -1), (two, one, -1)):
            np.add.at(normal, (rows, columns), sign * weights)
        np.add.at(pull, one, -pulls)
        np.add.at(pull, two, pulls)
        matrix = normal[:n, :n].swapaxes(1, 2).reshape(2 * n, 2 * n)
        matrix[np.diag_indices(2 * n)] += self._prior
        wanted = pull[:n] + self._prior * self._usual
        return np.asarray(np.linalg.solve(matrix, wanted.ravel()).reshape(n, 2), float)
