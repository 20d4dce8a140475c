"""Focus samples: each is kept, or rejected with a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from config import validate
from imaging.zpositions import given_heights, peak_of, z_positions
from scan.errors import FocusError
from scan.focusing import FocusJob, FocusPeak, sample_fields
from scan.layout import make_plan
from scan.plan import Field
from scan.records import SweepRecord


def focus_job(*points: tuple[float, float, float], **more: Any) -> FocusJob:
    """Three stripes of four fields, all of them samples; points that a user gives."""
    slide = {"stripes": 3, "fields": 4, "field_px": 128, "overlap_px": 32}
    settings = validate(slide | more | ({"focus_points": list(points)} if points else {}))
    plan = make_plan((4, 4, 4), (128, 128), 32, 0.5, steered=True)
    return FocusJob(plan, settings, 15, 1.0, points=points)


def sweeps_of(samples: list[Field]) -> list[tuple[Field, SweepRecord]]:
    return [(field, SweepRecord((0.0,), (1.0,), 1.0, 0.0, 0.0)) for field in samples]


def test_every_rejected_sample_has_a_reason() -> None:
    """An empty field has the reason of its sweep, an outlier its distance from the surface."""
    job = focus_job()
    samples = sample_fields(job.plan, 4)
    peaks = {field: FocusPeak(3.0 + 0.01 * field.x_um) for field in samples}
    empty, wrong = samples[1], samples[6]
    peaks[empty] = FocusPeak(0.0, reason="no contrast")
    peaks[wrong] = FocusPeak(peaks[wrong].z_um - 15)

    focused = z_positions(peaks, job, sweeps_of(samples)).to_event()

    reasons = {(r["stripe"], r["field"]): r["reason"] for r in focused.rejected}
    assert (focused.sampled, focused.kept) == (12, 10)
    assert reasons[empty.stripe, empty.field] == "no contrast"
    assert reasons[wrong.stripe, wrong.field] == "-15.0 um off the surface of the others"


def test_without_accepted_samples_the_first_reason_is_given() -> None:
    """Without an accepted sample the scan fails with a reason and a hint."""
    job = focus_job()
    samples = sample_fields(job.plan, 4)
    peaks = {field: FocusPeak(0.0, reason="two planes are sharp") for field in samples}

    with pytest.raises(FocusError, match=r"two planes are sharp.*focus_center_um"):
        z_positions(peaks, job, sweeps_of(samples))


def test_without_autofocus_all_fields_have_one_height() -> None:
    """No surface is fitted, and empty fields do not stop the scan."""
    job = focus_job(focus="none", focus_center_um=-7.5)
    samples = sample_fields(job.plan, 4)
    peaks = {field: FocusPeak(0.0, reason="no contrast") for field in samples}

    focused = z_positions(peaks, job, sweeps_of(samples)).to_event()

    assert {z_um for *_, z_um in focused.centres_um} == {-7.5}
    assert len(focused.centres_um) == 12
    assert (focused.mode, focused.surface, focused.sampled) == ("none", "none", 0)
    assert focused.rejected == focused.samples == ()


def tilted(x_um: float, y_um: float) -> float:
    return 5.0 + 0.02 * x_um - 0.01 * y_um


CORNERS = ((0.0, 0.0), (200.0, 0.0), (0.0, 150.0), (200.0, 150.0), (100.0, 75.0))
GIVEN = {  # number of points: kind of surface, and the heights that it should have
    1: ("constant", lambda x_um, y_um: 5.0),
    2: ("plane", lambda x_um, y_um: 5.0 + 0.02 * x_um),
    3: ("plane", tilted),
    5: ("plane", tilted),
}


@pytest.mark.parametrize("count", GIVEN)
def test_given_heights_are_followed(count: int) -> None:
    """Fewer points give a simpler surface; each point counts, and images are not asked."""
    kind, expected = GIVEN[count]
    points = [(x, y, tilted(x, y)) for x, y in CORNERS[:count]]
    job = focus_job(*points, focus="points")
    samples = sample_fields(job.plan, 1)
    peaks = {field: FocusPeak(40.0) for field in samples}

    found = z_positions(peaks, job, sweeps_of(samples))

    heights = [found.centres_um[f.stripe, f.field] for f in job.plan.fields]
    np.testing.assert_allclose(
        heights, [expected(f.x_um, f.y_um) for f in job.plan.fields], atol=1e-3
    )
    assert (found.mode, found.surface, found.kept, found.sampled) == ("points", kind, count, count)
    assert given_heights(job) == dict(zip(job.plan.fields, heights, strict=True))


def test_no_given_point_is_dropped() -> None:
    """A point far from the others is known to be right: the surface passes near it."""
    flat = [(40.0 * k, 30.0 * k * k % 100, 1.0) for k in range(9)]
    job = focus_job(*flat, (100.0, 50.0, 21.0), focus="points")
    samples = sample_fields(job.plan, 1)

    found = z_positions({f: FocusPeak(0.0) for f in samples}, job, sweeps_of(samples))

    assert found.kept == 10
    assert max(found.centres_um.values()) > 2.0


def test_a_device_gives_the_height_of_a_sample() -> None:
    """Images of fields in which a device has focused need no contrast: its height is taken."""
    device = {"microscope": "micromanager", "mm_config": "a.cfg", "field_px": None}
    job = focus_job(focus="hardware", **device)
    record = SweepRecord(job.planes_at(3.25), (0.0,) * 15, 1.0, 0.0, 0.0)

    assert peak_of(record, job) == FocusPeak(3.25)
