"""What is known of where fields lie: matches of neighbours, and the places that follow.

Fields are given by (stripe, field), shifts and offsets by (y, x) in pixels.
"""

from dataclasses import dataclass

from scan.plan import Place

Pair = tuple[Place, Place]  # of neighbours, the first in raster order
Offset = tuple[float, float]

MIN_OVERLAP_PX = 16  # of fields that are matched; less shows too little


def pair_of(one: Place, other: Place) -> Pair:
    """Return two fields as a pair: in raster order."""
    return (one, other) if one < other else (other, one)


@dataclass(frozen=True)
class Match:
    """The shift between two fields in addition to that of the stage.

    Attributes
    ----------
    shift_px : (float, float)
        (y, x): how much farther the second field lies from the first than the stage says.
    covariance_px2 : (float, float, float)
        Predicted variance of the shift in y and x, and their covariance.
    ncc : float
        Normalised cross-correlation of the pixels in common, up to 1.
    """

    shift_px: Offset
    covariance_px2: tuple[float, float, float]
    ncc: float


@dataclass(frozen=True)
class Placement:
    """The offset of a field from the stage's word, and how many of its matches agree with it.

    Without any it lies as its neighbours do, or where the stage says if there are none.
    """

    offset_px: Offset
    agreeing: int
