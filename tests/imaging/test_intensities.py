"""The light of objects in all channels, as scikit-image names and measures it."""

from __future__ import annotations

import numpy as np
import skimage

from imaging.intensities import with_channels

LABELS = np.repeat(np.repeat(np.array([[0, 1, 2], [3, 0, 2]], np.int32), 7, 0), 5, 1)
IMAGE = np.random.default_rng(0).integers(0, 4000, (2, *LABELS.shape)).astype(np.uint16)
TABLE = {
    "label": np.arange(1, 4),
    "intensity_mean": np.zeros(3),
    "intensity_max": np.zeros(3),
    "score": np.ones(3),
}


def test_names_and_values_are_those_of_scikit_image() -> None:
    """Each channel has its columns, in the place of those of one channel."""
    expected = skimage.measure.regionprops_table(
        LABELS, np.moveaxis(IMAGE, 0, -1), properties=("intensity_mean", "intensity_max")
    )

    table = with_channels(TABLE, LABELS, IMAGE)

    assert list(table) == ["label", *expected, "score"]
    for name, values in expected.items():
        np.testing.assert_allclose(table[name], values, rtol=1e-12)


def test_one_channel_keeps_the_plain_names() -> None:
    """The table of an image without channels is left as it is."""
    assert with_channels(TABLE, LABELS, IMAGE[0]) is TABLE


def test_no_objects_have_no_light() -> None:
    """An empty region has the same columns, empty."""
    none = {name: column[:0] for name, column in TABLE.items()}

    table = with_channels(none, np.zeros_like(LABELS), IMAGE)

    assert {len(column) for column in table.values()} == {0}
    assert "intensity_mean-1" in table
