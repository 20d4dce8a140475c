"""Where a plane belongs in a recording: the values that metadata and names of files give.

A label is a number or a word, as it was read. Labels are compared in natural order: numbers by
value and before words.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from scan.errors import InputError

Label = int | float | str
AXES = {"position": "positions", "z": "planes", "channel": "channels", "time": "time points"}


class Coordinates(NamedTuple):
    """What is known of a plane; None, or an empty position, if it is not told.

    Attributes
    ----------
    position : tuple of label
        Field of view, perhaps in parts such as well and site.
    channel, time, z : label
        Index, number or name along each axis.
    z_um : float
        Height of the plane where z is a length.
    stage_um : (float, float)
        Stage position, x and y.
    cell : (label, label)
        Row and column of the field in a grid of neighbours.
    """

    position: tuple[Label, ...] = ()
    channel: Label | None = None
    time: Label | None = None
    z: Label | None = None
    z_um: float | None = None
    stage_um: tuple[float, float] | None = None
    cell: tuple[Label, Label] | None = None


class Unclear(ValueError):
    """What is known of planes does not say where they belong.

    Parameters
    ----------
    expected, got, hint : str
        As of an InputError, which the caller makes of it.
    subject : path, optional
        The file or folder, if it is not the whole recording.
    """

    def __init__(self, expected: str, got: str, hint: str, subject: object = None) -> None:
        super().__init__(expected, got, hint, subject)

    def about(self, recording: object) -> InputError:
        """Return the InputError that says the same."""
        *parts, subject = self.args
        return InputError(str(subject or recording), *parts)


def label_of(text: str) -> Label:
    """Return a number if the text is one, else the text."""
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(r"[+-]?\d+\.\d+", text) else text


def natural_key(label: Label) -> tuple[object, ...]:
    """Return a key that sorts numbers by value, and words by the numbers in them: z2 before z10."""
    if not isinstance(label, str):
        return (0, float(label))
    parts = re.split(r"(\d+)", label)
    folded = tuple(int(part) if odd % 2 else part.casefold() for odd, part in enumerate(parts))
    return (1, folded, label)


def position_key(position: tuple[Label, ...]) -> tuple[object, ...]:
    """Return a key that sorts positions part by part."""
    return tuple(natural_key(part) for part in position)


def named(labels: Iterable[Label], limit: int = 4) -> str:
    """Return labels in words, at most `limit` of them."""
    each = [str(label) for label in sorted(set(labels), key=natural_key)]
    more = f" and {len(each) - limit} more" if len(each) > limit else ""
    return ", ".join(each[:limit]) + more
