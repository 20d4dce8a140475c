"""Where fields are placed: against the truth, in any order, and permanently."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest

from benchmarks.tile_scenes import Stage, Tiles, cut_tiles, slide, slide_shape
from imaging.registration import Registration, core_at, match_overlap, whole_offset
from scan.layout import make_plan
from scan.matches import Match, Offset, Pair, Placement, pair_of
from scan.plan import Place, ScanPlan

GRID = (3, 6)
FIELD_PX, OVERLAP_PX = 208, 42
PLAN = make_plan((GRID[1],) * GRID[0], (FIELD_PX,) * 2, OVERLAP_PX, 1.0, steered=False)

SCENES = {  # slide, stage, errors of seams: median and 95 %, in pixels
    "dense": ("dense", Stage(3.0), (0.1, 0.5)),
    "brightfield": ("brightfield", Stage(3.0), (0.2, 0.7)),
    "turned": ("dense", Stage(2.0, turned_deg=0.2), (0.1, 0.5)),
    "drifting": ("dense", Stage(2.0, drift_px=0.3), (0.1, 0.5)),
    "no error": ("dense", Stage(0.0), (0.1, 0.5)),
}


def tiles_of(kind: str, stage: Stage, seed: int = 1) -> Tiles:
    """The fields of the plan, cut out of a slide."""
    light = slide(kind, seed, slide_shape(GRID, FIELD_PX, OVERLAP_PX))
    return cut_tiles(light, GRID, stage, field_px=FIELD_PX, overlap_px=OVERLAP_PX, seed=seed)


def matches_of(tiles: Tiles, plan: ScanPlan = PLAN) -> dict[Pair, Match | None]:
    """All matches between neighbours."""
    return {
        (one.place, two.place): match_overlap(
            one, two, (tiles.images[one.place], tiles.images[two.place])
        )
        for one in plan.fields
        for two in plan.neighbours(one)
        if one.place < two.place
    }


def registered(
    matches: dict[Pair, Match | None],
    order: list[Place],
    lost: set[Place] = frozenset(),
    state: Registration | None = None,
) -> dict[Place, Placement]:
    """Report fields in an order, and match and place what can be; matches arrive a field late."""
    state = state or Registration(PLAN, {}, {})
    placed: dict[Place, Placement] = {}
    late: list[tuple[Place, list[Place]]] = []

    def report() -> None:
        for place, others in late:
            state.add_matches(place, others, [matches[pair_of(place, each)] for each in others])

    for place in order:
        report()
        if place in lost:
            state.lose(place)
        late = [] if place in lost else [(place, state.add(place))]
        for at, found in state.decide():
            assert at not in placed, "a field was placed twice"
            placed[at] = found
    report()
    return placed | dict(state.decide())


PLACES = [field.place for field in PLAN.fields]


def seam_errors(tiles: Tiles, placed: dict[Place, Placement]) -> np.ndarray:
    """How far neighbours side by side are displaced against each other."""
    seams = [((s, f), (s + y, f + x)) for s, f in PLACES for y, x in ((0, 1), (1, 0))]
    return np.array(
        [
            np.hypot(
                *np.subtract(placed[b].offset_px, placed[a].offset_px)
                - (tiles.offsets[b] - tiles.offsets[a])
            )
            for a, b in seams
            if b in placed
        ]
    )


@pytest.mark.parametrize(("kind", "stage", "most"), SCENES.values(), ids=list(SCENES))
def test_fields_lie_where_they_were_photographed(
    kind: str, stage: Stage, most: tuple[float, float]
) -> None:
    """Seams are right below the pixel, whatever the stage did."""
    tiles = tiles_of(kind, stage)
    placed = registered(matches_of(tiles), PLACES)
    errors = seam_errors(tiles, placed)

    assert placed.keys() == set(PLACES)
    assert (np.percentile(errors, (50, 95)) <= most).all()


def test_fields_that_show_nothing_lie_by_the_stages_word() -> None:
    """In an empty part no field has a match, and all lie where the stage says."""
    placed = registered(dict.fromkeys(matches_of(tiles_of("dense", Stage(3.0)))), PLACES)

    assert set(placed.values()) == {Placement((0.0, 0.0), 0)}


def test_an_empty_field_lies_as_its_neighbours_do() -> None:
    """A field without a match has the usual offset of those before it, not the stage's word."""
    matches = {pair: exact(2.0) if pair[0][1] == 0 else None for pair in neighbouring()}
    drifted = {place: Placement((0.0, 7.0), 3) for place in PLACES if place[0] == 0}
    state = Registration(PLAN, drifted, matches, list(drifted))
    placed = registered(matches, [place for place in PLACES if place[0] > 0], state=state)

    assert placed[1, 5] == Placement((0.0, 7.0), 0)


def neighbouring() -> list[Pair]:
    """All pairs of neighbours."""
    return [
        (one.place, two.place)
        for one in PLAN.fields
        for two in PLAN.neighbours(one)
        if one.place < two.place
    ]


def exact(shift_px: float) -> Match:
    """A match that is known well."""
    return Match((0.0, shift_px), (1e-3, 1e-3, 0.0), 0.9)


@pytest.mark.parametrize("seed", range(10))
def test_the_order_in_which_fields_come_does_not_matter(seed: int) -> None:
    """Offsets are the same numbers in any order of events, with a lost field and without."""
    generator = np.random.default_rng(7)
    matches = {
        pair: exact(float(shift)) if shift > -2 else None  # they contradict each other
        for pair, shift in zip(neighbouring(), generator.normal(0, 3, 999), strict=False)
    }
    order = random.Random(seed).sample(PLACES, len(PLACES))

    for lost in (set(), {(1, 2)}):
        placed = registered(matches, order, lost)
        assert placed == registered(matches, PLACES, lost)
        assert placed.keys() == set(PLACES) - lost


@pytest.mark.parametrize("kept", range(0, 18, 3))
def test_a_resume_places_fields_as_the_whole_scan_does(kept: int) -> None:
    """After a stop, with the places and matches of fields on disk, the others come out the same."""
    matches = matches_of(tiles_of("sparse", Stage(3.0)))
    whole = registered(matches, PLACES)
    done = dict(list(whole.items())[:kept])
    known = {pair: m for pair, m in matches.items() if pair[0] in done or pair[1] in done}
    state = Registration(PLAN, done, known, list(done))
    rest = registered(matches, [p for p in reversed(PLACES) if p not in done], state=state)

    assert done | rest == whole


def test_a_field_that_is_captured_again_keeps_its_place() -> None:
    """Once placed, a field never moves, although its image has to be made again."""
    matches = matches_of(tiles_of("dense", Stage(3.0)))
    whole = registered(matches, PLACES)
    state = Registration(PLAN, whole, matches, [place for place in PLACES if place != (1, 2)])

    assert state.add((1, 2)) == []
    assert list(state.decide()) == [((1, 2), whole[1, 2])]


def matches_at(offsets: dict[Place, Offset], apart: set[Pair]) -> dict[Pair, Match | None]:
    """Exact matches of fields that lie at offsets, but for some pairs that show nothing."""
    shown = [pair for pair in neighbouring() if pair not in apart]
    shifts = [np.subtract(offsets[two], offsets[one]).tolist() for one, two in shown]
    matches = (Match((y, x), (1e-3, 1e-3, 0.0), 0.9) for y, x in shifts)
    return dict.fromkeys(apart) | dict(zip(shown, matches, strict=True))


def test_chains_that_begin_apart_wait_for_the_stripe_that_joins_them() -> None:
    """Two halves of a slide that only the third stripe joins lie right in the first one, too."""
    offsets = {(s, f): (0.0, 6.0 * (f > 2) + s) for s, f in PLACES}
    gap = {(one, two) for one, two in neighbouring() if (one[1] > 2) != (two[1] > 2)}
    joined = ((2, 2), (2, 3))
    placed = registered(matches_at(offsets, gap - {joined}), PLACES)

    across = {place: placed[place].offset_px[1] - placed[0, 0].offset_px[1] for place in PLACES}
    assert across == pytest.approx({place: x for place, (_, x) in offsets.items()}, abs=0.5)


def test_a_field_that_is_joined_waits_for_one_stripe_only() -> None:
    """In a dense slide, a field is final two fields after the one below it."""
    state = Registration(PLAN, {}, matches_at(dict.fromkeys(PLACES, (0.0, 0.0)), set()))
    when = {}
    for last in PLACES:
        state.add(last)
        when |= dict.fromkeys((place for place, _ in state.decide()), last)

    assert [when[0, f] for f in range(6)] == [(1, min(f + 2, 5)) for f in range(6)]


def test_a_field_far_off_is_believed_where_few_matches_tell_the_stages_error() -> None:
    """Its only match is more than 4.5 of the usual stage errors off, and no contradiction."""
    generator = np.random.default_rng(1)
    offsets = {place: tuple(generator.normal(0, 1.0, 2).tolist()) for place in PLACES}
    offsets[0, 5] = (0.0, 9.0)
    alone = {pair for pair in neighbouring() if (0, 5) in pair} - {((0, 5), (1, 5))}
    placed = registered(matches_at(offsets, alone), PLACES)

    apart = np.subtract(placed[0, 5].offset_px, placed[1, 5].offset_px)
    assert apart == pytest.approx(np.subtract(offsets[0, 5], offsets[1, 5]), abs=0.1)


def test_one_wrong_match_is_outvoted() -> None:
    """A match that contradicts all others does not move a field."""
    matches: dict[Pair, Match | None] = {pair: exact(0.0) for pair in neighbouring()}
    matches[(1, 2), (1, 3)] = exact(9.0)
    placed = registered(matches, PLACES)

    assert max(abs(x) for found in placed.values() for x in found.offset_px) < 0.5


@pytest.mark.parametrize(("down", "across"), list(product((-3, 0, 4), repeat=2)))
def test_cores_are_filled_with_what_lies_there(down: int, across: int) -> None:
    """The core of a shifted frame holds the pixels of the mosaic, as far as the frame goes."""
    scene = np.random.default_rng(1).integers(0, 999, (800, 1200)).astype(np.uint16)
    for field in (PLAN.stripes[1][1], PLAN.stripes[0][0]):
        y, x = field.origin_px[0] + down + 20, field.origin_px[1] + across + 20
        core = core_at(scene[y : y + FIELD_PX, x : x + FIELD_PX], field, (down, across))
        first = slice(field.rows[0] + 20, field.rows[1] + 20)
        wanted = scene[first, field.columns[0] + 20 : field.columns[1] + 20]

        assert core.shape == wanted.shape
        assert (core[8:, 8:] == wanted[8:, 8:]).all()


def test_offsets_keep_to_the_overlap() -> None:
    """A field is not moved so far that it would not cover its core; at the slide's border it is."""
    plan = make_plan((3, 3, 3), (FIELD_PX,) * 2, OVERLAP_PX, 1.0, steered=True)
    inner, corner = plan.stripes[1][1], plan.stripes[0][0]
    half = inner.rows[0] - inner.origin_px[0]
    shapes = plan.frame_shape, plan.mosaic_shape

    assert whole_offset(inner, (2.6, -1.4), *shapes) == (3, -1)
    assert whole_offset(inner, (99, -99), *shapes) == (half, -half)
    assert whole_offset(corner, (60, 60), *shapes) == (60, 60)
