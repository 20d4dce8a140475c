"""Write docs/settings.md from the settings in config.py.

python docs/generate_settings.py
"""

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

PAGE = Path(__file__).with_name("settings.md")
sys.path.insert(0, str(PAGE.parents[1]))

from config import (  # noqa: E402
    FILE_ONLY,
    FREE_ON_RESUME,
    NUMBER,
    SIMULATED_DEFAULTS,
    Settings,
    marks,
)

HEAD = """# Settings

Generated from [config.py](../config.py) by `python docs/generate_settings.py`.

A setting is a key of the TOML file given by `--config`. It is also an option of the command line
unless it is marked *file only*: `field_px = 256` in the file, `--field-px 256` as an option. An
option wins over the file. Unknown keys and values out of range are refused with one line.
`python main.py --help` lists the options.

Settings that may change on resume concern the machine. All others decide the answer, and a run that
is resumed keeps them. Defaults of the slide are those of the simulated microscope; a recording or a
camera determines its own geometry.
"""
NAMES = ("setting", "meaning", "unit or kind", "default", "range", "given", "on resume")
SIGNS = {Ge: (">=", "ge"), Gt: (">", "gt"), Le: ("<=", "le"), Lt: ("<", "lt")}
UNITS = {"UM": "µm", "PX": "px", "MS": "ms", "S": "s", "MB": "MB", "UM/MS": "µm/ms", "DEG": "°"}


def page() -> str:
    """Return the page: a table for each group of settings."""
    names = sorted(Settings.model_fields, key=_group_number)
    tables = [
        "\n".join([f"## {group.title}\n", *_header(), *map(_row, members), ""])
        for group, members in groupby(names, lambda name: marks(name)[0])
    ]
    return "\n".join([HEAD, *tables])


def _group_number(name: str) -> int:
    groups = list(dict.fromkeys(marks(each)[0] for each in Settings.model_fields))
    return groups.index(marks(name)[0])


def _header() -> tuple[str, str]:
    return f"| {' | '.join(NAMES)} |", "|---" * len(NAMES) + "|"


def _row(name: str) -> str:
    _, unit, rules = marks(name)
    field = Settings.model_fields[name]
    flag = "--" + name.replace("_", "-")
    cells = (
        f"`{name}`",
        (field.description or "").replace(" (default: a quarter)", ""),
        UNITS.get(unit.name, unit.name.lower()) if unit != NUMBER else "",
        _default(name, field),
        ", ".join(_limits(field)),
        "file only" if FILE_ONLY in rules else f"`{flag}`",
        "may change" if FREE_ON_RESUME in rules else "",
    )
    return f"| {' | '.join(cells)} |"


def _default(name: str, field: FieldInfo) -> str:
    if name == "overlap_px":
        return "a quarter of the field"
    value = SIMULATED_DEFAULTS.get(name, field.default)
    if value in (None, ()):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"


def _limits(field: FieldInfo) -> Iterator[str]:
    for limit in field.metadata:
        if type(limit) in SIGNS:
            sign, attribute = SIGNS[type(limit)]
            yield f"{sign} {getattr(limit, attribute):g}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
