"""Focus stacking against scenes whose sharp image and depth are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from imaging.stacking import block_energy, focus_stack

PLANES = 11


def texture(size: int, seed: int) -> np.ndarray:
    """A brightfield-like texture (y, x) float32 with detail at all scales, 0 to 1."""
    generator = np.random.default_rng(seed)
    scales = (
        cv2.GaussianBlur(generator.normal(size=(size, size)).astype(np.float32), (0, 0), s) * s
        for s in (0.7, 2.0, 6.0)
    )
    sharp = sum(scales)
    return np.asarray((sharp - sharp.min()) / np.ptp(sharp), np.float32)


def photographed(sharp: np.ndarray, height: np.ndarray, seed: int) -> np.ndarray:
    """A noisy z-stack of a surface: blur grows by one pixel per plane away from its height."""
    generator = np.random.default_rng(seed)
    blurs = np.arange(0, PLANES + 0.5, 0.5)
    levels = [sharp, *(cv2.GaussianBlur(sharp, (0, 0), b) for b in blurs[1:])]
    choices = np.stack(levels)
    frames = []
    for plane in range(PLANES):
        nearest = np.rint(np.abs(height - plane) * 2).astype(int)
        light = 500 + 3000 * np.take_along_axis(choices, nearest[None], 0)[0]
        frames.append(light + np.sqrt(light) * generator.normal(size=light.shape))
    return np.rint(frames).astype(np.uint16)


def tilted(size: int) -> np.ndarray:
    """A height map that rises from plane 2 to plane 8."""
    return np.broadcast_to(np.linspace(2, 8, size, dtype=np.float32), (size, size))


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, sharp truth in grey levels and height in planes."""
    sharp, height = texture(256, seed=3), tilted(256)
    return photographed(sharp, height, seed=4), 500 + 3000 * sharp, height


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal to noise ratio in dB over the truth's range."""
    error = np.square(image.astype(np.float64) - truth).mean()
    return float(10 * np.log10(np.ptp(truth) ** 2 / error))


def test_fused_is_no_worse_than_choosing_by_true_height(
    scene: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """The fused image comes within 1 dB of the oracle that picks each pixel's nearest plane."""
    frames, truth, height = scene
    oracle = np.take_along_axis(frames, np.rint(height).astype(int)[None], 0)[0]

    assert psnr(focus_stack(frames).image, truth) > psnr(oracle, truth) - 1.0


def test_fused_beats_every_plane(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """No single plane, nor the maximum, comes near the fused image."""
    frames, truth, _ = scene
    best = max(psnr(plane, truth) for plane in (*frames, frames.max(axis=0)))

    assert psnr(focus_stack(frames).image, truth) > best + 3.0


def test_depth_follows_the_true_height(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """On texture the depth map lies within a tenth of a plane of the truth, in the median."""
    frames, _, height = scene

    assert np.median(np.abs(focus_stack(frames).depth - height)) < 0.1


REAL = {
    "uint8": st.sampled_from([np.uint8]),
    "uint16": st.sampled_from([np.uint16]),
    "float32": st.sampled_from([np.float32]),
}


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_odd_stacks_are_fused_within_their_range(data: st.DataObject) -> None:
    """Any number of planes of any size keeps the stack's dtype and shape, and its range."""
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16, np.float32]))
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(2, 70), st.integers(2, 70)))
    values = {"elements": st.floats(0, 1e4, width=32)} if dtype is np.float32 else {}
    frames = data.draw(hnp.arrays(dtype, shape, **values))
    frames.setflags(write=False)

    image, depth = focus_stack(frames)

    assert image.dtype == dtype
    assert image.shape == depth.shape == shape[1:]
    slack = 1e-3 if dtype is np.float32 else 0
    assert (image >= frames.min(axis=0) - slack).all()
    assert (image <= frames.max(axis=0) + slack).all()
    assert ((depth >= 0) & (depth <= shape[0] - 1)).all()


def test_a_flat_stack_lies_in_the_middle() -> None:
    """Where nothing is sharp anywhere, depth is the middle of the stack."""
    image, depth = focus_stack(np.full((5, 40, 40), 700, np.uint16))

    assert (image == 700).all()
    np.testing.assert_allclose(depth, 2.0)


def test_empty_ground_borrows_depth() -> None:
    """Beside an object, empty ground takes the object's depth rather than that of noise."""
    generator = np.random.default_rng(0)
    frames = generator.normal(200, 5, (9, 128, 128))
    frames[6, 48:80, 48:80] += 2000 * texture(32, seed=1)
    depth = focus_stack(frames.astype(np.uint16)).depth

    assert abs(depth[64, 64] - 6) < 0.1
    assert abs(depth[64, 100] - 6) < 0.5


def test_energy_agrees_with_a_plain_implementation() -> None:
    """Inside the frame, block energies equal those of a few lines of numpy."""
    plane = np.random.default_rng(5).integers(0, 4000, (64, 64)).astype(np.uint16)
    binned = plane.astype(np.float64).reshape(32, 2, 32, 2).sum(axis=(1, 3))
    bend = np.zeros_like(binned)
    bend[1:-1, 1:-1] = (
        4 * binned[1:-1, 1:-1]
        - binned[:-2, 1:-1]
        - binned[2:, 1:-1]
        - binned[1:-1, :-2]
        - binned[1:-1, 2:]
    )
    blocks = np.square(bend).reshape(8, 4, 8, 4).sum(axis=(1, 3)).astype(np.float32)
    expected = cv2.GaussianBlur(blocks, (0, 0), 1.0)

    energy = block_energy(plane[None])[0]

    # blocks whose Gaussian (4 blocks wide) never meets the border, which is padded otherwise
    np.testing.assert_allclose(energy[4, 4], expected[4, 4], rtol=0.02)
