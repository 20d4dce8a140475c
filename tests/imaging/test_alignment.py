"""Planes that are shifted against each other."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from imaging.alignment import align, drift
from imaging.stacking import focus_stack
from tests.imaging.scenes import PLANES, lit, psnr, texture, tilted

INNER = slice(24, -24)


def shaken(frames: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Planes on a random walk of about a pixel a step, and their offsets from the central one."""
    walk = np.cumsum(np.random.default_rng(seed).normal(0, 1, (len(frames), 2)), axis=0)
    walk -= walk[len(walk) // 2]
    moved = [
        cv2.warpAffine(
            plane,
            np.array([[1, 0, x], [0, 1, y]], np.float32),
            plane.shape[::-1],
            flags=cv2.INTER_LANCZOS4,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        for plane, (y, x) in zip(frames, walk, strict=True)
    ]
    return np.stack(moved), walk


@pytest.mark.parametrize("electrons", [300, 30_000])
@pytest.mark.parametrize("seed", [1, 2])
def test_drift_is_found_below_the_pixel(electrons: float, seed: int) -> None:
    """Neighbouring planes are found within a quarter of a pixel of where they were put."""
    frames, _ = lit(texture(256, seed=5), tilted(256), electrons, 1.0)
    moved, walk = shaken(frames, seed)

    assert np.abs(np.diff(drift(moved) + walk, axis=0)).max() < 0.25


def test_aligned_planes_fuse_as_if_they_had_never_moved() -> None:
    """Alignment restores what shifts of a few pixels cost, within a decibel."""
    frames, truth = lit(texture(256, seed=5), tilted(256), 300, 1.0)
    moved, _ = shaken(frames, seed=1)

    def quality(planes: np.ndarray) -> float:
        return psnr(focus_stack(planes).image[INNER, INNER], truth[INNER, INNER])

    assert quality(align(moved)) > quality(frames) - 1
    assert quality(align(moved)) > quality(moved) + 3


def test_still_planes_hardly_move() -> None:
    """Without drift, no plane is moved by more than a quarter of a pixel from its neighbour."""
    frames, _ = lit(texture(256, seed=5), tilted(256), 300, 1.0)

    assert np.abs(np.diff(drift(frames), axis=0)).max() < 0.25


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("planes", [1, 2, PLANES])
def test_flat_planes_stay_as_they_are(dtype: type, planes: int) -> None:
    """Without contrast nothing moves, and the dtype is kept."""
    frames = np.full((planes, 40, 50), 7, dtype)
    aligned = align(frames)

    assert aligned.dtype == dtype
    np.testing.assert_array_equal(aligned, frames)


def test_noise_is_not_taken_for_drift() -> None:
    """Planes with nothing in common are not moved."""
    frames = np.random.default_rng(0).poisson(100, (9, 128, 128)).astype(np.uint16)

    assert not drift(frames).any()


@pytest.mark.parametrize("lost", [0, 3, PLANES // 2 - 1, PLANES - 1])
def test_a_dropped_frame_moves_no_other(lost: int) -> None:
    """A plane without signal does not move its neighbours."""
    frames, _ = lit(texture(256, seed=5), tilted(256), 3000, 1.0)
    moved, walk = shaken(frames, seed=1)
    moved[lost] = np.random.default_rng(0).poisson(50, moved[lost].shape)
    others = np.delete(drift(moved) + walk, lost, axis=0)

    assert np.abs(others).max() < 0.6


def test_a_shift_beyond_any_drift_is_ignored() -> None:
    """A neighbour 30 pixels away is not moved."""
    frames, _ = lit(texture(256, seed=5), tilted(256), 3000, 1.0)

    assert np.abs(drift(np.stack([frames[5], np.roll(frames[5], 30, axis=1)]))).max() == 0
