"""From settings to a microscope: first what it will deliver, later the thing itself.

The driver prepares once, before anything is written, so that wrong input is told at once. Each
capture actor then opens its own microscope from the result, which is small and can be sent.
"""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from config import Settings
from microscope import Microscope
from microscope.micromanager import MicroManagerMicroscope, Wiring
from microscope.replay import Recording, ReplayMicroscope
from microscope.simulated import Z_LIMIT_UM, SimulatedMicroscope
from microscope.specimen import Specimen
from scan.errors import CaptureError, InputError
from scan.focusing import WIDER, FocusJob
from scan.plan import ScanPlan, make_plan

LARGEST_SLIDE_MM2 = 400  # objects are laid out in every camera's process: some 20 s of work


@dataclass(frozen=True)
class Setup:
    """What a microscope will deliver, with every setting resolved.

    Attributes
    ----------
    settings : Settings
        As they are saved and compared on resume.
    plan : ScanPlan
        Where the fields lie; it knows their overlap and the pixel size.
    planes, z_step_um :
        Of every z-stack.
    dtype : numpy.dtype
        Of the frames.
    opener : callable
        Opens the microscope of a camera in the process that will own it.
    recorded_z_um : tuple of float or None
        Heights of recorded planes; None where focus can be chosen.
    recording : Recording or None
    warnings : tuple of str
        What was assumed.
    bits : int or None
        Bits of a pixel that carry light, if fewer than its type has.
    """

    settings: Settings
    plan: ScanPlan
    _: KW_ONLY
    planes: int
    z_step_um: float
    dtype: np.dtype[Any]
    opener: Callable[["Setup", int], Microscope]
    recorded_z_um: tuple[float, ...] | None = None
    recording: Recording | None = None
    warnings: tuple[str, ...] = ()
    bits: int | None = None

    @property
    def batch_bytes(self) -> int:
        """Size of one field's z-stack."""
        return self.planes * math.prod(self.plan.frame_shape) * self.dtype.itemsize

    @property
    def diameter_px(self) -> float | None:
        """Object diameter that the settings give, in pixels."""
        given_um = self.settings.diameter_um
        return given_um / self.plan.pixel_size_um if given_um else None

    @property
    def focus_job(self) -> FocusJob:
        """What autofocus needs to know of the scan."""
        return FocusJob(self.plan, self.settings, self.planes, self.z_step_um, self.recorded_z_um)


T = TypeVar("T")


def _known(value: T | None) -> T:
    """Return a setting that validation has completed for this kind of microscope."""
    if value is None:
        raise ValueError("expected settings completed by validation, got None; use validate()")
    return value


def prepare(settings: Settings) -> Setup:
    """Decide what is still open; input that cannot be used raises UserMistake."""
    return _prepare_replay(settings) if settings.replay_path else _prepare_simulated(settings)


def _prepare_simulated(settings: Settings) -> Setup:
    _require_reach(settings)
    counts = (_known(settings.fields),) * settings.stripes
    frame_shape = (_known(settings.field_px),) * 2
    overlap_px, pixel_um = _known(settings.overlap_px), _known(settings.pixel_size_um)
    plan = make_plan(counts, frame_shape, overlap_px, pixel_um, steered=True)
    area_mm2 = math.prod(plan.mosaic_shape) * plan.pixel_size_um**2 / 1e6
    if area_mm2 > LARGEST_SLIDE_MM2:
        expected, came = f"a slide of at most {LARGEST_SLIDE_MM2} mm2", f"{area_mm2:.0f} mm2"
        raise InputError("pixel_size_um", expected, came, "take fewer, smaller or finer fields")
    return Setup(
        settings,
        plan,
        planes=_known(settings.planes),
        z_step_um=_known(settings.z_step_um),
        dtype=np.dtype(np.uint16),
        opener=open_simulated,
    )


def _require_reach(settings: Settings) -> None:
    """Raise UserMistake unless every sweep and z-stack lies within the simulated drive's limits."""
    farthest_um = max(map(abs, _heights_reached(settings)))
    if farthest_um > Z_LIMIT_UM:
        raise InputError(
            "focus_range_um, planes and z_step_um",
            f"heights within {Z_LIMIT_UM:g} um of the stage's middle",
            f"up to {farthest_um:g} um",
            "take a shorter sweep, fewer planes or smaller steps",
        )


def survey(settings: Settings, camera: int) -> Setup:
    """What a microscope behind Micro-Manager will deliver: it is opened, asked and closed again.

    Whatever is wrong with its configuration, or out of its reach, is told as a UserMistake.
    """
    microscope = MicroManagerMicroscope(_wiring(settings, camera))
    try:
        setup = _prepare_micromanager(settings, microscope)
        _require_all_in_reach(setup, microscope)
        return setup
    finally:
        microscope.close()


def _prepare_micromanager(settings: Settings, microscope: MicroManagerMicroscope) -> Setup:
    overlap_px = settings.overlap_px
    if overlap_px is None:
        overlap_px = min(microscope.frame_shape) // 4
    pixel_um = microscope.pixel_size_um
    counts = (_known(settings.fields),) * settings.stripes
    cameras = len(settings.configurations)
    plan = make_plan(
        counts, microscope.frame_shape, overlap_px, pixel_um, steered=True, cameras=cameras
    )
    return Setup(
        settings.model_copy(update={"overlap_px": overlap_px, "pixel_size_um": pixel_um}),
        plan,
        planes=_known(settings.planes),
        z_step_um=_known(settings.z_step_um),
        dtype=microscope.dtype,
        opener=open_micromanager,
        bits=microscope.bits,
    )


def _require_all_in_reach(setup: Setup, microscope: MicroManagerMicroscope) -> None:
    """Raise UserMistake unless every field, sweep and z-stack lies within the stages' limits."""
    places = [(field.x_um, field.y_um) for field in setup.plan.fields]
    try:
        microscope.require_reach(places, _heights_reached(setup.settings))
    except CaptureError as error:
        raise InputError(*error.args) from None


def _heights_reached(settings: Settings) -> tuple[float, float]:
    """Least and greatest: a sweep may be widened, and a z-stack may lie at its end."""
    stack_um = _known(settings.planes) * _known(settings.z_step_um)
    reach_um = WIDER * settings.focus_range_um / 2 + stack_um / 2
    return settings.focus_center_um - reach_um, settings.focus_center_um + reach_um


def _prepare_replay(settings: Settings) -> Setup:
    recording = Recording.open(
        Path(str(settings.replay_path)).resolve(),  # actors may stand elsewhere
        pixel_size_um=settings.pixel_size_um,
        z_step_um=settings.z_step_um,
    )
    counts = _deal(recording.field_count, settings.stripes, settings.fields)
    heights = _choose_planes(recording, settings.planes)
    overlap_px = settings.overlap_px or 0  # recordings without one lie edge to edge
    resolved = settings.model_copy(
        update={
            "replay_path": str(recording.path),  # whoever resumes may stand elsewhere
            "stripes": len(counts),
            "fields": counts[0],
            "planes": len(heights),
            "overlap_px": overlap_px,
            "pixel_size_um": recording.pixel_size_um,
            "z_step_um": recording.z_step_um,
        }
    )
    plan = make_plan(
        counts, recording.frame_shape, overlap_px, recording.pixel_size_um, steered=False
    )
    return Setup(
        resolved,
        plan,
        planes=len(heights),
        z_step_um=recording.z_step_um,
        dtype=recording.dtype,
        opener=open_replay,
        recorded_z_um=heights,
        recording=recording,
        warnings=recording.warnings,
    )


def _deal(count: int, stripes: int, fields: int | None) -> tuple[int, ...]:
    """Fields per stripe, dealt in order; only the last stripe may be shorter."""
    per_stripe = fields or -(-count // stripes)
    whole, rest = divmod(min(count, per_stripe * stripes), per_stripe)
    return (per_stripe,) * whole + ((rest,) if rest else ())


def _choose_planes(recording: Recording, planes: int | None) -> tuple[float, ...]:
    """All recorded heights, or that many in the middle of them."""
    heights = recording.z_um
    if planes is None or planes == len(heights):
        return heights
    if planes > len(heights):
        expected, advice = (
            f"{planes} planes as settings ask",
            "leave planes out to use them all",
        )
        raise InputError(str(recording.path), expected, f"{len(heights)}", advice)
    first = (len(heights) - planes) // 2
    return heights[first : first + planes]


def open_microscope(setup: Setup, camera: int = 0) -> Microscope:
    """Open the microscope of that camera; one process owns it from now on."""
    return setup.opener(setup, camera)


def open_replay(setup: Setup, camera: int) -> Microscope:
    """The recording, its fields at the places that the plan gives them."""
    if setup.recording is None:
        raise ValueError("expected a setup with a recording, got one without")
    positions = [(field.x_um, field.y_um) for field in setup.plan.fields]
    return ReplayMicroscope(setup.recording, positions)


def open_micromanager(setup: Setup, camera: int) -> Microscope:
    """The microscope that the camera's configuration file describes."""
    return MicroManagerMicroscope(_wiring(setup.settings, camera))


def _wiring(settings: Settings, camera: int) -> Wiring:
    """The settings as Micro-Manager's microscope takes them."""
    return Wiring(
        config=Path(settings.configurations[camera]),
        adapters=Path(settings.adapters) if settings.adapters else None,
        exposure_ms=settings.exposure_ms,
        settle_ms=settings.settle_ms,
        binning=settings.binning,
        roi_px=settings.roi_px,
        pixel_size_um=settings.pixel_size_um,
        origin_um=settings.origin_um,
        stage_limits_um=settings.stage_limits_um,
        focus_limits_um=settings.focus_limits_um,
        backlash_um=settings.backlash_um,
        timeout_s=settings.device_timeout_s,
        bursts=settings.bursts,
    )


def open_simulated(setup: Setup, camera: int) -> Microscope:
    """The simulated slide under a simulated microscope."""
    settings = setup.settings
    return SimulatedMicroscope(
        specimen_of(setup),
        frame_shape=setup.plan.frame_shape,
        pixel_size_um=setup.plan.pixel_size_um,
        exposure_ms=settings.exposure_ms,
        seed=settings.seed,
        settle_ms=settings.settle_ms,
        stage_speed_um_per_ms=settings.stage_speed_um_per_ms,
    )


def specimen_of(setup: Setup) -> Specimen:
    """The simulated slide with its truth, which only tests and benchmarks may look at."""
    rows, columns = setup.plan.mosaic_shape
    pixel_um = setup.plan.pixel_size_um
    return Specimen.grow(setup.settings.seed, (rows * pixel_um, columns * pixel_um))
