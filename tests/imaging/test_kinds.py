"""Objects of many kinds are counted, and fields of any size count the same."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from benchmarks import object_scenes as scenes
from imaging.detection import detect, estimate_statistics, measure
from imaging.statistics import DetectionStatistics
from scan.findings import FINDINGS

CORE_PX = 128
Objects = dict[bytes, tuple[bytes, ...]]

KINDS: dict[str, Callable[[], scenes.Scene]] = {
    "rods of 1:2": lambda: scenes.rods(7, 2, 12, 256, textured=False),
    "rods of 1:4": lambda: scenes.rods(7, 4, 9, 256, textured=False),
    "rods of 1:6": lambda: scenes.rods(7, 6, 9, 320, textured=False),
    "textured rods of 1:5": lambda: scenes.rods(7, 5, 12, 320, textured=True),
    "curved rods": lambda: scenes.rods(7, 5, 10, 300, textured=False, bend=1.5),
    "textured curved rods": lambda: scenes.rods(7, 5, 12, 320, textured=True, bend=1.5),
    "horseshoes": lambda: scenes.rods(7, 6, 10, 300, textured=True, bend=4.0),
    "pairs of balls": lambda: scenes.clumps(7, "pair", "ball", 20, 300),
    "flat triangles": lambda: scenes.clumps(7, "triangle", "flat", 14, 300),
    "flat chains of 4": lambda: scenes.clumps(7, "chain of 4", "flat", 16, 360),
    "bent chains of balls": lambda: scenes.clumps(7, "bent chain of 5", "ball", 14, 340),
    "flat rosettes": lambda: scenes.clumps(7, "rosette of 7", "flat", 14, 300),
    "rimmed triangles": lambda: scenes.clumps(7, "triangle", "rimmed", 20, 300),
    "textured sizes of 1:1.5": lambda: scenes.sizes(7, 1.5, 12, textured=True),
    "sizes of 1:2": lambda: scenes.sizes(7, 2, 10, textured=False),
    "sizes of 1:4": lambda: scenes.sizes(7, 4, 10, textured=False),
    "sizes of 1:6": lambda: scenes.sizes(7, 6, 10, textured=False),
    "a tenth 60 times as bright": lambda: scenes.unequal_lights(7, 60, 0.1),
    "a third 60 times as bright": lambda: scenes.unequal_lights(7, 60, 0.34),
    "a tenth 10 times as bright": lambda: scenes.unequal_lights(7, 10, 0.1),
    "rings": lambda: scenes.rings(7, 34, 4, 300),
    "thick rings": lambda: scenes.rings(7, 40, 10, 300),
    "small rings": lambda: scenes.rings(7, 16, 2, 200),
    "small thick rings": lambda: scenes.rings(7, 20, 3, 240),
    "rings without a dark middle": lambda: scenes.rings(7, 24, 4, 260, inside=0.3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_objects_of_all_kinds_are_counted(kind: str) -> None:
    """Rods are one object each, touching discs are two, a ring is one: the same rules for all."""
    image, truth = KINDS[kind]()

    labels = detect(image, estimate_statistics([image]))

    number = len(np.unique(truth)) - 1
    assert labels.max() == number == matched(truth, labels)


# The middle disc of a rosette has no rim of its own.
TOUCHING = sorted(set(product(scenes.CLUMPS, scenes.PROFILES)) - {("rosette of 7", "rimmed")})


@pytest.mark.parametrize(("clump", "profile"), TOUCHING)
def test_touching_discs_are_all_counted(clump: str, profile: str) -> None:
    """Clumps of two to seven equal discs are split, however large these are."""
    for diameter in (12, 20, 45):
        side = max(300, 14 * diameter)  # 16 clumps and discs or more
        image, truth = scenes.clumps(17, clump, profile, diameter, side)

        labels = detect(image, estimate_statistics([image]))

        assert labels.max() == len(np.unique(truth)) - 1, diameter


@pytest.mark.parametrize("profile", scenes.PROFILES)
def test_few_single_discs_tell_the_size(profile: str) -> None:
    """Touching discs are split, too, where four objects of five are clumps."""
    image, truth = scenes.clumps(17, "pair", profile, 16, 500, share=0.8)

    labels = detect(image, estimate_statistics([image]))

    assert labels.max() == len(np.unique(truth)) - 1


def matched(truth: np.ndarray, labels: np.ndarray) -> int:
    """Count the objects with an intersection over union above one half."""
    shared = np.histogram2d(
        truth.ravel(), labels.ravel(), [np.arange(truth.max() + 2), np.arange(labels.max() + 2)]
    )[0]
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    return int((shared[1:, 1:] > 0.5 * union[1:, 1:]).sum())


def objects_in(
    image: np.ndarray, statistics: DetectionStatistics, core: tuple[slice, slice]
) -> Objects:
    """Pixels and measures, to the bit, of the objects whose centroid lies in a core."""
    halo = statistics.halo_px
    seen = tuple(slice(max(0, s.start - halo), s.stop + halo) for s in core)
    origin = (seen[0].start, seen[1].start)
    part = image[seen]
    labels = detect(part, statistics, origin)
    table = measure(labels, part, part.astype(np.float32), statistics)
    for name in table:
        if name.startswith(("bbox", "centroid")):
            table[name] = table[name] + origin[int(name[-1]) % 2]
    owned = np.ones(len(table["label"]), bool)
    for axis, span in enumerate(core):
        owned &= (span.start <= table[f"centroid-{axis}"]) & (table[f"centroid-{axis}"] < span.stop)
    pixels = {n: (np.argwhere(labels == n) + origin).tobytes() for n in table["label"][owned]}
    columns = [column for name, column in table.items() if name != "label"]
    return {pixels[n]: tuple(column[n - 1].tobytes() for column in columns) for n in pixels}


@pytest.mark.parametrize(
    "kind",
    ["rods of 1:6", "textured rods of 1:5", "horseshoes", "flat rosettes", "rimmed triangles",
     "sizes of 1:4", "rings", "small rings", "a tenth 60 times as bright"],
)  # fmt: skip
def test_field_borders_leave_no_trace_on_any_kind(kind: str) -> None:
    """Fields with a halo give the objects of the mosaic in one piece, each once, to the bit."""
    image, _ = KINDS[kind]()
    statistics = estimate_statistics([image])
    whole = objects_in(image, statistics, (slice(0, image.shape[0]), slice(0, image.shape[1])))
    edges = [range(0, size, CORE_PX) for size in image.shape]

    fields = [
        objects_in(image, statistics, (slice(row, row + CORE_PX), slice(column, column + CORE_PX)))
        for row in edges[0]
        for column in edges[1]
    ]

    assert sum(map(len, fields)) == len(whole) > 8
    assert {key: row for part in fields for key, row in part.items()} == whole


@pytest.mark.parametrize("diameter", [10.0, 24.0])
def test_dark_objects_are_those_of_the_negative(diameter: float) -> None:
    """Dark objects on a bright ground are told from the samples and found as bright ones would."""
    image, truth = scenes.dark_discs(7, diameter, 240)
    negative = 65535 - image

    statistics, opposite = estimate_statistics([image]), estimate_statistics([negative])

    assert (statistics.polarity, opposite.polarity) == ("dark", "bright")
    assert matched(truth, detect(image, statistics)) == truth.max()
    found, expected = detect(image, statistics), detect(negative, opposite)
    np.testing.assert_array_equal(found, expected)
    tables = [measure(found, each, image, s)
              for each, s in ((image, statistics), (negative, opposite))]  # fmt: skip
    for name in ("area", "z_um", "score"):
        np.testing.assert_allclose(tables[0][name], tables[1][name], rtol=1e-3, err_msg=name)


def test_polarity_can_be_given() -> None:
    """A given polarity is used whatever the samples show."""
    image, _ = scenes.dark_discs(7, 20, 200)

    assert estimate_statistics([image], polarity="bright").polarity == "bright"


def patches(*, dark: bool) -> np.ndarray:
    """Patches of any shape on a ground, all bright or as many bright as dark ones."""
    generator = np.random.default_rng(7)
    noise = ndimage.gaussian_filter(generator.normal(size=(256, 256)), 3.0)
    noise /= noise.std()
    light = (noise > 0.7) - 1.0 * (dark & (noise < -0.7))
    return np.asarray(3000 + 2000 * light + generator.normal(0, 20, noise.shape), np.uint16)


def cells_side_by_side() -> np.ndarray:
    """Bright discs of different light that leave little ground."""
    generator = np.random.default_rng(7)
    rows, columns = np.mgrid[:240, :240]
    light = generator.uniform(1000, 3000, (10, 10))[rows // 24, columns // 24]
    far = np.hypot(rows % 24 - 11.5, columns % 24 - 11.5)
    return np.asarray(
        np.where(far < 11, light, 200) + generator.normal(0, 20, far.shape), np.uint16
    )


def open_rings() -> np.ndarray:
    """Rings, of whose walls a sixteenth is missing: arcs of one width."""
    canvas = scenes.Canvas(np.random.default_rng(7), 300)
    for place in scenes.cells(canvas.rng, 300, 60):
        canvas.ring(place, 34, 3, opening=0.4)
    return canvas.photograph(1.0)[0]


DOUBTFUL: dict[str, Callable[[], np.ndarray]] = {
    "few": lambda: scenes.clumps(7, "pair", "ball", 30, 160)[0],
    "textured": lambda: patches(dark=False),
    "polarity": lambda: patches(dark=True),
    "confluent": cells_side_by_side,
    "uneven": lambda: scenes.unequal_lights(7, 60, 0.7)[0],
    "saturated": lambda: np.minimum(scenes.clumps(7, "pair", "ball", 20, 300)[0], 2047),
}


@pytest.mark.parametrize("code", DOUBTFUL)
def test_samples_that_are_no_separate_objects_are_told(code: str) -> None:
    """Statistics carry a code for each doubt."""
    assert code in estimate_statistics([DOUBTFUL[code]()], polarity="auto").findings


def test_arcs_of_one_width_are_told() -> None:
    """Open rings fall into pieces that have one width, as rods do; their counts are doubtful."""
    assert "textured" in estimate_statistics([open_rings()]).findings


@pytest.mark.parametrize("kind", KINDS)
def test_separate_objects_raise_no_doubt(kind: str) -> None:
    """Scenes that are counted right carry no code, but for too few objects."""
    assert set(estimate_statistics([KINDS[kind]()[0]]).findings) <= {"few"}


@pytest.mark.parametrize("code", sorted(set(DOUBTFUL) - {"uneven"}))
def test_no_other_doubt_looks_like_dim_objects(code: str) -> None:
    """Textures, clumps, objects side by side or of both signs are not taken for dim objects."""
    assert "uneven" not in estimate_statistics([DOUBTFUL[code]()], polarity="auto").findings


@pytest.mark.parametrize("polarity", ["bright", "dark"])
def test_most_objects_decide_what_is_typical(polarity: str) -> None:
    """A few that differ much more from the ground do not hide the others, of either polarity."""
    image, truth = scenes.unequal_lights(8, 60, 0.1)
    seen = image if polarity == "bright" else 65535 - image

    statistics = estimate_statistics([seen])

    assert statistics.polarity == polarity
    assert matched(truth, detect(seen, statistics)) == len(np.unique(truth)) - 1


@pytest.mark.parametrize("brighter", [4, 10, 30])
@pytest.mark.parametrize("few", [4, 12])
def test_noise_does_not_hide_large_dim_objects(few: int, brighter: float) -> None:
    """Wide discs whose light is four times the noise are counted beside a few small bright ones."""
    dim, bright = (scenes.Canvas(np.random.default_rng(seed), 400) for seed in (3, 4))
    places = list(scenes.cells(dim.rng, 400, 48))
    for row, column in places:
        dim.disc((row, column), 28, "ball")
    for row, column in places[3 : 5 * few : 5]:
        bright.disc((row + 20, column + 20), 8, "ball")
    noise = dim.rng.normal(0, 8, dim.light.shape)
    image = np.rint(100 + 30 * (dim.light + brighter * bright.light) + noise).astype(np.uint16)

    labels = detect(image, estimate_statistics([image]))

    assert labels.max() == len(places) + few


def test_a_few_dim_things_are_debris() -> None:
    """Fewer dim objects than a fifth of the others are neither counted nor told."""
    image, truth = scenes.unequal_lights(7, 60, 0.9)

    statistics = estimate_statistics([image])

    bright = np.unique(truth[image > image.max() / 2]).size
    assert statistics.findings == ()
    assert detect(image, statistics).max() == bright < len(np.unique(truth)) - 1


def test_every_doubt_has_a_text() -> None:
    """The codes that statistics can carry are those that the summary explains."""
    assert set(DOUBTFUL) == set(FINDINGS)
