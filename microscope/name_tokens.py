"""Coordinates from names of no known program: what each varying number or word is called.

A name is cut at separators into parts, and numbers in parts have a keyword: the letters before
them. `KEYWORDS` says what keywords mean. Numbers without one count planes where files hold a single
plane each and nothing else can be z; else positions. More than one of those is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from microscope.coordinates import Coordinates, Label, Unclear, label_of, named

_Z = "z zs zstep zslice zplane zpos zlevel zstack slice sl plane focus height depth layer level"
_CHANNEL = "c ch chan channel w wv wave wavelength color colour lambda filter"
_TIME = "t time timepoint tp tm timelapse"
_POSITION = (
    "p pos position s site series scene f field fld fov xy xypos tile m mosaic v view well point "
    "region roi area spot stage location loc sample slide section plate"
)
KEYWORDS = {
    word: axis
    for axis, words in (
        ("z", _Z), ("channel", _CHANNEL), ("time", _TIME), ("position", _POSITION),
        ("row", "r row y"), ("column", "col column x"),
    )
    for word in words.split()
}  # fmt: skip
# These may count planes as well as positions; without another z they are refused.
AMBIGUOUS = {"p": "plane or position", "s": "slice, site or series", "f": "frame or field"}
CHANNEL_WORD = re.compile(
    r"(dapi|hoechst|e?gfp|[eyc]?yfp|cfp|rfp|bfp|fitc|tritc|cy[2357](\.5)?|texas ?red|txred|tx2"
    r"|m?cherry|tdtomato|a(lexa)?(f)?\d{3}|bf|brightfield|bright|phase|ph|dic|pc|trans|tl|"
    r"red|green|blue|far ?red|\d{3}nm|(405|470|488|514|532|555|561|594|633|638|640|647|660|730))",
    re.IGNORECASE,
)
LASER_LINES = {405, 445, 470, 488, 514, 532, 555, 561, 594, 633, 637, 638, 640, 642, 647, 660, 730}
WELL = re.compile(r"[A-P]\d{1,2}")
SEPARATOR = re.compile(
    r"[_/\s()\[\]=,;#]+|-{2,}|(?<=[^\W_])-(?=[^\W\d_])|(?<=\d)-(?=\d)", re.UNICODE
)
UM_OF = {"um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "mm": 1e3}
NUMBERED = re.compile(
    r"(?P<word>[^\W\d_]*)[.]?(?P<number>(?<!\d)[+-]?\d+(?:\.\d+)?)"
    r"(?P<unit>(?:um|µm|μm|nm|mm|microns?)(?![^\W\d_]))?",
    re.IGNORECASE,
)
HINT = "give name_pattern, such as 'pos{position}_z{z}'"


@dataclass(frozen=True)
class Column:
    """One part of all names: its keyword, what it says in each, and whether it is a number."""

    keyword: str
    labels: tuple[Label, ...]
    is_number: bool
    in_folder: bool
    um: float | None = None  # of its unit

    @property
    def varies(self) -> bool:
        """Whether names differ in it."""
        return len(set(self.labels)) > 1

    @property
    def axis(self) -> str | None:
        """What the keyword means, if it is known."""
        if not self.is_number:
            return _axis_of_words(self.labels)
        word = self.keyword.lower()
        if word not in KEYWORDS and LASER_LINES.issuperset(self.labels):
            return "channel"
        last = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", self.keyword)[-1:]
        if word == "w" and all(isinstance(each, int) and each > 9 for each in self.labels):
            return "position"  # wells; few microscopes have so many channels
        return KEYWORDS.get(word) or (KEYWORDS.get(last[0].lower()) if last else None)

    @property
    def heights(self) -> tuple[float, ...] | None:
        """The labels as heights in µm, if they are lengths: with a unit, a sign or decimals."""
        if not self.is_number or self.axis not in ("z", None):
            return None
        lengths = any(isinstance(each, float) or each < 0 for each in self.labels)  # type: ignore[operator]
        if self.um is None and not lengths:
            return None
        return tuple(float(each) * (self.um or 1.0) for each in self.labels)

    def __str__(self) -> str:
        kind = "numbers" if self.is_number else "words"
        return f"{repr(self.keyword) if self.keyword else kind} ({named(self.labels)})"


Roles = dict[str, list[Column]]  # the columns of each axis


def by_tokens(
    names: Sequence[str], *, single_planes: bool
) -> tuple[dict[str, Coordinates], str, tuple[str, ...]]:
    """Return coordinates, how they were understood, and what was guessed.

    Unclear if they are not understood.
    """
    columns = [column for column in columns_of(names) if column.varies]
    known = [column for column in columns if column.axis]
    unknown = [column for column in columns if not column.axis]
    roles = _roles(known)
    if not _distinct(known, len(names)):
        _place_unknown(unknown, known, roles, len(names), single_planes=single_planes)
    _require_one_meaning(roles, columns, single_planes=single_planes)
    guesses = () if single_planes else _tiles(roles)
    if "position" in roles:
        roles["position"].sort(key=columns.index)
    return _coordinates(names, roles), _understood(roles, unknown), guesses


def _tiles(roles: Roles) -> tuple[str, ...]:
    """Take stacks that differ in t alone for tiles: more people have tiles than times."""
    if set(roles) != {"time"} or roles["time"][0].keyword.lower() != "t":
        return ()
    roles["position"] = roles.pop("time")
    said = (
        f"{roles['position'][0]} are taken for tiles; name_pattern = 't{{time}}' makes them times"
    )
    return (said,)


def channel_words(texts: Sequence[str]) -> bool:
    """Whether words are names of channels, such as DAPI and GFP."""
    return all(CHANNEL_WORD.fullmatch(text.strip("_- ")) for text in texts)


def columns_of(names: Sequence[str]) -> list[Column]:
    """Return the parts of names, in order; Unclear if names have different numbers of parts."""
    if len({name.count("/") for name in names}) > 1:
        shown = named(sorted(names, key=lambda name: name.count("/"))[:: len(names) - 1])
        got = f"images in folders of different depth: {shown}"
        raise Unclear("images in one folder, or in sub-folders alike", got, "separate them")
    columns: list[Column] = []
    depth = names[0].count("/")
    for level in range(depth + 1):
        texts = [name.split("/")[level] for name in names]
        columns += _columns_of_level(texts, in_folder=level < depth)
    return columns


def _columns_of_level(texts: Sequence[str], *, in_folder: bool) -> list[Column]:
    """Return the parts of names of folders, or of files, of one level."""
    split = [[part for part in SEPARATOR.split(text) if part] for text in texts]
    for text, parts in zip(texts, split, strict=True):
        if len(parts) != len(split[0]):
            if in_folder:  # such as "control" and "drug A"
                return [Column("", tuple(texts), is_number=False, in_folder=True)]
            raise Unclear("names of one pattern", f"{texts[0]!r} and {text!r}", HINT)
    columns: list[Column] = []
    before = ""
    for number in range(len(split[0])):
        each = [parts[number] for parts in split]
        columns += _columns_of_part(each, before, in_folder=in_folder)
        before = each[0] if each[0].isalpha() and len(set(each)) == 1 else ""
    return columns


def _columns_of_part(texts: Sequence[str], before: str, *, in_folder: bool) -> list[Column]:
    """Return the numbers of a part, or the part as a word if it differs in more than numbers."""
    if all(WELL.fullmatch(text) for text in texts) and len({text[0] for text in texts}) > 1:
        return [Column("well", tuple(texts), is_number=False, in_folder=in_folder)]
    numbers = [_numbers(text, before) for text in texts]
    shapes = {tuple((word.lower(), unit) for word, _, unit in each) for each in numbers}
    rests = {NUMBERED.sub("#", text).lower() for text in texts}
    if len(shapes) > 1 or len(rests) > 1:
        return [Column("", tuple(texts), is_number=False, in_folder=in_folder)]
    columns = []
    for number, (word, _, unit) in enumerate(numbers[0]):
        labels = _unsigned([each[number][1] for each in numbers])
        columns.append(
            Column(word, labels, is_number=True, in_folder=in_folder, um=UM_OF.get(unit))
        )
    return columns


def _numbers(text: str, before: str) -> list[tuple[str, str, str]]:
    """Return keyword, text and unit of each number in a part."""
    found: list[tuple[str, str, str]] = []
    for match in NUMBERED.finditer(text):
        word, number, unit = match["word"], match["number"], (match["unit"] or "").lower()
        if match.start() == 0 and not word:
            word = before
        if "." in number and KEYWORDS.get(word.lower()) != "z" and not unit:
            whole, _, rest = number.partition(".")  # as in scan1.001
            found += [(word, whole, ""), ("", rest, "")]
        else:
            found.append((word, number, unit))
    return found


def _unsigned(texts: Sequence[str]) -> tuple[Label, ...]:
    """Return labels of numbers; a minus before all of them separates, as in image-001."""
    if all(text[0] == "-" for text in texts):
        texts = [text[1:] for text in texts]
    labels = tuple(label_of(text) for text in texts)
    if any(text[0] in "+-" for text in texts) or any(isinstance(each, float) for each in labels):
        return tuple(float(each) for each in labels)  # a height
    return labels


def _axis_of_words(labels: Sequence[Label]) -> str | None:
    words = [str(label) for label in labels]
    if all(WELL.fullmatch(word) for word in words):
        return "position"
    return "channel" if channel_words(words) else None


def _roles(known: Sequence[Column]) -> Roles:
    roles: Roles = {}
    for column in known:
        roles.setdefault(str(column.axis), []).append(column)
    by_c = [column.keyword.lower() for column in roles.get("channel", [])] == ["c"]
    if by_c and "row" in roles and "column" not in roles:  # as in r1_c2
        roles["column"] = roles.pop("channel")
    return roles


def _distinct(columns: Sequence[Column], count: int) -> bool:
    return len(set(zip(*(column.labels for column in columns), strict=True))) == count


def _place_unknown(
    unknown: Sequence[Column],
    known: Sequence[Column],
    roles: Roles,
    count: int,
    *,
    single_planes: bool,
) -> None:
    """Give the one part that is missing a role; Unclear if there are several."""
    useful = [column for column in unknown if _distinct([*known, column], count)]
    folders = [column for column in unknown if column.in_folder]
    if len(unknown) - len(folders) > 1 and len(useful) != 1:
        raise _unclear(unknown, roles)
    for column in useful[:1] if len(useful) == 1 and not folders else unknown:
        roles.setdefault(_role_of(column, roles, single_planes=single_planes), []).append(column)


def _role_of(column: Column, roles: Roles, *, single_planes: bool) -> str:
    if column.in_folder or not single_planes:
        return "position"
    if "z" in roles and len(column.keyword) not in (1, 2):  # letters may be anything
        return "position"
    if "z" in roles or not column.is_number:
        raise _unclear([column], roles)
    return "z"


def _require_one_meaning(roles: Roles, columns: Sequence[Column], *, single_planes: bool) -> None:
    for axis in ("z", "channel", "time"):
        several = roles.get(axis, [])
        if len(several) > 1:
            first = [column for column in several if column.heights] or several
            if any(not _same_order(first[0], other) for other in several):
                raise _unclear(several, {})
            roles[axis] = first[:1]
    if single_planes and "z" not in roles:
        for column in roles.get("position", []):
            if column.is_number and column.keyword.lower() in AMBIGUOUS and not column.in_folder:
                word = column.keyword.lower()
                got = f"{column}, which may be {AMBIGUOUS[word]}"
                raise Unclear("names that tell positions from planes", got, _hint_for(word))


def _hint_for(word: str) -> str:
    return f"give name_pattern = '{word}{{z}}' or '{word}{{position}}'"


def _same_order(one: Column, other: Column) -> bool:
    """Whether two columns say the same, as an index and a height do."""
    return (
        len(set(zip(one.labels, other.labels, strict=True)))
        == len(set(one.labels))
        == len(set(other.labels))
    )


def _unclear(columns: Sequence[Column], roles: Roles) -> Unclear:
    understood = f"; understood were {_understood(roles, [])}" if roles else ""
    got = f"parts that vary: {' and '.join(map(str, columns))}{understood}"
    return Unclear("names that tell position, z, channel and time", got, HINT)


def _understood(roles: Roles, unknown: Sequence[Column]) -> str:
    parts = [f"{axis} {' and '.join(map(str, columns))}" for axis, columns in roles.items()]
    return "; ".join(parts) or ("order" if unknown else "names that do not vary")


def _coordinates(names: Sequence[str], roles: Roles) -> dict[str, Coordinates]:
    grid = set(roles) >= {"row", "column"} and "position" not in roles
    places = [*roles.get("position", []), *roles.get("row", []), *roles.get("column", [])]
    single = {axis: roles[axis][0].labels for axis in ("z", "channel", "time") if axis in roles}
    nothing = (None,) * len(names)
    heights = roles["z"][0].heights if "z" in roles else None
    found = {}
    for number, name in enumerate(names):
        cell = tuple(roles[axis][0].labels[number] for axis in ("row", "column")) if grid else None
        found[name] = Coordinates(
            position=tuple(column.labels[number] for column in places),
            cell=cell,  # type: ignore[arg-type]
            channel=single.get("channel", nothing)[number],
            time=single.get("time", nothing)[number],
            z=float(heights[number]) if heights else single.get("z", nothing)[number],
            z_um=heights[number] if heights else None,
        )
    return found
