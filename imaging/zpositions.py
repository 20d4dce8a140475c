"""From the peaks of focus sweeps, or from heights that are given, to the z-positions of fields."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.focus import find_peak
from imaging.surface import FocusSurface, fit_surface
from scan.correction import UNCORRECTED, CorrectionRecord
from scan.errors import FocusError
from scan.focusing import FocusJob, FocusPeak, FocusResult, RejectedSample
from scan.plan import Field
from scan.records import SweepRecord

Peaks = Mapping[Field, FocusPeak]
Sweep = tuple[Field, SweepRecord]


def given_surface(job: FocusJob) -> FocusSurface | None:
    """Return the focus surface that the settings give; None if it is to be measured."""
    if job.settings.focus == "none":
        return fit_surface([(0.0, 0.0, job.settings.focus_center_um)], drop_outliers=False)
    return fit_surface(job.points, drop_outliers=False) if job.points else None


def given_heights(job: FocusJob) -> dict[Field, float]:
    """Return the heights in um of all fields that the settings give; empty if they are measured."""
    surface = given_surface(job)
    return dict(zip(job.plan.fields, _heights(surface, job), strict=True)) if surface else {}


def peak_of(record: SweepRecord, job: FocusJob) -> FocusPeak:
    """Return the peak of a sweep; of planes around what an autofocus device found, their centre."""
    if job.settings.focus == "hardware":
        return FocusPeak(float(np.mean(record.z_um)))
    return find_peak(record.z_um, record.sharpness, record.noise)


def z_positions(
    peaks: Peaks,
    job: FocusJob,
    sweeps: Sequence[Sweep],
    correction: CorrectionRecord = UNCORRECTED,
) -> FocusResult:
    """Fit the focus surface through the accepted peaks; it gives the height of every field.

    Parameters
    ----------
    peaks : mapping of Field to FocusPeak
        Best height of each sample field, accepted or not.
    sweeps : sequence of (Field, SweepRecord)
        Every sweep with its field.
    correction : CorrectionRecord
        How frames are corrected, as the result says.

    Raises
    ------
    FocusError
        If there is no sweep or no accepted peak; recorded planes and given heights need no peak.
    """
    accepted = [field for field, peak in peaks.items() if not peak.reason]
    given = given_surface(job)
    if not sweeps or not (accepted or given or job.recorded_z_um):
        raise _no_focus(peaks)
    facts = _times(job, sweeps) | {"correction": correction, "mode": job.settings.focus}
    if given:
        return _of_given(job, given, facts)
    wrong = [
        RejectedSample(f.stripe, f.field, peak.reason) for f, peak in peaks.items() if peak.reason
    ]
    points = [(field.x_um, field.y_um, peaks[field].z_um) for field in accepted]
    surface = fit_surface(points) if points else None
    fields = [field.place for field in job.plan.fields]
    return FocusResult(
        centres_um=dict(zip(fields, _heights(surface, job), strict=True)),
        sampled=len(peaks),
        kept=int(surface.kept.sum()) if surface else 0,
        rejected=(*wrong, *_outliers(surface, accepted)),
        surface=surface.kind if surface else "none",
        residual_um=surface.residual_um if surface else 0.0,
        samples=tuple((f.stripe, f.field, round(peak.z_um, 3)) for f, peak in peaks.items()),
        **facts,
    )


def _of_given(job: FocusJob, surface: FocusSurface, facts: Mapping[str, Any]) -> FocusResult:
    """The result where the user gives the heights: no sample is measured, none is dropped."""
    fields = [field.place for field in job.plan.fields]
    return FocusResult(
        centres_um=dict(zip(fields, _heights(surface, job), strict=True)),
        sampled=len(job.points),
        kept=len(job.points),
        rejected=(),
        surface=surface.kind if job.points else "none",
        residual_um=surface.residual_um,
        **facts,
    )


def _times(job: FocusJob, sweeps: Sequence[Sweep]) -> dict[str, Any]:
    """When the first exposure began, and for how many seconds each camera swept."""
    return {
        "first_exposure_s": min(record.began_s for _, record in sweeps),
        "sweeping_s": tuple(
            sum(r.ended_s - r.began_s for f, r in sweeps if job.plan.camera_of(f.stripe) == camera)
            for camera in range(job.plan.cameras)
        ),
    }


def _heights(surface: FocusSurface | None, job: FocusJob) -> list[float]:
    fields = job.plan.fields
    if surface is None:
        return [float(np.mean(job.recorded_z_um or 0.0))] * len(fields)
    heights = surface.heights([field.x_um for field in fields], [field.y_um for field in fields])
    return [round(float(height), 3) for height in heights]


def _outliers(surface: FocusSurface | None, accepted: list[Field]) -> list[RejectedSample]:
    if surface is None:
        return []
    x_um, y_um, found_um = surface.points.T
    off_um = found_um - surface.heights(x_um, y_um)
    return [
        RejectedSample(field.stripe, field.field, f"{off:+.1f} um off the surface of the others")
        for field, off, inside in zip(accepted, off_um, surface.kept, strict=True)
        if not inside
    ]


def _no_focus(peaks: Peaks) -> FocusError:
    expected = "contrast in at least one sample field"
    got = f"none in {len(peaks)}; the first: {next(iter(peaks.values())).reason}"
    hint = "check lamp and specimen, or set focus_center_um and focus_range_um, or focus to none"
    return FocusError("find_z_positions", expected, got, hint)


def depth_um(depth: NDArray[np.float32], z_um: Sequence[float]) -> NDArray[np.float32]:
    """Return depth in planes as height in um; planes are equally spaced."""
    step_um = z_um[1] - z_um[0] if len(z_um) > 1 else 0.0
    return (z_um[0] + step_um * depth).astype(np.float32)
