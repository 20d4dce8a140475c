"""What the camera shows at the same pixels of every field is learned, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from imaging.correction import correct
from imaging.defects import fill_defects, learn_defects
from scan.correction import Correction

SIZE, PLACES = 256, 18
rows, columns = np.mgrid[:SIZE, :SIZE]
SPECKS = [(60, 70, 3), (150, 40, 8), (200, 190, 5)]  # y, x and radius
HOT = [(20, 30), (101, 200), (230, 90)]
Image = np.ndarray


def away(y: float, x: float) -> Image:
    """The distance of each pixel from one."""
    return np.asarray(np.hypot(rows - y, columns - x))


def fluorescent(generator: np.random.Generator) -> Image:
    """Bright discs on a dark ground."""
    light = np.full((SIZE, SIZE), 100.0)
    for y, x, radius in zip(*generator.uniform(0, SIZE, (2, 25)),
                            generator.uniform(5, 12, 25), strict=True):  # fmt: skip
        light += 600 * np.clip(radius - away(y, x), 0, 1)
    return light


def brightfield(generator: np.random.Generator) -> Image:
    """Dark, textured cells on a bright ground."""
    field, grain = (
        cv2.GaussianBlur(generator.normal(size=(SIZE, SIZE)), (0, 0), sigma) for sigma in (15, 2)
    )
    cover = np.clip(field / field.std() - 0.8, 0, 1)
    return np.asarray(20_000 * (1 - 0.15 * cover) * (1 + 0.05 * cover * grain / grain.std()))


def clean(
    specimen: Callable[[np.random.Generator], Image], places: int, seed: int = 91
) -> list[Image]:
    """Frames with shot noise."""
    generators = np.random.default_rng(seed).spawn(places)
    return [generator.poisson(specimen(generator)).astype(np.uint16) for generator in generators]


def dusty(frames: list[Image]) -> list[Image]:
    """The same behind dust that takes a fifth of the light."""
    shadow = np.ones((SIZE, SIZE))
    for y, x, radius in SPECKS:
        shadow -= 0.2 * np.clip(radius - away(y, x) + 0.5, 0, 1)
    return [np.rint(frame * shadow).astype(np.uint16) for frame in frames]


def glowing(frames: list[Image]) -> list[Image]:
    """The same with spots that the camera adds, and hot pixels."""
    added = np.zeros((SIZE, SIZE))
    for y, x, radius in SPECKS:
        added += 400 * np.clip(radius - away(y, x) + 0.5, 0, 1)
    for y, x in HOT:
        added[y, x] = 2_000
    return [np.rint(frame + added).astype(np.uint16) for frame in frames]


KINDS = {
    "dust in brightfield": (brightfield, dusty, 3),
    "spots in fluorescence": (fluorescent, glowing, 6),
}


@pytest.mark.parametrize("name", KINDS)
def test_specks_of_the_camera_are_found(name: str) -> None:
    """Each is found and covered; of the frame not much more than them is covered."""
    specimen, spoil, number = KINDS[name]

    mask, specks, share = learn_defects(spoil(clean(specimen, PLACES)))

    assert specks == number
    assert mask is not None
    assert share == pytest.approx(mask.mean())
    near = np.min([away(y, x) - radius for y, x, radius in SPECKS], axis=0)
    assert mask[near < 0].all()
    hot = np.min([away(y, x) for y, x in HOT], axis=0)
    assert not mask[(near > 6) & (hot > 6)].any()


@pytest.mark.parametrize("places", [1, 3, 6, PLACES, 40])
@pytest.mark.parametrize("specimen", [fluorescent, brightfield])
def test_clean_frames_have_none(
    specimen: Callable[[np.random.Generator], Image], places: int
) -> None:
    """Neither specimen nor noise is taken for dirt, from few places or from many."""
    for seed in (92, 93):
        assert learn_defects(clean(specimen, places, seed)) == (None, 0, 0.0)


def test_shading_is_not_dirt() -> None:
    """A fall-off to the corners, which is the same in every field, is left alone."""
    light = 1 - 0.45 * np.square(away(SIZE / 2, SIZE / 2) / away(SIZE / 2, SIZE / 2).max())
    frames = [np.rint(frame * light).astype(np.uint16) for frame in clean(brightfield, PLACES)]

    assert learn_defects(frames).mask is None


def test_a_stage_that_stands_still_is_not_dirt() -> None:
    """Where much is the same in every field nothing is filled, and the share says why."""
    frame = fluorescent(np.random.default_rng(94))
    generators = np.random.default_rng(95).spawn(PLACES)

    mask, specks, share = learn_defects([g.poisson(frame).astype(np.uint16) for g in generators])

    assert mask is None
    assert specks == 0
    assert share > 0.02


@pytest.mark.parametrize("name", KINDS)
def test_filled_frames_show_nothing_there(name: str) -> None:
    """After correction frames are near to clean ones, also within specks; elsewhere the same."""
    specimen, spoil, _ = KINDS[name]
    frames = clean(specimen, PLACES)
    spoiled = spoil(frames)
    mask = learn_defects(spoiled).mask
    assert mask is not None

    filled = correct(np.stack(spoiled), Correction(defects=mask))

    np.testing.assert_array_equal(filled[:, ~mask], np.stack(spoiled)[:, ~mask])
    error, before = (
        np.abs(np.median(each[:, mask] - np.stack(frames)[:, mask].astype(float), axis=0)).mean()
        for each in (filled.astype(float), np.stack(spoiled).astype(float))
    )
    assert error < 0.05 * before


def test_filling_is_linear_between_the_pixels_around() -> None:
    """On a slope, filled pixels are those of the slope; at an edge they get what is near."""
    frames = np.stack([1000 + 3.0 * rows - 2.0 * columns] * 2).astype(np.float32)
    mask = (away(100, 100) < 6) | (columns < 2) & (rows == 30)
    spoiled = np.where(mask, 0, frames).astype(np.float32)

    fill_defects(spoiled, mask)

    np.testing.assert_allclose(
        spoiled[:, away(100, 100) < 6], frames[:, away(100, 100) < 6], rtol=1e-5
    )
    np.testing.assert_allclose(spoiled[:, 30, :2], 1087, atol=5)
