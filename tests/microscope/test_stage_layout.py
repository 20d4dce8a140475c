"""Fields lie where the stage was, as far as images agree; else in their order; or are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from config import validate
from microscope.coordinates import Unclear
from microscope.opening import Setup, open_microscope, prepare
from microscope.stage_layout import Scattered, by_cells, by_stage, in_order
from scan.errors import InputError

EDGE, OVERLAP, PIXEL_UM = 128, 40, 0.5
STEP = EDGE - OVERLAP
GENERATOR = np.random.default_rng(8)
SLIDE = (1000 * gaussian_filter(GENERATOR.random((450, 450)), 1.5)).astype(np.float32)
Place = tuple[int, int]


def grid(rows: int, columns: int, step: int = STEP) -> list[Place]:
    """First pixels (row, column) of fields in a raster."""
    return [(row * step, column * step) for row in range(rows) for column in range(columns)]


def seen_at(places: list[Place]) -> Callable[[int], Any]:
    """Images of the slide at these places."""

    def image(field: int) -> np.ndarray:
        row, column = places[field]
        return SLIDE[row : row + EDGE, column : column + EDGE]

    return image


def unrelated(field: int) -> np.ndarray:
    """Images that show different things."""
    random = np.random.default_rng(field)
    return (1000 * gaussian_filter(random.random((EDGE, EDGE)), 1.5)).astype(np.float32)


def stage_of(places: list[Place], turn: Callable[[float, float], Place] = lambda x, y: (x, y)):
    """Stage positions of places, of a stage whose axes may point anywhere."""
    return [tuple(PIXEL_UM * each for each in turn(column, row)) for row, column in places]


def laid(places: list[Place], read: Callable[[int], Any] | None = None, **options: Any) -> Any:
    """The layout of fields by their stage positions."""
    return by_stage(stage_of(places, **options), (EDGE, EDGE), PIXEL_UM, read or seen_at(places))


TURNS = {
    "x right, y down": lambda x, y: (x, y),
    "y up": lambda x, y: (x, -y),
    "x left": lambda x, y: (-x, y),
    "turned by half": lambda x, y: (-x, -y),
    "turned by a quarter": lambda x, y: (y, -x),
    "axes exchanged": lambda x, y: (y, x),
}


@pytest.mark.parametrize("turn", TURNS)
def test_images_tell_how_the_stage_is_turned(turn: str) -> None:
    """Whatever way axes point, fields lie where they were; a turn is told."""
    places = [(0, 0), (0, STEP), (STEP, STEP), (STEP, 0)]  # a snake

    layout = laid(places, turn=TURNS[turn])

    assert layout.rows == ((0, 1), (3, 2))
    assert layout.origins == (((0, 0), (0, STEP)), ((STEP, 0), (STEP, STEP)))
    assert len(layout.warnings) == (turn != "x right, y down")
    assert layout.caveats == ()


def test_the_mosaic_begins_where_the_stage_was() -> None:
    """The stage position of the first pixel is half a field from that of the first centre."""
    layout = by_stage([(500.0, 80.0), (544.0, 80.0)], (EDGE, EDGE), PIXEL_UM, unrelated)
    alone = by_stage([(500.0, 80.0), (564.0, 80.0)], (EDGE, EDGE), PIXEL_UM, unrelated)

    assert layout.origin_um is None  # the images say that it is wrong
    assert alone.origin_um == (500.0 - 63.5 * PIXEL_UM, 80.0 - 63.5 * PIXEL_UM)


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=6, max_size=6))
@settings(max_examples=30, deadline=None)
def test_fields_lie_where_they_were_to_the_pixel(errors: list[Place]) -> None:
    """A stage that is a few pixels off, and says so, costs nothing."""
    places = [(r + 9 + a, c + 9 + b) for (r, c), (a, b) in zip(grid(2, 3), errors, strict=True)]
    corner = np.min(places, axis=0)

    layout = laid(places)

    found = {
        field: origin
        for row, origins in zip(layout.rows, layout.origins, strict=True)
        for field, origin in zip(row, origins, strict=True)
    }
    assert [found[field] for field in range(6)] == [tuple(place - corner) for place in places]


def test_images_that_differ_where_they_should_meet_are_told() -> None:
    """Fields are laid edge to edge in their rows and columns, with a caveat."""
    layout = laid(grid(2, 2), unrelated)

    assert (layout.rows, layout.origins) == (((0, 1), (2, 3)), None)
    assert "their images differ there" in layout.caveats[0]


def test_dark_overlaps_contradict_nothing() -> None:
    """Where nothing is to be seen, the positions count."""
    layout = laid(grid(2, 2), lambda _: np.random.default_rng(1).random((EDGE, EDGE)))

    assert layout.origins == (((0, 0), (0, STEP)), ((STEP, 0), (STEP, STEP)))
    assert "x to the right and y down are assumed" in layout.warnings[0]


@pytest.mark.parametrize("turn", TURNS)
def test_noise_and_uneven_light_hide_no_turn(turn: str) -> None:
    """Noise of half the contrast, and a corner with half the light, leave the edges alike."""
    places = grid(2, 3)
    rows, columns = np.mgrid[-1 : 1 : EDGE * 1j, -1 : 1 : EDGE * 1j]
    light = 1 - (rows**2 + columns**2) / 4
    coarse = gaussian_filter(SLIDE, 3)
    noise = 0.5 * coarse.std()

    def dim(field: int) -> np.ndarray:
        row, column = places[field]
        image = coarse[row : row + EDGE, column : column + EDGE] * light
        return image + np.random.default_rng(field).normal(0, noise, image.shape)

    layout = laid(places, dim, turn=TURNS[turn])

    assert layout.rows == ((0, 1, 2), (3, 4, 5))
    assert layout.origins is not None
    assert [origin for row in layout.origins for origin in row] == places


def test_gaps_are_closed_and_told() -> None:
    """A mosaic has no gaps: fields that are apart lie side by side."""
    layout = laid(grid(2, 2, step=200), unrelated)

    assert layout.origins == (((0, 0), (0, EDGE)), ((EDGE, 0), (EDGE, EDGE)))
    assert "up to 72 pixels apart" in layout.caveats[0]


def test_short_rows_are_kept() -> None:
    """Rows may be shorter than the first."""
    places = [(0, 0), (0, STEP), (0, 2 * STEP), (STEP, 0), (2 * STEP, 0), (2 * STEP, STEP)]

    assert laid(places).rows == ((0, 1, 2), (3,), (4, 5))


OUTLINES = {  # which places have a field, and the rows of that
    "a row that begins later": (["##", " #"], ((0, 1), (None, 2))),
    "a row that is longer": (["#", "##"], ((0,), (1, 2))),
    "a disc": ([" # ", "###", " # "], ((None, 0), (1, 2, 3), (None, 4))),
    "a ring": (["###", "# #", "###"], ((0, 1, 2), (3, None, 4), (5, 6, 7))),
}


@pytest.mark.parametrize(("outline", "rows"), OUTLINES.values(), ids=OUTLINES)
@pytest.mark.parametrize("turn", TURNS)
def test_outlines_of_any_shape_are_mosaics(outline: list[str], rows: Any, turn: str) -> None:
    """Rows begin and end where the specimen does; a place between two fields that has none is
    told, as a file may be missing there."""
    places = [
        (r * STEP, c * STEP)
        for r, line in enumerate(outline)
        for c, mark in enumerate(line)
        if mark == "#"
    ]

    layout = laid(places, turn=TURNS[turn])

    assert layout.rows == rows
    assert layout.origins is not None
    corner = np.min(places, axis=0)
    found = {
        field: origin
        for row, origins in zip(layout.rows, layout.origins, strict=True)
        for field, origin in zip(row, origins, strict=True)
        if field is not None
    }
    assert [found[field] for field in range(len(places))] == [
        tuple(map(int, np.subtract(place, corner))) for place in places
    ]
    told = any("no field in row 2 column 2" in caveat for caveat in layout.caveats)
    assert told == ("# #" in outline)


REFUSED = {
    "two islands": [(0, 0), (0, STEP), (2 * STEP, 2 * STEP)],
    "a brick wall": [(0, 0), (0, STEP), (STEP, STEP // 2)],
    "a brick wall of single fields": [(0, 0), (STEP, STEP // 2), (2 * STEP, 0)],
    "one place twice": [(0, 0), (0, STEP), (2, 1)],
}


@pytest.mark.parametrize("places", REFUSED.values(), ids=REFUSED)
def test_overlapping_fields_in_no_grid_are_refused(places: list[Place]) -> None:
    """What a plan does not have is refused, with the setting that lays fields out in order."""
    with pytest.raises(Unclear, match="layout"):
        laid(places)


@pytest.mark.parametrize("places", [[(0, 0), (150, 150), (30, 300)], [(7, 7)] * 3])
def test_positions_that_are_no_neighbours_say_nothing(places: list[Place]) -> None:
    """Scattered fields, or a stage that was not asked, have an order alone."""
    with pytest.raises(Scattered):
        laid(places)


ORDERS = {
    "raster": ((7, 3, None), False, ((0, 1, 2), (3, 4, 5), (6,))),
    "snake": ((6, 3, None), True, ((0, 1), (3, 2), (4, 5))),
    "a snake whose last row runs on": ((8, 3, None), True, ((0, 1, 2), (5, 4, 3), (6, 7))),
    "rows of two": ((5, 3, 2), False, ((0, 1), (2, 3), (4,))),
    "fewer than there are": ((9, 2, 2), False, ((0, 1), (2, 3))),
    "a snake that ends at the right": ((5, 2, None), True, ((0, 1, 2), (None, 4, 3))),
}


@pytest.mark.parametrize(("given", "snake", "rows"), ORDERS.values(), ids=ORDERS)
def test_fields_lie_in_their_order(given: Any, snake: bool, rows: Any) -> None:
    """In rows from the left, or to and fro; fields beyond the rows are told."""
    layout = in_order(*given, snake=snake)

    assert layout.rows == rows
    placed = [field for row in layout.rows for field in row if field is not None]
    assert bool(layout.caveats) == (len(placed) < given[0])


def test_rows_and_columns_of_names_are_a_layout() -> None:
    """By their order, not their values."""
    cells = [(900, -1200), (0, -1200), (0, 0), (900, 0)]

    assert by_cells(cells).rows == ((1, 2), (0, 3))


# ------------------------------------------------------------------------------------ recordings


def snake(folder: Path) -> list[Place]:
    """Write six fields of a slide, taken as a snake, with stage positions."""
    raster = grid(2, 3)
    places = [*raster[:3], *reversed(raster[3:])]
    for number, (row, column) in enumerate(places):
        plane = SLIDE[row : row + EDGE, column : column + EDGE]
        sizes = {"PhysicalSizeX": PIXEL_UM, "PhysicalSizeY": PIXEL_UM, "PhysicalSizeZ": 1.0}
        at = {"PositionX": [column * PIXEL_UM] * 2, "PositionY": [row * PIXEL_UM] * 2}
        tifffile.imwrite(folder / f"tile{number}.ome.tif", np.stack([plane, plane]),
                         photometric="minisblack",
                         metadata={"axes": "ZYX", **sizes, "Plane": at})  # fmt: skip
    return places


def opened(folder: Path, **options: Any) -> Setup:
    """What a scan of a folder would be."""
    return prepare(validate({"microscope": "replay", "replay_path": str(folder), **options}))


def test_a_recorded_snake_is_the_slide(tmp_path: Path) -> None:
    """Every field of the plan shows the slide where its core lies."""
    snake(tmp_path)

    setup = opened(tmp_path)
    microscope = open_microscope(setup)

    assert (setup.settings.stripes, setup.settings.fields) == (2, 3)
    assert setup.settings.origin_um == (-63.5 * PIXEL_UM, -63.5 * PIXEL_UM)
    for field in setup.plan.fields:
        frame = microscope.stack(field.x_um, field.y_um, [0.0]).frames[0]
        core = SLIDE[slice(*field.rows), slice(*field.columns)]
        np.testing.assert_array_equal(frame[field.core_in_frame()], core)


def test_a_registered_recording_begins_where_its_origin_says(tmp_path: Path) -> None:
    """Its mosaic begins later, as fields may move either way; every core shows the slide there."""
    snake(tmp_path)

    setup = opened(tmp_path, register_fields=True)
    microscope = open_microscope(setup)
    x_um, y_um = setup.settings.origin_um
    left, top = round(x_um / PIXEL_UM + 63.5), round(y_um / PIXEL_UM + 63.5)

    assert min(left, top) > 0
    for field in setup.plan.fields:
        frame = microscope.stack(field.x_um, field.y_um, [0.0]).frames[0]
        (above, below), (before, after) = field.rows, field.columns
        core = SLIDE[above + top : below + top, before + left : after + left]
        np.testing.assert_array_equal(frame[field.core_in_frame()], core)


def test_the_layout_may_be_set(tmp_path: Path) -> None:
    """The order of files then decides; that positions are ignored is told."""
    snake(tmp_path)

    raster = opened(tmp_path, layout="raster", stripes=2, overlap_px=OVERLAP)
    back = opened(tmp_path, layout="snake", stripes=2, overlap_px=OVERLAP)

    assert any("positions are ignored" in each for each in raster.warnings)
    assert [f.name for f in raster.recording.fields] == ["0", "1", "2", "3", "4", "5"]
    assert [f.name for f in back.recording.fields] == ["0", "1", "2", "5", "4", "3"]


CONTRADICTIONS = {
    "stripes": ({"stripes": 3}, "2 rows of fields, not 3 stripes"),
    "overlap": ({"overlap_px": 7}, "overlap_px 7 is not used"),
    "fewer fields": ({"fields": 2}, "4 of 6 positions are scanned"),
}


@pytest.mark.parametrize(("given", "said"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_settings_that_contradict_positions_are_told(
    given: dict[str, int], said: str, tmp_path: Path
) -> None:
    """One warning says what the recording has instead."""
    snake(tmp_path)

    assert [said in each for each in opened(tmp_path, **given).warnings] == [True]


def test_more_fields_than_recorded_are_refused(tmp_path: Path) -> None:
    """One line, with the folder as subject."""
    snake(tmp_path)

    with pytest.raises(InputError, match="expected 5 fields in each stripe as set, got 3"):
        opened(tmp_path, fields=5)


def test_a_recording_is_checked_if_asked(tmp_path: Path) -> None:
    """A damaged file then ends the scan before it begins, by name; else it costs its field."""
    snake(tmp_path)
    content = (tmp_path / "tile4.ome.tif").read_bytes()
    (tmp_path / "tile4.ome.tif").write_bytes(content[: len(content) // 2])

    with pytest.raises(InputError, match=r"tile4\.ome\.tif"):
        opened(tmp_path, check_recording=True)
    assert any("tile4.ome.tif cannot be read" in each for each in opened(tmp_path).warnings)


def test_a_damaged_file_leaves_its_place(tmp_path: Path) -> None:
    """It does not tell where the stage was; the other fields lie where they were."""
    snake(tmp_path)
    whole = opened(tmp_path).plan
    content = (tmp_path / "tile4.ome.tif").read_bytes()
    (tmp_path / "tile4.ome.tif").write_bytes(content[: len(content) // 2])

    setup = opened(tmp_path)

    assert setup.plan == whole
    assert [setup.recording.is_damaged(k) for k in range(6)] == [False] * 4 + [True, False]
