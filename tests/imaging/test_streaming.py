"""Focus stacking plane by plane against the same planes at once."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from imaging.stacking import FocusStack, focus_stack
from imaging.streaming import FocusStream
from tests.imaging.scenes import lit, psnr, texture, tilted


def streamed(frames: np.ndarray) -> FocusStack:
    stream = FocusStream()
    for plane in frames:
        stream.add(plane)
    return stream.result()


@pytest.mark.parametrize("electrons", [300, 30_000])
@pytest.mark.parametrize("blur", [0.7, 1.2, 2.0])
def test_the_stream_comes_near_the_batch(electrons: float, blur: float) -> None:
    """Planes that come one by one are fused within half a decibel of all at once."""
    frames, truth = lit(texture(256, seed=5), tilted(256), electrons, blur)
    batch, stream = focus_stack(frames), streamed(frames)

    assert psnr(stream.image, truth) > psnr(batch.image, truth) - 0.5
    np.testing.assert_array_equal(stream.depth, batch.depth)


def test_one_plane_is_kept() -> None:
    """What a stream holds does not grow by more than an energy grid with each plane."""
    plane = np.zeros((256, 256), np.uint16)
    stream, held = FocusStream(), []
    for _ in range(12):
        stream.add(plane)
        arrays = [v for v in vars(stream).values() if isinstance(v, np.ndarray)]
        grids = sum(grid.nbytes for grid in stream._energies)
        held.append(sum(array.nbytes for array in arrays) + grids)

    grid = 32 * 32 * 4
    assert set(np.diff(held)) == {grid}
    assert held[0] == 4 * plane.nbytes + grid  # image, one plane, and depth in float32


def test_results_may_be_asked_for_at_any_time() -> None:
    """A stream of one plane is that plane, and asking changes nothing that follows."""
    frames, _ = lit(texture(128, seed=5), tilted(128), 300, 1.2)
    stream = FocusStream()
    stream.add(frames[0])
    np.testing.assert_array_equal(stream.result().image, frames[0])
    for plane in frames[1:]:
        stream.add(plane)
        stream.result()

    np.testing.assert_array_equal(stream.result().image, streamed(frames).image)


def test_other_planes_are_refused() -> None:
    """A plane of another shape or dtype, one in colour, and a result of nothing are refused."""
    stream = FocusStream()
    with pytest.raises(ValueError, match="expected \\(y, x\\)"):
        stream.add(np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match="got none"):
        stream.result()
    stream.add(np.zeros((16, 16), np.uint8))
    for plane in (np.zeros((16, 17), np.uint8), cv2.blur(np.zeros((16, 16), np.uint16), (3, 3))):
        with pytest.raises(ValueError, match="as before"):
            stream.add(plane)
