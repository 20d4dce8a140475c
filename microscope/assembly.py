"""From planes with coordinates to fields: what is used, in which order, and what is refused.

Every plane has one place; two planes at one place, and fields that lack planes, are refused. All
channels are used that have planes of the reference; of several time points one is, and a caveat
says which.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
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


Planes = tuple[tuple[Path, int], ...]  # file and number there, in the order of z


class RecordedField(NamedTuple):
    """A field of view: its planes; stage position or cell, if told; of several channels the planes
    of each, and `planes` are those of the reference."""

    name: str
    planes: Planes
    stage_um: tuple[float, float] | None = None
    cell: tuple[Label, Label] | None = None
    channels: tuple[Planes, ...] = ()


class RecordedChannel(NamedTuple):
    """A channel of all fields: name, colour if told, how many planes it has and which plane of the
    reference lies where its first does; of colour images the sample of their pixels."""

    name: str
    colour: str | None
    planes: int
    first: int = 0
    sample: int | None = None


@dataclass(frozen=True)
class Assembled:
    """Fields, how many planes of which axes there are, and what was assumed or left out.

    `counts` is by axis, of all planes; `caveats` concern the answer, and are said again at its end.
    `channels` are those that are used if there are several, and `reference` the number of one.
    """

    fields: tuple[RecordedField, ...]
    counts: dict[str, int]
    z_step_um: float | None
    caveats: tuple[str, ...]
    warnings: tuple[str, ...]
    channels: tuple[RecordedChannel, ...] = ()
    reference: int = 0


def assemble(
    planes: Sequence[Plane],
    *,
    wanted: Sequence[Label] = (),
    reference: Label | None = None,
    channel_names: Sequence[str] = (),
    colours: Sequence[str] = (),
) -> Assembled:
    """Return the fields of a recording.

    Parameters
    ----------
    planes : sequence of Plane
    wanted : sequence of labels
        The numbers (from 0) or the names of the channels to use; by default all.
    reference : label, optional
        Of these the one that all others must lie beside; by default the first.
    channel_names, colours : sequence of str
        Names and colours of numbered channels, where metadata have them.

    Raises
    ------
    Unclear
        Two planes have the same place, or planes are missing.
    """
    planes, caveats = _lone_axis_as_z(planes, wanted, channel_names)
    _require_distinct(planes)
    counts = {axis: len({getattr(p.at, axis) for p in planes}) for axis in AXES}
    shown, more = _chosen_channels(planes, wanted, channel_names)
    caveats += more
    names = list(shown.values())
    leading = names.index(str(reference)) if str(reference) in names else 0
    used, more = _of_one_time([p for p in planes if not shown or p.at.channel in shown])
    caveats += more
    stacks = {label: _by_position([p for p in used if p.at.channel == label]) for label in shown}
    places = stacks[list(shown)[leading]] if stacks else _by_position(used)
    _require_whole(places)
    counts["z"] = len(next(iter(places.values())))
    step_um, warnings = _z_step(list(places.values()))
    several, more = _beside(stacks, places, shown)
    caveats += more
    channels = [
        RecordedChannel(
            shown[label], _told(label, channel_names, colours) or None,
            len(next(iter(stacks[label].values()))), first,
        )
        for label, first in several.items()
    ]  # fmt: skip
    fields = tuple(
        _field(position, found, [stacks[label][position] for label in several])
        for position, found in places.items()
    )
    return Assembled(
        fields, counts, step_um, tuple(caveats), tuple(warnings), tuple(channels),
        next((k for k, channel in enumerate(channels) if channel.name == names[leading]), 0),
    )  # fmt: skip


def in_words(counts: dict[str, int]) -> str:
    """Return the size of a recording, as in 4 positions × 5 planes × 2 channels."""
    singular = {axis: text[:-1] for axis, text in AXES.items()}
    shown = [axis for axis in AXES if counts[axis] > 1 or axis in ("position", "z")]
    return f" {TIMES} ".join(
        f"{counts[axis]} {AXES[axis] if counts[axis] > 1 else singular[axis]}" for axis in shown
    )


def _lone_axis_as_z(
    planes: Sequence[Plane], wanted: Sequence[Label], names: Sequence[str]
) -> tuple[Sequence[Plane], list[str]]:
    """Take time points or channels for z where no z is told: programs save stacks so."""
    counts = {axis: len({getattr(plane.at, axis) for plane in planes}) for axis in AXES}
    if counts["z"] > 1 or wanted:
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


def _chosen_channels(
    planes: Sequence[Plane], wanted: Sequence[Label], names: Sequence[str]
) -> tuple[dict[Label, str], list[str]]:
    """Return the names of the channels to use, by label, none if planes have no channels; and what
    is not used."""
    labels = sorted({p.at.channel for p in planes if p.at.channel is not None}, key=natural_key)
    if not labels:
        if wanted and tuple(wanted) != (0,):
            raise _no_such_channel(wanted[0], ["no channels"])
        return {}, []
    shown = {label: _channel_name(label, names) for label in labels}
    for label, name in list(shown.items()):
        if list(shown.values()).count(name) > 1:
            shown[label] = f"{name} ({labels.index(label)})"
    chosen = {}
    for channel in wanted:
        found = [x for k, x in enumerate(labels) if channel == k]  # a number counts from 0
        found += [x for x in labels if channel in (x, shown[x])]
        if not found:
            raise _no_such_channel(channel, shown.values())
        chosen[found[0]] = shown[found[0]]
    others = [name for label, name in shown.items() if chosen and label not in chosen]
    if not others:
        return chosen or shown, []
    used = f"only channel {named(chosen.values())} is used"
    if len(chosen) > 1:
        used = f"only channels {named(chosen.values())} are used"
    return chosen, [f"{len(labels)} channels, {used}; not scanned: {named(others)}"]


def _no_such_channel(channel: Label, names: Collection[str]) -> Unclear:
    expected = f"a channel from 0 to {len(names) - 1}, or one of {named(names)}"
    return Unclear(expected, f"channel {channel}", "correct the setting channel, or channels")


def _channel_name(label: Label, names: Sequence[str]) -> str:
    return _told(label, names, names) or str(label) or "unnamed"


def _told(label: Label, names: Sequence[str], values: Sequence[str]) -> str:
    """Return what metadata tell of a channel, which has a number or a name there."""
    number = label if isinstance(label, int) else -1
    if isinstance(label, str) and label in names:
        number = list(names).index(label)
    return values[number] if 0 <= number < len(values) else ""


Places = dict[tuple[Label, ...], list[Plane]]


def _beside(
    stacks: Mapping[Label, Places], places: Places, shown: Mapping[Label, str]
) -> tuple[dict[Label, int], list[str]]:
    """Return the channels that have planes of the reference, with the plane at which they begin,
    none if there is only one; and what is not scanned."""
    firsts = {label: _first_plane(stack, places) for label, stack in stacks.items()}
    reference = next((shown[label] for label, stack in stacks.items() if stack is places), "")
    said = [
        f"channel {shown[label]} has other planes than {reference}: it is not scanned"
        for label, first in firsts.items()
        if first is None
    ]
    found = {label: first for label, first in firsts.items() if first is not None}
    return (found if len(found) > 1 else {}), said


def _first_plane(channel: Places, places: Places) -> int | None:
    """Return the number of the reference's plane at which the planes of a channel begin, the same
    in all positions; None if they are others."""
    if channel.keys() != places.keys():
        return None
    found = {
        _run_in([_z_of(p) for p in planes], [_z_of(p) for p in places[position]])
        for position, planes in channel.items()
    }
    counts = {len(planes) for planes in channel.values()}
    return found.pop() if len(found) == 1 and len(counts) == 1 else None


def _run_in(some: list[Label], every: list[Label]) -> int | None:
    first = every.index(some[0]) if some[0] in every else 0
    return first if every[first : first + len(some)] == some else None


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


def _field(
    position: tuple[Label, ...], found: Sequence[Plane], channels: Sequence[Sequence[Plane]]
) -> RecordedField:
    stage = [plane.at.stage_um for plane in found if plane.at.stage_um]
    return RecordedField(
        "/".join(map(str, position)) or "0",
        _files_of(found),
        stage[0] if stage else None,
        found[0].at.cell,
        tuple(map(_files_of, channels)),
    )


def _files_of(planes: Sequence[Plane]) -> Planes:
    return tuple((plane.path, plane.number) for plane in planes)
