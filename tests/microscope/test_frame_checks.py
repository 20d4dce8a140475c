"""Frames that are missing, blank, repeated or saturated are refused with the reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from microscope.frame_checks import require_valid_frames
from scan.errors import CaptureError

SHAPE = (4, 32, 48)


def frames_of(dtype: str) -> np.ndarray:
    return np.random.default_rng(0).integers(100, 200, SHAPE).astype(dtype)


def set_plane(value: float, part: float = 1.0) -> Callable[[np.ndarray], np.ndarray]:
    """Plane 2 becomes `value` in that part of its rows."""

    def damage(frames: np.ndarray) -> np.ndarray:
        frames[2, : round(part * SHAPE[1])] = value
        return frames

    return damage


def repeat_plane(frames: np.ndarray) -> np.ndarray:
    frames[3] = frames[2]
    return frames


DAMAGED = {
    "plane missing": (lambda frames: frames[1:], "(3, 32, 48)"),
    "plane cropped": (lambda frames: frames[:, :-1], "(4, 31, 48)"),
    "another type": (lambda frames: frames.astype(np.int32), "int32"),
    "blank": (set_plane(0), "plane 2 all zero"),
    "stuck": (repeat_plane, "plane 3 equal to the one before"),
    "white": (set_plane(65535), "100% of plane 2"),
    "half white": (set_plane(65535, 0.6), "of plane 2"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damage_is_refused(damage: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    """Each kind of damage raises an error that says which plane and what is wrong."""
    with pytest.raises(CaptureError) as raised:
        require_valid_frames(damage(frames_of("uint16")), SHAPE, np.dtype(np.uint16), 0.5)

    assert message in str(raised.value)


SOUND = {
    "some white": set_plane(65535, 0.4),
    "some black": set_plane(0, 0.9),
    "untouched": lambda frames: frames,
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("change", SOUND.values(), ids=SOUND)
def test_valid_frames_pass(change: Callable[[np.ndarray], np.ndarray], dtype: str) -> None:
    """Bright and dark areas are valid, in any dtype that a microscope delivers."""
    frames = np.minimum(change(frames_of("uint16")), 255).astype(dtype)

    require_valid_frames(frames, SHAPE, np.dtype(dtype), 0.5)


def test_planes_that_differ_in_one_pixel_are_two_planes() -> None:
    """Only planes equal in every pixel are one plane read twice."""
    frames = repeat_plane(frames_of("uint16"))
    frames[3, -1, -1] += 1

    require_valid_frames(frames, SHAPE, np.dtype(np.uint16), 0.5)
