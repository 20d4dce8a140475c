"""Detection on synthetic scenes, each drawn from a seed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from imaging.detection import detect, estimate_statistics, measure
from imaging.statistics import DetectionStatistics

OFFSET = 100  # of the camera, grey levels
NOISE = 4.0
COLUMNS = {
    "label", "centroid-0", "centroid-1", "bbox-0", "bbox-1", "bbox-2", "bbox-3", "area",
    "equivalent_diameter_area", "eccentricity", "solidity", "orientation", "intensity_mean",
    "intensity_max", "z_um", "score",
}  # fmt: skip
SHIFTED = {"centroid-0": 0, "bbox-0": 0, "bbox-2": 0, "centroid-1": 1, "bbox-1": 1, "bbox-3": 1}


def discs(shape: tuple[int, int], *circles: tuple[float, float, float, float]) -> np.ndarray:
    """Discs (row, column, diameter, brightness) with the soft rim a lens gives, no noise."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    light = np.zeros(shape)
    for row, column, diameter, brightness in circles:
        rim = diameter / 2 - np.hypot(rows - row, columns - column)
        light = np.maximum(light, brightness * np.clip(rim + 0.5, 0, 1))
    return ndimage.gaussian_filter(light, 1.0)


def camera(light: np.ndarray, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, NOISE, light.shape)
    return np.clip(light + OFFSET + noise, 0, 65535).astype(np.uint16)


def random_scene(shape: tuple[int, int], diameter: float, count: int, seed: int) -> np.ndarray:
    """Discs strewn at random, touching or not, brightness varying fourfold."""
    rng = np.random.default_rng(seed)
    circles = [
        (*rng.uniform((0, 0), shape), diameter * rng.uniform(0.8, 1.2), 100 * 4 ** rng.uniform())
        for _ in range(count)
    ]
    return camera(discs(shape, *circles), seed)


def statistics_for(diameter: float, contrast: float = 200.0) -> DetectionStatistics:
    return DetectionStatistics(float(OFFSET), NOISE, contrast, diameter)


@pytest.mark.parametrize(
    ("kind", "level", "deviation"),
    [(np.uint16, 100, 4), (np.uint16, 3000, 50), (np.uint8, 10, 1), (np.float32, 0, 0.01),
     (np.uint16, 7, 0)],
)  # fmt: skip
def test_nothing_is_found_in_empty_specimen(kind: type, level: float, deviation: float) -> None:
    """Samples without objects give defined statistics with which noise is not an object."""
    empty = np.random.default_rng(1).normal(level, deviation, (2, 300, 300)).astype(kind)

    statistics = estimate_statistics(list(empty))

    assert statistics.contrast == 0
    assert detect(empty[0], statistics).max() == 0
    assert detect(empty[0], replace(statistics, diameter_px=80.0)).max() == 0


@pytest.mark.parametrize("diameter", [12.0, 20.0, 33.0, 64.0, 110.0])
def test_a_disc_is_found_where_and_as_large_as_it_is(diameter: float) -> None:
    """One disc is one object: centroid within a tenth, size within a twelfth of its diameter."""
    side = int(4 * diameter)
    image = camera(discs((side, side + 9), (1.7 * diameter, 2.1 * diameter, diameter, 300)))

    labels = detect(image, statistics_for(diameter))
    table = measure(labels, image, image, statistics_for(diameter))

    assert labels.max() == 1
    assert table["centroid-0"][0] == pytest.approx(1.7 * diameter, abs=0.1 * diameter)
    assert table["centroid-1"][0] == pytest.approx(2.1 * diameter, abs=0.1 * diameter)
    assert table["equivalent_diameter_area"][0] == pytest.approx(diameter, rel=1 / 12)


@pytest.mark.parametrize("diameter", [12.0, 24.0, 60.0])
def test_the_diameter_is_estimated(diameter: float) -> None:
    """Without a given diameter the estimate is within a fifth of the truth, at any scale."""
    at = np.arange(1.2, 8, 1.9) * diameter
    grid = [(row, column, diameter, 300.0) for row in at for column in at]
    side = int(9 * diameter)

    statistics = estimate_statistics([camera(discs((side, side), *grid))])

    assert statistics.diameter_px == pytest.approx(diameter, rel=0.2)
    assert statistics.background == pytest.approx(OFFSET, abs=NOISE)
    assert statistics.noise == pytest.approx(NOISE, rel=0.4)


@pytest.mark.parametrize("brightness", [(300, 300), (300, 120)])
def test_touching_discs_are_two_objects(brightness: tuple[float, float]) -> None:
    """Two discs that touch are split, also when one is far brighter."""
    left, right = ((60, 60 + i * 23, 24, b) for i, b in enumerate(brightness))
    image = camera(discs((120, 150), left, right))

    assert detect(image, statistics_for(24)).max() == 2


def test_gain_and_offset_change_nothing() -> None:
    """Three times the light and 500 more offset, with statistics to match, count the same."""
    image = random_scene((300, 300), 24, 20, seed=3)
    brighter = image * 3 + 500
    plain, matching = estimate_statistics([image]), estimate_statistics([brighter])

    assert matching.contrast == pytest.approx(3 * plain.contrast, rel=0.02)
    assert detect(brighter, matching).max() == detect(image, plain).max() > 10


def test_the_input_is_not_modified() -> None:
    """A read-only image is accepted and left alone."""
    image = random_scene((200, 200), 24, 8, seed=4)
    image.setflags(write=False)
    before = image.tobytes()

    labels = detect(image, estimate_statistics([image]))
    measure(labels, image, image, statistics_for(24))

    assert image.tobytes() == before


def test_labels_are_in_raster_order() -> None:
    """Labels are int32, 1 to n, in the order of the objects' first pixels."""
    labels = detect(random_scene((260, 300), 20, 40, seed=5), statistics_for(20))
    flat = labels[labels > 0]
    _, first = np.unique(flat, return_index=True)

    assert labels.dtype == np.int32
    assert len(first) == labels.max() > 10
    assert (np.diff(first) > 0).all()


def test_no_objects_make_an_empty_table() -> None:
    """Without objects every column is there, empty, and of the type it has with objects."""
    image = camera(discs((90, 90), (40, 40, 24, 300)))
    some = measure(detect(image, statistics_for(24)), image, image, statistics_for(24))
    none = measure(np.zeros((90, 90), np.int32), image, image, statistics_for(24))

    assert set(none) == set(some) == COLUMNS
    assert all(column.shape == (0,) for column in none.values())
    assert {k: v.dtype for k, v in none.items()} == {k: v.dtype for k, v in some.items()}


def test_the_height_is_the_one_under_the_object() -> None:
    """z_um is the depth under the object's light; gaps and outliers in the map do not count."""
    image = camera(discs((120, 220), (60, 60, 30, 300), (60, 160, 30, 300)))
    depth = np.full(image.shape, 99.0, np.float32)
    depth[:, :110][discs((120, 110), (60, 60, 36, 1)) > 0.1] = 3.5
    depth[:, 110:][discs((120, 110), (60, 50, 36, 1)) > 0.1] = -2.0
    depth[58:62, 55:65] = np.nan
    depth[50:54, 60:64] = 1000

    table = measure(detect(image, statistics_for(30)), image, depth, statistics_for(30))

    assert table["z_um"].tolist() == [3.5, -2.0]


def test_the_score_follows_contrast() -> None:
    """Scores lie in [0, 1] and a brighter object scores higher."""
    image = camera(discs((120, 220), (60, 60, 30, 100), (60, 160, 30, 900)))
    table = measure(detect(image, statistics_for(30, 150)), image, image, statistics_for(30, 150))
    faint, bright = table["score"][np.argsort(table["centroid-1"])]

    assert 0.9 < faint < bright < 1


@pytest.mark.parametrize("wrong", [[], [np.zeros((2, 3, 4))], [np.zeros((0, 5))]])
def test_samples_must_be_images(wrong: list[np.ndarray]) -> None:
    """Anything but images is refused, with what was expected."""
    with pytest.raises(ValueError, match="expected one or more images"):
        estimate_statistics(wrong)


@pytest.mark.parametrize(
    "field", [{"noise": 0.0}, {"diameter_px": -1.0}, {"contrast": -1.0}, {"background": np.nan}]
)
def test_statistics_must_make_sense(field: dict[str, float]) -> None:
    """Statistics no scan can have are refused."""
    with pytest.raises(ValueError, match="expected finite statistics"):
        replace(statistics_for(20), **field)


Objects = dict[bytes, dict[str, float]]


def objects_of(
    image: np.ndarray, statistics: DetectionStatistics, origin: tuple[int, int], core: list[slice]
) -> Objects:
    """Objects whose centroid lies in the core, by their pixels in the mosaic."""
    labels = detect(image, statistics, origin)
    depth = image.astype(np.float32) / 7
    table = measure(labels, image, depth, statistics)
    for column, axis in SHIFTED.items():
        table[column] = table[column] + origin[axis]
    pixels = [(np.argwhere(labels == n) + origin).tobytes() for n in table.pop("label")]
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    return {
        pixel: row
        for pixel, row in zip(pixels, rows, strict=True)
        if all(s.start <= row[f"centroid-{axis}"] < s.stop for axis, s in enumerate(core))
    }


def cores(size: int, step: int, first: int) -> list[slice]:
    edges = sorted({0, size, *range(first, size, step)})
    return [slice(a, b) for a, b in pairwise(edges)]


@settings(deadline=None, max_examples=12)
@given(
    diameter=st.floats(10, 70),
    fill=st.floats(0.02, 0.3),
    step=st.integers(90, 256),
    first=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    seed=st.integers(0, 2**32 - 1),
)
def test_field_borders_leave_no_trace(
    diameter: float, fill: float, step: int, first: tuple[int, int], seed: int
) -> None:
    """Regions with a halo give the whole mosaic's objects: the same pixels, the same numbers."""
    shape = (int(200 + 3 * diameter), int(230 + 3 * diameter))
    count = int(fill * shape[0] * shape[1] / (np.pi / 4 * diameter**2))
    mosaic = random_scene(shape, diameter, count, seed)
    statistics = statistics_for(diameter)
    whole = objects_of(mosaic, statistics, (0, 0), [slice(0, size) for size in shape])

    found: list[Objects] = []
    for row in cores(shape[0], step, first[0]):
        for column in cores(shape[1], step, first[1]):
            halo = [slice(max(0, s.start - statistics.halo_px), s.stop + statistics.halo_px)
                    for s in (row, column)]  # fmt: skip
            origin = (halo[0].start, halo[1].start)
            found.append(objects_of(mosaic[tuple(halo)], statistics, origin, [row, column]))

    assert sum(map(len, found)) == len(whole)
    assert {key: row for part in found for key, row in part.items()} == whole


@pytest.mark.parametrize("haze", [8, 16, 32])
def test_faint_haze_in_a_clean_image_is_no_object(haze: float) -> None:
    """Without noise, as in numbers that a program made of an image, objects are found as well."""
    rng = np.random.default_rng(1)
    places = [(60 + 40 * k + 8 * rng.random(), 60 + 40 * m + 8 * rng.random())
              for k in range(5) for m in range(4)]  # fmt: skip
    light = discs((320, 320), *((row, column, 20, 200) for row, column in places))
    wide = ndimage.gaussian_filter(light, 30)
    image = (np.rint(16 * (light + haze * wide / wide.max())) / 16).astype(np.float32)

    statistics = estimate_statistics([image])

    assert statistics.diameter_px == pytest.approx(21, abs=2)
    assert detect(image, statistics).max() == len(places)
