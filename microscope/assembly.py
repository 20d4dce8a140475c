"""From planes with coordinates to fields: what is used, in which order, and what is refused.

Every plane has one place; two planes at one place, and fields that lack planes, are refused. Of
several channels and time points one is used, and a caveat says which.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from microscope.coordinates import (
    AXES,
    Coordinates,
    Label,
    Unclear,
    named,
    natural_key,
    position_key,
)

MIN_Z_CHANNELS = 5  # images with more unnamed channels and no z are z-stacks saved as channels
TIMES = "\u00d7"  # the multiplication sign
UNEVEN = 0.1  # of the z-step: planes that lie less regularly are told


class Plane(NamedTuple):
    """A plane: its file, its number there, where it belongs."""

    path: Path
    number: int
    at: Coordinates


class RecordedField(NamedTuple):
    """A field of view: file and number of each plane, in order; stage position or cell, if told."""

    name: str
    planes: tuple[tuple[Path, int], ...]
    stage_um: tuple[float, float] | None = None
    cell: tuple[Label, Label] | None = None


@dataclass(frozen=True)
class Assembled:
    """Fields, how many planes of which axes there are, and what was assumed or left out.

    `counts` is by axis, of all planes; `caveats` concern the answer, and are said again at its end.
    """

    fields: tuple[RecordedField, ...]
    counts: dict[str, int]
    z_step_um: float | None
    caveats: tuple[str, ...]
    warnings: tuple[str, ...]


def assemble(
    planes: Sequence[Plane], *, channel: Label | None = None, channel_names: Sequence[str] = ()
) -> Assembled:
    """Return the fields of a recording.

    Parameters
    ----------
    planes : sequence of Plane
    channel : label, optional
        The number (from 0) or the name of the channel to use; by default the first.
    channel_names : sequence of str
        Names of numbered channels, where metadata have them.

    Raises
    ------
    Unclear
        Two planes have the same place, or planes are missing.
    """
    planes, caveats = _lone_axis_as_z(planes, channel, channel_names)
    _require_distinct(planes)
    counts = {axis: len({getattr(p.at, axis) for p in planes}) for axis in AXES}
    used, more = _of_one_channel(planes, channel, channel_names)
    caveats += more
    used, more = _of_one_time(used)
    caveats += more
    places = _by_position(used)
    _require_whole(places)
    counts["z"] = len(next(iter(places.values())))
    step_um, warnings = _z_step(list(places.values()))
    fields = tuple(_field(position, found) for position, found in places.items())
    return Assembled(fields, counts, step_um, tuple(caveats), tuple(warnings))


def in_words(counts: dict[str, int]) -> str:
    """Return the size of a recording, as in 4 positions × 5 planes × 2 channels."""
    singular = {axis: text[:-1] for axis, text in AXES.items()}
    shown = [axis for axis in AXES if counts[axis] > 1 or axis in ("position", "z")]
    return f" {TIMES} ".join(
        f"{counts[axis]} {AXES[axis] if counts[axis] > 1 else singular[axis]}" for axis in shown
    )


def _lone_axis_as_z(
    planes: Sequence[Plane], channel: Label | None, names: Sequence[str]
) -> tuple[Sequence[Plane], list[str]]:
    """Take time points or channels for z where no z is told: programs save stacks so."""
    counts = {axis: len({getattr(plane.at, axis) for plane in planes}) for axis in AXES}
    if counts["z"] > 1 or channel is not None:
        return planes, []
    lone = [axis for axis in ("time", "channel") if counts[axis] > 1]
    if len(lone) != 1 or (lone == ["channel"] and not _may_be_z(planes, names)):
        return planes, []
    axis = lone[0]
    moved = [p._replace(at=p.at._replace(**{"z": getattr(p.at, axis), axis: None})) for p in planes]
    count = counts[axis]
    return moved, [f"the {count} {AXES[axis]} are taken for the planes of a z-stack: no z is told"]


def _may_be_z(planes: Sequence[Plane], names: Sequence[str]) -> bool:
    labels = {plane.at.channel for plane in planes}
    numbered = all(isinstance(label, int) for label in labels)
    return numbered and len(labels) >= MIN_Z_CHANNELS and not any(names)


def _require_distinct(planes: Sequence[Plane]) -> None:
    places = Counter(plane.at[:4] for plane in planes)
    twice, count = places.most_common(1)[0]
    if count > 1:
        same = [plane for plane in planes if plane.at[:4] == twice][:2]
        files = " and ".join(dict.fromkeys(plane.path.name for plane in same))
        got = f"{count} at {_place(same[0].at)}: {files}"
        raise Unclear("one plane at each place", got, "name the files apart, or move one away")


def _place(at: Coordinates) -> str:
    position = "/".join(map(str, at.position))
    parts = {"position": position, "z": at.z, "channel": at.channel, "time": at.time}
    told = [f"{axis} {label}" for axis, label in parts.items() if label not in (None, "")]
    return ", ".join(told) or "the same place"


def _of_one_channel(
    planes: Sequence[Plane], channel: Label | None, names: Sequence[str]
) -> tuple[Sequence[Plane], list[str]]:
    labels = sorted({p.at.channel for p in planes if p.at.channel is not None}, key=natural_key)
    if not labels or (len(labels) == 1 and channel in (None, 0)):
        return planes, []
    shown = {label: _channel_name(label, names) for label in labels}
    wanted = [label for k, label in enumerate(labels) if channel in (k, label, shown[label])]
    if channel is None:
        wanted = labels[:1]
    if not wanted:
        expected = f"a channel from 0 to {len(labels) - 1}, or one of {named(shown.values())}"
        raise Unclear(expected, f"channel {channel}", "correct the setting channel")
    kept = wanted[0]
    others = named(name for label, name in shown.items() if label != kept)
    rest = [p for p in planes if p.at.channel == kept]
    said = f"{len(labels)} channels, only channel {shown[kept]} is used; not scanned: {others}"
    return rest, [said] if len(labels) > 1 else []


def _channel_name(label: Label, names: Sequence[str]) -> str:
    if isinstance(label, int) and 0 <= label < len(names) and names[label]:
        return names[label]
    return str(label)


def _of_one_time(planes: Sequence[Plane]) -> tuple[Sequence[Plane], list[str]]:
    labels = sorted({p.at.time for p in planes if p.at.time is not None}, key=natural_key)
    if len(labels) < 2:
        return planes, []
    kept = [plane for plane in planes if plane.at.time == labels[0]]
    return kept, [f"{len(labels)} timepoints, only the first is used"]


def _by_position(planes: Sequence[Plane]) -> dict[tuple[Label, ...], list[Plane]]:
    """Return the planes of each position, in the order of z."""
    places: dict[tuple[Label, ...], list[Plane]] = {}
    for plane in sorted(planes, key=lambda plane: position_key(plane.at.position)):
        places.setdefault(plane.at.position, []).append(plane)
    for found in places.values():
        found.sort(key=lambda plane: natural_key(_z_of(plane)))
    return places


def _z_of(plane: Plane) -> Label:
    return 0 if plane.at.z is None else plane.at.z


def _require_whole(places: dict[tuple[Label, ...], list[Plane]]) -> None:
    """Raise Unclear unless each position has the planes of all others."""
    counts = Counter(len(found) for found in places.values())
    planes = counts.most_common(1)[0][0]
    heights = Counter(z for found in places.values() for z in map(_z_of, found))
    for found in places.values():
        labels = {_z_of(plane) for plane in found}
        missing = [z for z, count in heights.items() if count > 1 and z not in labels]
        if len(found) != planes:
            which = f" (z {named(missing)} missing)" if missing and len(found) < planes else ""
            hint = "all fields must have the same planes; complete it or move it away"
            raise Unclear(f"{planes} planes", f"{len(found)}{which}", hint, _subject_of(found))
        _require_no_gap(found)


def _require_no_gap(found: Sequence[Plane]) -> None:
    """Raise Unclear if indices, or heights that are else regular, leave planes out."""
    labels = [_z_of(plane) for plane in found]
    numbers = np.array([label for label in labels if not isinstance(label, str)], float)
    if len(numbers) < max(2, len(labels)):
        return
    gaps = np.diff(numbers)
    step, indices = float(gaps.min()), all(isinstance(label, int) for label in labels)
    counts = gaps / step
    regular = np.median(gaps) < step * (1 + UNEVEN) and np.allclose(
        counts, counts.round(), atol=0.1
    )
    if counts.max() > 1.5 and (indices or regular):
        expected = round(float(counts.round().sum())) + 1
        before = [label for label, count in zip(labels, counts, strict=False) if count > 1.5]
        got = f"{len(labels)} (z missing after {named(before)})"
        hint = "complete it, or renumber the planes"
        raise Unclear(f"{expected} planes", got, hint, _subject_of(found))


def _subject_of(found: Sequence[Plane]) -> Path:
    """Return the file or folder that holds planes, for messages."""
    paths = {plane.path for plane in found}
    return paths.pop() if len(paths) == 1 else found[0].path.parent


def _z_step(fields: Sequence[Sequence[Plane]]) -> tuple[float | None, list[str]]:
    """Return the distance of planes by their heights, and a warning if it varies."""
    steps = []
    for found in fields:
        heights = [plane.at.z_um for plane in found]
        if len(found) < 2 or None in heights:
            continue  # such as a field whose file is damaged
        steps.append(np.diff(np.array(heights, float)))
    if not steps:
        return None, []
    each = np.abs(np.concatenate(steps))
    step = float(np.median(each))
    if step == 0:
        return None, []
    if np.abs(each - step).max() > UNEVEN * step:
        said = f"planes lie {each.min():g} to {each.max():g} µm apart, {step:g} µm is used"
        return step, [said]
    return step, []


def _field(position: tuple[Label, ...], found: Sequence[Plane]) -> RecordedField:
    stage = [plane.at.stage_um for plane in found if plane.at.stage_um]
    return RecordedField(
        "/".join(map(str, position)) or "0",
        tuple((plane.path, plane.number) for plane in found),
        stage[0] if stage else None,
        found[0].at.cell,
    )
