"""Planes that differ in light are fused as if the lamp were steady; real changes are left alone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from imaging.flicker import MIN_SIZE_PX
from imaging.stacking import FocusStack, focus_stack
from tests.imaging.scenes import PLANES, photographed, psnr, texture, tilted

OFFSET = 100.0
Z = np.arange(PLANES)
WHITE = 1 + 0.1 * np.random.default_rng(3).normal(size=PLANES)
GAINS = {  # light of each plane: whether it flickers
    "white, 5 %": (1 + (WHITE - 1) / 2, True),
    "white, 10 %": (WHITE, True),
    "every other plane": (1 + 0.1 * (Z % 2), True),
    "one dark plane": (1 - 0.5 * (Z == 4), True),
    "flicker on a slope": (WHITE * np.linspace(0.8, 1.2, PLANES), True),
    "steady": (np.ones(PLANES), False),
    "falling with depth": (np.exp(-0.05 * Z), False),
    "brightest in focus": (1 + 0.3 * np.exp(-((Z - 5) ** 2) / 8), False),
}


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    """Frames above the camera's offset, and their sharp truth."""
    sharp = texture(MIN_SIZE_PX + 16, seed=3)
    return photographed(sharp, tilted(len(sharp)), seed=4), 500 + 3000 * sharp


def lit(frames: np.ndarray, gain: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(OFFSET + frames * gain[:, None, None]), np.uint16)


def quality(stack: FocusStack, truth: np.ndarray) -> float:
    """PSNR after the best common light, since which plane's light is right is not known."""
    light = stack.image - OFFSET
    return psnr(light * ((light * truth).sum() / np.square(light).sum()), truth)


@pytest.mark.parametrize("name", GAINS)
def test_flicker_costs_nothing_and_only_flicker_is_evened_out(
    scene: tuple[np.ndarray, np.ndarray], name: str
) -> None:
    """Less than half a decibel is lost where the lamp flickers; smooth changes are not touched."""
    frames, truth = scene
    gain, flickers = GAINS[name]
    trend = np.polyval(np.polyfit(Z, gain, 1), Z) if name == "flicker on a slope" else 0 * Z + 1
    steady = quality(focus_stack(lit(frames, trend)), truth)

    stack = focus_stack(lit(frames, gain))

    assert (stack.flicker > 0.03) == flickers
    if flickers:
        assert quality(stack, truth) > steady - 0.5
    else:
        assert stack.flicker == 0


def test_saturated_pixels_stay_saturated(scene: tuple[np.ndarray, np.ndarray]) -> None:
    """What is at the end of the camera's range is so in the fused image, too."""
    frames = lit(scene[0], WHITE)
    frames[:, 32:96, 32:96] = 4095
    image = focus_stack(np.minimum(frames, 4095)).image

    assert (image[48:80, 48:80] == 4095).all()
    assert image.max() == 4095


def test_colours_are_evened_out_alike(scene: tuple[np.ndarray, np.ndarray]) -> None:
    """All channels get the gains of the one on which sharpness is measured."""
    frames = lit(scene[0], WHITE)
    half = np.asarray(OFFSET + np.rint((frames - OFFSET) / 2), np.uint16)
    colour = focus_stack(np.stack([frames, half], axis=-1), channel=0)

    np.testing.assert_array_equal(colour.image[..., 0], focus_stack(frames).image)
    assert colour.flicker == focus_stack(frames).flicker
    expected = OFFSET + (colour.image[..., 0] - OFFSET) / 2
    areas = (colour.image[..., 1] - expected).reshape(10, 16, 10, 16).mean(axis=(1, 3))
    np.testing.assert_allclose(areas, 0, atol=10)


@pytest.mark.parametrize(
    "shape", [(3, 160, 160), (PLANES, MIN_SIZE_PX - 1, 160)], ids=["planes", "pixels"]
)
def test_too_little_is_left_alone(
    scene: tuple[np.ndarray, np.ndarray], shape: tuple[int, int, int]
) -> None:
    """Three planes or small fields do not tell flicker from focus."""
    planes, rows, columns = shape

    assert focus_stack(lit(scene[0], WHITE)[:planes, :rows, :columns]).flicker == 0


def test_small_bright_beads_are_no_flicker() -> None:
    """Beads that blur over sampled rows and between them do not look like a lamp that flickers."""
    rows, columns = np.mgrid[:160, :160]
    centres = [(40, 40), (40, 120), (120, 40), (120, 120), (80, 80)]
    away = np.min([np.hypot(rows - y, columns - x) for y, x in centres], axis=0)
    beads = 50_000 * np.clip(3.5 - away, 0, 1).astype(np.float32)
    for best in (3.5, 4.0, 4.5):
        blurs = [float(np.hypot(1, 3 * (plane - best))) for plane in range(9)]
        light = [1000 + cv2.GaussianBlur(beads, (0, 0), blur) for blur in blurs]
        frames = np.random.default_rng(4).poisson(light).astype(np.uint16)

        assert focus_stack(frames).flicker == 0
