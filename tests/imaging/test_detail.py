"""The finest band of fused pyramids, computed in strips."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from imaging.detail import keep_detail
from imaging.steps import Decomposed


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(96, 80), (77, 91), (8, 9), (33, 64)])
def test_the_stronger_detail_of_two_planes_is_kept(shape: tuple[int, int], dtype: type) -> None:
    """In strips and parts of rows, at any size, it is that of OpenCV and a box filter."""
    generator = np.random.default_rng(1)
    planes = [np.asarray(generator.uniform(0, 250, shape), dtype) for _ in range(2)]
    best, kept = np.full(shape, -1, np.float32), np.full(shape, np.nan, np.float32)
    stronger = np.empty(shape, np.uint8)
    start = 4 if shape[1] > 16 else 0
    bands, energies = [], []
    for plane in planes:
        pyramid = Decomposed(plane)
        for top in range(0, shape[0], 32):
            strip = (top, min(top + 32, shape[0]), start, shape[1])
            keep_detail(pyramid.pixels, pyramid.wide, strip, best, kept, stronger)
        pixels = plane.astype(np.float32)
        bands.append(pixels - cv2.pyrUp(cv2.pyrDown(pixels), dstsize=shape[::-1]))
        squares = np.square(bands[-1].astype(np.float64))
        energies.append(25 * ndimage.uniform_filter(squares, 5, mode="constant"))

    difference = energies[1] / energies[0] - 1
    expected = np.where(difference > 0, bands[1], bands[0])
    clear = np.abs(difference) > 1e-4
    inside = np.arange(shape[1]) >= start
    np.testing.assert_allclose(kept[clear & inside], expected[clear & inside], atol=1e-3)
    np.testing.assert_array_equal((stronger == 1)[clear & inside], (difference > 0)[clear & inside])
    assert np.isnan(kept[:, :start]).all()
    assert clear.mean() > 0.9
