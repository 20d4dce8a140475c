"""The finest band of fused pyramids, computed in tiles."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from imaging.detail import fuse_detail, keep_band, reduce_plane
from imaging.steps import TILE_PX, tile_runs

SHAPES = [(96, 80), (77, 91), (8, 9), (33, 64), (3, 50), (1, 2)]


def planes_of(shape: tuple[int, int], dtype: type, number: int) -> np.ndarray:
    planes = np.random.default_rng(1).uniform(0, 250, (number, *shape)).astype(dtype)
    planes.setflags(write=False)
    return planes


def band_of(plane: np.ndarray) -> np.ndarray:
    pixels = plane.astype(np.float32)
    return pixels - cv2.pyrUp(cv2.pyrDown(pixels), dstsize=pixels.shape[::-1])


def energy_of(band: np.ndarray) -> np.ndarray:
    return 25 * ndimage.uniform_filter(np.square(band.astype(np.float64)), 5, mode="constant")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_next_level_is_that_of_opencv(shape: tuple[int, int], dtype: type) -> None:
    """Whole and in parts, at any size."""
    (plane,) = planes_of(shape, dtype, 1)
    expected = cv2.pyrDown(plane.astype(np.float32))
    rows, columns = expected.shape
    whole, part = np.empty_like(expected), np.full_like(expected, np.nan)

    reduce_plane(plane, (0, 0), (0, rows, 0, columns), whole)
    reduce_plane(plane, (rows // 2, 0), (0, rows - rows // 2, columns // 2, columns), part)

    np.testing.assert_allclose(whole, expected, atol=1e-3)
    inside = part[: rows - rows // 2, columns // 2 :]
    np.testing.assert_array_equal(inside, whole[rows // 2 :, columns // 2 :])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_stronger_detail_of_two_planes_is_kept(shape: tuple[int, int], dtype: type) -> None:
    """In tiles and parts of planes, at any size, it is that of OpenCV and a box filter."""
    frames = planes_of(shape, dtype, 2)
    top, left = (8, 16) if min(shape) > 32 else (0, 0)
    size = shape[0] - top, shape[1] - left
    best, kept = np.full(size, -1, np.float32), np.zeros(size, np.float32)
    winner, low, high = (
        np.full(size, -1, np.int16),
        np.full(size, 250, dtype),
        np.zeros(size, dtype),
    )
    wanted = np.ones((2, -(-size[0] // TILE_PX), -(-size[1] // TILE_PX)), np.bool_)

    runs = tile_runs(wanted, size)
    like, measured = np.array([0, 1]), np.bool_(0)
    fuse_detail(frames, like, runs, (top, left), measured, (best, kept, winner), low, high)

    bands = [band_of(plane) for plane in frames]
    energies = [energy_of(band) for band in bands]
    difference = (energies[1] / energies[0] - 1)[top:, left:]
    expected = np.where(difference > 0, bands[1][top:, left:], bands[0][top:, left:])
    clear = np.abs(difference) > 1e-4
    np.testing.assert_allclose(kept[clear], expected[clear], atol=1e-3)
    np.testing.assert_array_equal(winner[clear], (difference > 0)[clear])
    np.testing.assert_array_equal(low, frames.min(axis=0)[top:, left:])
    np.testing.assert_array_equal(high, frames.max(axis=0)[top:, left:])
    assert clear.mean() > 0.9


def test_planes_compete_only_in_tiles_where_they_are_wanted() -> None:
    """Elsewhere nothing is kept; another stack follows the planes that won, by its own numbers."""
    shape = (2 * TILE_PX, 3 * TILE_PX)
    frames, others = planes_of(shape, np.uint16, 3), planes_of(shape, np.uint16, 5)[3:]
    best, winner = np.full(shape, -1, np.float32), np.full(shape, -1, np.int16)
    wanted = np.zeros((3, 2, 3), np.bool_)
    wanted[0, 0, :2] = wanted[2, 0, 1] = wanted[1, 1, 2] = True
    runs = tile_runs(wanted, shape)
    like, other_like = np.arange(3), np.array([0, 1, 1])
    kept, followed = np.zeros((2, *shape), np.float32)
    low, high = np.full(shape, 999, np.uint16), np.zeros(shape, np.uint16)

    one, all_others = np.bool_(0), np.bool_(1)
    fuse_detail(frames, like, runs, (0, 0), one, (best, kept, winner), low, high)
    fuse_detail(
        others, other_like, runs, (0, 0), all_others, (best, followed, winner), low, high
    )  # fmt: skip

    assert set(np.unique(winner[:TILE_PX, :TILE_PX])) == {0}
    assert set(np.unique(winner[:TILE_PX, TILE_PX:-TILE_PX])) == {0, 2}
    assert set(np.unique(winner[TILE_PX:, -TILE_PX:])) == {1}
    assert (winner[:TILE_PX, -TILE_PX:] == -1).all()
    assert (winner[TILE_PX:, :-TILE_PX] == -1).all()
    for stack, numbers, found in ((frames, like, kept), (others, other_like, followed)):
        bands = np.stack([band_of(stack[number]) for number in numbers])
        expected = np.take_along_axis(bands, np.maximum(winner, 0)[None].astype(int), 0)[0]
        np.testing.assert_allclose(found, np.where(winner < 0, 0, expected), atol=1e-3)


def test_energies_are_added_up() -> None:
    """The sum over all planes is that of their energies, in the whole plane."""
    levels = planes_of((40, 36), np.float32, 2)
    best, kept = np.full((40, 36), -1, np.float32), np.zeros((40, 36), np.float32)
    winner, total = np.zeros((40, 36), np.int16), np.zeros((40, 36), np.float32)

    results = (best, kept, winner)
    for number, level in enumerate(levels):
        coarse = np.pad(cv2.pyrDown(level), ((0, 1), (0, 1)), mode="edge")
        coarse = np.pad(coarse, ((1, 0), (1, 0)), mode="reflect")
        inner = (0, 40, 0, 36)
        keep_band(level, coarse, inner, (0, 0), number, np.bool_(0), results, total)

    energies = [energy_of(band_of(level)) for level in levels]
    np.testing.assert_allclose(total, np.sum(energies, axis=0), rtol=1e-4)
    np.testing.assert_allclose(best, np.max(energies, axis=0), rtol=1e-4)
