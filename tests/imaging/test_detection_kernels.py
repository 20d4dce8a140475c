"""The compiled loops of detection give what scikit-image and SciPy give, or a plain loop."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage
from scipy import ndimage

from imaging.detection import measure
from imaging.detection_kernels import (
    bin_blocks,
    flood,
    half_gaussian,
    nth_smallest,
    smooth,
    squared_depth,
)
from imaging.statistics import DetectionStatistics

STATISTICS = DetectionStatistics(100.0, 4.0, 200.0, 12.0)
SHAPES = (
    "label", "bbox", "area", "equivalent_diameter_area", "eccentricity", "solidity",
    "orientation", "intensity_mean", "intensity_max", "centroid",
)  # fmt: skip


def blobs(seed: int, grain_px: float) -> np.ndarray:
    """Labelled patches of any shape and size, cut by the edge: single pixels, lines, rings."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(90, 110)), grain_px)
    return ndimage.label(noise > 0.3 * noise.std())[0].astype(np.int32)


@pytest.mark.parametrize("grain_px", [0.6, 1.5, 4.0])
def test_shapes_are_those_of_scikit_image(grain_px: float) -> None:
    """Every column that scikit-image has, too, agrees within 1e-6; centroids are rounded."""
    labels = blobs(1, grain_px)
    image = np.random.default_rng(2).integers(0, 60000, labels.shape).astype(np.uint16)

    table = measure(labels, image, image, STATISTICS)

    expected = skimage.measure.regionprops_table(labels, image, properties=SHAPES)
    for name, column in expected.items():
        tolerance = 1 / 1024 if name.startswith("centroid") else 1e-6
        np.testing.assert_allclose(table[name], column, rtol=1e-9, atol=tolerance, err_msg=name)


def test_heights_and_scores_are_those_of_the_definition() -> None:
    """z_um is the weighted median, score compares with the median of the rim: by plain numpy."""
    labels, generator = blobs(3, 3.0), np.random.default_rng(4)
    image = generator.integers(0, 300, labels.shape).astype(np.uint16)
    depth = generator.normal(size=labels.shape).astype(np.float32)
    depth[generator.random(labels.shape) < 0.1] = np.nan

    table = measure(labels, image, depth, STATISTICS)

    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))  # a quarter of the diameter
    for k, number in enumerate(table["label"]):
        inside = labels == number
        rim = (cv2.dilate(inside.astype(np.uint8), disc) > 0) & (labels == 0)
        contrast = max(image[inside].mean() - np.median(image[rim]), 0) / STATISTICS.noise
        assert table["score"][k] == pytest.approx(contrast / (1 + contrast), abs=1e-9)
        known = inside & np.isfinite(depth)
        weights = np.maximum(image[known] - STATISTICS.background, 0)
        order = np.argsort(depth[known])
        reached = np.cumsum(weights[order] if weights.any() else np.ones(order.size))
        middle = np.searchsorted(reached, reached[-1] / 2) if order.size else 0
        expected = depth[known][order][middle] if order.size else np.nan
        np.testing.assert_equal(table["z_um"][k], np.float64(expected))


@pytest.mark.parametrize("seed", range(3))
def test_flooding_is_the_watershed_of_scikit_image(seed: int) -> None:
    """Where no two heights are equal, all labels are those of scikit-image."""
    generator = np.random.default_rng(seed)
    mask = blobs(seed, 2.0) > 0
    height = generator.permutation(mask.size).reshape(mask.shape).astype(np.int32)
    seeds = np.where(generator.random(mask.shape) < 0.02, height, 0).astype(np.int32)
    seeds[~mask] = 0

    labels = seeds.copy()
    flood(height, mask, labels, 0.0)

    expected = skimage.segmentation.watershed(-height, seeds, mask=mask)
    np.testing.assert_array_equal(labels, expected)


def test_flooding_does_not_depend_on_the_window() -> None:
    """With a few heights, so that ties decide, a part of the image gives a part of the labels."""
    generator = np.random.default_rng(5)
    mask = np.zeros((80, 90), bool)
    mask[20:60, 30:70] = blobs(6, 3.0)[20:60, 30:70] > 0
    height = generator.integers(0, 4, mask.shape).astype(np.int32)
    labels = np.where(mask & (generator.random(mask.shape) < 0.05), 1, 0).astype(np.int32)
    labels *= 1 + np.arange(labels.size, dtype=np.int32).reshape(labels.shape)
    part = labels[20:60, 30:70].copy()

    flood(height, mask, labels, 0.0)
    flood(height[20:60, 30:70].copy(), mask[20:60, 30:70].copy(), part, 0.0)

    np.testing.assert_array_equal(part, labels[20:60, 30:70])


def test_depth_is_the_distance_transform() -> None:
    """Squared distances are exact up to the cap."""
    mask = blobs(7, 6.0) > 0
    exact = ndimage.distance_transform_edt(mask) ** 2

    np.testing.assert_array_equal(squared_depth(mask, 9), np.minimum(np.rint(exact), 81))


@pytest.mark.parametrize("shape", [(40, 50), (5, 60), (1, 1)])
def test_smoothing_is_that_of_scipy(shape: tuple[int, int]) -> None:
    """The Gaussian agrees with SciPy's to float32, also where the image is smaller than it."""
    image = np.random.default_rng(8).uniform(0, 1000, shape).astype(np.float32)
    soft = np.empty_like(image)

    smooth(image, half_gaussian(2.3, 3.0), soft)

    expected = ndimage.gaussian_filter(image.astype(np.float64), 2.3, mode="nearest", truncate=3.0)
    np.testing.assert_allclose(soft, expected, rtol=1e-5)


@pytest.mark.parametrize("first", [(0, 0), (2, 1)])
def test_binning_averages_blocks_of_the_grid(first: tuple[int, int]) -> None:
    """Blocks begin on the mosaic's grid; those cut by the border repeat its pixels."""
    image = np.random.default_rng(9).integers(0, 999, (31, 29)).astype(np.float32)
    shape = [-(-(o + n) // 3) for o, n in zip(first, image.shape, strict=True)]
    binned = np.empty(shape, np.float32)

    bin_blocks(image, 3, first, binned)

    ends = [(o, 3 * s - o - n) for o, s, n in zip(first, shape, image.shape, strict=True)]
    blocks = np.pad(image, ends, mode="edge").reshape(shape[0], 3, shape[1], 3)
    np.testing.assert_allclose(binned, blocks.mean(axis=(1, 3)), rtol=1e-6)


def test_the_nth_smallest_is_that_of_the_sorted_values() -> None:
    """Selection agrees with sorting, equal values included."""
    values = np.random.default_rng(10).integers(0, 30, 101)

    found = [nth_smallest(values.copy(), n) for n in range(values.size)]

    assert found == sorted(values.tolist())
