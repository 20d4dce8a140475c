"""From settings to a microscope: first what it will deliver, then the microscope itself.

The driver prepares a Setup once, before anything is written, so that wrong input fails early. Each
capture actor opens its own microscope from the Setup, which is small and can be pickled.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

import numpy as np

from config import ESTIMATE, ChannelSettings, Settings, is_file
from microscope import Microscope
from microscope.coordinates import Unclear
from microscope.micromanager import MicroManagerConfig, MicroManagerMicroscope
from microscope.recorded_channels import recorded_channels
from microscope.recorded_layout import lay_out
from microscope.replay import Recording, ReplayMicroscope
from microscope.simulated import Z_LIMIT_UM, SimulatedMicroscope
from microscope.specimen import Specimen
from microscope.stage_errors import StageErrors, stage_errors
from microscope.stage_layout import Layout
from microscope.stains import stained
from scan.channels import ONE_CHANNEL, Channels, channels_of
from scan.correction import NO_FIELDS, Correction
from scan.errors import CaptureError, InputError
from scan.focusing import FocusJob, Point, surface_limits_um
from scan.layout import make_placed_plan, make_plan
from scan.matches import MIN_OVERLAP_PX
from scan.plan import ScanPlan
from scan.sweeps import greatest_reach_um

log = logging.getLogger(__name__)

MAX_READERS = 8  # of a recording, if the settings do not say: each is a process
MAX_SAMPLES_BYTES = 256 * 10**6  # of whole autofocus images in the object store
MAX_SLIDE_MM2 = 400  # every camera process lays out all objects: about 20 s for this size


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
    caveats : tuple of str
        Of these, what concerns the answer: it is said again at its end.
    focus_points : tuple of (x_um, y_um, z_um)
        Heights that the user gives, at positions of the plan.
    bits : int or None
        Bits of a pixel that carry light, if fewer than its type has.
    correction : Correction
        The fields that the settings name.
    channels : Channels
        What is captured at each field.
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
    caveats: tuple[str, ...] = ()
    focus_points: tuple[Point, ...] = ()
    bits: int | None = None
    correction: Correction = NO_FIELDS
    channels: Channels = ONE_CHANNEL

    @property
    def batch_bytes(self) -> int:
        """Size of one field's z-stacks, of all channels."""
        planes = sum(channel.planes for channel in self.channels.each) or self.planes
        return planes * math.prod(self.plan.frame_shape) * self.dtype.itemsize

    @property
    def pixel_bytes(self) -> int:
        """Size of one pixel of the mosaic, all channels together."""
        return self.dtype.itemsize * max(1, len(self.channels.each))

    @property
    def image_bytes(self) -> int:
        """Size of one field's focus stack: its image and its depth."""
        return (self.pixel_bytes + 4) * math.prod(self.plan.frame_shape)

    @property
    def frames(self) -> str:
        """Size, type and pixel size of the frames in words."""
        rows, columns = self.plan.frame_shape
        return f"{rows} x {columns} pixels of {self.dtype}, {self.plan.pixel_size_um:g} um wide"

    @property
    def diameter_px(self) -> float | None:
        """Object diameter that the settings give, in pixels."""
        given_um = self.settings.diameter_um
        return given_um / self.plan.pixel_size_um if given_um else None

    @property
    def fields(self) -> dict[str, int | str | None]:
        """What of flat and dark is part of a run's identity: their pixels, or the estimate."""
        pixels = self.correction.flat, self.correction.dark
        flat, dark = (None if field is None else crc32(field.data) for field in pixels)
        estimated = ESTIMATE if self.settings.flat_field == ESTIMATE else None
        return {"flat_field": estimated or flat, "dark_field": dark}

    @property
    def focus_job(self) -> FocusJob:
        """What autofocus needs to know of the scan."""
        planes = self.planes, self.z_step_um, self.recorded_z_um, self.focus_points
        reference = self.channels.reference
        return FocusJob(self.plan, self.settings, *planes, self.correction, reference=reference)

    @property
    def whole_samples(self) -> bool:
        """Whether autofocus images are kept whole: if the flat needs that, or there is room."""
        image_bytes = math.prod(self.plan.frame_shape) * self.dtype.itemsize
        fit = len(self.focus_job.samples) * image_bytes <= MAX_SAMPLES_BYTES
        return fit or self.settings.flat_field == ESTIMATE


T = TypeVar("T")


def _known(value: T | None) -> T:
    """Return a setting that validation has completed for this kind of microscope."""
    if value is None:
        raise ValueError("expected settings completed by validation, got None; use validate()")
    return value


def _channels(settings: Settings) -> Channels:
    return channels_of(settings.channels, _known(settings.planes), _known(settings.z_step_um))


def prepare(settings: Settings) -> Setup:
    """Resolve all settings for a simulated or recorded slide; wrong input raises UserMistake."""
    setup = _prepare_replay(settings) if settings.replay_path else _prepare_simulated(settings)
    _require_overlap(setup)
    return setup


def _require_overlap(setup: Setup) -> None:
    """Raise UserMistake if fields are to be registered that overlap too little."""
    overlap_px = _least_overlap_px(setup.plan)
    if setup.settings.register_fields and overlap_px < MIN_OVERLAP_PX:
        expected, got = f"fields that overlap by {MIN_OVERLAP_PX} pixels or more", f"{overlap_px}"
        raise InputError("register_fields", expected, got, "leave it out, or overlap them more")


def _prepare_simulated(settings: Settings) -> Setup:
    _require_within_drive(settings)
    counts = (_known(settings.fields),) * settings.stripes
    frame_shape = (_known(settings.field_px),) * 2
    overlap_px, pixel_um = _known(settings.overlap_px), _known(settings.pixel_size_um)
    plan = make_plan(
        counts, frame_shape, overlap_px, pixel_um, steered=True, cameras=settings.cameras
    )
    area_mm2 = math.prod(plan.mosaic_shape) * plan.pixel_size_um**2 / 1e6
    if area_mm2 > MAX_SLIDE_MM2:
        expected, got = f"a slide of at most {MAX_SLIDE_MM2} mm2", f"{area_mm2:.0f} mm2"
        raise InputError("pixel_size_um", expected, got, "take fewer, smaller or finer fields")
    return Setup(
        settings,
        plan,
        planes=_known(settings.planes),
        z_step_um=_known(settings.z_step_um),
        dtype=np.dtype(np.uint16),
        opener=open_simulated,
        channels=_channels(settings),
        focus_points=tuple(
            (x_um - settings.origin_um[0], y_um - settings.origin_um[1], z_um)
            for x_um, y_um, z_um in settings.focus_points or ()
        ),
    )


def _least_overlap_px(plan: ScanPlan) -> int:
    """Return the least overlap of fields side by side; the size of a frame if there are none."""
    fields, (rows, columns) = (
        {field.place: field.origin_px for field in plan.fields},
        plan.frame_shape,
    )
    down = (fields[s + 1, f][0] - y for (s, f), (y, _) in fields.items() if (s + 1, f) in fields)
    across = (fields[s, f + 1][1] - x for (s, f), (_, x) in fields.items() if (s, f + 1) in fields)
    return min(rows - max(down, default=0), columns - max(across, default=0))


def _require_within_drive(settings: Settings) -> None:
    """Raise UserMistake unless all sweeps and z-stacks lie within the simulated drive's limits."""
    farthest_um = max(map(abs, _heights_reached(settings)))
    if farthest_um > Z_LIMIT_UM:
        raise InputError(
            "focus_range_um, planes and z_step_um" if settings.focus == "surface" else "focus",
            f"heights within {Z_LIMIT_UM:g} um of the stage's centre",
            f"up to {farthest_um:g} um",
            "choose other heights, a shorter sweep, fewer planes or smaller steps",
        )


def with_absolute_paths(settings: Settings) -> Settings:
    """Name the configuration files of this computer so that actors find them, too."""
    paths = [Path(name) for name in settings.configurations]
    absolute = tuple(str(path.resolve() if is_file(path) else path) for path in paths)
    several = zip(settings.microscopes, absolute, strict=False)
    microscopes = tuple(each.model_copy(update={"config": file}) for each, file in several)
    return settings.model_copy(
        update={"microscopes": microscopes} if microscopes else {"mm_config": absolute[0]}
    )


def survey(settings: Settings, camera: int) -> Setup:
    """Resolve all settings for a Micro-Manager microscope: open it, query it and close it again.

    A wrong configuration, or positions beyond the limits of its stages, raise UserMistake.
    """
    microscope = MicroManagerMicroscope(_micromanager_config(settings, camera))
    try:
        setup = _prepare_micromanager(settings, microscope)
        _require_within_limits(setup, microscope)
        _require_overlap(setup)
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
        channels=_channels(settings),
        focus_points=tuple(
            (*microscope.on_mosaic(x_um, y_um), z_um)
            for x_um, y_um, z_um in settings.focus_points or ()
        ),
        bits=microscope.bits,
    )


def _require_within_limits(setup: Setup, microscope: MicroManagerMicroscope) -> None:
    """Raise UserMistake unless all fields, sweeps and z-stacks lie within the stages' limits."""
    positions = [(field.x_um, field.y_um) for field in setup.plan.fields]
    try:
        microscope.require_within_limits(positions, _heights_reached(setup.settings))
    except CaptureError as error:
        raise InputError(*error.args) from None


def _heights_reached(settings: Settings) -> tuple[float, float]:
    """Return the least and greatest height: a z-stack may lie at the end of the widest sweep.

    Where a device finds the focus, its heights are checked as they are found.
    """
    planes = max(_known(settings.planes), *(c.planes or 0 for c in settings.channels), 0)
    reach_um = planes * _known(settings.z_step_um) / 2
    lowest_um = highest_um = settings.focus_center_um
    if settings.focus_points:
        lowest_um, highest_um = surface_limits_um([z_um for *_, z_um in settings.focus_points])
    if settings.focus == "surface":
        reach_um += greatest_reach_um(settings)
    offsets = [0.0, *(channel.z_offset_um for channel in settings.channels)]
    return lowest_um - reach_um + min(offsets), highest_um + reach_um + max(offsets)


def _prepare_replay(settings: Settings) -> Setup:
    path = Path(str(settings.replay_path)).absolute()  # actors may run in another folder
    recording = Recording.open(
        path,
        pixel_size_um=settings.pixel_size_um,
        z_step_um=settings.z_step_um,
        name_pattern=settings.name_pattern,
        channels=[each.name for each in settings.channels]
        or ([] if settings.channel is None else [settings.channel]),
        reference=next((each.name for each in settings.channels if each.reference), None),
        colour=settings.colour == "channels",
    )
    log.info("recording: %s%s", recording.understood, recording.channels_in_words)
    if settings.check_recording:
        recording.require_readable()
    try:
        layout = lay_out(recording, settings)
    except Unclear as unclear:
        raise unclear.about(path) from None
    heights = _choose_planes(recording, settings.planes)
    channels = recorded_channels(recording, settings, heights)
    overlap_px = settings.overlap_px or 0  # recordings without one lie edge to edge
    counts = tuple(len(row) for row in layout.rows)
    resolved = settings.model_copy(
        update={
            "replay_path": str(recording.path),  # a resumed run may start in another folder
            "stripes": len(counts),
            "fields": max(counts),
            "planes": len(heights),
            "overlap_px": overlap_px,
            "pixel_size_um": recording.pixel_size_um,
            "z_step_um": recording.z_step_um,
            "origin_um": layout.origin_um or settings.origin_um,
            "channels": _with_recorded(settings.channels, channels),
        }
    )
    plan = _recorded_plan(recording, layout, resolved)
    if layout.origin_um:
        origin_um = _moved_origin(layout.origin_um, plan, recording, layout, resolved)
        resolved = resolved.model_copy(update={"origin_um": origin_um})
    numbers = [number for row in layout.rows for number in row if number is not None]
    plan = replace(plan, cameras=min(settings.cameras or MAX_READERS, len(counts)))
    fields = tuple(recording.fields[number] for number in numbers)
    caveats = (*recording.caveats, *layout.caveats)
    return Setup(
        resolved,
        plan,
        planes=len(heights),
        z_step_um=recording.z_step_um,
        dtype=recording.dtype,
        opener=open_replay,
        recorded_z_um=heights,
        recording=replace(recording, fields=fields),  # in the order of the plan
        warnings=(*recording.warnings, *layout.warnings, *caveats),
        caveats=caveats,
        channels=channels,
    )


def _with_recorded(
    given: tuple[ChannelSettings, ...], channels: Channels
) -> tuple[ChannelSettings, ...]:
    """Return the settings of recorded channels, completed by what the recording tells."""
    if not channels.several:
        return given
    planes = {each.name: each.planes for each in given}
    return tuple(
        ChannelSettings(
            name=each.name, colour=each.colour, z_offset_um=each.z_offset_um,
            planes=planes.get(each.name), reference=k == channels.reference,
        )
        for k, each in enumerate(channels.each)
    )  # fmt: skip


def _moved_origin(
    origin_um: tuple[float, float],
    plan: ScanPlan,
    recording: Recording,
    layout: Layout,
    settings: Settings,
) -> tuple[float, float]:
    """Return where the stage was for the mosaic's first pixel: registered ones begin later."""
    if not settings.register_fields:
        return origin_um
    usual = settings.model_copy(update={"register_fields": False})
    before = _recorded_plan(recording, layout, usual).fields[0].origin_px
    after, size_um = plan.fields[0].origin_px, recording.pixel_size_um
    return (
        origin_um[0] + (before[1] - after[1]) * size_um,
        origin_um[1] + (before[0] - after[0]) * size_um,
    )


def _recorded_plan(recording: Recording, layout: Layout, settings: Settings) -> ScanPlan:
    """Return the plan of recorded fields: where the stage was, or as they follow each other."""
    frame_shape, pixel_um = recording.frame_shape, recording.pixel_size_um
    registered = settings.register_fields
    if layout.origins:
        return make_placed_plan(layout.origins, frame_shape, pixel_um, registered=registered)
    return make_plan(
        tuple(len(row) for row in layout.rows),
        frame_shape,
        settings.overlap_px or 0,
        pixel_um,
        steered=False,
        absent=layout.absent,
        registered=registered,
    )


def _choose_planes(recording: Recording, planes: int | None) -> tuple[float, ...]:
    """Return all recorded heights, or the requested number of central ones."""
    heights = recording.z_um
    if planes is None or planes == len(heights):
        return heights
    if planes > len(heights):
        expected, hint = f"{planes} planes as in the settings", "leave planes out to use all"
        raise InputError(str(recording.path), expected, f"{len(heights)}", hint)
    first = (len(heights) - planes) // 2
    return heights[first : first + planes]


def open_microscope(setup: Setup, camera: int = 0) -> Microscope:
    """Open the microscope of a camera; the calling process owns it."""
    return setup.opener(setup, camera)


def open_replay(setup: Setup, camera: int) -> Microscope:
    """Open a recording whose fields lie at the positions of the plan."""
    if setup.recording is None:
        raise ValueError("expected a setup with a recording, got one without")
    positions = [(field.x_um, field.y_um) for field in setup.plan.fields]
    return ReplayMicroscope(setup.recording, positions)


def open_micromanager(setup: Setup, camera: int) -> Microscope:
    """Open the microscope that the camera's configuration file describes."""
    return MicroManagerMicroscope(_micromanager_config(setup.settings, camera))


def _micromanager_config(settings: Settings, camera: int) -> MicroManagerConfig:
    """Return the configuration of a camera's microscope from the settings."""
    return MicroManagerConfig(
        file=Path(settings.configurations[camera]),
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
        autofocus=settings.focus == "hardware",
        autofocus_offset=settings.autofocus_offset,
        channels=tuple(
            (channel.preset or channel.name, channel.exposure_ms or settings.exposure_ms)
            for channel in settings.channels
        ),
    )


def open_simulated(setup: Setup, camera: int) -> Microscope:
    """Open a simulated microscope over the simulated slide."""
    settings, specimen = setup.settings, specimen_of(setup)
    return SimulatedMicroscope(
        specimen,
        channels=_stains(setup, specimen),
        frame_shape=setup.plan.frame_shape,
        pixel_size_um=setup.plan.pixel_size_um,
        exposure_ms=settings.exposure_ms,
        seed=settings.seed,
        settle_ms=settings.settle_ms,
        stage_speed_um_per_ms=settings.stage_speed_um_per_ms,
        vignetting=settings.vignetting,
        errors=errors_of(setup),
    )


def errors_of(setup: Setup) -> StageErrors:
    """Return by how much the simulated stage misses each target: the truth for tests."""
    settings = setup.settings
    return stage_errors(
        setup.plan,
        settings.seed,
        error_um=settings.stage_error_um,
        rotation_deg=settings.stage_rotation_deg,
        drift_um=settings.stage_drift_um,
    )


def _stains(setup: Setup, specimen: Specimen) -> list[tuple[Specimen, float]]:
    """Return what each channel shows, and its exposure time; the reference shows the nuclei."""
    channels, given = setup.channels, setup.settings.channels
    order = sorted(range(len(given)), key=lambda k: k != channels.reference)
    return [
        (
            stained(specimen, order.index(k), channel.z_offset_um),
            channel.exposure_ms or setup.settings.exposure_ms,
        )
        for k, channel in enumerate(given)
    ]


def specimen_of(setup: Setup) -> Specimen:
    """Return the simulated slide with its ground truth, for tests and benchmarks only."""
    rows, columns = setup.plan.mosaic_shape
    pixel_um = setup.plan.pixel_size_um
    return Specimen.grow(setup.settings.seed, (rows * pixel_um, columns * pixel_um))
