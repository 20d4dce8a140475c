"""A microscope driven by Micro-Manager through its core (pymmcore, an optional package).

Camera, xy stage and focus drive are the devices with these roles in the configuration file.
Invariant: no device moves before every position of a stack is known to lie within the limits, and
stages are stopped after a fault, so the stack can be requested again. One process owns a core.
"""

import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from config import is_file
from microscope import ZStack
from microscope.lock import MicroscopeLock
from scan.clock import now_s
from scan.errors import CaptureError, InputError, ScanError, UserMistake

CORE_ERRORS = (
    RuntimeError,
    OSError,
    IndexError,
    ValueError,
)  # of pymmcore, which has no class of its own
INTERFACES = re.compile(r"MMCore requires (\d+); device adapter has (\d+)")
HINT = "check the device, its power and its cable"
ROLES = ("Camera", "XYStage", "Focus")
ELAPSED = "ElapsedTime-ms"
CHANNEL_GROUP = "Channel"  # where the configuration names none
POLL_S = 0.001
STOP_ON_OVERFLOW = True
ON, OFF = True, False
MEBIBYTE = 2**20
EXPOSURE_TOLERANCE = 0.1  # cameras round an exposure to multiples of their line time
SCALE_TOLERANCE = 0.1  # as in Micro-Manager: an affine of another scale is not calibrated

Limits = tuple[float, float]
UNLIMITED = (-math.inf, math.inf)
UNLIMITED_STAGE = (-math.inf, -math.inf, math.inf, math.inf)


@dataclass(frozen=True)
class MicroManagerConfig:
    """Which microscope, and how to drive it; plain values that can be pickled.

    Attributes
    ----------
    file : Path
        Micro-Manager's configuration file, on the computer of the microscope.
    adapters : Path or None
        Folder of the device adapters; by default $MICROMANAGER_PATH, else the folder of `file`.
    exposure_ms, settle_ms : float
        Exposure of a plane, and settling time after each move. A burst settles before its first
        plane only: after that the camera triggers the focus drive.
    binning : int
        Binning factor of the camera.
    roi_px : tuple of int or None
        (x, y, width, height) on the camera, in pixels after binning; None keeps the current ROI.
    pixel_size_um : float or None
        Including binning; None takes it from the configuration.
    origin_um : tuple of float
        Stage position of the plan's (0, 0).
    stage_limits_um : tuple of float or None
        Minimum x and y, then maximum x and y, in stage coordinates.
    focus_limits_um : tuple of float or None
        Minimum and maximum z.
    backlash_um : float
        Backlash compensation: a move down along an axis overshoots by this much and returns, so
        every position is reached from below.
    timeout_s : float
        Timeout of each wait for a device.
    bursts : bool
        Whether hardware may sequence a z-stack; switch it off for a drive without trigger cable.
    autofocus : bool
        Whether `autofocus` will be called: the device in the role AutoFocus must exist.
    autofocus_offset : float or None
        Offset of that device, in its own unit; None leaves it.
    channels : tuple of (str, float)
        Preset of the core's channel group and exposure in ms, for each channel; by default there is
        one, with the devices as they are.
    """

    file: Path
    _: KW_ONLY
    exposure_ms: float
    adapters: Path | None = None
    settle_ms: float = 0.0
    binning: int = 1
    roi_px: tuple[int, int, int, int] | None = None
    pixel_size_um: float | None = None
    origin_um: tuple[float, float] = (0.0, 0.0)
    stage_limits_um: tuple[float, float, float, float] | None = None
    focus_limits_um: Limits | None = None
    backlash_um: float = 0.0
    timeout_s: float = 10.0
    bursts: bool = True
    autofocus: bool = False
    autofocus_offset: float | None = None
    channels: tuple[tuple[str, float], ...] = ()


class MicroManagerMicroscope:
    """A stage, a focus drive and a camera behind a Micro-Manager core.

    Parameters
    ----------
    config : MicroManagerConfig
        Values that the devices cannot take raise UserMistake.
    core : object with the methods of CMMCore, or None
        A core with loaded devices, which the caller unloads; None loads those of the configuration
        file and unloads them on closing.

    Attributes
    ----------
    frame_shape, dtype :
        (y, x) in pixels, uint8 or uint16.
    bits : int
        Bits of a pixel that carry light: a 12 bit camera saturates at 4095.
    pixel_size_um : float
        Including binning.
    """

    def __init__(self, config: MicroManagerConfig, core: Any = None) -> None:
        self._config, self._owned, self._closed = config, core is None, False
        self._lock = _lock(config) if core is None else None
        self._core = core
        self._camera = self._stage = self._focus = ""
        self._at_um: dict[str, np.ndarray] = {}  # last position that each device reached
        self._buffer_mib = 0
        self._channel: int | None = None  # that is set, if it is known
        self._exposure_ms = config.exposure_ms
        try:
            self._core = _load(config) if core is None else core
            self._find_devices()
            self._set_camera()
            self._try_channels()
            self._calibrate()
            if config.autofocus:
                self._set_autofocus()
        except BaseException:
            self.close()
            raise

    def stack(self, x_um: float, y_um: float, z_um: Sequence[float], channel: int = 0) -> ZStack:
        """Capture a plane at each height: in one burst if the devices can, else step by step.

        The stage stays where it is for the channels of one field.

        Raises
        ------
        CaptureError
            A position beyond the limits, a device that fails, a burst with missing planes, a closed
            microscope.
        """
        self._require_ready(x_um, y_um, z_um)
        try:
            self._select(channel)
            there_um = self._on_stage(x_um, y_um)
            if not (channel and np.array_equal(self._at_um.get(self._stage, ()), there_um)):
                self._move(self._stage, self._core.setXYPosition, there_um)
            return self._burst(z_um) if self._can_burst(z_um) else self._step(z_um)
        except BaseException:
            self.stop()
            raise

    def autofocus(self, x_um: float, y_um: float, z_um: float) -> float:
        """Let the autofocus device find the focus of a field; return the height of the drive in um.

        The device focuses once; if it cannot, its continuous focus is used until it locks, and is
        switched off again, because a z-stack moves the drive.

        Parameters
        ----------
        x_um, y_um, z_um : float
            The field, and the height at which the device begins to search.

        Raises
        ------
        CaptureError
            The device finds no focus, or a position lies beyond the limits.
        """
        self._require_ready(x_um, y_um, [z_um])
        try:
            self._move(self._stage, self._core.setXYPosition, self._on_stage(x_um, y_um))
            self._focus_on(z_um)
            self._at_um.pop(self._focus)  # the device moves the drive
            self._find_focus()
            with _as_scan_error(self._focus, "its height"):
                return float(self._core.getPosition(self._focus))
        except BaseException:
            self.stop()
            raise

    def _require_ready(self, x_um: float, y_um: float, z_um: Sequence[float]) -> None:
        if self._closed:
            raise CaptureError("microscope", "an open one", "a closed one", "open a new one")
        self.require_within_limits([(x_um, y_um)], z_um)

    def on_mosaic(self, x_um: float, y_um: float) -> tuple[float, float]:
        """Return the position of the plan, in um, that lies at a position of the stage."""
        off_um = np.array((x_um, y_um)) - self._config.origin_um
        x_um, y_um = np.linalg.solve(self._rotation, off_um).tolist()
        return x_um, y_um

    def require_within_limits(
        self, fields_um: Sequence[tuple[float, float]], z_um: Sequence[float]
    ) -> None:
        """Raise the CaptureError of the first field (x, y) or height beyond the limits."""
        least_x, least_y, most_x, most_y = self._config.stage_limits_um or UNLIMITED_STAGE
        for field_um in fields_um:
            stage_x, stage_y = self._on_stage(*field_um)
            self._require_within(self._stage, "x", stage_x, (least_x, most_x))
            self._require_within(self._stage, "y", stage_y, (least_y, most_y))
        for height_um in z_um:
            limits_um = self._config.focus_limits_um or UNLIMITED
            self._require_within(self._focus, "z", height_um, limits_um)

    def stop(self) -> None:
        """Stop burst and stages; devices that cannot stop are ignored."""
        self._end_burst()
        self._at_um.clear()
        self._channel = None
        _ignoring_errors(self._core.stop, self._stage)
        _ignoring_errors(self._core.stop, self._focus)

    def close(self) -> None:
        """Unload the devices, so that other programs can use them; may be called twice."""
        if self._owned and self._core and not self._closed:
            _ignoring_errors(self._core.unloadAllDevices)
        self._closed = True
        if self._lock:
            self._lock.release()

    def _find_devices(self) -> None:
        found = {role: getattr(self._core, f"get{role}Device")() for role in ROLES}
        for role, label in found.items():
            if not label:
                hint = f"add a line Property,Core,{role},LABEL or use Micro-Manager's wizard"
                raise _input_error(self._config.file, f"a device in the role {role}", "none", hint)
        self._camera, self._stage, self._focus = found.values()
        self._core.setTimeoutMs(round(1e3 * self._config.timeout_s))

    def _set_camera(self) -> None:
        """Apply the settings to the camera and read the format of its frames.

        The shutter is left to the configuration: with AutoShutter it opens for the exposure of a
        plane, or for a whole burst, which protects a fluorescent specimen.
        """
        core, config = self._core, self._config
        asked = f"binning {config.binning}, roi_px {config.roi_px}, {config.exposure_ms:g} ms"
        with _as_scan_error(self._camera, asked, "choose supported values", InputError):
            self._set_binning(str(config.binning))
            if config.roi_px:
                self._set_roi(config.roi_px)
            core.setExposure(config.exposure_ms)
            got_ms = core.getExposure()  # some cameras ignore values that they do not support
        if not math.isclose(got_ms, config.exposure_ms, rel_tol=EXPOSURE_TOLERANCE):
            raise _input_error(self._camera, asked, f"{got_ms:g} ms", "choose another exposure")
        depth, parts = core.getBytesPerPixel(), core.getNumberOfComponents()
        if depth not in (1, 2) or parts != 1 or core.getNumberOfCameraChannels() != 1:
            expected, got = "grey pixels of 8 or 16 bit", f"{parts} x {8 * depth // parts} bit"
            raise _input_error(
                self._camera, expected, got, "set PixelType in the configuration file"
            )
        self.dtype, self.bits = np.dtype(f"u{depth}"), int(core.getImageBitDepth())
        self.frame_shape = (int(core.getImageHeight()), int(core.getImageWidth()))

    def _try_channels(self) -> None:
        """Set each channel once; InputError if there is no such preset, or frames differ."""
        core, channels = self._core, self._config.channels
        group = core.getChannelGroup() or CHANNEL_GROUP
        known = list(core.getAvailableConfigs(group)) if channels else []
        shape, bits = self.frame_shape, self.bits
        for number, (preset, _) in reversed(list(enumerate(channels))):  # the first one stays
            if preset not in known:
                expected = f"a preset {preset} in the group {group}"
                got = ", ".join(known) or "none"
                raise _input_error(self._config.file, expected, got, "correct channels, or add it")
            try:
                self._select(number)
            except CaptureError as error:
                raise InputError(*error.args) from None
            expected = f"frames {shape} of {bits} bit in each channel"
            size = (core.getImageHeight(), core.getImageWidth())
            got = f"frames {size} of {core.getImageBitDepth()} bit in each channel"
            if got != expected:
                hint = "presets must not change binning, ROI or pixel type"
                raise _input_error(preset, expected, f"others in {preset}, {size}", hint)

    def _select(self, channel: int) -> None:
        """Set the preset and the exposure of a channel, and wait until its devices are there."""
        if not self._config.channels or channel == self._channel:
            return
        core, (preset, exposure_ms) = self._core, self._config.channels[channel]
        group = core.getChannelGroup() or CHANNEL_GROUP
        self._channel = None
        with _as_scan_error(f"{group} {preset}", f"the preset and {exposure_ms:g} ms"):
            core.setConfig(group, preset)
            core.waitForConfig(group, preset)
            core.setExposure(exposure_ms)
            got_ms = core.getExposure()
        if not math.isclose(got_ms, exposure_ms, rel_tol=EXPOSURE_TOLERANCE):
            expected, hint = f"{exposure_ms:g} ms for {preset}", "choose another exposure"
            raise CaptureError(self._camera, expected, f"{got_ms:g} ms", hint)
        self._channel, self._exposure_ms = channel, exposure_ms

    def _set_binning(self, binning: str) -> None:
        """Set the binning; some cameras name it by one number, others as 2x2."""
        names = self._core.getAllowedPropertyValues(self._camera, "Binning")
        named = [name for name in names if name.split("x")[0] == binning]
        if (name := [*named, binning][0]) != self._core.getProperty(self._camera, "Binning"):
            self._core.setProperty(self._camera, "Binning", name)

    def _set_roi(self, roi_px: tuple[int, int, int, int]) -> None:
        """Set the ROI and check it: some cameras accept any value, others round to steps."""
        core, (x, y, width, height) = self._core, roi_px
        core.clearROI()
        columns, rows = core.getROI()[2:]
        core.setROI(*roi_px)
        got = tuple(core.getROI())
        if got != roi_px or not (0 < width <= columns - x and 0 < height <= rows - y):
            expected = f"roi_px within {columns} x {rows} px and in the camera's steps"
            raise _input_error(self._camera, expected, f"{got} for {roi_px}", "choose another part")

    def _calibrate(self) -> None:
        """Read the pixel size, and the rotation between the camera and the stage."""
        calibrated_um = float(self._core.getPixelSizeUm())
        self.pixel_size_um = self._config.pixel_size_um or calibrated_um
        if not self.pixel_size_um > 0:
            hint = "calibrate it in Micro-Manager and save, or give --pixel-size-um"
            raise _input_error(self._config.file, "the size of a pixel", "none", hint)
        affine = np.reshape(self._core.getPixelSizeAffine(), (2, 3))[:, :2] / (calibrated_um or 1.0)
        scale = math.sqrt(abs(np.linalg.det(affine)))
        calibrated = math.isclose(scale, 1, abs_tol=SCALE_TOLERANCE)
        self._rotation = affine if calibrated else np.eye(2)

    def _set_autofocus(self) -> None:
        """Apply the offset; switch continuous focus off, which would move the drive in a stack."""
        device = self._core.getAutoFocusDevice()
        if not device:
            hint = "add a line Property,Core,AutoFocus,LABEL, or choose another focus"
            raise _input_error(self._config.file, "a device in the role AutoFocus", "none", hint)
        offset = self._config.autofocus_offset
        with _as_scan_error(device, f"autofocus_offset {offset}", "choose another", InputError):
            self._core.enableContinuousFocus(OFF)
            if offset is not None:
                self._core.setAutoFocusOffset(offset)

    def _find_focus(self) -> None:
        """Focus once, or by continuous focus if the device cannot."""
        core, device = self._core, self._core.getAutoFocusDevice()
        try:
            core.fullFocus()
            core.waitForDevice(device)
        except CORE_ERRORS as error:
            once = _line(error)
        else:
            return
        try:
            with _as_scan_error(device, f"to focus; it cannot once ({once})"):
                core.enableContinuousFocus(ON)
                deadline_s = time.monotonic() + self._config.timeout_s
                while not core.isContinuousFocusLocked():
                    if time.monotonic() > deadline_s:
                        raise TimeoutError(f"no lock within {self._config.timeout_s:g} s")
                    time.sleep(POLL_S)
        finally:
            _ignoring_errors(core.enableContinuousFocus, OFF)

    def _on_stage(self, x_um: float, y_um: float) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # infinity may become NaN, which lies within no limits
            return np.array(self._config.origin_um) + self._rotation @ (x_um, y_um)

    def _require_within(self, device: str, axis: str, um: float, limits_um: Limits) -> None:
        least_um, greatest_um = limits_um[0] + self._config.backlash_um, limits_um[1]
        if not (least_um <= um <= greatest_um and math.isfinite(um)):
            expected = f"{axis} within {least_um:g} … {greatest_um:g} µm"
            hint = "check origin_um, the plan, the focus surface and the limits"
            raise CaptureError(device, expected, f"{axis} = {um:g} µm", hint)

    def _move(self, device: str, command: Callable[..., None], target_um: np.ndarray) -> None:
        """Move and wait; an axis that moves down overshoots and returns."""
        before_um = self._at_um.pop(device, np.full_like(target_um, np.inf))
        beyond_um = np.where(target_um < before_um, target_um - self._config.backlash_um, target_um)
        target = ", ".join(f"{um:g}" for um in target_um)
        with _as_scan_error(device, f"to reach {target} µm within {self._config.timeout_s:g} s"):
            for step_um in np.unique([beyond_um, target_um], axis=0):  # sorted: the overshoot first
                command(device, *step_um.tolist())
                self._core.waitForDevice(device)
        self._at_um[device] = target_um

    def _focus_on(self, z_um: float) -> float:
        """Move to a height and settle; return the time at which settling should end."""
        self._move(self._focus, self._core.setPosition, np.array([float(z_um)]))
        due_s = now_s() + self._config.settle_ms / 1e3
        time.sleep(self._config.settle_ms / 1e3)
        return due_s

    def _step(self, z_um: Sequence[float]) -> ZStack:
        """Capture one height after another, each after the focus drive has settled."""
        frames = np.empty((len(z_um), *self.frame_shape), self.dtype)
        due_s, began_s, ended_s = [], [], 0.0
        for frame, height_um in zip(frames, z_um, strict=True):
            due_s.append(self._focus_on(height_um))
            began_s.append(now_s())
            with _as_scan_error(self._camera, "an image"):
                self._core.snapImage()
                ended_s = now_s()
                self._keep(frame, self._core.getImage())
        return ZStack(frames, tuple(due_s), tuple(began_s), ended_s)

    def _can_burst(self, z_um: Sequence[float]) -> bool:
        """Return whether a burst is possible; it cannot overshoot for backlash."""
        falls = (np.diff(z_um) < 0).any()
        if not self._config.bursts or len(z_um) < 2 or (falls and self._config.backlash_um):
            return False
        with _as_scan_error(self._focus, "an answer whether it takes a sequence"):
            able = self._core.isStageSequenceable(self._focus)
            return bool(able) and len(z_um) <= self._core.getStageSequenceMaxLength(self._focus)

    def _burst(self, z_um: Sequence[float]) -> ZStack:
        """Capture all planes in one burst: each exposure triggers the focus drive."""
        count, focus = len(z_um), self._focus
        due_s = self._focus_on(z_um[0])  # some drives need a trigger before the first height
        self._at_um.pop(focus)  # the position after a sequence is unknown
        try:
            with _as_scan_error(focus, f"a sequence of {count} heights"):
                self._core.loadStageSequence(focus, [float(height_um) for height_um in z_um])
                self._core.startStageSequence(focus)
            with _as_scan_error(self._camera, f"a burst of {count} planes"):
                self._reserve(count)
                self._core.startSequenceAcquisition(count, 0, STOP_ON_OVERFLOW)
                first_s = now_s()
                self._await(count)
        finally:
            self._end_burst()
        ended_s = now_s()
        frames, elapsed_s = self._collect(count)
        if not (np.diff(elapsed_s) > 0).all():  # the camera reports no times
            elapsed_s = np.linspace(0, ended_s - first_s, count, endpoint=False)
        began_s = tuple((first_s + elapsed_s).tolist())
        # The camera triggers the drive, so a plane is due when it begins.
        return ZStack(frames, (due_s, *began_s[1:]), began_s, ended_s)

    def _reserve(self, count: int) -> None:
        """Size the core's buffer for one burst; the default 250 MB take a second to allocate."""
        needed_mib = count * self._core.getImageBufferSize() // MEBIBYTE + 1
        if needed_mib > self._buffer_mib:
            self._core.setCircularBufferMemoryFootprint(needed_mib)
            self._buffer_mib = needed_mib

    def _await(self, count: int) -> None:
        core, config = self._core, self._config
        deadline_s = time.monotonic() + count * self._exposure_ms / 1e3 + config.timeout_s
        while core.isSequenceRunning() and core.getRemainingImageCount() < count:
            if core.isBufferOverflowed() or time.monotonic() > deadline_s:
                break  # some cameras continue after an overflow
            time.sleep(POLL_S)
        got = core.getRemainingImageCount()
        if core.isBufferOverflowed():
            got = f"an overflow of the core's buffer after {got}"
        if got != count:
            raise CaptureError(self._camera, f"a burst of {count} planes", f"{got}", HINT)

    def _end_burst(self) -> None:
        _ignoring_errors(self._core.stopSequenceAcquisition)
        _ignoring_errors(self._core.stopStageSequence, self._focus)

    def _collect(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the frames (z, y, x) of a burst and their times in s, 0 if unknown."""
        from pymmcore import Metadata

        frames, elapsed_ms = np.empty((count, *self.frame_shape), self.dtype), np.zeros(count)
        tags = Metadata()
        with _as_scan_error(self._camera, f"{count} planes in the buffer"):
            for number, frame in enumerate(frames):
                self._keep(frame, self._core.popNextImageMD(tags))
                if tags.HasTag(ELAPSED):
                    elapsed_ms[number] = float(tags.GetSingleTag(ELAPSED).GetValue())
        return frames, (elapsed_ms - elapsed_ms[0]) / 1e3

    def _keep(self, frame: np.ndarray, image: np.ndarray) -> None:
        if image.shape != frame.shape or image.dtype != frame.dtype:
            shapes = f"{frame.shape} of {frame.dtype}", f"{image.shape} of {image.dtype}"
            raise CaptureError(self._camera, *shapes, "do not change the camera during a scan")
        frame[...] = image


@contextmanager
def _as_scan_error(
    device: str, expected: str, hint: str = HINT, kind: type[ScanError] = CaptureError
) -> Iterator[None]:
    """Convert errors of the core to one of ours that names the device, in one line."""
    try:
        yield
    except CORE_ERRORS as error:
        raise kind(device, expected, _line(error), hint) from error


def _ignoring_errors(command: Callable[..., None], *arguments: str | bool) -> None:
    """Stop or release a device; errors are ignored, since not every device can do so."""
    with suppress(*CORE_ERRORS):
        command(*arguments)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _input_error(subject: Path | str, *rest: str) -> InputError:
    return InputError(str(subject), *rest)


def _lock(config: MicroManagerConfig) -> MicroscopeLock:
    """Lock a microscope; InputError if there is no such file, or another process drives it."""
    if not (is_file(config.file) and os.access(config.file, os.R_OK)):
        hint = "name a file saved by Micro-Manager's hardware configuration wizard"
        raise _input_error(config.file, "a readable configuration file", "none", hint)
    return MicroscopeLock(config.file, config.timeout_s)


def _load(config: MicroManagerConfig) -> Any:
    """Return a core with the devices of the configuration file."""
    try:
        from pymmcore import CMMCore
    except ModuleNotFoundError:
        hint = "pip install -r requirements-microscope.txt"
        raise UserMistake("micromanager", "the package pymmcore", "none", hint) from None
    adapters = str(config.adapters or os.environ.get("MICROMANAGER_PATH") or config.file.parent)
    core = CMMCore()
    core.setDeviceAdapterSearchPaths([adapters])
    try:
        core.loadSystemConfiguration(str(config.file))
    except CORE_ERRORS as error:
        core.unloadAllDevices()  # those that did start
        raise _not_loaded(config.file, adapters, _line(error)) from error
    return core


def _not_loaded(file: Path, adapters: str, got: str) -> InputError:
    if numbers := INTERFACES.search(got):
        ours, theirs = numbers.groups()
        expected = f"device adapters of interface {ours}, as this pymmcore"
        hint = f"install the pymmcore whose fourth number is {theirs}, or other adapters"
        return _input_error(adapters, expected, f"interface {theirs}", hint)
    hint = (
        f"switch all devices on; adapters are searched in {adapters}, which the setting adapters "
        "or MICROMANAGER_PATH changes"
    )
    return _input_error(file, "a configuration whose devices all start", got, hint)
