"""The Micro-Manager microscope with the real core and its demo devices."""

from __future__ import annotations

import pickle
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import msgpack
import numpy as np
import pymmcore
import pytest

from microscope.frame_checks import require_valid_frames
from microscope.micromanager import MicroManagerConfig, MicroManagerMicroscope
from scan.errors import CaptureError, InputError, UserMistake
from tests.microscope.devices import ADAPTERS, BEADS, SEQUENCES, STAINED, config_of

Opener = Callable[..., MicroManagerMicroscope]


@pytest.fixture(autouse=True)
def _locks_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leave no lock among the temporary files of this computer."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(tmp_path_factory.getbasetemp()))
        yield


class Recorder:
    """A core that records its calls, and may answer differently."""

    def __init__(self, core: pymmcore.CMMCore, **answers: Callable[..., Any]) -> None:
        self.core, self.answers, self.calls = core, answers, []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def ask(*arguments: Any) -> Any:
            self.calls.append((name, *arguments))
            return self.answers.get(name, getattr(self.core, name))(*arguments)

        return ask

    def asked(self, *names: str) -> list[tuple[Any, ...]]:
        """Calls of these names, in their order."""
        return [call for call in self.calls if call[0] in names]


def core_of(config: Path) -> pymmcore.CMMCore:
    """Load a core as its user would."""
    core = pymmcore.CMMCore()
    core.setDeviceAdapterSearchPaths([str(ADAPTERS)])
    core.loadSystemConfiguration(str(config))
    return core


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Open microscopes, and close them when the test is over."""
    microscopes = []

    def opener(*lines: str, core: Any = None, **options: Any) -> MicroManagerMicroscope:
        values = {"exposure_ms": 1.0, "adapters": ADAPTERS} | options
        (folder := tmp_path / str(len(microscopes))).mkdir(exist_ok=True)  # each has its own lock
        config = MicroManagerConfig(config_of(folder, *lines), **values)
        microscopes.append(MicroManagerMicroscope(config, core))
        return microscopes[-1]

    yield opener
    for microscope in microscopes:
        microscope.close()


def recorded(folder: Path, lines: tuple[str, ...], **answers: Callable[..., Any]) -> Recorder:
    """Load a core that records its calls."""
    return Recorder(core_of(config_of(folder, *lines)), **answers)


@pytest.mark.parametrize("at_um", [(0, 0), (3000, -1500)], ids=["near", "far"])
@pytest.mark.parametrize(("right", "down"), [(30, 0), (0, 45), (15, 60)])
def test_the_picture_moves_with_the_field(
    opened: Opener, at_um: tuple[int, int], right: int, down: int
) -> None:
    """A field moved by some pixels shows the same pixels, shifted."""
    microscope = opened(*BEADS)

    first = microscope.stack(*at_um, [0.0]).frames[0]
    second = microscope.stack(at_um[0] + right, at_um[1] + down, [0.0]).frames[0]

    assert first.std() > 5
    np.testing.assert_array_equal(second[: 512 - down, : 512 - right], first[down:, right:])


MIRRORS = {
    "as the camera": ((1, 0, 0, 1), (1, 2)),
    "x mirrored": ((-1, 0, 0, 1), (-1, 2)),
    "y mirrored": ((1, 0, 0, -1), (1, -2)),
    "transposed": ((0, 1, 1, 0), (2, 1)),
    "quarter turn": ((0, -1, 1, 0), (-2, 1)),
}


@pytest.mark.parametrize(("turn", "steps"), MIRRORS.values(), ids=MIRRORS)
@pytest.mark.parametrize("binning", [1, 2])
def test_the_stage_follows_the_calibrated_orientation(
    opened: Opener, turn: tuple[int, ...], steps: tuple[int, int], binning: int
) -> None:
    """Moves along columns and rows become stage moves by the configured affine."""
    a, b, c, d = (0.5 * value for value in turn)
    affine = ("PixelSize_um,Lens,0.5", f"PixelSizeAffine,Lens,{a},{b},0,{c},{d},0")
    microscope = opened(*BEADS[:-1], *affine, origin_um=(300.0, 600.0), binning=binning)

    microscope.stack(30.0, 60.0, [0.0])

    assert microscope.pixel_size_um == 0.5 * binning
    expected_um = (300 + 30 * steps[0], 600 + 30 * steps[1])
    assert microscope._core.getXYPosition() == pytest.approx(expected_um, abs=0.02)


def test_a_microscope_has_one_owner(tmp_path: Path) -> None:
    """A microscope in use is refused to others; once closed it is free, also if loading failed."""
    path = config_of(tmp_path, *BEADS)
    config = MicroManagerConfig(path, exposure_ms=1.0, adapters=ADAPTERS, timeout_s=0.1)
    first = MicroManagerMicroscope(config)
    with pytest.raises(InputError, match=r"nobody drives, got one that another process drives"):
        MicroManagerMicroscope(config)
    first.close()
    path.write_text("Device,Camera,None,None")
    with pytest.raises(InputError, match="whose devices all start"):
        MicroManagerMicroscope(config)
    MicroManagerMicroscope(replace(config, file=config_of(tmp_path, *BEADS))).close()

    assert list(tmp_path.iterdir()) == [path]  # no lock is left next to it


def test_a_second_scan_waits_for_the_first(tmp_path: Path) -> None:
    """Opening waits, within the timeout, for a process that is about to end."""
    config = MicroManagerConfig(
        config_of(tmp_path, *BEADS), exposure_ms=1.0, adapters=ADAPTERS, timeout_s=10
    )
    first = MicroManagerMicroscope(config)
    Timer(0.2, first._lock.release).start()  # type: ignore[union-attr]

    MicroManagerMicroscope(config).close()


def test_sequences_of_hardware_can_be_switched_off(opened: Opener) -> None:
    """A drive that claims to follow the camera but does not is stepped if settings say so."""
    lying = (*BEADS, "Property,Z,UseSequences,Yes")
    heights = [-6.0, -2.0, 2.5]

    frames = opened(*lying, bursts=False).stack(0.0, 0.0, heights).frames

    np.testing.assert_array_equal(frames, opened(*BEADS).stack(0.0, 0.0, heights).frames)
    burst = opened(*lying).stack(0.0, 0.0, heights).frames
    assert (burst == burst[0]).all()


def test_another_pixel_size_leaves_the_orientation(opened: Opener) -> None:
    """A pixel size from the settings keeps the orientation of the configuration."""
    mirrored = ("PixelSize_um,Lens,0.5", "PixelSizeAffine,Lens,-0.5,0,0,0,0.5,0")
    microscope = opened(*BEADS[:-1], *mirrored, pixel_size_um=0.65)

    microscope.stack(30.0, 60.0, [0.0])

    assert microscope.pixel_size_um == 0.65
    assert microscope._core.getXYPosition() == pytest.approx((-30, 60), abs=0.02)


def test_an_affine_of_another_scale_is_ignored(opened: Opener) -> None:
    """Without a calibrated affine the stage's own directions are used."""
    microscope = opened(*BEADS[:-1], "PixelSize_um,Lens,0.25")

    microscope.stack(30.0, 60.0, [0.0])

    assert microscope.pixel_size_um == 0.25
    assert microscope._core.getXYPosition() == pytest.approx((30, 60), abs=0.02)


def test_the_picture_is_sharpest_at_the_height_of_the_beads(opened: Opener) -> None:
    """Contrast over light is greatest at 0 and falls with the distance, on both sides."""
    heights = [-24.0, -12.0, -6.0, 0.0, 6.0, 12.0, 24.0]

    frames = opened(*BEADS).stack(0.0, 0.0, heights).frames

    contrast = [frame.std() / frame.mean() for frame in frames]
    assert contrast[:4] == sorted(contrast[:4])
    assert contrast[3:] == sorted(contrast[3:], reverse=True)


FRAMES = {
    "all": ({}, (512, 512), 1.0),
    "binned": ({"binning": 2}, (256, 256), 2.0),
    "part": ({"roi_px": (8, 16, 96, 64)}, (64, 96), 1.0),
    "part of binned": ({"binning": 4, "roi_px": (0, 0, 128, 100)}, (100, 128), 4.0),
}


@pytest.mark.parametrize(("config", "shape", "pixel_um"), FRAMES.values(), ids=FRAMES)
def test_frames_follow_the_settings(
    opened: Opener, config: dict[str, Any], shape: tuple[int, int], pixel_um: float
) -> None:
    """Binning and ROI determine the shape, binning the pixel size."""
    microscope = opened(*BEADS, **config)

    stack = microscope.stack(0.0, 0.0, [0.0, 1.0])

    assert microscope.frame_shape == shape
    assert microscope.pixel_size_um == pixel_um
    assert stack.frames.shape == (2, *shape)
    assert stack.frames.flags.c_contiguous
    assert stack.frames.dtype == microscope.dtype == np.uint16


def test_a_camera_may_name_its_binning_differently(opened: Opener, tmp_path: Path) -> None:
    """Binning 2 is set as 2x2 if that is its name."""
    core = recorded(tmp_path, BEADS, getAllowedPropertyValues=lambda *_: ("1x1", "2x2"))
    core.answers["setProperty"] = lambda *_: None

    opened(*BEADS, core=core, binning=2)

    assert core.asked("setProperty") == [("setProperty", "Camera", "Binning", "2x2")]


def test_a_roi_that_the_camera_rounds_is_refused(opened: Opener, tmp_path: Path) -> None:
    """Frames of another size would not fit the plan."""
    core = recorded(tmp_path, BEADS)
    full = core.core.getROI()
    core.answers["getROI"] = lambda: [0, 0, 96, 64] if core.asked("setROI") else full

    with pytest.raises(InputError, match=r"steps, got \(0, 0, 96, 64\) for \(0, 0, 100, 64\)"):
        opened(*BEADS, core=core, roi_px=(0, 0, 100, 64))


@pytest.mark.parametrize(
    ("pixel", "bits", "dtype"),
    [("8bit", 8, np.uint8), ("16bit", 12, np.uint16), ("16bit", 16, np.uint16)],
)
def test_the_bit_depth_of_the_camera_is_known(
    opened: Opener, pixel: str, bits: int, dtype: type
) -> None:
    """A 12 bit camera delivers 16 bit pixels and reports 12."""
    properties = f"Property,Camera,PixelType,{pixel}", f"Property,Camera,BitDepth,{bits}"
    lens = "ConfigPixelSize,Lens,Camera,Binning,1", "PixelSize_um,Lens,1.0"

    microscope = opened(*BEADS[:7], *properties, *lens)

    assert (microscope.bits, microscope.dtype) == (bits, dtype)


def test_exposures_begin_when_the_stage_has_settled(opened: Opener) -> None:
    """Each plane is due after move and settling, begins then, and lasts its exposure."""
    stack = opened(*BEADS, exposure_ms=3.0, settle_ms=4.0).stack(0.0, 0.0, [0.0, 1.0, 2.0])

    assert all(began >= due for began, due in zip(stack.began_s, stack.due_s, strict=True))
    assert (np.diff(stack.due_s) >= 0.007 - 1e-3).all()
    assert stack.ended_s - stack.began_s[-1] >= 0.003 - 1e-3


LIMITED = {"stage_limits_um": (-100.0, -50.0, 400.0, 300.0), "focus_limits_um": (-20.0, 20.0)}
OUTSIDE = {
    "x above": ((400.1, 0.0, [0.0]), {}, r"XY: expected x within -100 … 400 µm, got x = 400.1 µm"),
    "y below": ((0.0, -51.0, [0.0]), {}, r"XY: expected y within -50 … 300 µm"),
    "last z": ((0.0, 0.0, [0.0, 20.5]), {}, r"Z: expected z within -20 … 20 µm, got z = 20.5"),
    "no number": ((0.0, 0.0, [float("nan")]), {}, r"Z: expected z within"),
    "origin": ((200.0, 0.0, [0.0]), {"origin_um": (201.0, 0.0)}, r"XY: .* got x = 401 µm"),
    "detour": ((0.0, 0.0, [-19.0]), {"backlash_um": 2.0}, r"Z: expected z within -18 … 20 µm"),
    "unlimited": (
        (float("inf"), 0.0, [0.0]),
        {"stage_limits_um": None},
        r"XY: expected x within -inf",
    ),
}


@pytest.mark.parametrize(("place", "config", "said"), OUTSIDE.values(), ids=OUTSIDE)
def test_nothing_moves_towards_a_position_beyond_the_limits(
    opened: Opener, tmp_path: Path, place: tuple[Any, ...], config: dict[str, Any], said: str
) -> None:
    """Limits are stage coordinates and include the backlash overshoot; the device is named."""
    core = recorded(tmp_path, BEADS)
    microscope = opened(*BEADS, core=core, **(LIMITED | config))
    core.calls.clear()

    with pytest.raises(CaptureError, match=said):
        microscope.stack(*place)

    assert core.calls == []


def test_a_plan_is_within_the_limits_as_a_whole_or_refused(opened: Opener) -> None:
    """All fields and heights are checked at once; positions on the limit are allowed."""
    microscope = opened(*BEADS, **LIMITED)

    microscope.require_within_limits([(-100.0, -50.0), (400.0, 300.0)], [-20.0, 20.0])
    with pytest.raises(CaptureError, match="y = 301"):
        microscope.require_within_limits([(0.0, 0.0), (10.0, 301.0)], [0.0])


def test_every_position_is_reached_from_below(opened: Opener, tmp_path: Path) -> None:
    """The last move along each axis goes up, also the first of all; moves up do not overshoot."""
    core = recorded(tmp_path, BEADS)
    microscope = opened(*BEADS, core=core, backlash_um=3.0)

    microscope.stack(30.0, 60.0, [2.0, 1.0, 5.0])
    microscope.stack(60.0, 30.0, [6.0])
    microscope.stop()  # wherever it stands now
    microscope.stack(90.0, 90.0, [7.0])

    stage, focus = (core.asked(name) for name in ("setXYPosition", "setPosition"))
    assert [call[2:] for call in stage[:4]] == [(27, 57), (30, 60), (60, 27), (60, 30)]
    assert [call[2:] for call in stage[4:]] == [(87, 87), (90, 90)]
    assert [call[2] for call in focus] == [-1, 2, -2, 1, 5, 6, 4, 7]


def test_without_backlash_each_position_is_one_move(opened: Opener, tmp_path: Path) -> None:
    """Without backlash nothing overshoots, and each move is waited for."""
    core = recorded(tmp_path, BEADS)

    opened(*BEADS, core=core).stack(30.0, 60.0, [2.0, 1.0])

    assert core.asked("setXYPosition", "setPosition", "waitForDevice", "snapImage") == [
        ("setXYPosition", "XY", 30, 60),
        ("waitForDevice", "XY"),
        ("setPosition", "Z", 2),
        ("waitForDevice", "Z"),
        ("snapImage",),
        ("setPosition", "Z", 1),
        ("waitForDevice", "Z"),
        ("snapImage",),
    ]


@pytest.mark.parametrize("autoshutter", ["0", "1"])
def test_the_shutter_is_left_to_the_configuration(opened: Opener, autoshutter: str) -> None:
    """The shutter between planes follows AutoShutter."""
    microscope = opened(*BEADS, f"Property,Core,AutoShutter,{autoshutter}")

    microscope.stack(0.0, 0.0, [0.0])

    assert microscope._core.getAutoShutter() is bool(int(autoshutter))


def test_a_stage_that_takes_too_long_is_named_and_stopped(opened: Opener) -> None:
    """A wait ends at its timeout; the stage stops, and the next stack succeeds."""
    slow = "Property,XY,Velocity,0.1"  # mm/s
    microscope = opened(*BEADS, slow, timeout_s=0.1)

    with pytest.raises(CaptureError, match=r"XY: expected to reach 5000, 0 µm within 0.1 s"):
        microscope.stack(5000.0, 0.0, [0.0])
    x_um, y_um = microscope._core.getXYPosition()

    assert 0 < x_um < 1000
    assert microscope.stack(x_um, y_um, [0.0]).frames.any()
    assert microscope._core.getXYPosition() == pytest.approx((x_um, y_um), abs=0.02)


def failing(*_: Any) -> None:
    """Fail as a device does."""
    raise RuntimeError('Error in device\n"D": lost (1)')


FAULTS = {
    "stage": ("setXYPosition", "XY"),
    "focus drive": ("setPosition", "Z"),
    "exposure": ("snapImage", "Camera"),
    "transfer": ("getImage", "Camera"),
    "question": ("isStageSequenceable", "Z"),
}
BURST_FAULTS = {
    "sequence": ("loadStageSequence", "Z"),
    "its start": ("startStageSequence", "Z"),
    "buffer": ("setCircularBufferMemoryFootprint", "Camera"),
    "burst": ("startSequenceAcquisition", "Camera"),
    "wait": ("isSequenceRunning", "Camera"),
    "frames": ("popNextImageMD", "Camera"),
}
ALL_FAULTS = [(BEADS, *case) for case in FAULTS.values()]
ALL_FAULTS += [(SEQUENCES, *case) for case in BURST_FAULTS.values()]


@pytest.mark.parametrize(("lines", "call", "device"), ALL_FAULTS, ids=[*FAULTS, *BURST_FAULTS])
def test_a_device_that_fails_is_named_and_the_next_stack_succeeds(
    opened: Opener, tmp_path: Path, lines: tuple[str, ...], call: str, device: str
) -> None:
    """Every error of the core becomes one of ours in one line that can be pickled; stages stop."""
    core = recorded(tmp_path, lines, **{call: failing})
    microscope = opened(*lines, core=core)

    with pytest.raises(
        CaptureError, match=re.escape('got Error in device "D": lost (1)')
    ) as raised:
        microscope.stack(0.0, 0.0, [0.0, 1.0])
    stopped = core.asked("stop", "stopStageSequence", "stopSequenceAcquisition")
    core.answers.clear()

    assert raised.value.subject == device
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    assert {("stop", "XY"), ("stop", "Z"), ("stopStageSequence", "Z")} <= set(stopped)
    assert not core.isSequenceRunning()
    assert len(microscope.stack(0.0, 0.0, [0.0, 1.0]).frames) == 2


def test_the_message_of_a_device_is_passed_on(opened: Opener) -> None:
    """The device's own message is part of the error."""
    with pytest.raises(CaptureError, match=r'Z: .* got Error in device "Z": Position out of range'):
        opened(*BEADS).stack(0.0, 0.0, [1e6])


def test_a_camera_that_changes_its_frames_is_refused(opened: Opener) -> None:
    """A binning changed during the scan makes the stack fail."""
    microscope = opened(*BEADS)
    microscope._core.setProperty("Camera", "Binning", "2")

    with pytest.raises(CaptureError, match=r"Camera: expected \(512, 512\) .* got \(256, 256\)"):
        microscope.stack(0.0, 0.0, [0.0])


def told_by(frame: np.ndarray) -> tuple[int, dict[str, Any]]:
    """Number of a frame in its burst, and the state of each device when it was exposed."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(frame.tobytes())
    _, (_, _, _, _, number), _, _, _, state, _ = unpacker.unpack()
    return number, {f"{device} {name}": value for (device, name), (_, value) in state}


def test_a_burst_takes_the_heights_in_their_order(opened: Opener) -> None:
    """Each frame of a burst was exposed at its height and position."""
    microscope = opened(*SEQUENCES)
    heights = [-2.0, -1.0, 0.5, 3.0, 2.0]

    stack = microscope.stack(30.0, 60.0, heights)

    states = [told_by(frame) for frame in stack.frames]
    assert [number for number, _ in states] == [0, 1, 2, 3, 4]
    assert [state["TZStage-0 ZPositionUm"] for _, state in states] == heights
    assert {state["TXYStage-0 XPositionSteps"] for _, state in states} != {0}
    assert (np.diff(stack.began_s) > 0).all()
    assert stack.due_s[0] <= stack.began_s[0] < stack.began_s[-1] < stack.ended_s


def test_a_burst_begins_when_the_first_height_is_reached(opened: Opener, tmp_path: Path) -> None:
    """Stage and drive arrive, the sequence is armed, the camera triggers; in the end all stop."""
    core = recorded(tmp_path, SEQUENCES)
    microscope = opened(*SEQUENCES, core=core, backlash_um=1.0)

    microscope.stack(0.0, 0.0, [4.0, 5.0])
    burst, core.calls = core.calls, []
    microscope.stack(0.0, 0.0, [6.0])

    assert core.asked("setPosition") == [("setPosition", "Z", 5), ("setPosition", "Z", 6)]
    core.calls = burst
    names = "setPosition waitForDevice loadStageSequence startStageSequence"
    names += " startSequenceAcquisition stopSequenceAcquisition stopStageSequence snapImage"
    assert core.asked(*names.split()) == [
        *[("waitForDevice", "XY")] * 2,
        ("setPosition", "Z", 3),
        ("waitForDevice", "Z"),
        ("setPosition", "Z", 4),
        ("waitForDevice", "Z"),
        ("loadStageSequence", "Z", [4, 5]),
        ("startStageSequence", "Z"),
        ("startSequenceAcquisition", 2, 0, True),
        ("stopSequenceAcquisition",),
        ("stopStageSequence", "Z"),
    ]


SINGLY = {
    "one plane": ([0.0], {}),
    "more than the drive holds": ([0.5 * step for step in range(25)], {}),
    "falling heights, backlash": ([1.0, 0.0], {"backlash_um": 1.0}),
}


@pytest.mark.parametrize(("heights", "config"), SINGLY.values(), ids=SINGLY)
def test_stacks_are_stepped_if_no_burst_is_possible(
    opened: Opener, tmp_path: Path, heights: list[float], config: dict[str, Any]
) -> None:
    """The heights are the same, only slower."""
    core = recorded(tmp_path, SEQUENCES)

    frames = opened(*SEQUENCES, core=core, **config).stack(0.0, 0.0, heights).frames

    assert core.asked("startSequenceAcquisition", "startStageSequence") == []
    assert [told_by(frame)[1]["TZStage-0 ZPositionUm"] for frame in frames] == heights


def test_an_overflow_is_an_error_and_the_next_burst_succeeds(
    opened: Opener, tmp_path: Path
) -> None:
    """A buffer that is too small ends the burst; nothing is delivered, and the camera stops."""
    core = recorded(tmp_path, SEQUENCES)
    small = core.core.setCircularBufferMemoryFootprint
    core.answers["setCircularBufferMemoryFootprint"] = lambda _: small(1)
    microscope = opened(*SEQUENCES, core=core)

    with pytest.raises(
        CaptureError, match=r"Camera: expected a burst of 20 planes, got an overflow"
    ):
        microscope.stack(0.0, 0.0, [float(height) for height in range(20)])

    assert len(core.asked("isSequenceRunning")) < 100  # nobody waits for the time-out
    assert not core.isSequenceRunning()
    assert len(microscope.stack(0.0, 0.0, [0.0, 1.0, 2.0]).frames) == 3


def test_missing_frames_are_an_error(opened: Opener, tmp_path: Path) -> None:
    """A camera that still runs at the timeout has lost frames or its trigger."""
    core = recorded(tmp_path, SEQUENCES, isSequenceRunning=lambda: True)
    core.answers["startSequenceAcquisition"] = lambda *_: None
    microscope = opened(*SEQUENCES, core=core, timeout_s=0.05)

    with pytest.raises(CaptureError, match="Camera: expected a burst of 3 planes, got 0"):
        microscope.stack(0.0, 0.0, [0.0, 1.0, 2.0])

    assert core.calls[-1] == ("stop", "Z")


def test_a_burst_has_the_times_of_the_camera(opened: Opener, tmp_path: Path) -> None:
    """Frames begin at the intervals that the camera reports."""
    elapsed_ms = iter((3.0, 10.0, 30.0))
    core = recorded(tmp_path, SEQUENCES)

    def pop(tags: pymmcore.Metadata) -> np.ndarray:
        frame = core.core.popNextImageMD(tags)
        tag = tags.GetSingleTag("ElapsedTime-ms")
        tag.SetValue(f"{next(elapsed_ms)}")
        tags.SetTag(tag)
        return frame

    core.answers["popNextImageMD"] = pop

    began_s = opened(*SEQUENCES, core=core).stack(0.0, 0.0, [0.0, 1.0, 2.0]).began_s

    assert np.diff(began_s) == pytest.approx([7e-3, 20e-3], abs=1e-6)


def test_a_drive_that_claims_sequences_and_stays_shows_in_the_frames(opened: Opener) -> None:
    """A burst whose drive ignores the trigger repeats one plane, which `frame_checks` refuses."""
    microscope = opened(*BEADS, "Property,Z,UseSequences,Yes")

    frames = microscope.stack(0.0, 0.0, [0.0, 5.0]).frames

    with pytest.raises(CaptureError, match="plane 1 equal to the one before"):
        require_valid_frames(frames, (2, 512, 512), microscope.dtype, 1.0)


AUTOFOCUS = (  # as the line of roles has it, behind the devices
    *BEADS[:3], "Device,Finder,DemoCamera,DAutoFocus", *BEADS[3:],
    "Property,Core,AutoFocus,Finder",
)  # fmt: skip


def finder(core: Recorder, found_um: float) -> Callable[[], None]:
    """A device that moves the focus drive to where the specimen is."""
    return lambda: core.core.setPosition("Z", found_um)


def unable(*_: Any) -> None:
    raise RuntimeError("not\nsupported")


def test_the_device_finds_the_focus_of_a_field(opened: Opener, tmp_path: Path) -> None:
    """It begins at the field and at the given height, and its height is returned."""
    core = recorded(tmp_path, AUTOFOCUS)
    core.answers["fullFocus"] = finder(core, 7.5)
    microscope = opened(core=core, autofocus=True, autofocus_offset=2.5)

    assert microscope.autofocus(30.0, 60.0, 4.0) == pytest.approx(7.5)

    at = ("setXYPosition", "XY", 30.0, 60.0), ("setPosition", "Z", 4.0), ("fullFocus",)
    assert core.asked(*(name for name, *_ in at)) == list(at)
    assert core.getAutoFocusOffset() == 2.5
    assert len(microscope.stack(30.0, 60.0, [7.0, 8.0]).frames) == 2


def test_continuous_focus_is_used_if_a_device_cannot_focus_once(
    opened: Opener, tmp_path: Path
) -> None:
    """It is awaited until it locks, and switched off before a stack moves the drive."""
    core = recorded(tmp_path, AUTOFOCUS, fullFocus=unable)
    locks = iter((False, False, True))
    core.answers["isContinuousFocusLocked"] = lambda: next(locks)
    microscope = opened(core=core, autofocus=True)

    microscope.autofocus(0.0, 0.0, 1.0)

    switched = [on for _, on in core.asked("enableContinuousFocus")]
    assert switched == [False, True, False]
    assert next(locks, None) is None


def test_a_device_that_finds_no_focus_is_an_error(opened: Opener, tmp_path: Path) -> None:
    """The error names the device and both failures in one line; the field can be asked again."""
    core = recorded(tmp_path, AUTOFOCUS, fullFocus=unable, isContinuousFocusLocked=lambda: False)
    microscope = opened(core=core, autofocus=True, timeout_s=0.05)

    with pytest.raises(CaptureError) as failed:
        microscope.autofocus(0.0, 0.0, 1.0)

    said = "Finder: expected to focus; it cannot once (not supported), got no lock within 0.05 s"
    assert said in str(failed.value)
    assert not core.isContinuousFocusEnabled()
    del core.answers["fullFocus"]
    assert microscope.autofocus(0.0, 0.0, 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize(("turn", "steps"), MIRRORS.values(), ids=MIRRORS)
def test_positions_of_the_stage_are_found_on_the_mosaic(
    opened: Opener, turn: tuple[int, ...], steps: tuple[int, int]
) -> None:
    """The mosaic's position of a stage position is the field whose capture moves there."""
    a, b, c, d = (0.5 * value for value in turn)
    affine = ("PixelSize_um,Lens,0.5", f"PixelSizeAffine,Lens,{a},{b},0,{c},{d},0")
    microscope = opened(*BEADS[:-1], *affine, origin_um=(300.0, 600.0))

    at_um = 300 + 30 * steps[0], 600 + 30 * steps[1]

    assert microscope.on_mosaic(*at_um) == pytest.approx((30.0, 60.0))


WRONG = {
    "no autofocus": (BEADS, {"autofocus": True}, "in the role AutoFocus, got none; add a line"),
    "no camera": (BEADS[1:4] + BEADS[5:7], {}, "a device in the role Camera, got none; add a line"),
    "no stage": (BEADS[:1] + BEADS[2:5] + BEADS[6:], {}, "a device in the role XYStage, got none"),
    "no focus drive": (BEADS[:2] + BEADS[3:6] + BEADS[7:], {}, "a device in the role Focus"),
    "no pixel size": (BEADS[:-2], {}, "the size of a pixel, got none; calibrate it in"),
    "cut line": (("Device,Camera",), {}, "all start, got Line 2: Device,Camera Invalid"),
    "no adapter": (("Device,D,Absent,D",), {}, 'Failed to load device adapter "Absent"'),
    "no device": (("Device,D,DemoCamera,D",), {}, 'failed to instantiate device "D"'),
    "other text": (("once upon a time",), {}, "a device in the role Camera, got none"),
    "other folder": (BEADS, {"adapters": Path("/nowhere")}, "adapters are searched in /nowhere"),
    "colours": ((*BEADS, "Property,Camera,PixelType,32bitRGB"), {}, "bit, got 4 x 8 bit; set Pix"),
    "32 bit": ((*BEADS, "Property,Camera,PixelType,32bit"), {}, "bit, got 1 x 32 bit; set Pixel"),
    "exposure": (BEADS, {"exposure_ms": 1e9}, "roi_px None, 1e+09 ms, got 10 ms; choose another"),
    "binning": (
        BEADS,
        {"binning": 3},
        "Camera: expected binning 3, roi_px None, 1 ms, got Cannot set",
    ),
    "part": (
        BEADS,
        {"roi_px": (500, 0, 20, 20)},
        "roi_px within 512 x 512 px and in the camera's steps, got (500, 0, 20, 20) for",
    ),
    "empty part": (
        BEADS,
        {"roi_px": (0, 0, 0, 20)},
        "got (0, 0, 0, 20) for (0, 0, 0, 20); choose another part",
    ),
}


@pytest.mark.parametrize(("lines", "config", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_configuration_fails_in_one_line(
    opened: Opener, lines: tuple[str, ...], config: dict[str, Any], said: str
) -> None:
    """The error has what was expected, what was got and what to do, and can be pickled."""
    with pytest.raises(InputError, match=re.escape(said)) as refused:
        opened(*lines, **config)

    assert "\n" not in str(refused.value)
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


@pytest.mark.parametrize("wrong", ["Device,D,Absent,D", "Property,Core,Focus,"])
def test_a_refused_microscope_is_released(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """Devices that started before the fault are released."""
    left = []

    class Watched(pymmcore.CMMCore):
        def unloadAllDevices(self) -> None:
            super().unloadAllDevices()
            left.append(self.getLoadedDevices())

    monkeypatch.setattr(pymmcore, "CMMCore", Watched)

    with pytest.raises(InputError):
        opened(*BEADS, wrong)

    assert left == [("Core",)]


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    """A missing file is named by its path."""
    with pytest.raises(InputError, match=r"none\.cfg: expected a readable .* file, got none"):
        MicroManagerMicroscope(MicroManagerConfig(tmp_path / "none.cfg", exposure_ms=1.0))


def test_adapters_of_another_interface_are_named_by_number(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the number got, the number expected and the package to install."""

    class Newer(pymmcore.CMMCore):
        def loadSystemConfiguration(self, _: str) -> None:
            raise OSError(
                "Line 4: Device,Camera,DemoCamera,DCam\nFailed to load device adapter [ "
                "Incompatible device interface version "
                "(MMCore requires 75; device adapter has 74) ]"
            )

    monkeypatch.setattr(pymmcore, "CMMCore", Newer)

    with pytest.raises(
        InputError, match=r"interface 75.* got interface 74; .* fourth number is 74"
    ):
        opened(*BEADS)


@pytest.mark.parametrize("variable", [True, False], ids=["variable", "folder of the configuration"])
def test_adapters_are_found_where_micro_manager_keeps_them(
    opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: bool
) -> None:
    """Without a setting the folder is that of the environment, else of the configuration."""
    if variable:
        monkeypatch.setenv("MICROMANAGER_PATH", str(ADAPTERS))
    else:
        monkeypatch.delenv("MICROMANAGER_PATH", raising=False)
        (tmp_path / "0").mkdir()  # that of the first configuration
        for library in ADAPTERS.glob("*DemoCamera*"):
            (tmp_path / "0" / library.name).symlink_to(library)

    assert opened(*BEADS, adapters=None).frame_shape == (512, 512)


def test_a_missing_package_is_named(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pymmcore the message names it and the file that installs it."""
    monkeypatch.setitem(sys.modules, "pymmcore", None)

    with pytest.raises(UserMistake, match=r"pymmcore, got none; pip install -r requirements-micro"):
        opened(*BEADS)


def test_a_config_can_be_pickled() -> None:
    """An actor opens its microscope from plain values."""
    config = MicroManagerConfig(Path("scope.cfg"), exposure_ms=5.0, roi_px=(0, 0, 64, 64))

    assert pickle.loads(pickle.dumps(config)) == config


def test_a_closed_microscope_refuses_stacks(opened: Opener) -> None:
    """Stop and close are safe from any state and may be repeated; the devices are released."""
    microscope = opened(*BEADS)
    microscope._core.setXYPosition(4000.0, 0.0)
    for call in (microscope.stop, microscope.close, microscope.close, microscope.stop):
        call()

    assert microscope._core.getLoadedDevices() == ("Core",)
    with pytest.raises(CaptureError, match="an open one, got a closed one"):
        microscope.stack(0.0, 0.0, [0.0])


def test_a_core_passed_in_keeps_its_devices(opened: Opener, tmp_path: Path) -> None:
    """The caller of a core unloads it."""
    core = core_of(config_of(tmp_path, *BEADS))

    opened(*BEADS, core=core, roi_px=(0, 0, 64, 64)).close()

    assert "Camera" in core.getLoadedDevices()
    assert opened(*BEADS, core=core, roi_px=(0, 0, 256, 128)).frame_shape == (128, 256)


def test_a_crashing_driver_ends_its_own_process_only(tmp_path: Path) -> None:
    """A native crash ends the process that owns the camera by a signal, and no other."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from microscope.micromanager import MicroManagerMicroscope, MicroManagerConfig\n"
        "file, adapters = map(Path, sys.argv[1:])\n"
        "config = MicroManagerConfig(file, exposure_ms=1.0, adapters=adapters)\n"
        "microscope = MicroManagerMicroscope(config)\n"
        "print(microscope.stack(0.0, 0.0, [0.0]).frames.shape, flush=True)\n"
        "crash = 'Camera', 'SimulateCrash', 'Dereference Null Pointer'\n"
        "microscope._core.setProperty(*crash)\n"
        "microscope.stack(0.0, 0.0, [0.0])\n"
    )
    command = [sys.executable, "-c", code, str(config_of(tmp_path, *BEADS)), str(ADAPTERS)]

    ran = subprocess.run(command, capture_output=True, text=True, check=False)

    assert ran.stdout == "(1, 512, 512)\n"
    assert ran.returncode == -signal.SIGSEGV


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "/dev/zero", "no/such.cfg"])
def test_a_configuration_is_a_regular_file(name: str) -> None:
    """Anything else is refused before the core, which would read it, is loaded."""
    with pytest.raises(InputError, match="expected a readable configuration file"):
        MicroManagerMicroscope(MicroManagerConfig(file=Path(name), exposure_ms=1.0))


TWO = (("FITC", 3.0), ("DAPI", 1.0))


def test_each_channel_has_its_preset_and_exposure(opened: Opener, tmp_path: Path) -> None:
    """The preset is set, awaited and exposed as long as the channel asks; the stage moves once for
    all channels of a field, and a preset that is set is not set again."""
    core = recorded(tmp_path, STAINED)
    microscope = opened(*STAINED, core=core, channels=TWO)
    core.calls.clear()

    for channel in (0, 1, 1):
        microscope.stack(30.0, 60.0, [0.0, 1.0], channel)
        assert core.core.getCurrentConfig("Channel") == TWO[channel][0]
        assert core.core.getExposure() == TWO[channel][1]
    microscope.stack(60.0, 60.0, [0.0], 0)

    moves = core.asked("setXYPosition", "setConfig", "waitForConfig")
    assert [call[0] for call in moves] == [
        "setXYPosition", "setConfig", "waitForConfig", "setConfig", "waitForConfig",
        "setXYPosition",
    ]  # fmt: skip


PRESETS = {
    "unknown preset": (STAINED, (("Cy5", 1.0),), "Cy5 in the group Channel, got DAPI, FITC"),
    "no group": (BEADS, (("DAPI", 1.0),), "a preset DAPI in the group Channel, got none"),
    "another binning": (
        (*STAINED, "ConfigGroup,Channel,Cy5,Camera,Binning,2"), (("DAPI", 1.0), ("Cy5", 1.0)),
        "in each channel",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "channels", "said"), PRESETS.values(), ids=PRESETS)
def test_presets_that_cannot_be_used_are_refused(
    opened: Opener, lines: tuple[str, ...], channels: tuple[tuple[str, float], ...], said: str
) -> None:
    """A preset that is not there, or gives other frames, is a mistake before the scan begins."""
    with pytest.raises(InputError) as refused:
        opened(*lines, channels=channels)

    assert said in str(refused.value)


def test_a_preset_that_fails_is_an_error_of_the_capture(opened: Opener, tmp_path: Path) -> None:
    """A wheel that is stuck fails the capture; the next one sets the preset again."""
    stuck = iter([True])

    def set_config(group: str, preset: str) -> None:
        if armed and next(stuck, False):
            raise RuntimeError("the wheel is stuck")
        core.core.setConfig(group, preset)

    armed: list[bool] = []
    core = recorded(tmp_path, STAINED, setConfig=set_config)
    microscope = opened(*STAINED, core=core, channels=TWO)
    armed.append(True)

    with pytest.raises(CaptureError, match="the wheel is stuck"):
        microscope.stack(0.0, 0.0, [0.0], 1)
    microscope.stack(0.0, 0.0, [0.0], 1)

    assert core.core.getCurrentConfig("Channel") == "DAPI"
