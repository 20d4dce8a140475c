"""From maps to objects: windows leave no trace, and maps have their documented meaning."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from imaging.instances import in_windows, instances


def discs(*centres: tuple[int, int], radius: float = 12) -> np.ndarray:
    """Distance to the rim of each disc (disc, y, x), 0 outside."""
    rows, columns = np.mgrid[:90, :120]
    return np.stack(
        [np.clip(radius - np.hypot(rows - y, columns - x), 0, None) for y, x in centres]
    )


TWO = discs((40, 40), (40, 62))
FOREGROUND = (TWO.max(axis=0) > 0).astype(np.float32)
RIM = ((TWO > 0) & (TWO < 3)).any(axis=0).astype(np.float32)

MAPS = {
    "foreground": (FOREGROUND[None], "boundary"),
    "boundary": (np.stack([FOREGROUND, RIM]), "boundary"),
    "distance in pixels": (np.stack([FOREGROUND, TWO.max(axis=0)]), "distance"),
    "distance of 1 at most": (np.stack([FOREGROUND, TWO.max(axis=0) / 12]), "distance"),
}


@pytest.mark.parametrize(("maps", "second_map"), MAPS.values(), ids=MAPS)
def test_touching_discs_are_two_objects(maps: np.ndarray, second_map: str) -> None:
    """With any kind of second map, touching discs are two objects that fill the foreground."""
    labels = instances(maps.astype(np.float32), second_map, 24.0)

    assert labels.max() == 2
    np.testing.assert_array_equal(labels > 0, FOREGROUND > 0)
    np.testing.assert_array_equal(np.unique(labels[TWO[0] > 6]), [1])


def test_last_bits_change_nothing() -> None:
    """Maps that differ by less than half a step of the rounding give the same labels."""
    maps = (MAPS["boundary"][0] * 0.75 + 0.125).astype(np.float32)  # whole steps
    noise = np.random.default_rng(0).uniform(-1e-4, 1e-4, maps.shape).astype(np.float32)

    np.testing.assert_array_equal(
        instances(maps, "boundary", 24.0), instances(maps + noise, "boundary", 24.0)
    )


def test_empty_maps_have_no_objects() -> None:
    """Where nothing is foreground there is no object."""
    assert instances(np.zeros((2, 50, 60), np.float32), "boundary", 20.0).max() == 0


@settings(deadline=None, max_examples=30)
@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    origin=st.tuples(st.integers(0, 100), st.integers(0, 100)),
    fixed=st.none() | st.sampled_from([96, 128, 160, 250]),
    step=st.sampled_from([32, 64, 128]),
    reach=st.sampled_from([0, 4, 32]),
)
def test_windows_leave_no_trace(
    shape: tuple[int, int], origin: tuple[int, int], fixed: int | None, step: int, reach: int
) -> None:
    """Maps from several windows equal those of one window over the whole region."""
    image = np.random.default_rng(shape).integers(0, 1000, shape).astype(np.int64)

    def network(pixels: np.ndarray) -> np.ndarray:
        size = 2 * min(reach, 4) + 1
        here = ndimage.correlate(pixels, np.ones((size, size), int), mode="constant")
        return np.stack([here, pixels])

    padded = np.pad(image, 4, mode="edge")
    whole = network(padded)[:, 4:-4, 4:-4]

    def window_of(least: int) -> int:
        return fixed or least

    if fixed:
        step = min(step, (fixed - 2 * reach) // 32 * 32)

    np.testing.assert_array_equal(in_windows(image, origin, network, window_of, step, reach), whole)


@pytest.mark.parametrize("origin", [(0, 0), (5, 64), (33, 31)])
def test_windows_begin_on_the_grid_of_the_mosaic(origin: tuple[int, int]) -> None:
    """A network that halves its image has the same blocks at any origin of the region."""
    mosaic = np.random.default_rng(1).integers(0, 99, (400, 400))

    def halving(pixels: np.ndarray) -> np.ndarray:
        blocks = pixels.reshape(pixels.shape[0] // 32, 32, -1, 32).max(axis=(1, 3))
        return blocks.repeat(32, axis=0).repeat(32, axis=1)[None]

    def whole_blocks(least: int) -> int:
        return -(-least // 32) * 32

    region = mosaic[origin[0] :, origin[1] :]
    maps = in_windows(region, origin, halving, whole_blocks, 64, 32)

    inner = np.s_[64 - origin[0] % 32 : 300, 64 - origin[1] % 32 : 300]
    whole = in_windows(mosaic, (0, 0), halving, whole_blocks, 416, 0)[:, origin[0] :, origin[1] :]
    np.testing.assert_array_equal(maps[0][inner], whole[0][inner])
