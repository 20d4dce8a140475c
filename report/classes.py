"""Classes of objects that a scan predictor gave, as marks on the mosaic."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.palettes import Colorblind8

from report.columns import Columns, thinned

CLASS = "class"  # column of the table
NAMES = ("x_um", "y_um", CLASS, "color", "marker")
# Of the built-in classes; any others get the colours and markers in the order of their names.
KNOWN = ("single", "clump", "debris", "cut")
COLORS = (Colorblind8[3], Colorblind8[5], Colorblind8[1], Colorblind8[6])
MARKERS = ("circle", "square", "diamond", "triangle")


def looks(classes: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each class, in order; none if they are more than can be told."""
    found = sorted(set(classes), key=lambda each: (_rank(each), each))
    if not set(found) <= set(KNOWN) and len(found) > len(COLORS):
        return {}
    ranks = [_rank(each) for each in found] if set(found) <= set(KNOWN) else range(len(found))
    return {each: (COLORS[k], MARKERS[k]) for each, k in zip(found, ranks, strict=True)}


def _rank(name: str) -> int:
    return KNOWN.index(name) if name in KNOWN else len(KNOWN)


def marks(rows: Mapping[str, Any], classes: Sequence[str]) -> Columns:
    """Return a mark for each object; of too many, every k-th. None if there are no classes."""
    look = looks(classes)
    if not look or len(classes) != len(rows["x_um"]):  # the table was replaced meanwhile
        return {name: [] for name in NAMES}
    chosen = thinned(len(classes))
    shown = list(classes[chosen])
    places = {name: rows[name][chosen].astype(np.float32) for name in ("x_um", "y_um")}
    ways = {"color": [look[each][0] for each in shown], "marker": [look[each][1] for each in shown]}
    return {**places, CLASS: shown, **ways}


def keys(classes: Sequence[str]) -> list[tuple[str, str, int]]:
    """Return name, colour and number of objects of each class that is shown."""
    return [(each, color, list(classes).count(each)) for each, (color, _) in looks(classes).items()]
