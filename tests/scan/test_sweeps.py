"""Which heights autofocus exposes, against specimens whose sharpest height is known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import validate
from scan.focusing import FocusJob, FocusPeak, Heights
from scan.layout import make_plan
from scan.plan import Field
from scan.sweeps import (
    COARSE_STEP_UM,
    EXPECTED_PLANES,
    FINE_PLANES,
    Request,
    after,
    coarse_heights,
    expected_um,
    greatest_reach_um,
    is_fine,
    sweeps_by_stripe,
)

SEEN_UM = 12.0  # farther from focus a field has no contrast
DIRT_UM = 17.0

Swept = list[tuple[Field, Heights]]
Specimen = Callable[[Field], float | None]  # its sharpest height; None if there is nothing


def job_of(given: dict[str, Any], recorded_um: tuple[float, ...] | None = None) -> FocusJob:
    """A job of fields of 125 um."""
    values = validate({"stripes": 1, "fields": 8} | given)
    plan = make_plan((values.fields,) * values.stripes, (500, 500), 0, 0.25, steered=True)
    return FocusJob(plan, values, 5, 1.0, recorded_um)


def focus_on(specimen: Specimen, job: FocusJob) -> tuple[Swept, dict[Field, FocusPeak]]:
    """Every sweep of the first stripe, and the last peak of each sample."""
    sequence = sweeps_by_stripe(job, {})[0]
    swept: Swept = []
    peaks: dict[Field, FocusPeak] = {}
    request: Request | None = next(sequence)
    while request:
        swept.append(request)
        field, heights = request
        peaks[field] = peak_at(specimen(field), heights)
        request = after(sequence, peaks[field])
    return swept, peaks


def peak_at(best_um: float | None, heights: Heights) -> FocusPeak:
    """What a perfect sweep finds."""
    if best_um is None or min(abs(z - best_um) for z in heights) > SEEN_UM:
        return FocusPeak(heights[0], reason="no contrast")
    nearest = min(heights, key=lambda z: abs(z - best_um))
    if nearest in (heights[0], heights[-1]):
        return FocusPeak(nearest, at_edge=True, reason="sharpest at the edge of the sweep")
    return FocusPeak(best_um)


def slope(um_per_mm: float) -> Specimen:
    """A tilted slide."""
    return lambda field: um_per_mm * (field.x_um - 437.5) / 1000


def with_odd(number: int, odd_um: float | None) -> Specimen:
    """A level slide; one of its samples is empty or shows dirt on another plane."""
    return lambda field: odd_um if field.field == number else 1.0


SPECIMENS: dict[str, tuple[Specimen, int, int]] = {
    # sharpest heights, planes exposed at most, samples without a peak
    "level": (slope(0), 48, 0),
    "tilted by 8 um per mm": (slope(8), 48, 0),
    "tilted the other way": (slope(-8), 48, 0),
    "tilted by 20 um per mm": (slope(20), 60, 0),
    "the first sample is empty": (with_odd(0, None), 13 + 42, 1),
    "a sample in the middle is empty": (with_odd(3, None), 48 + 13, 1),
    "dirt at the first sample": (with_odd(0, DIRT_UM), 18 + 6 * 6 + 13, 0),
    "dirt at a sample in the middle": (with_odd(4, DIRT_UM), 48 + 2 * 18, 0),
}


@pytest.mark.parametrize(("specimen", "most", "without"), SPECIMENS.values(), ids=SPECIMENS)
def test_a_stripe_is_focused_with_few_exposures(
    specimen: Specimen, most: int, without: int
) -> None:
    """Every sample with something to see has its peak; a third of two full sweeps each suffices
    where the samples agree (144 planes for six of them)."""
    swept, peaks = focus_on(specimen, job_of({}))

    assert sum(len(heights) for _, heights in swept) <= most
    assert sum(peak.reason is not None for peak in peaks.values()) == without
    assert len(peaks) == 6
    assert all(peak.z_um == specimen(f) for f, peak in peaks.items() if peak.reason is None)


@given(
    heights_um=st.lists(st.none() | st.floats(-23, 23), min_size=8, max_size=8),
    centre_um=st.floats(-100, 100),
    range_um=st.floats(48, 120),
)
@settings(deadline=None, max_examples=80)
def test_any_specimen_within_the_range_is_found(
    heights_um: list[float | None], centre_um: float, range_um: float
) -> None:
    """However samples jump, each has its own peak, and no plane lies beyond the greatest reach."""
    job = job_of({"focus_center_um": centre_um, "focus_range_um": range_um})

    def specimen(field: Field) -> float | None:
        height_um = heights_um[field.field]
        return None if height_um is None else centre_um + height_um

    swept, peaks = focus_on(specimen, job)

    reach_um = greatest_reach_um(job.settings) + 1e-3
    assert all(abs(z - centre_um) <= reach_um for _, heights in swept for z in heights)
    for field, peak in peaks.items():
        assert (peak.reason is None) == (specimen(field) is not None)
        assert peak.reason is not None or peak.z_um == specimen(field)


def test_a_sample_that_peaks_at_the_edge_is_searched_for() -> None:
    """A fine sweep that is sharpest at its edge has seen too little to know where to go on."""
    swept, peaks = focus_on(lambda f: 0.0 if f.field == 0 else 5.0, job_of({"focus_samples": 2}))

    assert [len(heights) for _, heights in swept] == [13, 5, 6, 13, 5]
    assert [peak.z_um for peak in peaks.values()] == [0.0, 5.0]


def test_no_planes_lie_at_equal_distances_from_the_focus() -> None:
    """A camera without noise, as for demonstrations, would give equal frames there one after the
    other, and those are refused as frames that a camera gave twice."""
    swept, peaks = focus_on(lambda _: 0.0, job_of({}))

    assert all(peak.reason is None for peak in peaks.values())
    for _, heights in swept:
        assert not any(below == -above for below, above in pairwise(heights))


@given(st.floats(-20, 20), st.floats(-3, 3))
@settings(deadline=None, max_examples=40)
def test_each_sweep_is_known_as_coarse_or_fine(first_um: float, step_um: float) -> None:
    """Heights are rounded; a sweep of five or six planes is fine nevertheless, and no other is."""
    swept, _ = focus_on(lambda field: first_um + step_um * field.field / 7, job_of({}))

    assert [is_fine(heights) for _, heights in swept] == [
        len(heights) in (FINE_PLANES, EXPECTED_PLANES) for _, heights in swept
    ]


def test_a_sample_that_was_not_exposed_is_not_searched() -> None:
    """Where a camera fails there is no second kind of sweep; the next sample goes on as before."""
    sequence = sweeps_by_stripe(job_of({"focus_samples": 3}), {})[0]
    (first, _), _ = next(sequence), sequence.send(FocusPeak(0.0))
    second, heights = sequence.send(FocusPeak(0.0))
    third, following = sequence.send(FocusPeak(0.0, failed=True, reason="the sweep failed"))

    assert len({first, second, third}) == 3
    assert is_fine(heights)
    assert is_fine(following)


ONCE: dict[str, tuple[dict[str, Any], tuple[float, ...] | None, Heights]] = {
    # settings, recorded heights, what is exposed
    "recorded planes": ({}, (3.0, 4.0, 5.0), (3.0, 4.0, 5.0)),
    "an autofocus device": (
        {"focus": "hardware", "microscope": "micromanager", "microscopes": ["a.cfg"]},
        None,
        (-2.0, -1.0, 0.0, 1.0, 2.0),
    ),
}


@pytest.mark.parametrize(("given", "recorded_um", "exposed"), ONCE.values(), ids=ONCE)
def test_known_planes_are_swept_once(
    given: dict[str, Any], recorded_um: tuple[float, ...] | None, exposed: Heights
) -> None:
    """Recorded planes, and those around what a device finds, are swept once at each sample."""
    job = job_of(given, recorded_um)
    swept, peaks = focus_on(lambda _: 4.0, job)

    assert [heights for _, heights in swept] == [exposed] * len(job.samples)
    assert list(peaks) == job.samples


def test_given_heights_are_swept_once() -> None:
    """Around heights that the user gives one z-stack is exposed at each sample."""
    job = job_of({"focus_samples": 2})
    first, last = job.samples
    sequence = sweeps_by_stripe(job, {first: 10.0, last: 20.0})[0]

    assert next(sequence) == (first, (8.0, 9.0, 10.0, 11.0, 12.0))
    assert sequence.send(FocusPeak(0.0, reason="no contrast")) == (
        last,
        (18.0, 19.0, 20.0, 21.0, 22.0),
    )


def test_stripes_do_not_depend_on_each_other() -> None:
    """A stripe begins with a search of its own, whatever was found on another."""
    sequences = sweeps_by_stripe(job_of({"stripes": 3}), {})
    begun = [next(sequence) for sequence in sequences.values()]

    assert [field.place for field, _ in begun] == [(0, 0), (1, 0), (2, 0)]
    assert len({heights for _, heights in begun}) == 1


@given(st.floats(-1000, 1000), st.floats(0.5, 500))
def test_a_coarse_sweep_covers_its_range(centre_um: float, length_um: float) -> None:
    """Planes go from end to end, no farther apart than a coarse step, and are at least three."""
    heights = coarse_heights(centre_um, length_um)
    steps = [b - a for a, b in pairwise(heights)]

    assert heights[0] == pytest.approx(centre_um - length_um / 2, abs=1e-3)
    assert heights[-1] == pytest.approx(centre_um + length_um / 2, abs=1e-3)
    assert len(heights) >= 3
    assert max(steps) <= COARSE_STEP_UM + 2e-3


EXPECTED = {  # samples (x, z), position, what to expect, and how near
    "one sample": ([(0.0, 3.0)], 200.0, 3.0, 1e-9),
    "a line of four": ([(0.0, 0.0), (500.0, 1.0), (1000.0, 2.0), (1500.0, 3.0)], 2000.0, 4.0, 0.1),
    "two side by side": ([(0.0, 0.0), (20.0, 1.0)], 40.0, 0.5, 0.25),
    "a jump long ago": ([(0.0, 90.0), (500.0, 0.0), (1000.0, 0.0), (1500.0, 0.0)], 2000.0, 0, 1e-9),
}


@pytest.mark.parametrize(("known", "x_um", "right_um", "within"), EXPECTED.values(), ids=EXPECTED)
def test_the_next_height_lies_on_a_line_through_the_nearest_samples(
    known: list[tuple[float, float]], x_um: float, right_um: float, within: float
) -> None:
    """What is expected follows a tilt, but not the scatter of samples that lie side by side."""
    assert expected_um(known, x_um) == pytest.approx(right_um, abs=within)
