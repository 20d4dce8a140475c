"""Frames are corrected for dark and flat, so that a field is as bright in its corners."""

from __future__ import annotations

import numpy as np
import pytest

from imaging.correction import correct
from imaging.shading import estimate_flat
from microscope.simulated import OFFSET_LEVELS, SimulatedMicroscope
from microscope.specimen import FocusSurface, Specimen
from scan.correction import Correction

SHAPE = (40, 56)
SIZE, PIXEL_UM, EXPOSURE_MS = 320, 0.325, 10.0
NEAR_UM = tuple(0.001 * k for k in range(60))  # the noise of each is another


def fields(seed: int = 0) -> Correction:
    """An uneven flat of mean 1 and an uneven dark."""
    generator = np.random.default_rng(seed)
    flat = generator.uniform(0.5, 1.5, SHAPE).astype(np.float32)
    return Correction(flat / flat.mean(), generator.uniform(0, 30, SHAPE).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("used", ["both", "flat", "dark"])
def test_frames_are_dark_subtracted_then_divided(dtype: type, used: str) -> None:
    """The result is that of the formula, rounded and clipped to the type; its end stays there."""
    whole = fields()
    correction = whole._replace(
        **{"both": {}, "flat": {"dark": None}, "dark": {"flat": None}}[used]
    )
    frames = np.random.default_rng(1).integers(0, 256, (3, *SHAPE)).astype(dtype)
    frames.setflags(write=False)
    end = np.inf if dtype is np.float32 else np.iinfo(dtype).max
    dark = 0 if correction.dark is None else correction.dark.astype(np.float64)
    flat = 1 if correction.flat is None else correction.flat.astype(np.float64)
    expected = (frames - dark) / flat
    if dtype is not np.float32:
        expected = np.where(frames == end, end, np.clip(np.rint(expected), 0, end))

    corrected = correct(frames, correction)

    assert corrected.dtype == dtype
    atol = 1e-4 if dtype is np.float32 else 1  # halves are rounded up
    np.testing.assert_allclose(corrected.astype(np.float64), expected, rtol=1e-5, atol=atol)
    assert (corrected != expected).mean() < 0.01 or dtype is np.float32


def test_without_fields_frames_are_used_as_they_are() -> None:
    """Nothing is copied."""
    frames = np.ones((2, *SHAPE), np.uint16)

    assert correct(frames, Correction()) is frames


def test_a_smaller_frame_is_the_centre_of_a_field() -> None:
    """Crops of autofocus images are corrected by the centre of the fields."""
    plane = np.random.default_rng(2).integers(0, 5000, SHAPE).astype(np.uint16)
    whole = correct(plane, fields())

    np.testing.assert_array_equal(correct(plane[10:30, 8:48], fields()), whole[10:30, 8:48])


class OffCentre(SimulatedMicroscope):
    """A microscope that lacks 45 % of its light in one corner; it is brightest off the centre."""

    def electrons(self, x_um: float, y_um: float, z_um: float) -> np.ndarray:
        """Return the light of one exposure."""
        y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE * 2 - 1
        away = np.square(y - 0.3) + np.square(x + 0.2)
        light = 1 / (1 + (1 / np.sqrt(0.55) - 1) * away / away.max()) ** 2
        return np.asarray(super().electrons(x_um, y_um, z_um) * light, np.float32)


def microscope_over(x_um: np.ndarray, y_um: np.ndarray) -> SimulatedMicroscope:
    """That microscope, over equal objects."""
    ones = np.ones(len(x_um))
    specimen = Specimen((4000.0, 4000.0), FocusSurface(0, 0, 0, 0), x_um, y_um, 0 * ones,
                        10 * ones, ones, 0 * ones, 40 * ones, 0 * ones.astype(int))  # fmt: skip
    return OffCentre(
        specimen, frame_shape=(SIZE, SIZE), pixel_size_um=PIXEL_UM, exposure_ms=EXPOSURE_MS,
        seed=8, clock=lambda: 0.0, sleep=lambda seconds: None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def estimated() -> Correction:
    """The correction estimated from 18 places with objects."""
    generator = np.random.default_rng(9)
    microscope = microscope_over(*generator.uniform(0, 4000, (2, 20_000)))
    places = generator.uniform(500, 3500, (18, 2))
    frames = [microscope.stack(x, y, (0.0,)).frames[0] for x, y in places]
    dark = np.full((SIZE, SIZE), OFFSET_LEVELS, np.float32)
    return Correction(estimate_flat(frames, dark).flat, dark)


def test_fields_have_no_steps_at_seams(estimated: Correction) -> None:
    """On even ground, steps between fields edge to edge are at most 2 %, of more than 20 %."""
    frame = microscope_over(np.zeros(0), np.zeros(0)).stack(1000, 1000, NEAR_UM).frames

    def steps(frames: np.ndarray, dark: float) -> np.ndarray:
        light = (frames.mean(axis=0) - dark).reshape(10, 32, 10, 32).mean(axis=(1, 3))
        return np.abs(np.r_[light[:, -1] / light[:, 0], light[-1] / light[0]] - 1)

    assert steps(frame, OFFSET_LEVELS).max() > 0.2
    assert steps(correct(frame, estimated), 0).max() <= 0.02


def test_an_object_is_as_bright_in_the_corner_as_in_the_centre(estimated: Correction) -> None:
    """The light of one object above its ground differs by at most 3 %, wherever it lies."""
    microscope = microscope_over(np.array([2000.0]), np.array([2000.0]))
    reach_um = 0.4 * SIZE * PIXEL_UM

    def light(dx: int, dy: int, correction: Correction) -> float:
        position = 2000 - dx * reach_um, 2000 - dy * reach_um
        frames = correct(microscope.stack(*position, NEAR_UM).frames, correction)
        y, x = (round((SIZE - 1) / 2 + d * 0.4 * SIZE) for d in (dy, dx))
        around = frames.mean(axis=0)[y - 25 : y + 26, x - 25 : x + 26]
        rim = np.r_[around[:3].ravel(), around[-3:].ravel()]
        return float((around - rim.mean()).sum())

    corners = [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    lights = [light(*corner, estimated) for corner in corners]
    plain = [light(*corner, Correction()) for corner in corners]

    assert min(plain) < 0.75 * light(0, 0, Correction())
    np.testing.assert_allclose(lights, light(0, 0, estimated), rtol=0.03)
