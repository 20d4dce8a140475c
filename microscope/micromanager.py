"""Any microscope that Micro-Manager drives, through its core (pymmcore, an optional package).

Camera, xy stage and focus drive are the devices to which the configuration file gives these roles.
Nothing moves before every position of a stack is known to lie within the limits, and after a fault
the stages stand still, so that the stack can be asked for again. A core belongs to one process.
"""

import hashlib
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from microscope import ZStack
from scan.errors import CaptureError, InputError, ScanError, UserMistake

CORE_ERRORS = (RuntimeError, OSError, IndexError, ValueError)  # pymmcore has no class of its own
INTERFACES = re.compile(r"MMCore requires (\d+); device adapter has (\d+)")
ADVICE = "check the device, its power and its cable"
ROLES = ("Camera", "XYStage", "Focus")
ELAPSED = "ElapsedTime-ms"
POLL_S = 0.001
MEBIBYTE = 2**20
EXPOSURE_TOLERANCE = 0.1  # cameras round an exposure to the time that their lines take
SCALE_TOLERANCE = 0.1  # as Micro-Manager itself: an affine of another scale was never calibrated

Limits = tuple[float, float]
BOUNDLESS = (-math.inf, math.inf)
BOUNDLESS_STAGE = (-math.inf, -math.inf, math.inf, math.inf)


@dataclass(frozen=True)
class Wiring:
    """Which microscope, and how it is to be driven; plain values that can be sent.

    Attributes
    ----------
    config : Path
        Micro-Manager's configuration file, on the computer of the microscope.
    adapters : Path or None
        Folder of the device adapters; by default $MICROMANAGER_PATH, else the folder of `config`.
    exposure_ms, settle_ms : float
        Of a plane, and the rest after each move. A burst rests before its first plane only: from
        then on the camera leads and the focus drive follows.
    binning : int
        Camera pixels along either axis that make one pixel.
    roi_px : tuple of int or None
        (x, y, width, height) on the camera, in pixels after binning; None leaves it as it is.
    pixel_size_um : float or None
        Binning included; None takes what the configuration says.
    origin_um : tuple of float
        Where the stage stands when the plan says (0, 0).
    stage_limits_um : tuple of float or None
        Least x and y, then greatest x and y, as the stage counts.
    focus_limits_um : tuple of float or None
        Least and greatest z.
    backlash_um : float
        Against backlash: a move down along an axis first goes this much further, so that every
        position is reached from below.
    timeout_s : float
        Of each wait for a device.
    bursts : bool
        Whether hardware may sequence a z-stack; not where a drive says it can and has no cable.
    """

    config: Path
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


class MicroManagerMicroscope:
    """A stage, a focus drive and a camera behind a Micro-Manager core.

    Parameters
    ----------
    wiring : Wiring
        Values that the devices cannot follow raise UserMistake.
    core : object with the methods of CMMCore, or None
        A core whose devices are loaded and remain its owner's; None loads those of the
        configuration file, and unloads them on closing.

    Attributes
    ----------
    frame_shape, dtype :
        (y, x) in pixels, uint8 or uint16.
    bits : int
        Bits of a pixel that carry light: a 12 bit camera is saturated at 4095.
    pixel_size_um : float
        Binning included.
    """

    def __init__(self, wiring: Wiring, core: Any = None) -> None:
        self._wiring, self._owned, self._closed = wiring, core is None, False
        self._lock = _lock(wiring) if core is None else None
        self._core = core
        self._camera = self._stage = self._focus = ""
        self._at_um: dict[str, np.ndarray] = {}  # where each device arrived that was sent
        self._buffer_mib = 0
        try:
            self._core = _load(wiring) if core is None else core
            self._find_devices()
            self._set_camera()
            self._calibrate()
        except BaseException:
            self.close()
            raise

    def stack(self, x_um: float, y_um: float, z_um: Sequence[float]) -> ZStack:
        """Take a plane at each height: in one burst where the devices can, else step by step.

        Raises
        ------
        CaptureError
            A position out of reach, a device that fails, a burst that lost planes, a microscope
            already closed.
        """
        if self._closed:
            raise CaptureError("microscope", "an open one", "a closed one", "open a new one")
        self.require_reach([(x_um, y_um)], z_um)
        try:
            self._move(self._stage, self._core.setXYPosition, self._on_stage(x_um, y_um))
            return self._burst(z_um) if self._can_burst(z_um) else self._step(z_um)
        except BaseException:
            self.stop()
            raise

    def require_reach(
        self, fields_um: Sequence[tuple[float, float]], z_um: Sequence[float]
    ) -> None:
        """Raise the CaptureError of the first field (x, y) or height beyond the limits."""
        least_x, least_y, most_x, most_y = self._wiring.stage_limits_um or BOUNDLESS_STAGE
        for field_um in fields_um:
            stage_x, stage_y = self._on_stage(*field_um)
            self._require_within(self._stage, "x", stage_x, (least_x, most_x))
            self._require_within(self._stage, "y", stage_y, (least_y, most_y))
        for height_um in z_um:
            limits_um = self._wiring.focus_limits_um or BOUNDLESS
            self._require_within(self._focus, "z", height_um, limits_um)

    def stop(self) -> None:
        """Stop burst and stages; what does not know how to stop is passed over."""
        self._end_burst()
        self._at_um.clear()
        _quietly(self._core.stop, self._stage)
        _quietly(self._core.stop, self._focus)

    def close(self) -> None:
        """Unload the devices, so that other programs can have them; may be called twice."""
        if self._owned and self._core and not self._closed:
            _quietly(self._core.unloadAllDevices)
        self._closed = True
        if self._lock:
            self._lock.release()

    def _find_devices(self) -> None:
        found = {role: getattr(self._core, f"get{role}Device")() for role in ROLES}
        for role, label in found.items():
            if not label:
                advice = f"add a line Property,Core,{role},LABEL or use Micro-Manager's wizard"
                raise _wrong(self._wiring.config, f"a device in the role {role}", "none", advice)
        self._camera, self._stage, self._focus = found.values()
        self._core.setTimeoutMs(round(1e3 * self._wiring.timeout_s))

    def _set_camera(self) -> None:
        """Set what the settings say, and learn what frames will come.

        The shutter is left to the configuration: with AutoShutter it lets light through while a
        plane is exposed, or for the whole of a burst, which spares a fluorescent specimen.
        """
        core, wiring = self._core, self._wiring
        asked = f"binning {wiring.binning}, roi_px {wiring.roi_px}, {wiring.exposure_ms:g} ms"
        with _told(self._camera, asked, "choose what the camera can do", InputError):
            self._set_binning(str(wiring.binning))
            if wiring.roi_px:
                self._set_roi(wiring.roi_px)
            core.setExposure(wiring.exposure_ms)
            came_ms = core.getExposure()  # some cameras pass over what they cannot do
        if not math.isclose(came_ms, wiring.exposure_ms, rel_tol=EXPOSURE_TOLERANCE):
            raise _wrong(self._camera, asked, f"{came_ms:g} ms", "choose another exposure")
        depth, parts = core.getBytesPerPixel(), core.getNumberOfComponents()
        if depth not in (1, 2) or parts != 1 or core.getNumberOfCameraChannels() != 1:
            expected, came = "grey pixels of 8 or 16 bit", f"{parts} x {8 * depth // parts} bit"
            raise _wrong(self._camera, expected, came, "set PixelType in the configuration file")
        self.dtype, self.bits = np.dtype(f"u{depth}"), int(core.getImageBitDepth())
        self.frame_shape = (int(core.getImageHeight()), int(core.getImageWidth()))

    def _set_binning(self, binning: str) -> None:
        """Some cameras name their binning by one number, some as 2x2."""
        names = self._core.getAllowedPropertyValues(self._camera, "Binning")
        named = [name for name in names if name.split("x")[0] == binning]
        if (name := [*named, binning][0]) != self._core.getProperty(self._camera, "Binning"):
            self._core.setProperty(self._camera, "Binning", name)

    def _set_roi(self, roi_px: tuple[int, int, int, int]) -> None:
        """Cut out part of the camera; some take whatever is asked, some round it to steps."""
        core, (x, y, width, height) = self._core, roi_px
        core.clearROI()
        columns, rows = core.getROI()[2:]
        core.setROI(*roi_px)
        came = tuple(core.getROI())
        if came != roi_px or not (0 < width <= columns - x and 0 < height <= rows - y):
            expected = f"roi_px within {columns} x {rows} px and in the camera's steps"
            raise _wrong(self._camera, expected, f"{came} for {roi_px}", "choose another part")

    def _calibrate(self) -> None:
        """Pixel size, and how a way along the camera's columns and rows turns on the stage."""
        told_um = float(self._core.getPixelSizeUm())
        self.pixel_size_um = self._wiring.pixel_size_um or told_um
        if not self.pixel_size_um > 0:
            advice = "calibrate it in Micro-Manager and save, or give --pixel-size-um"
            raise _wrong(self._wiring.config, "the size of a pixel", "none", advice)
        affine = np.reshape(self._core.getPixelSizeAffine(), (2, 3))[:, :2] / (told_um or 1.0)
        scale = math.sqrt(abs(np.linalg.det(affine)))
        calibrated = math.isclose(scale, 1, abs_tol=SCALE_TOLERANCE)
        self._turn = affine if calibrated else np.eye(2)

    def _on_stage(self, x_um: float, y_um: float) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # infinity may become NaN, which no limits hold
            return np.array(self._wiring.origin_um) + self._turn @ (x_um, y_um)

    def _require_within(self, device: str, axis: str, um: float, limits_um: Limits) -> None:
        least_um, greatest_um = limits_um[0] + self._wiring.backlash_um, limits_um[1]
        if not (least_um <= um <= greatest_um and math.isfinite(um)):
            expected = f"{axis} within {least_um:g} … {greatest_um:g} µm"
            advice = "check origin_um, the plan, the focus surface and the limits"
            raise CaptureError(device, expected, f"{axis} = {um:g} µm", advice)

    def _move(self, device: str, command: Callable[..., None], target_um: np.ndarray) -> None:
        """Go there and wait; along an axis that leads down, first go further and come back."""
        before_um = self._at_um.pop(device, np.full_like(target_um, np.inf))
        beyond_um = np.where(target_um < before_um, target_um - self._wiring.backlash_um, target_um)
        place = ", ".join(f"{um:g}" for um in target_um)
        with _told(device, f"to reach {place} µm within {self._wiring.timeout_s:g} s"):
            for place_um in np.unique([beyond_um, target_um], axis=0):  # sorted: beyond is first
                command(device, *place_um.tolist())
                self._core.waitForDevice(device)
        self._at_um[device] = target_um

    def _focus_on(self, z_um: float) -> float:
        """Go to a height and settle; return when that was due."""
        self._move(self._focus, self._core.setPosition, np.array([float(z_um)]))
        due_s = time.time() + self._wiring.settle_ms / 1e3
        time.sleep(self._wiring.settle_ms / 1e3)
        return due_s

    def _step(self, z_um: Sequence[float]) -> ZStack:
        """One height after another, each exposed once the focus drive has settled."""
        frames = np.empty((len(z_um), *self.frame_shape), self.dtype)
        due_s, began_s, ended_s = [], [], 0.0
        for frame, height_um in zip(frames, z_um, strict=True):
            due_s.append(self._focus_on(height_um))
            began_s.append(time.time())
            with _told(self._camera, "an image"):
                self._core.snapImage()
                ended_s = time.time()
                self._keep(frame, self._core.getImage())
        return ZStack(frames, tuple(due_s), tuple(began_s), ended_s)

    def _can_burst(self, z_um: Sequence[float]) -> bool:
        """Whether the focus drive can follow the camera; a burst has no time for detours."""
        falls = (np.diff(z_um) < 0).any()
        if not self._wiring.bursts or len(z_um) < 2 or (falls and self._wiring.backlash_um):
            return False
        with _told(self._focus, "an answer whether it takes a sequence"):
            able = self._core.isStageSequenceable(self._focus)
            return bool(able) and len(z_um) <= self._core.getStageSequenceMaxLength(self._focus)

    def _burst(self, z_um: Sequence[float]) -> ZStack:
        """All planes at once: each exposure of the camera triggers the focus drive."""
        count, focus = len(z_um), self._focus
        due_s = self._focus_on(z_um[0])  # some drives wait for a trigger even before the first
        self._at_um.pop(focus)  # where a sequence leaves the drive is its own affair
        try:
            with _told(focus, f"a sequence of {count} heights"):
                self._core.loadStageSequence(focus, [float(height_um) for height_um in z_um])
                self._core.startStageSequence(focus)
            with _told(self._camera, f"a burst of {count} planes"):
                self._reserve(count)
                self._core.startSequenceAcquisition(count, 0, True)
                first_s = time.time()
                self._await(count)
        finally:
            self._end_burst()
        ended_s = time.time()
        frames, elapsed_s = self._collect(count)
        if not (np.diff(elapsed_s) > 0).all():  # a camera that does not tell the time
            elapsed_s = np.linspace(0, ended_s - first_s, count, endpoint=False)
        began_s = tuple((first_s + elapsed_s).tolist())
        # The camera's own clock triggers the drive, so a plane is due when it begins.
        return ZStack(frames, (due_s, *began_s[1:]), began_s, ended_s)

    def _reserve(self, count: int) -> None:
        """Make the core's buffer hold one burst; its usual 250 MB take a second to allocate."""
        needed_mib = count * self._core.getImageBufferSize() // MEBIBYTE + 1
        if needed_mib > self._buffer_mib:
            self._core.setCircularBufferMemoryFootprint(needed_mib)
            self._buffer_mib = needed_mib

    def _await(self, count: int) -> None:
        core, wiring = self._core, self._wiring
        deadline_s = time.monotonic() + count * wiring.exposure_ms / 1e3 + wiring.timeout_s
        while core.isSequenceRunning() and core.getRemainingImageCount() < count:
            if core.isBufferOverflowed() or time.monotonic() > deadline_s:
                break  # some cameras run on after an overflow
            time.sleep(POLL_S)
        came = core.getRemainingImageCount()
        if core.isBufferOverflowed():
            came = f"an overflow of the core's buffer after {came}"
        if came != count:
            raise CaptureError(self._camera, f"a burst of {count} planes", f"{came}", ADVICE)

    def _end_burst(self) -> None:
        _quietly(self._core.stopSequenceAcquisition)
        _quietly(self._core.stopStageSequence, self._focus)

    def _collect(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Frames (z, y, x) from the buffer, and their times since the first in s, 0 if unknown."""
        from pymmcore import Metadata

        frames, elapsed_ms = np.empty((count, *self.frame_shape), self.dtype), np.zeros(count)
        tags = Metadata()
        with _told(self._camera, f"{count} planes in the buffer"):
            for number, frame in enumerate(frames):
                self._keep(frame, self._core.popNextImageMD(tags))
                if tags.HasTag(ELAPSED):
                    elapsed_ms[number] = float(tags.GetSingleTag(ELAPSED).GetValue())
        return frames, (elapsed_ms - elapsed_ms[0]) / 1e3

    def _keep(self, frame: np.ndarray, image: np.ndarray) -> None:
        if image.shape != frame.shape or image.dtype != frame.dtype:
            shapes = f"{frame.shape} of {frame.dtype}", f"{image.shape} of {image.dtype}"
            raise CaptureError(self._camera, *shapes, "leave the camera to the scan")
        frame[...] = image


@contextmanager
def _told(
    device: str, expected: str, advice: str = ADVICE, kind: type[ScanError] = CaptureError
) -> Iterator[None]:
    """Errors of the core as one of ours that names the device, in one line."""
    try:
        yield
    except CORE_ERRORS as error:
        raise kind(device, expected, _line(error), advice) from error


def _quietly(command: Callable[..., None], *arguments: str) -> None:
    """Stop or release something: what does not know how to is at rest already, or beyond us."""
    with suppress(*CORE_ERRORS):
        command(*arguments)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _wrong(subject: Path | str, *rest: str) -> InputError:
    return InputError(str(subject), *rest)


def _lock(wiring: Wiring) -> FileLock:
    """Lock a microscope; InputError if another process still drives it after the timeout.

    The system releases the lock of a process that was killed. The file lies among temporary ones,
    for nothing may be left next to a configuration, whose folder may be read-only.
    """
    if not (wiring.config.is_file() and os.access(wiring.config, os.R_OK)):
        advice = "name a file saved by Micro-Manager's hardware configuration wizard"
        raise _wrong(wiring.config, "a readable configuration file", "none", advice)
    name = hashlib.sha256(str(wiring.config.resolve()).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir(), f"stripe-scan-{name}.lock")
    lock = FileLock(path, timeout=wiring.timeout_s, mode=0o666, thread_local=False)
    try:
        lock.acquire(poll_interval=10 * POLL_S)
    except Timeout:
        expected, came = "a microscope that nobody drives", "one that another process drives"
        advice = "wait until that scan is over, or stop it"
        raise _wrong(wiring.config, expected, came, advice) from None
    except OSError as error:  # the file of another user, on systems that protect temporary files
        expected, advice = "to be opened", "remove it, unless that user is scanning"
        raise _wrong(path, expected, str(error.strerror), advice) from None
    return lock


def _load(wiring: Wiring) -> Any:
    """A core with the devices of the configuration file."""
    try:
        from pymmcore import CMMCore
    except ModuleNotFoundError:
        advice = "pip install -r requirements-microscope.txt"
        raise UserMistake("micromanager", "the package pymmcore", "none", advice) from None
    adapters = str(wiring.adapters or os.environ.get("MICROMANAGER_PATH") or wiring.config.parent)
    core = CMMCore()
    core.setDeviceAdapterSearchPaths([adapters])
    try:
        core.loadSystemConfiguration(str(wiring.config))
    except CORE_ERRORS as error:
        core.unloadAllDevices()  # those that came up before
        raise _not_loaded(wiring.config, adapters, _line(error)) from error
    return core


def _not_loaded(config: Path, adapters: str, came: str) -> InputError:
    if numbers := INTERFACES.search(came):
        ours, theirs = numbers.groups()
        expected = f"device adapters of interface {ours}, as this pymmcore"
        advice = f"install the pymmcore whose fourth number is {theirs}, or other adapters"
        return _wrong(adapters, expected, f"interface {theirs}", advice)
    advice = (
        f"switch all devices on; adapters are looked for in {adapters}, unless the setting "
        "adapters or MICROMANAGER_PATH says otherwise"
    )
    return _wrong(config, "a configuration whose devices all start", came, advice)
