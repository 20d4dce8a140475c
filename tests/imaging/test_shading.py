"""The flat is estimated from frames of several places, or refused with the reason."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from imaging.shading import MIN_PLACES, estimate_flat
from scan.errors import ShadingError

SIZE, OFFSET, PLACES = 512, 100, 18
Image = np.ndarray
rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE * 2 - 1


def falling(share: float = 0.45) -> Image:
    """A flat of mean 1 that lacks this share of its light in the corner farthest from its top."""
    away = np.square(rows + 0.1) + np.square(columns - 0.15)
    tangent = (1 / np.sqrt(1 - share) - 1) * away / away.max()
    light = 1 / (1 + tangent) ** 2
    return np.asarray(light / light.mean())


def discs(generator: np.random.Generator, number: int) -> Image:
    """Bright discs of several sizes, with a little haze, on a dark ground; cut at the borders."""
    wide = np.zeros((SIZE + 128, SIZE + 128))
    near = np.arange(-15, 16)
    away = np.hypot(near[:, None], near)
    for y, x in generator.integers(15, SIZE + 113, (number, 2)):
        disc = np.clip(generator.uniform(6, 14) - away + 0.5, 0, 1)
        wide[y - 15 : y + 16, x - 15 : x + 16] += generator.lognormal(6, 0.5) * disc
    return np.asarray(80 + wide + 0.03 * cv2.GaussianBlur(wide, (0, 0), 20))[64:-64, 64:-64]


def cells(generator: np.random.Generator) -> Image:
    """A bright ground with a third of it darkened by textured cells."""
    field, grain = (
        cv2.GaussianBlur(generator.normal(size=(SIZE, SIZE)), (0, 0), sigma) for sigma in (20, 2)
    )
    cover = np.clip(field / field.std() - 0.4, 0, 1)
    return np.asarray(20_000 * (1 - 0.1 * cover) * (1 + 0.03 * cover * grain / grain.std()))


SPECIMENS: dict[str, tuple[Callable[[np.random.Generator], Image], float, float]] = {
    "sparse fluorescence": (lambda g: discs(g, 60), 0.01, 0.03),  # rms, 99th percentile
    "crowded fluorescence": (lambda g: discs(g, 360), 0.01, 0.03),
    "brightfield": (cells, 0.006, 0.03),
}


def frames_of(
    specimen: Callable[[np.random.Generator], Image], places: int, flat: Image, seed: int
) -> list[Image]:
    """Frames with shot noise and read noise, two grey levels an electron, above an offset."""
    frames = []
    for generator in np.random.default_rng(seed).spawn(places):
        electrons = generator.poisson(specimen(generator) * flat / 2)
        noise = generator.normal(0, 1.6, flat.shape)
        frames.append(np.clip(np.rint(OFFSET + 2 * (electrons + noise)), 0, 65535))
    return [frame.astype(np.uint16) for frame in frames]


DARK = np.full((SIZE, SIZE), OFFSET, np.float32)


@pytest.mark.parametrize("seed", [71, 72])
@pytest.mark.parametrize("name", SPECIMENS)
def test_the_flat_is_estimated_from_eighteen_places(name: str, seed: int) -> None:
    """With a fall-off of 45 % the error is at most 1 % rms and 3 % at the 99th percentile."""
    specimen, rms, far = SPECIMENS[name]
    flat = falling()

    fit = estimate_flat(frames_of(specimen, PLACES, flat, seed), DARK)

    error = fit.flat / flat - 1
    assert fit.flat.dtype == np.float32
    assert fit.flat.mean() == pytest.approx(1, abs=1e-5)
    assert error.std() <= rms
    assert np.quantile(np.abs(error), 0.99) <= far
    assert error.std() < 2 * fit.scatter + 0.003  # the scatter does not claim too much


def test_an_even_field_is_left_even() -> None:
    """Where there is no shading none is found."""
    even = np.ones((SIZE, SIZE))

    fit = estimate_flat(frames_of(SPECIMENS["sparse fluorescence"][0], PLACES, even, 73), DARK)

    np.testing.assert_allclose(fit.flat, 1, atol=0.02)


def test_the_light_of_each_place_makes_no_difference() -> None:
    """Places under stronger or weaker light give the same flat, and so do other units."""
    frames = [frame - DARK for frame in frames_of(cells, 8, falling(), 74)]
    lights = np.linspace(0.5, 2, 8, dtype=np.float32)

    once = estimate_flat(frames).flat
    again = estimate_flat([frame * light for frame, light in zip(frames, lights, strict=True)]).flat

    np.testing.assert_allclose(again, once, rtol=1e-3)


def tilted(generator: np.random.Generator) -> Image:
    """Thick tissue whose light slopes in any direction."""
    slope = generator.normal(0, 1.5, 2)
    return np.asarray(500 * np.exp(slope[0] * rows + slope[1] * columns))


def blank(generator: np.random.Generator) -> Image:
    """Nothing shines."""
    return np.zeros((SIZE, SIZE))


def faint(generator: np.random.Generator) -> Image:
    """Light of few grey levels."""
    return cells(generator) / 5000


REFUSED: dict[str, tuple[Callable[[np.random.Generator], Image], int, str]] = {
    "too few places": (cells, MIN_PLACES - 1, "at least 6 places, got 5"),
    "no light over the dark": (blank, PLACES, "light over the dark, got"),
    "light that is rounded away": (faint, PLACES, "light over the dark, got 4 grey levels"),
    "places that do not agree": (tilted, PLACES, "agree within 3 %, got a scatter of"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_frames_that_do_not_tell_are_refused(name: str) -> None:
    """One line says what was expected and found, and what to do instead."""
    specimen, places, said = REFUSED[name]

    frames = frames_of(specimen, places, falling(), 75)
    if specimen is faint:  # and no noise
        generators = np.random.default_rng(76).spawn(places)
        frames = [np.rint(OFFSET + faint(g) * falling()).astype(np.uint16) for g in generators]

    with pytest.raises(ShadingError, match=said) as refusal:
        estimate_flat(frames, DARK)

    assert "measure a flat and name its file" in str(refusal.value)
