"""The channels of a scan: what is captured at each field, and where each channel's planes lie.

The reference channel focuses and decides the depth; the others follow it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from config import ChannelSettings
from scan.focusing import Heights, stack_heights

WHITE = "FFFFFF"
DYES = {  # the colours in which microscopists look for them
    "0000FF": ("dapi", "hoechst", "405", "bfp", "blue"),
    "00FF00": ("fitc", "gfp", "488", "alexa488", "green", "egfp", "venus", "yfp"),
    "FF00FF": ("cy5", "640", "647", "farred"),
    "FF0000": ("tritc", "cy3", "rfp", "561", "568", "texas", "mcherry", "rhodamine", "red"),
    WHITE: ("bright", "phase", "dic", "trans", "bf", "white"),
}
OTHERS = ("00FFFF", "FF00FF", "FFFF00", "00FF00", "FF8000", "0000FF", "FF0000")
Stack = TypeVar("Stack")


@dataclass(frozen=True)
class Channel:
    """One channel: name, colour (six hex digits), planes, and how far above the reference it is
    sharp. `recorded_um` has the heights of planes that were recorded; of others it is None."""

    name: str
    colour: str
    planes: int
    z_offset_um: float = 0.0
    recorded_um: Heights | None = None


@dataclass(frozen=True)
class Channels:
    """All channels of a scan, in the order of the mosaic; none if there is one without a name.

    Attributes
    ----------
    each : tuple of Channel
    reference : int
        Number of the channel that focuses and decides the depth.
    z_step_um : float
        Distance of planes, common to all channels.
    """

    each: tuple[Channel, ...] = ()
    reference: int = 0
    z_step_um: float = 1.0

    @property
    def several(self) -> bool:
        """Whether batches are tuples of arrays, and mosaics have an axis of channels."""
        return len(self.each) > 1

    def heights(self, z_um: Heights) -> tuple[Heights, ...]:
        """Return the heights of each channel's planes, given those of the reference's."""
        if not self.several:
            return (z_um,)
        centre_um = (z_um[0] + z_um[-1]) / 2
        return tuple(
            z_um
            if number == self.reference
            else channel.recorded_um
            or stack_heights(centre_um + channel.z_offset_um, channel.planes, self.z_step_um)
            for number, channel in enumerate(self.each)
        )

    def shifts(self, z_um: Heights) -> tuple[float, ...]:
        """Return for each channel the plane that shows what the reference's first plane does."""
        return tuple(
            0.0 if number == self.reference else self._shift(channel, z_um)
            for number, channel in enumerate(self.each)
        )

    def _shift(self, channel: Channel, z_um: Heights) -> float:
        if channel.recorded_um is None:  # captured around the same height, but for the offset
            return (channel.planes - len(z_um)) / 2
        begins_um = z_um[0] + channel.z_offset_um
        return (begins_um - channel.recorded_um[0]) / self.z_step_um

    def to_event(self) -> tuple[Mapping[str, Any], ...]:
        """Return what the journal says of them."""
        return tuple(
            {"name": channel.name, "colour": channel.colour, "reference": k == self.reference}
            for k, channel in enumerate(self.each)
        )


ONE_CHANNEL = Channels()


def channels_of(given: Sequence[ChannelSettings], planes: int, z_step_um: float) -> Channels:
    """Return the channels that the settings give, of which the reference has so many planes."""
    reference = next((k for k, each in enumerate(given) if each.reference), 0)
    colours = colours_of([each.name for each in given], [each.colour for each in given])
    each = tuple(
        Channel(channel.name, colour, channel.planes or planes, channel.z_offset_um)
        for channel, colour in zip(given, colours, strict=True)
    )
    return Channels(each, reference, z_step_um)


def colours_of(names: Sequence[str], given: Sequence[str | None]) -> list[str]:
    """Return the colour of each channel: the given one, that of its dye, or one of its own."""
    known = [colour or _dye(name) for name, colour in zip(names, given, strict=True)]
    free = (colour for colour in (*OTHERS, *[WHITE] * len(names)) if colour not in known)
    return [(colour or next(free)).upper() for colour in known]


def _dye(name: str) -> str | None:
    text = name.casefold().replace(" ", "")
    found = (colour for colour, dyes in DYES.items() if any(dye in text for dye in dyes))
    return next(found, None)
