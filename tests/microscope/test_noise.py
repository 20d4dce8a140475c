"""Noise of simulated images is as good as drawn for each: nothing repeats where it could show."""

import subprocess
import sys

import numpy as np
import pytest

from microscope.noise import NUMBERS, normal_noise
from microscope.simulated import (
    BACKGROUND_PER_MS,
    LEVELS_PER_ELECTRON,
    READ_NOISE_ELECTRONS,
    SimulatedMicroscope,
)
from microscope.specimen import FocusSurface, Specimen

EDGE = 512
OTHERS = {
    "next plane": [7, 1000, 2000, 1000],
    "next field": [7, 150_000, 2000, 0],
    "next stripe": [7, 1000, 152_000, 0],
    "seed": [8, 1000, 2000, 0],
}
FIRST = [7, 1000, 2000, 0]


def image(seeds: list[int], edge: int = EDGE) -> np.ndarray:
    """Noise of a frame."""
    return np.concatenate(list(normal_noise(seeds, (edge, edge))))


def largest_correlation(first: np.ndarray, second: np.ndarray, ignored: int = 0) -> float:
    """The largest correlation over all shifts of one image against the other, which wrap around;
    the first so many shifts are left out."""
    spectrum = np.fft.rfft2(first) * np.conj(np.fft.rfft2(second))
    found = np.fft.irfft2(spectrum, s=first.shape).ravel()[ignored:]
    return float(np.abs(found).max() / first.size)


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_no_shift_shows_what_two_images_share(other: list[int]) -> None:
    """Images of another plane, field or seed correlate at no shift by more than two draws do: of
    512² shifts the largest is 4.6 to 6 standard deviations of 1/512, so below 0.0125."""
    assert largest_correlation(image(FIRST), image(other)) < 0.0125


def test_nothing_repeats_within_an_image() -> None:
    """An image correlates at no shift but none with itself by more than a draw does."""
    assert largest_correlation(image(FIRST), image(FIRST), ignored=1) < 0.0125


def test_a_mean_of_planes_is_as_quiet_as_of_independent_ones() -> None:
    """The variance of the mean of 64 planes is 1/64: within 5 standard deviations of what 512²
    pixels show of it."""
    mean = np.mean([image([7, 0, 0, plane]) for plane in range(64)], axis=0)

    assert mean.var() * 64 == pytest.approx(1, abs=5 * np.sqrt(2) / EDGE)


def test_numbers_are_standard_normal() -> None:
    """Mean, variance and tails over many images, which hold every number of the series, are those
    of a standard normal distribution."""
    noise = np.array([image([3, 0, field, 0]) for field in range(4 * NUMBERS // EDGE**2)])

    assert noise.dtype == np.float32
    assert abs(noise.mean()) < 5 / np.sqrt(NUMBERS)
    assert noise.var() == pytest.approx(1, abs=5 * np.sqrt(2 / NUMBERS))
    for limit, share in ((1, 0.31731), (2, 0.04550), (3, 0.00270)):
        assert np.mean(np.abs(noise) > limit) == pytest.approx(share, rel=0.1)


@pytest.mark.parametrize("exposure_ms", [0.5, 5.0, 500.0], ids=["dim", "usual", "bright"])
def test_variance_grows_with_light(exposure_ms: float) -> None:
    """An even field has the mean and the variance of photons and read noise at any light."""
    none = np.empty(0)
    empty = Specimen((9.0, 9.0), FocusSurface(0, 0, 0, 0), *[none] * 8)
    microscope = SimulatedMicroscope(
        empty, frame_shape=(EDGE, EDGE), pixel_size_um=0.3, exposure_ms=exposure_ms, seed=3,
        sleep=lambda seconds: None,
    )  # fmt: skip
    light = BACKGROUND_PER_MS * exposure_ms
    variance = LEVELS_PER_ELECTRON**2 * (light + READ_NOISE_ELECTRONS**2) + 1 / 12

    frames = microscope.stack(0.0, 0.0, [0.0, 1.0, 2.0, 3.0]).frames.astype(float)

    pixels = frames.size
    mean = LEVELS_PER_ELECTRON * light + 100
    assert frames.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / pixels))
    assert frames.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / pixels))


def test_another_process_draws_the_same() -> None:
    """The series does not depend on the process."""
    code = (
        "from microscope.noise import normal_noise\n"
        "print(sum(float(strip.sum(dtype=float)) for strip in normal_noise([3, 9], (300, 40))))\n"
    )
    here = sum(float(strip.sum(dtype=float)) for strip in normal_noise([3, 9], (300, 40)))

    there = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert float(there.stdout) == here
