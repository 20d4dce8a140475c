"""Coordinates from the names of files: known patterns first, then what each number is called.

`PATTERNS` is the table of programs; a pattern applies if it fits every name of a recording.
A name is a path relative to the recording, with "/" between folders and without its suffix. Parts
of names that vary and are not understood are refused, and so are parts that may mean two things:
nothing is guessed between position and plane.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from microscope.coordinates import Coordinates, Label, Unclear, label_of, named
from microscope.name_tokens import Column, by_tokens, columns_of

STRAY = re.compile(
    r"(?<![^\W_])(thumb(nail)?s?|overview|projections?|preview|mip|max_?proj(ection)?|overlay|downsampled"
    r"|stitched|montage)(?![^\W_])|_thumb|(^|/)(max|avg|sum|std|min|med)_",
    re.IGNORECASE,
)
NUMBER = r"[+-]?\d+(?:\.\d+)?"
WELL = r"(?P<well>(?-i:[A-P]\d{2}))"
FOLDERS = r"(?P<folders>(?:.*/)?)"

# Program, and what a whole name looks like. Groups other than those of `AXIS_GROUPS` are parts of
# the position, in this order. Sources: the programs' own code and manuals, see docs/recordings.md.
PATTERNS = {
    "Micro-Manager": FOLDERS
    + r"img(?:_channel(?P<channel>\d+))?(?:_position(?P<position>\d+))?"
    r"(?:_time(?P<time>\d+))?(?:_z(?P<z>-?\d+))?",
    "Micro-Manager 1.4": FOLDERS + r"img_(?P<time>\d{9})_(?P<channel>.*)_(?P<z>\d{3,})",
    "Operetta or Phenix": FOLDERS
    + r"r(?P<row>\d+)c(?P<column>\d+)f(?P<field>\d+)p(?P<z>\d+)(?:rc\d+)?-ch(?P<channel>\d+)"
    r"(?:sk(?P<time>\d+))?(?:fk\d+)?(?:fl\d+)?",
    "InCell": FOLDERS
    + r"(?P<row>[A-P]) - (?P<column>\d+) ?\(fld (?P<field>\d+)(?: wv (?P<channel>.+?))?"
    r"(?: z (?P<z>\d+))?(?: time (?P<time>\d+)[^)]*)?\)",
    "InCarta": FOLDERS
    + rf"(?P<rest>.*?)t(?P<time>\d+)_{WELL}_s(?P<site>\d+)_w(?P<channel>\d+)(?:_z(?P<z>\d+))?",
    "CellVoyager": FOLDERS
    + rf"(?P<rest>.*_){WELL}_T(?P<time>\d+)F(?P<field>\d+)L\d+A\d+Z(?P<z>\d+)C(?P<channel>\d+)",
    "Yokogawa CQ1": FOLDERS
    + r"W(?P<well>\d+)F(?P<field>\d+)T(?P<time>\d+)Z(?P<z>\d+)C(?P<channel>\d+)",
    "ScanR": FOLDERS
    + r"(?P<rest>.*)--W(?P<well>\d+)--P(?P<position>\d+)--Z(?P<z>\d+)--T(?P<time>\d+)"
    r"--(?P<channel>.+)",
    "Cellomics": FOLDERS + rf"(?P<rest>.*_){WELL}f(?P<field>\d+)d(?P<channel>\d+)",
    "EVOS": FOLDERS
    + r"(?P<rest>.*?)_p(?P<plate>\d+)_(?:z(?P<z>\d+)_)?(?P<time>\d+)_"
    rf"{WELL}f(?P<field>\d+)d(?P<channel>\d+)",
    "BD Pathway": FOLDERS + r"(?P<channel>.+) - n(?P<z>\d+)",
    "Incucyte": FOLDERS
    + rf"(?P<rest>.*_)(?P<channel>[A-Za-z]\w*)_{WELL}_(?P<site>\d+)_(?P<time>\d+d\d+h\d+m)",
    "ImageXpress": r"(?P<folders>.*?)(?:TimePoint_(?P<time>\d+)/)?(?:ZStep_(?P<z>\d+)/)?"
    rf"(?P<rest>[^/]*_){WELL}(?=_[sw]\d)(?:_s(?P<site>\d+))?(?:_w(?P<channel>\d))?"
    r"(?:[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})?",
    "Keyence": FOLDERS
    + r"(?P<rest>.*?)_?(?:XY(?P<position>\d+)_)?(?P<tile>\d{5})_(?:Z(?P<z>\d+)_)?"
    r"CH(?P<channel>\d+)",
    "Squid": r"(?P<folders>(?:.*/)??)(?:(?P<time>\d+)/)?(?P<region>[^/_]+)_(?P<field>\d+)_"
    r"(?P<z>\d+)_(?P<channel>(?:BF|Fluorescence|DPC|Brightfield|USB)[^/]*)",
    "OpenFlexure": FOLDERS
    + r"(?:image|img)_(?P<x>-?\d+)_(?P<y>-?\d+)(?:_(?P<z>-?\d+))?",
    "Leica": FOLDERS
    + r"(?P<rest>.*?)(?:_t(?P<time>\d+))?(?:_s(?P<tile>\d+))?(?:_z(?P<z>\d+))?"
    r"_ch(?P<channel>\d+)",
    "NIS-Elements": FOLDERS
    + r"(?P<rest>.*?)(?:t(?P<time>\d+))?xy(?P<position>\d+)(?:z(?P<z>\d+))?(?:c(?P<channel>\d+))?",
}  # fmt: skip
STEPS = 100  # stage steps between images of an OpenFlexure microscope are more; counts are less
AXIS_GROUPS = ("channel", "time", "z")
FREE_GROUPS = ("rest", "folders", "before", "after")  # text around the others
GRIDS = ({"row", "column"}, {"y", "x"})


class Reading(NamedTuple):
    """What the names of a recording tell.

    Attributes
    ----------
    coordinates : dict
        Of each name that was understood.
    by : str
        The pattern, or what the parts were taken for.
    guesses : tuple of str
        What might have meant something else.
    left_out : tuple of str
        Names of projections, thumbnails and the like.
    """

    coordinates: dict[str, Coordinates]
    by: str
    guesses: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def read_names(
    names: Sequence[str], *, single_planes: bool, name_pattern: str | None = None
) -> Reading:
    """Return the coordinates that names of files tell.

    Parameters
    ----------
    names : sequence of str
        Paths relative to the recording, without suffix, all different.
    single_planes : bool
        Whether each file holds a single plane. If not, files differ in position, not in z.
    name_pattern : str, optional
        The user's own, such as ``r{row}c{col}f{field}p{z}-ch{channel}``; it must fit every name.

    Raises
    ------
    Unclear
        Parts of the names vary and cannot be understood.
    """
    strays = {name for name in names if STRAY.search(name)}
    if len(strays) == len(names):  # then it is the name of all
        strays = set()
    kept = [name for name in names if name not in strays]
    if name_pattern:
        reading = _by_pattern(kept, own_pattern(name_pattern), f"name_pattern {name_pattern}")
        if reading is None:
            raise _unfit(kept, name_pattern)
    else:
        reading = _by_table(kept) or Reading(*by_tokens(kept, single_planes=single_planes))
    return reading._replace(left_out=(*sorted(strays), *reading.left_out))


def own_pattern(text: str) -> str:
    """Return the regular expression of a user's name pattern, which the settings have checked.

    `*` stands for anything within a name.
    """
    parts = re.split(r"\{(\w*)\}", text)
    found = ["column" if part == "col" else part for part in parts[1::2]]
    literals = [re.escape(part).replace(r"\*", "[^/]*?") for part in parts[::2]]
    groups = [
        f"(?P<{name}>{NUMBER}|[^/]+{'' if last else '?'})"
        for name, last in zip(found, [not text for text in parts[2::2]], strict=True)
    ]
    body = "".join(a + b for a, b in zip(literals, [*groups, ""], strict=True))
    return rf"(?P<before>(?:.*/)?[^/]*?){body}(?P<after>.*)"


def _unfit(names: Sequence[str], text: str) -> Unclear:
    pattern = re.compile(own_pattern(text), re.IGNORECASE)
    other = next((name for name in names if not pattern.fullmatch(name)), names[0])
    return Unclear(f"names like {text}", other, "correct name_pattern, or move other files away")


def _by_table(names: Sequence[str]) -> Reading | None:
    found = (_by_pattern(names, pattern, program) for program, pattern in PATTERNS.items())
    return next((reading for reading in found if reading), None)


def _by_pattern(names: Sequence[str], text: str, by: str) -> Reading | None:
    """Return what a pattern reads in all names; None if it does not fit them."""
    pattern = re.compile(text, re.IGNORECASE)
    found: dict[str, dict[str, str | None]] = {}
    for name in names:
        match = pattern.fullmatch(name)
        if not match:
            return None
        found[name] = match.groupdict()
    groups = pattern.groupindex
    without_z = [name for name in names if found[name].get("z") is None]
    if 0 < len(without_z) < len(names):  # a projection of the planes beside them
        found = {name: found[name] for name in names if name not in without_z}
    else:
        without_z = []
    used = [group for group in groups if any(values[group] for values in found.values())]
    if not {*used} - {*FREE_GROUPS}:
        return None
    if any(values[group] is None for values in found.values() for group in used):
        return None
    columns = {group: [str(values[group]) for values in found.values()] for group in used}
    if by == "OpenFlexure" and max(abs(int(text)) for text in columns["x"] + columns["y"]) < STEPS:
        return None
    if not all(_is_position(columns.get(group, [])) for group in FREE_GROUPS[:2]):
        return None
    _require_constant(columns)
    return Reading(_coordinates(list(found), columns), by, left_out=tuple(without_z))


def _is_position(texts: Sequence[str]) -> bool:
    """Whether what varies in texts may be a position: neither z, channel nor time."""
    return all(column.axis in (None, "position", "row", "column") for column in _varying(texts))


def _varying(texts: Sequence[str]) -> list[Column]:
    """Return the parts in which texts differ; whole, if they are of different kinds."""
    if len(set(texts)) < 2:
        return []
    try:
        return [column for column in columns_of(texts) if column.varies]
    except Unclear:
        return [Column("", tuple(texts), is_number=False, in_folder=True)]


def _coordinates(names: Sequence[str], columns: dict[str, list[str]]) -> dict[str, Coordinates]:
    labels = {group: [label_of(text) for text in texts] for group, texts in columns.items()}
    places = [
        group for group in columns
        if len(set(columns[group])) > 1 and group not in AXIS_GROUPS
    ]  # fmt: skip
    grid = next((grid for grid in GRIDS if set(places) == grid), None)
    rows, across = ("row" if "row" in places else "y", "column" if "column" in places else "x")
    order = sorted(places, key=lambda group: group in ("column", "x")) if grid else places
    parts = [part for group in order for part in _labels_of(group, columns, labels)]
    heights = _heights(columns.get("z", []))
    coordinates = {}
    for number, name in enumerate(names):
        values = {group: labels[group][number] for group in columns}
        z = values.get("z")
        coordinates[name] = Coordinates(
            position=tuple(part[number] for part in parts),
            cell=(values[rows], values[across]) if grid else None,
            channel=values.get("channel"),
            time=values.get("time"),
            z=float(z) if heights and z is not None else z,
            z_um=heights(z) if heights and z is not None else None,
        )
    return coordinates


def _labels_of(
    group: str, columns: dict[str, list[str]], labels: dict[str, list[Label]]
) -> list[Sequence[Label]]:
    """Return the labels of a part of the position; text around other groups has parts, too."""
    if group in FREE_GROUPS:
        return [column.labels for column in _varying(columns[group])]
    return [labels[group]]


HINT = "give name_pattern, such as 'pos{position}_z{z}'"


def _require_constant(columns: dict[str, list[str]]) -> None:
    """Raise Unclear if names vary where a user's pattern has no placeholder."""
    for part in ("before", "after"):
        texts = [text.rpartition("/")[2] for text in columns.get(part, [])]
        if len(set(texts)) > 1:
            raise Unclear("names that vary in name_pattern's parts only", named(texts), HINT)
    if "before" in columns:
        columns["before"] = [text.rpartition("/")[0] for text in columns["before"]]


def _heights(texts: Sequence[str]) -> Callable[[Label], float] | None:
    """Return how heights are read if the texts are some: signed, or with decimals."""
    numbers = [text for text in texts if re.fullmatch(NUMBER, text)]
    signed = any(text[0] in "+-" for text in numbers) or any("." in text for text in numbers)
    return (lambda label: float(label)) if signed and len(numbers) == len(texts) else None
