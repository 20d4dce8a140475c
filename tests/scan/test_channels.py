"""Channels: where their planes lie, which plane shows what, and their colours."""

from __future__ import annotations

import pytest

from config import validate
from scan.channels import ONE_CHANNEL, Channel, Channels, channels_of, colours_of

Z_UM = (-2.0, -1.0, 0.0, 1.0, 2.0)


def of(*given: dict[str, object]) -> Channels:
    return channels_of(validate({"channels": list(given)}).channels, 5, 1.0)


def test_one_channel_has_the_planes_of_the_scan() -> None:
    """Without channels, and with one, planes lie where autofocus says."""
    assert ONE_CHANNEL.heights(Z_UM) == (Z_UM,)
    assert of({"name": "DAPI"}).heights(Z_UM) == (Z_UM,)
    assert not of({"name": "DAPI"}).several


def test_channels_lie_around_the_reference() -> None:
    """Others have their own number of planes, around the centre of the reference's, raised by their
    offset; the shift says which plane shows what the reference's first plane does."""
    channels = of(
        {"name": "a", "z_offset_um": 0.5, "planes": 3},
        {"name": "b", "reference": True},
        {"name": "c", "z_offset_um": -1.0, "planes": 2},
    )

    assert channels.heights(Z_UM) == ((-0.5, 0.5, 1.5), Z_UM, (-1.5, -0.5))
    assert channels.shifts(Z_UM) == (-1.0, 0.0, -1.5)
    assert channels.reference == 1


def test_recorded_planes_stay_where_they_are() -> None:
    """The offset of a recorded channel decides which of its planes is blended."""
    planes = (0.0, 1.0, 2.0, 3.0, 4.0)
    each = (Channel("a", "FFFFFF", 5, recorded_um=planes),
            Channel("b", "FFFFFF", 5, 1.5, recorded_um=planes),
            Channel("c", "FFFFFF", 2, recorded_um=planes[2:4]))  # fmt: skip
    channels = Channels(each, 0, 1.0)

    assert channels.heights(planes) == (planes, planes, (2.0, 3.0))
    assert channels.shifts(planes) == (0.0, 1.5, -2.0)


COLOURS = {
    "dyes": (["DAPI", "Alexa 488", "mCherry", "Cy5 far red"], [None] * 4,
             ["0000FF", "00FF00", "FF0000", "FF00FF"]),
    "unknown names": (["0", "1"], [None] * 2, ["00FFFF", "FF00FF"]),
    "given ones": (["GFP", "x"], ["00FFFF", None], ["00FFFF", "FF00FF"]),
    "too many": ([str(k) for k in range(9)], [None] * 9, None),
}  # fmt: skip


@pytest.mark.parametrize(("names", "given", "expected"), COLOURS.values(), ids=COLOURS)
def test_channels_have_colours(
    names: list[str], given: list[str | None], expected: list[str] | None
) -> None:
    """A given colour is used, else that of the dye in the name, else one that no other has."""
    found = colours_of(names, given)

    assert len(found) == len(names)
    assert expected is None or found == expected
