"""Which heights autofocus exposes: wide where nothing is known, else around what is expected.

The first sample of a stripe is searched for: a coarse sweep of the whole range, then a fine one
around its peak. Each later sample is swept finely around the height that the samples before it on
its stripe let expect. A stripe does not depend on others, so heights are the same with any number
of cameras.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from itertools import groupby
from statistics import fmean

from config import Settings
from scan.focusing import FocusJob, FocusPeak, Heights, stack_heights
from scan.plan import Field

COARSE_STEP_UM = 4.0  # under two depths of focus at NA 0.5: the peak covers several steps
FINE_STEP_UM = 1.5
FINE_PLANES = 5  # around a peak that a coarse sweep found
EXPECTED_PLANES = 6  # around a height that is only expected
# Their middle lies so much above what is expected: at equal distances above and below focus a
# camera without noise gives equal frames, and those are refused.
SHIFT_UM = FINE_STEP_UM / 4
FINE_SPAN_UM = (EXPECTED_PLANES - 1) * FINE_STEP_UM
WIDENING_FACTOR = 2.0  # a coarse sweep that peaks at its edge is repeated once at twice its length
KNOWN = 3  # samples that tell what to expect: a slide sags, so those far away mislead
# Of a ridge regression: samples scatter by 0.5 um, slides are tilted by 10 um per mm at most.
SLOPE_PRIOR_UM2 = (0.5 / 10e-3) ** 2

Request = tuple[Field, Heights]  # a sample, and the heights to expose there
Sweeps = Generator[Request, FocusPeak, None]
OfSample = Generator[Request, FocusPeak, tuple[FocusPeak, bool]]
Known = tuple[float, float]  # x_um and z_um of a sample


def sweeps_by_stripe(job: FocusJob, given_um: Mapping[Field, float]) -> dict[int, Sweeps]:
    """Return the sweeps of each stripe that has samples, each chosen by the peaks before it.

    A sequence yields a sample and the heights to expose, and is sent the peak that was found there.
    The last peak of a sample is its result. Heights that are given, recorded, or to be found by an
    autofocus device need one sweep.
    """
    settings = job.settings
    once = bool(job.recorded_z_um or given_um or settings.focus == "hardware")
    return {
        stripe: _once(job, list(samples), given_um) if once else _adaptive(settings, list(samples))
        for stripe, samples in groupby(job.samples, key=lambda field: field.stripe)
    }


def after(sweeps: Sweeps, peak: FocusPeak) -> Request | None:
    """Return what is to be exposed after a peak; None at the end of a stripe."""
    try:
        return sweeps.send(peak)
    except StopIteration:
        return None


def _once(job: FocusJob, samples: Sequence[Field], given_um: Mapping[Field, float]) -> Sweeps:
    """The planes of a z-stack around the height that is given, or where a device begins."""
    for field in samples:
        yield field, job.planes_at(given_um.get(field, job.settings.focus_center_um))


def _adaptive(settings: Settings, samples: Sequence[Field]) -> Sweeps:
    """A search at the first sample, then fine sweeps; one that disagrees begins again."""
    known: list[Known] = []
    for field in samples:
        near_um = expected_um(known, field.x_um) if known else None
        peak, agrees = yield from sweeps_of_sample(settings, field, near_um)
        if peak.reason:
            continue
        if not agrees:
            known.clear()
        known.append((field.x_um, peak.z_um))


def sweeps_of_sample(settings: Settings, field: Field, near_um: float | None) -> OfSample:
    """The sweeps of one sample; returns its peak, and whether that is where it was expected."""
    if near_um is not None:
        centre_um = near_um + SHIFT_UM
        peak = yield field, fine_heights(settings, centre_um, EXPECTED_PLANES)
        if peak.failed or not peak.reason:
            return peak, True
    peak = yield from _search(settings, field)
    return peak, False


def expected_um(known: Sequence[Known], x_um: float) -> float:
    """Return the height to expect at a position, from a line through the nearest samples.

    Its slope has a ridge penalty (Hoerl & Kennard 1970, Technometrics 12:55), so that two samples
    side by side do not predict a steep slide.
    """
    near = known[-KNOWN:]
    middle_um, mean_um = fmean(x for x, _ in near), fmean(z for _, z in near)
    spread = sum((x - middle_um) ** 2 for x, _ in near)
    slope = sum((x - middle_um) * (z - mean_um) for x, z in near) / (spread + SLOPE_PRIOR_UM2)
    return mean_um + slope * (x_um - middle_um)


def greatest_reach_um(settings: Settings) -> float:
    """Return how far from the middle of the first sweep a plane of any sweep may lie."""
    half = settings.focus_range_um / 2
    return max(WIDENING_FACTOR * half, half + FINE_SPAN_UM)


def _search(settings: Settings, field: Field) -> Generator[Request, FocusPeak, FocusPeak]:
    """A coarse sweep, twice as long if its peak lies at an edge, and a fine one around the peak."""
    length_um = settings.focus_range_um
    peak = yield field, coarse_heights(settings.focus_center_um, length_um)
    if peak.at_edge:
        wide = coarse_heights(settings.focus_center_um, WIDENING_FACTOR * length_um)
        peak = yield field, wide
    if peak.reason is None:
        peak = yield field, fine_heights(settings, peak.z_um, FINE_PLANES)
        if peak.at_edge:
            peak = yield field, fine_heights(settings, peak.z_um, FINE_PLANES)
    return peak


def is_fine(z_um: Heights) -> bool:
    """Return whether a sweep covers the neighbourhood of the focus alone."""
    return z_um[-1] - z_um[0] < FINE_SPAN_UM + FINE_STEP_UM / 2  # heights are rounded


def coarse_heights(centre_um: float, length_um: float) -> Heights:
    """Return heights from end to end of a range, at most a coarse step apart.

    They are an odd number, so that none lie at equal distances from the middle without one there.
    """
    planes = 2 * max(1, math.ceil(round(length_um / COARSE_STEP_UM / 2, 6))) + 1
    return stack_heights(centre_um, planes, length_um / (planes - 1))


def fine_heights(settings: Settings, centre_um: float, planes: int) -> Heights:
    """Return the heights of a fine sweep around a height, within the reach of sweeps."""
    free_um = greatest_reach_um(settings) - FINE_SPAN_UM / 2
    off_um = min(max(centre_um - settings.focus_center_um, -free_um), free_um)
    return stack_heights(settings.focus_center_um + off_um, planes, FINE_STEP_UM)
