"""What the summary says of registration: how far fields were moved, how well that is known, and
whether the camera is turned against the stage."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.journal import EventIndex
from scan.events import Begun, Matched, Placed
from scan.matches import Match, Pair, pair_of
from scan.plan import Place

SURE = 5.0  # standard errors, from which a rotation or a scale is told
VISIBLE_PX = 2.0  # across the scan: a smaller effect is not told
FEW = 6  # fields, with which no rotation is estimated
MANY_UNMATCHED = 0.1  # of the fields, from which people are told

Facts = dict[str, Any]


def registration(ever: EventIndex) -> Facts:
    """Return the facts of all runs into a folder; an empty dictionary if no field was placed."""
    begun, placed = ever.last(Begun), {event.place: event for event in ever.of(Placed)}
    if not begun or not placed:
        return {}
    agreeing = sum(event.agreeing > 0 for event in placed.values())
    moved_px = [math.hypot(*event.offset_px) for event in placed.values()]
    limited = sum(_beyond_px(event) > 1 for event in placed.values())
    return {
        "matched": agreeing,
        "unmatched": len(placed) - agreeing,
        "limited": limited,
        "shift_um": _spread(begun.pixel_size_um * np.array(moved_px), (50, 95, 100)),
        "residual_px": _spread(np.array([after for _, after in seams(ever).values()]), (50, 95)),
        **_turned(begun, placed),
    }


def seams(ever: EventIndex) -> dict[Pair, tuple[float, float]]:
    """Return for each pair of fields that matched by how many pixels they would lie wrong against
    each other by the stage's word, and by how many they do."""
    offsets = {event.place: np.array(event.offset_px) for event in ever.of(Placed)}
    found: dict[Pair, tuple[float, float]] = {}
    for pair, match in _matches(ever).items():
        if pair[0] in offsets and pair[1] in offsets:
            after = offsets[pair[1]] - offsets[pair[0]] - match.shift_px
            found[pair] = math.hypot(*match.shift_px), math.hypot(*after)
    return found


def _matches(ever: EventIndex) -> dict[Pair, Match]:
    facts = ((event.place, fact) for event in ever.of(Matched) for fact in event.matches)
    pairs = ((pair_of(place, (fact.stripe, fact.field)), fact.match) for place, fact in facts)
    return {pair: match for pair, match in pairs if match}


def _beyond_px(event: Placed) -> float:
    """By how many pixels a field was written elsewhere than it lies, because of its overlaps."""
    pairs = zip(event.offset_px, event.written_px, strict=True)
    return max(abs(offset - written) for offset, written in pairs)


def _spread(values: NDArray[np.float64], percentiles: tuple[int, ...]) -> dict[str, float]:
    if not len(values):
        return {}
    names = ["max" if p == 100 else f"p{p}" for p in percentiles]
    return {
        name: round(float(np.percentile(values, p)), 3)
        for name, p in zip(names, percentiles, strict=True)
    }


def _turned(begun: Begun, placed: Mapping[Place, Placed]) -> Facts:
    """The rotation and the scale that offsets show, None if they show none.

    Least squares of offset = shift + scale * position + rotation * (position turned by 90 degrees).
    """
    cuts = np.array(begun.row_cuts), np.array(begun.column_cuts)
    sure = [event for event in placed.values() if event.agreeing]
    if len(sure) < FEW:
        return {"rotation_deg": None, "scale": None}
    position = np.array([[cuts[k][event.place[k]] for k in (0, 1)] for event in sure], float)
    position -= position.mean(axis=0)
    offsets = np.array([event.offset_px for event in sure])
    offsets -= offsets.mean(axis=0)
    (y, x), squares = position.T, float(np.square(position).sum())
    turned = offsets[:, 1] * y - offsets[:, 0] * x
    slopes = [float(each.sum()) / squares for each in (offsets * position, turned)]
    rest = offsets - slopes[0] * position - slopes[1] * np.stack([-x, y], axis=1)
    error = math.sqrt(float(np.square(rest).sum()) / (2 * len(sure) - 4) / squares)
    extent = float(np.ptp(position, axis=0).max())
    scale, turn = (
        slope if abs(slope) > SURE * error and abs(slope) * extent > VISIBLE_PX else None
        for slope in slopes
    )
    return {
        "rotation_deg": None if turn is None else round(math.degrees(turn), 4),
        "scale": None if scale is None else round(1 + scale, 6),
    }


def format_registration(facts: Mapping[str, Any]) -> list[str]:
    """Return what was found for people; an empty list if fields were not registered."""
    if not facts:
        return []
    count, moved = facts["matched"] + facts["unmatched"], facts["shift_um"]
    spread = f"moved by {moved['p50']:.1f} um (median, at most {moved['max']:.1f} um)"
    lines = [f"registered: {facts['matched']} of {count} fields, {spread}"]
    if facts["unmatched"] > MANY_UNMATCHED * count:
        those = f"{facts['unmatched']} fields show too little where they overlap"
        lines.append(f"{those}: they lie as their neighbours do, or where the stage says")
    if facts["limited"]:
        those = f"{facts['limited']} fields lie farther off than their overlap allows"
        lines.append(f"{those}; overlap fields more, or calibrate the stage")
    if facts["rotation_deg"]:
        turned = f"{facts['rotation_deg']:.2f} degrees"
        lines.append(f"the camera is turned by {turned} against the stage; turn it back")
    if facts["scale"]:
        percent = f"{100 * (facts['scale'] - 1):+.2f} %"
        lines.append(f"steps of the stage differ from pixel_size_um by {percent}; calibrate it")
    return lines
