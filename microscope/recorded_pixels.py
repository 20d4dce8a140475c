"""Whether a recording that was copied still has the pixels that were scanned."""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeGuard

from microscope.counting import counted
from microscope.opening import Setup, open_microscope
from microscope.replay import CHECKED_AT_ONCE, Recording
from scan.checksums import crc_of_arrays
from scan.errors import CaptureError, InputError
from scan.events import Begun
from scan.plan import Field

log = logging.getLogger(__name__)


def was_copied(begun: Begun | None, recording: Recording | None) -> TypeGuard[Begun]:
    """Whether files have the sizes of those that were scanned, but other times."""
    if not (recording and begun):
        return False
    changed = begun.identity.get("input") != recording.checksum
    return changed and begun.input_sizes == recording.size_checksum


def require_same_pixels(setup: Setup, recorded: Mapping[Field, int]) -> None:
    """Read the fields that were scanned once more; InputError of the first that is another.

    Parameters
    ----------
    setup : Setup
        Of a recording.
    recorded : dict
        The checksum of each field that was read.
    """
    log.info("files have other times than those that were scanned: their pixels are compared")
    with ThreadPoolExecutor(CHECKED_AT_ONCE) as pool:
        found = pool.map(lambda field: _checksum(setup, field), recorded)
        counts = counted(found, "reading fields", len(recorded))
        for (field, expected), checksum in zip(recorded.items(), counts, strict=True):
            if checksum != expected:
                raise _changed(setup, field)


def _checksum(setup: Setup, field: Field) -> int | None:
    """The checksum of a field; None if it cannot be read."""
    microscope = open_microscope(setup)
    heights = setup.channels.heights(setup.recorded_z_um or ())
    try:
        return crc_of_arrays(
            microscope.stack(field.x_um, field.y_um, z_um, channel).frames
            for channel, z_um in enumerate(heights)
        )
    except CaptureError:
        return None
    finally:
        microscope.close()


def _changed(setup: Setup, field: Field) -> InputError:
    expected = f"stripe {field.stripe} field {field.field} with the pixels that were scanned"
    hint = "bring the files back, or use a new folder"
    return InputError(str(setup.settings.replay_path), expected, "others", hint)
