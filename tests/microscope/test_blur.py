"""Matrices blur a patch as a filter of the whole frame would."""

import math

import cv2
import numpy as np
import pytest

from microscope.blur import add_blurred, coarseness, coarser

EDGE, MIDDLE = 400, 200
GRAIN = np.random.default_rng(5).random((49, 49), np.float32)


def frame_of(patch: np.ndarray, sigma_px: float, centre: tuple[int, int], edge: int) -> np.ndarray:
    """An empty frame with one blurred object."""
    light = np.zeros((edge, edge), np.float32)
    factor = coarseness(sigma_px)
    given = coarser(patch, factor) if factor > 1 else patch
    add_blurred(light, given, centre, sigma_px, factor)
    return light


def filtered(patch: np.ndarray, sigma_px: float) -> np.ndarray:
    """The same by a filter of the frame, to 5 standard deviations."""
    light, half = np.zeros((EDGE, EDGE)), len(patch) // 2
    light[MIDDLE - half : MIDDLE + half + 1, MIDDLE - half : MIDDLE + half + 1] = patch
    size = (2 * math.ceil(5 * sigma_px) + 1,) * 2
    return cv2.GaussianBlur(light, size, sigma_px, borderType=cv2.BORDER_CONSTANT)


@pytest.mark.parametrize("sigma_px", [0.66, 1.0, 3.98, 4.0, 7.98, 8.0, 16.0, 30.0])
def test_a_blur_is_that_of_a_filter(sigma_px: float) -> None:
    """At full and at reduced resolution, within 1 % of the brightest pixel."""
    expected = filtered(GRAIN, sigma_px)

    found = frame_of(GRAIN, sigma_px, (MIDDLE, MIDDLE), EDGE)

    np.testing.assert_allclose(found, expected, atol=0.01 * expected.max())


@pytest.mark.parametrize("sigma_px", [0.7, 5.0, 9.0])
@pytest.mark.parametrize("centre", [(0, 30), (-20, 63), (70, -9), (500, 20)], ids=str)
def test_borders_of_the_frame_cut(sigma_px: float, centre: tuple[int, int]) -> None:
    """A small frame is a part of a large one, wherever the object lies."""
    offset = 300
    large = frame_of(GRAIN, sigma_px, (centre[0] + offset, centre[1] + offset), 1000)

    small = frame_of(GRAIN, sigma_px, centre, 64)

    part = large[offset : offset + 64, offset : offset + 64]
    np.testing.assert_allclose(small, part, atol=1e-5)


def test_only_wide_blurs_are_coarse() -> None:
    """The finer resolution has at least four pixels for each standard deviation."""
    for sigma_px in np.geomspace(0.1, 100, 200):
        factor = coarseness(sigma_px)
        assert factor == 1 or sigma_px / factor >= 4
        assert sigma_px / factor < 8
