"""Focus samples: each is kept, or rejected with a reason."""

from __future__ import annotations

import pytest

from config import validate
from imaging.zpositions import z_positions
from scan.errors import FocusError
from scan.focusing import FocusJob, FocusPeak, sample_fields
from scan.layout import make_plan
from scan.plan import Field
from scan.records import SweepRecord


def focus_job() -> FocusJob:
    """Three stripes of four fields, all of them samples."""
    settings = validate({"stripes": 3, "fields": 4, "field_px": 128, "overlap_px": 32})
    return FocusJob(make_plan((4, 4, 4), (128, 128), 32, 0.5, steered=True), settings, 15, 1.0)


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
