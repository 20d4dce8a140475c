"""Pyramids: each level half as fine, means of images and never of labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from imaging.pyramid import mean_pyramid, nearest_pyramid


@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.integers(1, 4))
def test_levels_halve_and_keep_the_range(image: np.ndarray, levels: int) -> None:
    """Every level has half the edge, rounded up, the dtype and no value outside the image's."""
    for level, part in enumerate(mean_pyramid(image, levels)):
        assert part.shape == tuple(-(-edge // 2**level) for edge in image.shape)
        assert part.dtype == image.dtype
        assert image.min() <= part.min() <= part.max() <= image.max()


@given(hnp.arrays(np.uint32, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.integers(1, 4))
def test_labels_are_never_averaged(labels: np.ndarray, levels: int) -> None:
    """A coarser level of labels holds no label that the finest does not."""
    for level, part in enumerate(nearest_pyramid(labels, levels)):
        assert part.shape == tuple(-(-edge // 2**level) for edge in labels.shape)
        assert set(np.unique(part)) <= set(np.unique(labels))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_level_is_the_mean_of_four(dtype: type) -> None:
    """A pixel of level one is the mean of four, rounded for integers."""
    image = np.array([[1, 2], [3, 5]], dtype)

    assert mean_pyramid(image, 2)[1] == np.array([[2.75 if dtype is np.float32 else 3]], dtype)
