"""Hot and dead pixels do not decide which plane is sharpest; small bright things do."""

from __future__ import annotations

import numpy as np
import pytest

from imaging import kernels, lone_pixels
from imaging.lone_pixels import leave_out_lone_pixels
from imaging.stacking import focus_stack, read_only_contiguous
from tests.imaging.scenes import PLANES, lit, texture, tilted

SIZE = 256
LIGHT = {"dead": -1, "warm": 300, "hot": 5_000, "very hot": 20_000, "saturated": 65_535}
Image = np.ndarray


def pixels(number: int, seed: int) -> tuple[Image, Image]:
    """Rows and columns of some pixels, some of them at the edges of the frame and of blocks."""
    rows, columns = np.random.default_rng(seed).integers(0, SIZE, (2, number))
    rows[:4], columns[1:5] = (3, 8, SIZE - 4, 127), (4, 16, 135, SIZE - 5)
    return rows, columns


def with_lone(frames: Image, rows: Image, columns: Image, light: int) -> Image:
    """Frames in which some pixels shine in addition, with shot noise, or show nothing."""
    changed = frames.astype(np.int64)
    noise = np.random.default_rng(6).normal(0, np.sqrt(2 * abs(light)), (len(frames), len(rows)))
    changed[:, rows, columns] += np.rint(light + noise).astype(np.int64)
    if light < 0:
        changed[:, rows, columns] = 50
    return np.asarray(np.clip(changed, 0, 65_535), np.uint16)


def away_from(rows: Image, columns: Image) -> Image:
    """The distance of each pixel from the nearest of some."""
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.min([np.hypot(y - r, x - c) for r, c in zip(rows, columns, strict=True)], axis=0)


@pytest.mark.parametrize("electrons", [300, 15_000])
@pytest.mark.parametrize("kind", LIGHT)
def test_a_lone_pixel_does_not_vote(kind: str, electrons: float) -> None:
    """Within 12 px of hot and dead pixels depth is what it is without them, to 0.05 planes."""
    frames, _ = lit(texture(SIZE, 3), tilted(SIZE), electrons, 1.5)
    rows, columns = pixels(20, seed=81)
    near = away_from(rows, columns) < 12

    clean = focus_stack(frames).depth
    depth = focus_stack(with_lone(frames, rows, columns, LIGHT[kind])).depth

    assert np.abs(depth - clean)[near].max() < 0.05
    assert np.abs(depth - clean)[near].mean() < 0.005


@pytest.mark.parametrize("number", [5, 80])
def test_the_energy_is_that_without_lone_pixels(number: int) -> None:
    """Few pixels and many give the energies of frames in which they have the median around them."""
    frames, _ = lit(texture(SIZE, 3), tilted(SIZE), 300, 1.5)
    rows, columns = pixels(number, seed=82)
    hot = with_lone(frames, rows, columns, 20_000)
    for plane in frames:
        around = lone_pixels._around(plane, rows, columns, lone_pixels.NEIGHBOURS)
        plane[rows, columns] = np.rint(np.median(around, axis=0))
    energy = energies(hot)

    leave_out_lone_pixels(read_only_contiguous(hot), energy, 0.0)

    np.testing.assert_allclose(energy, energies(frames), rtol=0.05)
    assert np.abs(energies(hot) / energies(frames) - 1).max() > 100


def energies(frames: Image) -> Image:
    """The energies of blocks, not smoothed."""
    energy = np.empty((len(frames), SIZE // 8, SIZE // 8), np.float32)
    for plane, result in zip(read_only_contiguous(frames), energy, strict=True):
        kernels.block_energy(plane, result, np.empty((1, 1), np.float32))
    return energy


def test_energies_of_some_blocks_are_those_of_the_kernel() -> None:
    """Computed again without any change, at the edges too, energies stay as they are."""
    frames = np.random.default_rng(7).integers(0, 4000, (3, 43, 61)).astype(np.uint16)
    expected = np.empty((3, 6, 8), np.float32)
    for plane, result in zip(read_only_contiguous(frames), expected, strict=True):
        kernels.block_energy(plane, result, np.empty((1, 1), np.float32))
    rows, columns = np.array([0, 42, 20, 7]), np.array([0, 60, 59, 8])
    values = frames[:, rows, columns].astype(np.float32)
    energy = np.full_like(expected, np.nan)

    lone_pixels._measure_again(frames, energy, (rows, columns), values)

    again = np.isfinite(energy)
    assert again[:, 0, 0].all()
    assert again[:, 5, 7].all()
    np.testing.assert_allclose(energy[again], expected[again], rtol=1e-4)


@pytest.mark.parametrize("sigma", [0.6, 0.8])
@pytest.mark.parametrize("planes", [3, PLANES])
def test_the_image_of_a_point_votes(planes: int, sigma: float) -> None:
    """Beads below the resolution keep their depth, in three planes as well."""
    rows, columns = np.mgrid[:96, :96]
    best = planes // 2
    frames = np.random.default_rng(8).normal(100, 3, (planes, 96, 96))
    for plane, frame in enumerate(frames):
        width = np.hypot(sigma, 0.7 * (plane - best))
        for y, x in ((20, 30), (60, 70), (70, 21)):
            away = np.square(rows - y) + np.square(columns - x)
            frame += 3000 * (sigma / width) ** 2 * np.exp(-away / (2 * width**2))
    found = lone_pixels._lone_pixels(
        frames.astype(np.uint16), *np.divmod(np.arange(144), 12)
    )  # all blocks

    assert not found[0].size


def test_clean_frames_are_measured_as_before() -> None:
    """Texture and noise alone have no lone pixel: energies stay the same to the last bit."""
    for electrons in (30, 3000):
        frames, _ = lit(texture(SIZE, 3), tilted(SIZE), electrons, 1.5)
        energy = energies(frames)
        before = energy.copy()

        leave_out_lone_pixels(read_only_contiguous(frames), energy, 0.0)

        np.testing.assert_array_equal(energy, before)
