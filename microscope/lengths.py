"""Lengths of metadata in micrometres."""

import math
from typing import Any

UM_PER_UNIT = {
    **dict.fromkeys(("Å", "angstrom"), 1e-4),
    **dict.fromkeys(("nm", "nanometer"), 1e-3),
    # Two code points, the micro sign and the Greek letter, look alike; both are in use.
    **dict.fromkeys(("\u00b5m", "\u03bcm", "um", "micron", "microns", "micrometer"), 1.0),
    **dict.fromkeys(("mm", "millimeter"), 1e3),
    **dict.fromkeys(("cm", "centimeter"), 1e4),
    **dict.fromkeys(("m", "meter"), 1e6),
}


def size_um(value: Any, unit: Any) -> float | None:
    """Return a size in µm; None if it is missing or not a positive length."""
    size = place_um(value, unit)
    return size if size is not None and size > 0 else None


def place_um(value: Any, unit: Any) -> float | None:
    """Return a position in µm, of either sign; None if it is missing or no finite length."""
    try:
        place = float(value) * UM_PER_UNIT[unit]
    except (TypeError, ValueError, KeyError):
        return None
    return place if math.isfinite(place) else None
