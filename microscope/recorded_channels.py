"""Which of the recorded planes of each channel are used, and how it is shown."""

import re

from config import Settings
from microscope.replay import Recording
from scan.channels import Channel, Channels, channels_of, colours_of
from scan.errors import InputError
from scan.focusing import Heights


def recorded_channels(recording: Recording, settings: Settings, heights: Heights) -> Channels:
    """Return the channels of a recording.

    Parameters
    ----------
    recording : Recording
    settings : Settings
        Which channels are given, in what colours, offset by how much and by how many planes.
    heights : tuple of float
        Of the reference.

    Raises
    ------
    InputError
        If more planes of a channel are asked for than were recorded.
    """
    step_um = recording.z_step_um
    if not recording.channels:
        return channels_of(settings.channels, len(heights), step_um)
    given = {channel.name: channel for channel in settings.channels}
    names = [channel.name for channel in recording.channels]
    asked = [given[name].colour if name in given else None for name in names]
    told = [_colour(channel.colour) for channel in recording.channels]
    if set(told) == {"FFFFFF"}:  # of programs that have no colours
        told = [None] * len(told)
    colours = colours_of(names, [a or b for a, b in zip(asked, told, strict=True)])
    each = []
    for channel, colour in zip(recording.channels, colours, strict=True):
        every = tuple((channel.first + k) * step_um for k in range(channel.planes))
        offset_um = given[channel.name].z_offset_um if channel.name in given else 0.0
        planes = given[channel.name].planes if channel.name in given else None
        if planes and planes > len(every):
            expected, hint = f"{planes} planes of {channel.name}", "leave planes out to use all"
            raise InputError(str(recording.path), expected, f"{len(every)}", hint)
        used = _nearest(every, planes or min(len(heights), len(every)), heights, offset_um)
        each.append(Channel(channel.name, colour, len(used), offset_um, used))
    return Channels(tuple(each), recording.reference, step_um)


def _colour(told: str | None) -> str | None:
    return told if told and re.fullmatch("[0-9A-Fa-f]{6}", told) else None


def _nearest(every: Heights, planes: int, heights: Heights, offset_um: float) -> Heights:
    """Return so many neighbouring planes whose middle is nearest to that of the reference's."""
    middle_um = (heights[0] + heights[-1]) / 2 + offset_um
    firsts = range(len(every) - planes + 1)
    first = min(firsts, key=lambda k: abs((every[k] + every[k + planes - 1]) / 2 - middle_um))
    return every[first : first + planes]
