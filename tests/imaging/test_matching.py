"""The shift that the overlap of two fields shows, against tiles that lie where we have put them."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from benchmarks.tile_scenes import Stage, Tiles, cut_tiles, slide, slide_shape
from imaging.matching import cut, match, reach_of
from scan.matches import Match

CASES = {  # kind of slide, field, overlap, stage error; matched at least, of the edges
    "dense": ("dense", 256, 42, 3.0, 0.9),
    "sparse": ("sparse", 256, 42, 3.0, 0.3),
    "brightfield": ("brightfield", 256, 42, 3.0, 0.9),
    "wide overlap, in bins": ("dense", 384, 128, 6.0, 0.9),
}
GRID = (2, 4)


def tiles_of(kind: str, field_px: int, overlap_px: int, stage: Stage, seed: int = 1) -> Tiles:
    """A few fields of a slide."""
    light = slide(kind, seed, slide_shape(GRID, field_px, overlap_px))
    return cut_tiles(light, GRID, stage, field_px=field_px, overlap_px=overlap_px, seed=seed)


def matched(tiles: Tiles, one: tuple[int, ...], other: tuple[int, ...]) -> Match | None:
    """The match of two of them."""
    down, across = (int(step) for step in tiles.origins[other] - tiles.origins[one])
    first, second = tiles.images[one], tiles.images[other]
    strips = cut(first, (down, across)), cut(second, (-down, -across))
    return match(*strips, (down, across), first.shape)


def edges() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Pairs of fields one beside the other, and one above the other."""
    beside = [((s, a), (s, b)) for s in range(GRID[0]) for a, b in pairwise(range(GRID[1]))]
    return beside + [((0, f), (1, f)) for f in range(GRID[1])]


@pytest.mark.parametrize(
    ("kind", "field_px", "overlap_px", "error_px", "share"), CASES.values(), ids=list(CASES)
)
def test_shifts_are_found_below_the_pixel(
    kind: str, field_px: int, overlap_px: int, error_px: float, share: float
) -> None:
    """Where a match is accepted it is right to a quarter of a pixel, and most edges have one."""
    tiles = tiles_of(kind, field_px, overlap_px, Stage(error_px))
    errors = [
        np.abs(np.subtract(found.shift_px, tiles.offsets[two] - tiles.offsets[one])).max()
        for one, two in edges()
        if (found := matched(tiles, one, two))
    ]

    assert len(errors) >= share * len(edges())
    assert max(errors) < 0.25


def test_shifts_predict_their_scatter() -> None:
    """The predicted variance is that of the errors, within a factor of three either way."""
    tiles = tiles_of("brightfield", 256, 42, Stage(3.0))
    found = [(matched(tiles, a, b), tiles.offsets[b] - tiles.offsets[a]) for a, b in edges()]
    squares = [np.subtract(m.shift_px, true) ** 2 for m, true in found if m]
    predicted = [m.covariance_px2[:2] for m, _ in found if m]

    assert 1 / 3 < np.mean(squares) / np.mean(predicted) < 3


@pytest.mark.parametrize("middle", [-6, 0, 21, 42, 48])
def test_one_object_at_the_border_of_the_overlap_is_enough(middle: int) -> None:
    """An object that a field cuts off shows the shift as one in the middle of the overlap does."""
    y, x = np.mgrid[:256, :512]
    inside = (y - 128) ** 2 + (x - 214 - middle) ** 2 < 16**2
    generator = np.random.default_rng(1)
    grain = cv2.GaussianBlur(generator.standard_normal(y.shape), (0, 0), 2.0)
    light = 50 + inside * np.clip(300 + 1000 * grain, 50, None)
    seen = [generator.poisson(light[:, first : first + 256]) for first in (0, 214 + 5)]
    frames = [each.astype(np.uint16) for each in seen]
    found = match(cut(frames[0], (0, 214)), cut(frames[1], (0, -214)), (0, 214), (256, 256))

    assert found
    assert np.allclose(found.shift_px, (0, 5), atol=0.25)


@pytest.mark.parametrize("seed", range(3))
def test_noise_shows_no_shift(seed: int) -> None:
    """Fields without specimen do not match: all that they show is noise."""
    frames = np.random.default_rng(seed).poisson(50, (2, 256, 256)).astype(np.uint16)
    strips = cut(frames[0], (0, 214)), cut(frames[1], (0, -214))

    assert match(*strips, (0, 214), (256, 256)) is None


@pytest.mark.parametrize("beyond", [1, 2, 4])
def test_a_shift_beyond_reach_is_not_taken_for_one_within(beyond: int) -> None:
    """Where the NCC rises up to the last shift that is tried, the true one lies beyond it."""
    slide = cv2.GaussianBlur(np.random.default_rng(1).normal(0, 1, (256, 512)), (0, 0), 4.0)
    slide = (1000 + 4000 * slide).clip(0).astype(np.uint16)
    shift = reach_of(42) + beyond
    strips = cut(slide[:, :256], (0, 214)), cut(slide[:, 214 + shift :][:, :256], (0, -214))

    assert match(*strips, (0, 214), (256, 256)) is None


@pytest.mark.parametrize("step", [(0, 48), (48, 0), (48, 48), (48, -48), (40, 12), (-44, 46)])
@pytest.mark.parametrize("size", [64, 70])
def test_small_fields_match_or_do_not(size: int, step: tuple[int, int]) -> None:
    """Where views are smaller than what fields may be displaced, what is found is right."""
    slide = cv2.GaussianBlur(np.random.default_rng(1).normal(0, 1, (256, 256)), (0, 0), 1.5)
    slide = (1000 + 1000 * slide).clip(0).astype(np.uint16)
    y, x = 100 + step[0] + 2, 100 + step[1] - 1
    frames = slide[100 : 100 + size, 100 : 100 + size], slide[y : y + size, x : x + size]
    strips = cut(frames[0], step), cut(frames[1], (-step[0], -step[1]))
    found = match(*strips, step, (size, size))

    assert found is None or np.allclose(found.shift_px, (2, -1), atol=0.25)


def test_flat_fields_show_no_shift() -> None:
    """Pixels that are all equal do not match."""
    frame = np.full((256, 256), 100, np.uint16)

    assert match(cut(frame, (214, 0)), cut(frame, (-214, 0)), (214, 0), (256, 256)) is None


def test_stripes_that_repeat_are_ambiguous() -> None:
    """A grid, which looks alike at several shifts, does not match."""
    y, x = np.mgrid[:256, :256]
    grid = (1000 + 400 * np.sin(x * 2 * np.pi / 10) * np.sin(y * 2 * np.pi / 10)).astype(np.uint16)

    assert match(cut(grid, (0, 214)), cut(grid, (0, -214)), (0, 214), (256, 256)) is None


def test_lines_show_a_shift_across_them_only() -> None:
    """Along a line nothing tells where a field lies: lines in one direction do not match."""
    y, x = np.mgrid[:256, :256]
    frames = 1000 + 400 * np.exp(-(((x - 235) / 3.0) ** 2)) + 0 * y
    moved = 1000 + 400 * np.exp(-(((x - 21) / 3.0) ** 2)) + 0 * y
    strips = cut(frames.astype(np.uint16), (0, 214)), cut(moved.astype(np.uint16), (0, -214))

    assert match(*strips, (0, 214), (256, 256)) is None


def test_a_match_is_the_same_in_any_unit() -> None:
    """Brightness and contrast have no part in a match."""
    tiles = tiles_of("dense", 256, 42, Stage(3.0))
    bright = Tiles(
        (tiles.images // 4 + 700).astype(np.float32), tiles.origins, tiles.offsets, tiles.slide
    )
    one, other = matched(tiles, (0, 0), (0, 1)), matched(bright, (0, 0), (0, 1))

    assert one
    assert other
    assert np.allclose(one.shift_px, other.shift_px, atol=0.02)


def test_strips_reach_as_far_as_fields_may_be_displaced() -> None:
    """A strip is the overlap, and inwards what comes into view if the fields are closer."""
    strip = cut(np.zeros((256, 256), np.uint16), (0, 214))

    assert strip.corner == (0, 214 - reach_of(42))
    assert strip.pixels.shape == (256, 42 + reach_of(42))
