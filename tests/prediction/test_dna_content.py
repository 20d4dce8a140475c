"""DNA of nuclei by the light of a stain."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from imaging.detection import detect, estimate_statistics, measure
from prediction.dna_content import dna_content, first_mode
from prediction.population import classify

Values = NDArray[np.float64]


def cells(seed: int, number: int, deviation: float, resting: float, dirt: float = 0.05) -> Values:
    """Light of nuclei: resting ones at 1, doubling ones up to 2, doubled ones at 2, and dirt."""
    generator = np.random.default_rng(seed)
    phase = generator.random(number)
    doubling = phase < resting + 0.15
    dna = np.where(doubling, generator.uniform(1, 2, number), 2.0)
    dna = np.where(phase < resting, 1.0, dna) * np.exp(generator.normal(0, deviation, number))
    return np.where(generator.random(number) < dirt, generator.uniform(0.1, 0.8, number), dna)


@pytest.mark.parametrize("number", [200, 1000])
@pytest.mark.parametrize("deviation", [0.06, 0.12])
@pytest.mark.parametrize("resting", [0.35, 0.6, 0.85])
def test_the_unit_is_the_first_mode(resting: float, deviation: float, number: int) -> None:
    """Whether most nuclei have doubled their DNA or not, the first mode is found within 10 %."""
    modes = [first_mode(cells(seed, number, deviation, resting)) for seed in range(10)]

    np.testing.assert_allclose(modes, 1, atol=0.1)


def test_the_unit_of_light_makes_no_difference() -> None:
    """The mode grows with light, order does not matter, and equal values are their own mode."""
    light = cells(1, 200, 0.1, 0.6)

    assert first_mode(1e4 * light[::-1]) == pytest.approx(1e4 * first_mode(light), rel=1e-9)
    assert first_mode(np.full(30, 7.0)) == pytest.approx(7, rel=0.01)


@pytest.mark.parametrize("number", [0, 1, 4])
def test_few_nuclei_are_no_error(number: int) -> None:
    """The median stands for the mode; without an object there is nothing to divide."""
    content = dna_content(np.full(number, 50.0), np.full(number, 0.9), np.ones(number, bool))

    np.testing.assert_array_equal(content, 1)


def test_scores_at_their_ends_are_finite() -> None:
    """An object no brighter than its rim has no DNA; one of score 1 has much, not infinite."""
    score = np.array([0.0, 0.9, 0.9, 0.9, 0.9, 0.9, 1.0])

    content = dna_content(np.full(7, 50.0), score, np.ones(7, bool))

    assert content[0] == 0
    assert np.isfinite(content).all()
    assert (content[1:-1] == content[1]).all()
    assert content[-1] > 1000


def test_nuclei_of_an_image_have_their_dna() -> None:
    """Of drawn nuclei with one or two units of light, whatever their size, each has its units."""
    generator = np.random.default_rng(3)
    rows, columns = np.mgrid[:400, :400]
    light, units = np.zeros(rows.shape), generator.permutation([1] * 44 + [2] * 20)
    for number, unit in enumerate(units):
        row, column = 25 + 50 * (number // 8), 25 + 50 * (number % 8)
        radius = generator.uniform(9, 13)
        far = np.hypot(rows - row, columns - column)
        light += unit * 3e5 / radius**2 * np.clip(radius - far + 0.5, 0, 1)
    image = (generator.poisson(light + 400) + generator.normal(100, 5, light.shape)).astype(
        np.uint16
    )
    statistics = estimate_statistics([image])
    labels = detect(image, statistics)

    table = measure(labels, image, image.astype(np.float32), statistics)
    content = classify(table | {"touches_border": np.zeros(len(table["label"]))}).columns

    order = np.lexsort((table["centroid-1"] // 50, table["centroid-0"] // 50))
    np.testing.assert_allclose(content["dna_content"][order] / units, 1, atol=0.1)
