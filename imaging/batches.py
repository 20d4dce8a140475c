"""Focus stacking of a batch as it comes from the camera: corrected, aligned, of any channels."""

from typing import Any

from numpy.typing import NDArray

from imaging.alignment import align
from imaging.channels import stack_channels
from imaging.correction import correct
from imaging.stacking import FocusStack
from scan.channels import Channels
from scan.correction import Correction

Frames = NDArray[Any]


def fuse(
    frames: Frames | tuple[Frames, ...],
    fields: Correction,
    channels: Channels,
    z_um: tuple[float, ...],
    *,
    aligned: bool,
) -> FocusStack:
    """Return the focus stack of a batch.

    Parameters
    ----------
    frames : (z, y, x), or a tuple of these
        Of one channel, or of several.
    fields : Correction
        By which frames are corrected.
    channels : Channels
    z_um : tuple of float
        Heights of the planes of the reference channel.
    aligned : bool
        Correct the lateral drift between planes.
    """
    from imaging.stacking import focus_stack  # the line that stacking of your own replaces

    if isinstance(frames, tuple):
        stacks = [correct(each, fields.of_channel(c)) for c, each in enumerate(frames)]
        return stack_channels(stacks, channels.reference, channels.shifts(z_um), align=aligned)
    frames = correct(frames, fields)
    return focus_stack(align(frames) if aligned else frames)
