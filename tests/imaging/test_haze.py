"""Dim things beside bright ones keep their own depth, and bright ones have no halo."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from imaging.stacking import focus_stack
from tests.imaging.scenes import texture

SIZE, PLANES, NOISE = 224, 9, 12.0
BAND_PX = 3.0  # detail is what is finer

Image = np.ndarray


def blurred(image: Image, sigma: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma))


def from_centres(centres: list[tuple[int, int]]) -> Image:
    """The distance of each pixel from the nearest centre."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return np.min([np.hypot(rows - y, columns - x) for y, x in centres], axis=0)


def photographed(layers: dict[float, Image], blur: float, seed: int) -> Image:
    """A z-stack of things that add their light, each on a plane of its own."""
    generator = np.random.default_rng(seed)
    frames = []
    for plane in range(PLANES):
        light = sum(blurred(v, np.hypot(0.6, blur * (plane - z))) for z, v in layers.items())
        frames.append(light + generator.normal(0, NOISE, light.shape))
    return np.asarray(np.clip(np.rint(frames), 0, 65535), np.uint16)


def detail(image: Image) -> Image:
    return np.asarray(image - blurred(image, BAND_PX))


@pytest.mark.parametrize("light", [6_000, 18_000, 60_000])
@pytest.mark.parametrize("plane", [6, 7])
def test_dim_ground_is_sharp_beside_highlights(plane: int, light: float) -> None:
    """From 20 px on, the ground's detail is that of its own plane, whatever shines above it."""
    ground = blurred(900 * (0.5 + texture(SIZE, 5)), 1.0)
    away = from_centres([(56, 56), (56, 168), (168, 112)]) - 4
    spots = np.where(away < 0, light, 0)
    image = focus_stack(photographed({1.5: ground, plane: spots}, 1.3, seed=plane)).image

    for near, far in ((20, 40), (40, 60)):
        ring = (away > near) & (away < far)
        alike = np.corrcoef(detail(image)[ring], detail(blurred(ground, 0.6))[ring])[0, 1]
        assert alike > 0.8, (near, far)


@pytest.mark.parametrize("light", [4_000, 40_000])
def test_dim_cells_keep_their_depth_beside_debris(light: float) -> None:
    """A dim cell within 30 px of debris 6 planes higher is off by less than one plane."""
    spots = [(56, 56), (56, 168), (168, 56), (168, 168)]
    cells = np.where(from_centres(spots) < 11, 300 * (0.5 + texture(SIZE, 8)), 0)
    debris = np.where(from_centres([(y, x + 30) for y, x in spots]) < 3.5, light, 0)
    frames = photographed({2: 100 + cells, 8: debris}, 1.0, seed=3)

    depth = focus_stack(frames).depth

    for y, x in spots:
        assert abs(np.median(depth[y - 6 : y + 7, x - 6 : x + 7]) - 2) < 1


@pytest.mark.parametrize("apart", [0, 4, 6])
def test_saturated_discs_have_no_halo(apart: int) -> None:
    """5 to 10 px outside saturated discs the mean light is the ground's; any plane is far off."""
    grain = blurred(np.random.default_rng(5).normal(size=(SIZE, SIZE)), 1.2)
    ground = 2000 + 250 * grain / grain.std()
    away = from_centres([(64, 64), (64, 160), (160, 112)]) - 12
    discs = np.where(away < 0, 80_000, 0)
    layers = {2.0: ground, 2.0 + apart: discs} if apart else {2.0: ground + discs}
    frames = photographed(layers, 1.2, seed=2)
    ring = (away > 5) & (away < 10)
    truth = blurred(ground, 0.6)[ring]

    assert abs(focus_stack(frames).image[ring].mean() - truth.mean()) < 5
    assert frames.max(axis=0)[ring].mean() - truth.mean() > 5_000


@pytest.mark.parametrize("planes", [3, 4, 5, PLANES])
@pytest.mark.parametrize("blur", [0.7, 1.5, 3.0])
@pytest.mark.parametrize(("radius", "light"), [(3, 10_000), (3, 50_000), (8, 10_000)])
def test_bright_beads_have_no_dark_ring(
    planes: int, blur: float, radius: float, light: float
) -> None:
    """Nowhere is the smoothed image darker than the darkest smoothed ground of the planes."""
    size, middle = 160, (planes - 1) / 2
    rows, columns = np.mgrid[:size, :size]
    centres = [(40, 40), (40, 120), (120, 40), (120, 120), (80, 80)]
    away = np.min([np.hypot(rows - y, columns - x) for y, x in centres], axis=0)
    beads = light * np.clip(radius - away + 0.5, 0, 1)
    for depth in (middle - 1, middle - 0.5, middle, middle + 0.5):
        generator = np.random.default_rng(int(10 * depth))
        widths = [float(np.hypot(1, blur * (plane - depth))) for plane in range(planes)]
        light_of = [1000 + blurred(beads, width) for width in widths]
        frames = np.clip(generator.poisson(light_of), 0, 65_535).astype(np.uint16)

        image = focus_stack(frames).image

        darkest = min(blurred(frame, 2).min() for frame in frames)
        assert blurred(image, 2).min() >= darkest - 2, depth  # a fifth of a percent of the ground
