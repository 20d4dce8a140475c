"""Focus stacking against scenes whose sharp image and depth are known."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from imaging import kernels
from imaging.depth import block_depth
from imaging.stacking import block_energy, focus_stack, read_only_contiguous
from imaging.steps import step_blocks
from tests.imaging.scenes import PLANES, lit, photographed, psnr, stepped, texture, tilted


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, sharp truth in grey levels and height in planes."""
    sharp, height = texture(256, seed=3), tilted(256)
    return photographed(sharp, height, seed=4), 500 + 3000 * sharp, height


def test_fused_is_no_worse_than_choosing_by_true_height(
    scene: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """The fused image is nearer to the truth than each pixel's plane of nearest true height."""
    frames, truth, height = scene
    oracle = np.take_along_axis(frames, np.rint(height).astype(int)[None], 0)[0]

    assert psnr(focus_stack(frames).image, truth) > psnr(oracle, truth)


def test_fused_beats_every_plane(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """No single plane, nor the maximum, comes near the fused image."""
    frames, truth, _ = scene
    best = max(psnr(plane, truth) for plane in (*frames, frames.max(axis=0)))

    assert psnr(focus_stack(frames).image, truth) > best + 3.0


def test_depth_follows_the_true_height(scene: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """On texture the depth map lies within a tenth of a plane of the truth, in the median."""
    frames, _, height = scene

    assert np.median(np.abs(focus_stack(frames).depth - height)) < 0.1


def test_sharpening_knows_the_noise() -> None:
    """At any light and blur, sharpening costs nothing to speak of, and gains where it can."""
    height = tilted(256)
    gains = []
    for electrons in (30, 300, 30_000):
        for blur in (0.7, 2.0):
            frames, truth = lit(texture(256, seed=3), height, electrons, blur)
            blocks = block_depth(block_energy(frames))
            plain = np.empty(truth.shape, frames.dtype)
            depth = np.empty(truth.shape, np.float32)
            kernels.blend(read_only_contiguous(frames), blocks.depth, np.float32(0.5), plain, depth)
            gains.append(psnr(focus_stack(frames).image, truth) - psnr(plain, truth))

    assert min(gains) > -0.1
    assert max(gains) > 1.0


@pytest.mark.parametrize("planes", [3, 4, 5])
@pytest.mark.parametrize("blur", [0.7, 1.5])
def test_few_planes_tell_how_fast_detail_blurs(planes: int, blur: float) -> None:
    """Curvature from three planes is within 40 % of that from eleven; sharpening costs nothing."""
    height = np.full((256, 256), 5.3, np.float32)
    frames, truth = lit(texture(256, seed=3), height, 3000, blur)
    few = frames[4 : 4 + planes]
    blocks = block_depth(block_energy(few))
    plain, depth = np.empty(truth.shape, frames.dtype), np.empty(truth.shape, np.float32)
    kernels.blend(read_only_contiguous(few), blocks.depth, np.float32(0.5), plain, depth)

    many = block_depth(block_energy(frames)).curvature

    assert blocks.curvature == pytest.approx(many, rel=0.4)
    assert psnr(focus_stack(few).image, truth) > psnr(plain, truth) - 0.1


def test_both_sides_of_a_step_are_sharp() -> None:
    """Around a step of seven planes the image is no worse than planes picked by true height."""
    frames, truth, height = stepped()
    oracle = np.take_along_axis(frames, height[None], 0)[0]
    blocks = block_depth(block_energy(frames))
    blended, ignored = np.empty(truth.shape, frames.dtype), np.empty(truth.shape, np.float32)
    kernels.blend(read_only_contiguous(frames), blocks.depth, np.float32(0.5), blended, ignored)
    stack = focus_stack(frames)

    assert psnr(stack.image, truth) > psnr(oracle, truth)
    assert psnr(stack.image, truth) > psnr(blended, truth) + 1
    wrong = np.abs(stack.depth - height) > 1
    ring = cv2.morphologyEx(height.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((25, 25)))
    assert wrong[ring == 0].mean() < 0.01


def test_a_smooth_relief_needs_no_pyramid(
    scene: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Slopes of less than a plane per block are not taken for steps."""
    assert not step_blocks(block_depth(block_energy(scene[0]))).any()


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_odd_stacks_are_fused_within_their_range(data: st.DataObject) -> None:
    """Any planes of any size keep the stack's dtype and shape, and the range of what is near."""
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16, np.float32]))
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 70), st.integers(1, 70)))
    values = {"elements": st.floats(0, 1e4, width=32)} if dtype is np.float32 else {}
    frames = data.draw(hnp.arrays(dtype, shape, **values))
    frames.setflags(write=False)

    image, depth, _ = focus_stack(frames)

    assert image.dtype == dtype
    assert image.shape == depth.shape == shape[1:]
    near = np.ones((49, 49), np.uint8)
    slack = 1e-2 if dtype is np.float32 else 0
    assert (image >= cv2.erode(frames.min(axis=0), near) - slack).all()
    assert (image <= cv2.dilate(frames.max(axis=0), near) + slack).all()
    assert ((depth >= 0) & (depth <= shape[0] - 1)).all()


@settings(deadline=None, max_examples=25)
@given(
    size=st.tuples(st.integers(9, 90), st.integers(9, 90)),
    planes=st.integers(2, 7),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    seed=st.integers(0, 99),
)
def test_a_mirrored_stack_gives_the_mirrored_result(
    size: tuple[int, int], planes: int, dtype: type, seed: int
) -> None:
    """Which way up the planes lie makes no difference but for rounding."""
    generator = np.random.default_rng(seed)
    sharp = 200 * texture(max(size), seed)[: size[0], : size[1]]
    best = generator.integers(planes)
    blurs = [0.5 + 1.5 * abs(plane - best) for plane in range(planes)]
    frames = np.stack([cv2.GaussianBlur(sharp, (0, 0), blur) for blur in blurs]).astype(dtype)

    upward, downward = focus_stack(frames), focus_stack(frames[::-1])

    np.testing.assert_allclose(planes - 1 - downward.depth, upward.depth, atol=1e-3)
    assert np.abs(upward.image.astype(int) - downward.image).max() <= 1


@pytest.mark.parametrize("blur", [0.6, 2.0])
def test_a_dim_cell_keeps_its_depth_next_to_a_bright_one(blur: float) -> None:
    """Each of two cells of different brightness has its own depth, and so has the background."""
    generator = np.random.default_rng(4)
    rows, columns = np.mgrid[:128, :256]
    paint = 0.5 + texture(256, 2)[:128]
    cells = {2: (64, 3000), 8: (150, 500)}  # plane of best focus: column, light
    frames = np.full((PLANES, 128, 256), 50.0)
    for best, (column, light) in cells.items():
        cell = (light * paint * (np.hypot(rows - 64, columns - column) < 24)).astype(np.float32)
        for plane, frame in enumerate(frames):
            frame += cv2.GaussianBlur(cell, (0, 0), float(np.hypot(0.8, blur * (plane - best))))
    camera = np.rint(generator.poisson(frames) + generator.normal(0, 2, frames.shape))

    depth = focus_stack(camera.astype(np.uint16)).depth

    for best, (column, _) in cells.items():
        inside = np.hypot(rows - 64, columns - column) < 16
        assert np.median(np.rint(depth[inside])) == best
    assert depth.min() > 1
    assert depth.max() < 9


def test_saturated_light_stays_saturated() -> None:
    """Where every plane is at the end of its range so is the image; depth is its neighbours'."""
    frames = np.full((7, 96, 96), 255, np.uint8)
    frames[:, :, :48] = np.stack(
        [
            60 + 100 * cv2.GaussianBlur(texture(96, 4), (0, 0), 0.5 + abs(p - 3))[:, :48]
            for p in range(7)
        ]
    )
    image, depth, _ = focus_stack(frames)

    assert (image[:, 64:] == 255).all()
    np.testing.assert_allclose(depth[:, 64:], 3, atol=0.6)


def test_colours_share_one_depth() -> None:
    """Channels are fused by the depth of their luminance, not by their own."""
    frames, _, _ = stepped()
    grey = focus_stack(frames)
    colour = focus_stack(np.stack([frames, frames, frames], axis=-1))
    tinted = focus_stack(
        np.stack([frames, frames // 2, np.full_like(frames, 9)], axis=-1), channel=0
    )

    assert colour.image.dtype == np.uint16
    assert (colour.image == colour.image[..., :1]).all()
    np.testing.assert_allclose(colour.depth, grey.depth, atol=0.05)
    np.testing.assert_array_equal(tinted.image[..., 0], grey.image)
    np.testing.assert_array_equal(tinted.depth, grey.depth)
    assert (tinted.image[..., 2] == 9).all()


def test_sharpness_is_measured_on_the_named_channel() -> None:
    """A second channel that is sharp elsewhere is ignored."""
    frames, _, _ = stepped()
    both = np.stack([frames, frames[::-1]], axis=-1)

    np.testing.assert_array_equal(focus_stack(both, channel=0).depth, focus_stack(frames).depth)
    np.testing.assert_array_equal(
        focus_stack(both, channel=1).depth, focus_stack(frames[::-1]).depth
    )


REFUSED = {
    "no planes": (np.zeros((0, 8, 8), np.uint8), None, "got shape"),
    "no pixels": (np.zeros((3, 0, 8), np.uint8), None, "got shape"),
    "one image": (np.zeros((8, 8), np.uint8), None, "got shape"),
    "wide integers": (np.zeros((3, 8, 8), np.int64), None, "convert"),
    "booleans": (np.zeros((3, 8, 8), bool), None, "convert"),
    "not a number": (np.full((3, 8, 8), np.nan, np.float32), None, "finite"),
    "too large to square": (np.full((3, 8, 8), 1e16, np.float32), None, "up to 1e"),
    "infinity": (np.full((3, 8, 8), np.inf, np.float32), None, "finite"),
    "channel of a grey stack": (np.zeros((3, 8, 8), np.uint8), 0, "channel"),
    "channel that is not there": (np.zeros((3, 8, 8, 2), np.uint8), 2, "channel"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_stacks_are_refused(case: str) -> None:
    """A stack without planes, of another dtype or with holes is refused by name."""
    frames, channel, word = REFUSED[case]

    with pytest.raises(ValueError, match=word):
        focus_stack(frames, channel)


def test_a_flat_stack_has_central_depth() -> None:
    """Without contrast, depth is the centre of the stack."""
    image, depth, _ = focus_stack(np.full((5, 40, 40), 700, np.uint16))

    assert (image == 700).all()
    np.testing.assert_allclose(depth, 2.0)


def test_empty_background_takes_the_depth_of_objects() -> None:
    """Next to an object, empty background takes the object's depth, not that of noise."""
    generator = np.random.default_rng(0)
    frames = generator.normal(200, 5, (9, 128, 128))
    frames[6, 48:80, 48:80] += 2000 * texture(32, seed=1)
    depth = focus_stack(frames.astype(np.uint16)).depth

    assert abs(depth[64, 64] - 6) < 0.1
    assert abs(depth[64, 100] - 6) < 0.5


def test_energy_agrees_with_a_plain_implementation() -> None:
    """Block energies equal those of a few lines of numpy, inside the frame."""
    plane = np.random.default_rng(5).integers(0, 4000, (64, 64)).astype(np.uint16)
    binned = plane.astype(np.float64).reshape(32, 2, 32, 2).sum(axis=(1, 3))
    bend = cv2.filter2D(binned, -1, np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], float))
    expected = np.square(bend).reshape(8, 4, 8, 4).sum(axis=(1, 3))

    energy = np.empty((8, 8), np.float32)
    kernels.block_energy(read_only_contiguous(plane), energy, np.empty((8, 8), np.float32))

    np.testing.assert_allclose(energy[1:-1, 1:-1], expected[1:-1, 1:-1], rtol=1e-5)


def test_energies_are_smoothed_but_strong_ones_leak_little() -> None:
    """Even energies get a Gaussian; next to a thousand times its own a block at most quadruples."""
    generator = np.random.default_rng(6)
    even = generator.uniform(1, 2, (12, 12)).astype(np.float32)
    expected = cv2.GaussianBlur(even, (5, 5), 1.0, borderType=cv2.BORDER_REPLICATE)
    uneven = np.ones((12, 12), np.float32)
    uneven[5, 5] = 1000

    kernels.smooth_energy(even)
    kernels.smooth_energy(uneven)

    np.testing.assert_allclose(even, expected, rtol=1e-4)
    assert (np.delete(uneven, 5 * 12 + 5) < 4).all()
    assert uneven[5, 5] > 100


def test_the_order_of_bytes_makes_no_difference() -> None:
    """A stack in the other order of bytes, as some TIFFs have it, gives the same image."""
    frames, _, _ = stepped(64)

    np.testing.assert_array_equal(
        focus_stack(frames.astype(">u2")).image, focus_stack(frames).image
    )


def test_a_batch_compiles_nothing_after_warm_up() -> None:
    """A read-only batch, as from Ray's store, is fused by the same compiled code."""
    frames, _, _ = stepped(64)
    loops = (kernels.block_energy, kernels.blend, kernels.sharpen)
    focus_stack(frames)
    known = [loop.signatures.copy() for loop in loops]
    frames.setflags(write=False)

    focus_stack(frames)

    assert [loop.signatures for loop in loops] == known


def test_the_example_of_the_documentation_runs() -> None:
    """The lines that the documentation shows for focus stacking alone do what they say."""
    text = (Path(__file__).parents[2] / "docs" / "focus-stacking.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(from imaging\.stacking.*?)```", text, re.DOTALL)
    frames, _, _ = stepped(64)
    names = {"frames": frames}
    exec(example, names)

    np.testing.assert_array_equal(names["stack"].image, focus_stack(frames).image)
