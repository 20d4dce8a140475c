"""The simulated microscope shows the known specimen as a widefield one would, in real time."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microscope.simulated import (
    BACKGROUND_PER_MS,
    LEVELS_PER_ELECTRON,
    OFFSET_LEVELS,
    READ_NOISE_ELECTRONS,
    SimulatedMicroscope,
)
from microscope.specimen import FocusSurface, Specimen
from scan.errors import CaptureError

PIXEL_UM = 0.325
FIELD_UM = 128 * PIXEL_UM
FLAT = FocusSurface(0.0, 0.0, 0.0, 0.0)
GROWN = Specimen.grow(11, (FIELD_UM * 2, FIELD_UM * 2))


def specimen_of(*objects: tuple[float, float, float]) -> Specimen:
    """Make a flat specimen of round objects, 10 µm wide, at places (x, y, z)."""
    x_um, y_um, z_um = np.array(objects, float).reshape(-1, 3).T
    ones = np.ones(len(objects))
    seeds = np.arange(len(objects))
    return Specimen((300.0, 300.0), FLAT, x_um, y_um, z_um, 10 * ones, ones, 0 * ones, 50 * ones,
                    seeds)  # fmt: skip


class Clock:
    """Time that passes only while someone sleeps, and then a little longer than asked."""

    def __init__(self, oversleep_s: float = 0.0) -> None:
        self.now_s, self.oversleep_s = 1000.0, oversleep_s

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let that much time pass."""
        self.now_s += seconds + self.oversleep_s


def microscope_on(
    specimen: Specimen, clock: Clock | None = None, **options: object
) -> SimulatedMicroscope:
    """Open a microscope whose time is not ours."""
    clock = clock or Clock()
    usual = {"frame_shape": (128, 128), "pixel_size_um": PIXEL_UM, "exposure_ms": 5.0,
                "seed": 3, "clock": clock, "sleep": clock.sleep}  # fmt: skip
    return SimulatedMicroscope(specimen, **(usual | options))  # type: ignore[arg-type]


def light_of(microscope: SimulatedMicroscope, z_um: float, at_um: float = 150.0) -> np.ndarray:
    """Light of the objects alone, without the background."""
    background = BACKGROUND_PER_MS * microscope.exposure_ms
    return microscope.electrons(at_um, at_um, z_um).astype(float) - background


@given(st.floats(-200, 200), st.floats(149, 151), st.floats(0.1, 2.0))
@settings(max_examples=40, deadline=None)
def test_defocus_conserves_light(z_um: float, x_um: float, pixel_um: float) -> None:
    """The sum over a frame that holds the whole blur is the same at every focus height."""
    side = min(2 * int((4 * 0.29 * abs(z_um) + 10) / pixel_um) + 64, 2048)
    options = {"frame_shape": (side, side), "pixel_size_um": max(pixel_um, 0.3)}
    microscope = microscope_on(specimen_of((x_um, 150.0, 0.0)), **options)

    sharp, blurred = light_of(microscope, 0.0).sum(), light_of(microscope, z_um).sum()

    assert blurred == pytest.approx(sharp, rel=2e-3)


@pytest.mark.parametrize("defocus_um", [2.0, 5.0, 8.0, 9.5, 15.0, 40.0])
def test_blur_grows_with_the_cone_of_light(defocus_um: float) -> None:
    """Second moments grow by the square of tan(asin(NA / n)) / 2 µm for each µm of defocus."""
    microscope = microscope_on(specimen_of((150.0, 150.0, 0.0)), frame_shape=(512, 512))
    column_um = (np.arange(512) - 255.5) * PIXEL_UM

    def variance_um2(z_um: float) -> float:
        profile = light_of(microscope, z_um).sum(axis=0)
        mean = np.average(column_um, weights=profile)
        return float(np.average((column_um - mean) ** 2, weights=profile))

    widened_um = np.sqrt(variance_um2(defocus_um) - variance_um2(0.0))
    assert widened_um == pytest.approx(np.tan(np.arcsin(0.5)) / 2 * defocus_um, rel=0.01)


@pytest.mark.parametrize("z_um", [0.0, -3.0, 20.0], ids=["sharp", "below", "far above"])
@pytest.mark.parametrize("shift_um", [0.0, 0.1, 7.77])
def test_objects_appear_where_they_are(z_um: float, shift_um: float) -> None:
    """Moving the stage moves the picture by as much, to a fraction of a pixel, at any focus."""
    microscope = microscope_on(specimen_of((150.0, 150.0, 0.0)), frame_shape=(511, 511))
    index = np.arange(511) - 255

    def centre_um(stage_um: float) -> float:
        profile = light_of(microscope, z_um, stage_um).sum(axis=0)
        return float(np.average(index, weights=profile)) * PIXEL_UM

    assert centre_um(150.0) - centre_um(150.0 + shift_um) == pytest.approx(shift_um, abs=0.01)


@pytest.mark.parametrize("side", [256, 257], ids=["even", "odd"])
def test_the_position_is_that_of_the_middle_of_the_frame(side: int) -> None:
    """What lies at the position of the stage appears at pixel (side - 1) / 2."""
    many = specimen_of(*[(150.0, 150.0, 0.0)] * 40)  # their textures cancel out

    light = light_of(microscope_on(many, frame_shape=(side, side)), 0.0)

    for axis in (0, 1):
        centre = np.average(np.arange(side), weights=light.sum(axis=axis))
        assert centre == pytest.approx((side - 1) / 2, abs=0.2)


@pytest.mark.parametrize("height_um", [-4.0, 0.0, 3.5])
def test_an_object_is_sharpest_at_its_own_height(height_um: float) -> None:
    """The variance of the picture is greatest at the plane nearest to the object."""
    microscope = microscope_on(specimen_of((150.0, 150.0, height_um)))
    heights = np.arange(-8, 8.5, 0.5)

    sharpness = [light_of(microscope, z).var() for z in heights]

    assert heights[np.argmax(sharpness)] == height_um


@pytest.mark.parametrize(
    "x_um", [150 - 21.0, 150 - 27.0, 150 + 60.0], ids=["cut", "outside", "far"]
)
def test_light_from_beyond_the_border_comes_in(x_um: float) -> None:
    """A frame equals the middle of a larger frame: what lies outside is culled only if unseen."""
    specimen = specimen_of((x_um, 150.0, 0.0), (150.0, 150.0 + 21.0, 5.0))
    small = microscope_on(specimen, frame_shape=(128, 128))
    large = microscope_on(specimen, frame_shape=(512, 512))

    for z_um in (0.0, 10.0, 60.0):
        middle = light_of(large, z_um)[192:320, 192:320]
        np.testing.assert_allclose(light_of(small, z_um), middle, atol=1e-3)


positions_um = st.tuples(st.floats(0, 80), st.floats(0, 80), st.floats(-20, 20))


@given(st.lists(positions_um, min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_a_plane_taken_twice_is_the_same_bytes(positions: list[tuple[float, float, float]]) -> None:
    """Neither what was photographed before nor the instance shows in a picture."""
    first, second = microscope_on(GROWN), microscope_on(GROWN)
    forth = {p: first.stack(p[0], p[1], [p[2]]).frames.tobytes() for p in positions}

    back = {p: second.stack(p[0], p[1], [p[2]]).frames.tobytes() for p in reversed(positions)}

    assert forth == back


def test_another_process_takes_the_same_bytes() -> None:
    """A worker that takes over from another one photographs the same."""
    code = (
        "import hashlib\n"
        "from microscope.simulated import SimulatedMicroscope\n"
        "from microscope.specimen import Specimen\n"
        "s = Specimen.grow(11, (83.2, 83.2))\n"
        "m = SimulatedMicroscope(s, frame_shape=(64, 96), pixel_size_um=0.325, exposure_ms=1.0,"
        " seed=3, settle_ms=0)\n"
        "print(hashlib.sha256(m.stack(20.0, -3.5, [-1.0, 2.5]).frames).hexdigest())\n"
    )
    here = microscope_on(
        Specimen.grow(11, (83.2, 83.2)), frame_shape=(64, 96), exposure_ms=1.0
    ).stack(20.0, -3.5, [-1.0, 2.5]).frames  # fmt: skip

    there = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert there.stdout.strip() == hashlib.sha256(here).hexdigest()


@pytest.mark.parametrize(
    "other", [{"seed": 4}, {"x_um": 30.001}, {"y_um": 30.001}, {"z_um": 0.001}],
    ids=["seed", "x", "y", "z"],
)  # fmt: skip
def test_noise_differs_wherever_anything_differs(other: dict[str, float]) -> None:
    """One nanometre aside, or another seed, and the noise is independent."""
    place = {"x_um": 30.0, "y_um": 30.0, "z_um": 0.0} | other
    seed = int(place.pop("seed", 3))
    empty = specimen_of()
    first = microscope_on(empty).stack(30.0, 30.0, [0.0]).frames.astype(float)

    second = microscope_on(empty, seed=seed).stack(
        place["x_um"], place["y_um"], [place["z_um"]]
    ).frames.astype(float)  # fmt: skip

    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.04  # 5 sd of 128² pixels


def test_noise_is_that_of_photons_and_camera() -> None:
    """Mean and variance of an empty field are those of offset, gain, shot and read noise."""
    frame = microscope_on(specimen_of(), frame_shape=(512, 512)).stack(0.0, 0.0, [0.0]).frames
    electrons = BACKGROUND_PER_MS * 5.0

    mean = OFFSET_LEVELS + LEVELS_PER_ELECTRON * electrons
    variance = LEVELS_PER_ELECTRON**2 * (electrons + READ_NOISE_ELECTRONS**2) + 1 / 12

    assert frame.dtype == np.uint16
    assert frame.mean() == pytest.approx(mean, abs=0.1)
    assert frame.var() == pytest.approx(variance, rel=0.02)


def test_the_camera_saturates() -> None:
    """Too long an exposure saturates at the maximum and does not wrap around."""
    microscope = microscope_on(specimen_of((150.0, 150.0, 0.0)), exposure_ms=1e4)

    frame = microscope.stack(150.0, 150.0, [0.0]).frames[0]

    assert frame[64, 64] == 65535
    assert frame.min() > 10000


def test_a_stack_is_its_planes_in_the_order_asked() -> None:
    """Frames are contiguous and each equals the plane photographed by itself."""
    microscope = microscope_on(GROWN)
    heights = [3.0, -3.0, 0.0]

    stack = microscope.stack(40.0, 40.0, heights)

    assert stack.frames.shape == (3, 128, 128)
    assert stack.frames.flags.c_contiguous
    for frame, z_um in zip(stack.frames, heights, strict=True):
        np.testing.assert_array_equal(frame, microscope.stack(40.0, 40.0, [z_um]).frames[0])


@pytest.mark.parametrize("oversleep_ms", [0.0, 0.3], ids=["punctual", "late"])
def test_moves_settling_and_exposure_take_their_time(oversleep_ms: float) -> None:
    """Planes are due after travel and settling; lateness shows as slip and is handed on."""
    microscope = microscope_on(
        specimen_of(), Clock(oversleep_ms / 1e3), settle_ms=3.0, exposure_ms=5.0,
        stage_speed_um_per_ms=10.0, focus_speed_um_per_ms=0.5,
    )  # fmt: skip

    stack = microscope.stack(100.0, 50.0, [1.0, 2.0])

    first_ms, second_ms = (np.array(stack.due_s) - 1000) * 1e3
    slip_ms = (np.array(stack.began_s) - stack.due_s) * 1e3
    assert first_ms == pytest.approx(10 + 3, abs=1e-6)  # the stage has the longer way
    assert second_ms - first_ms == pytest.approx(5 + 2 + 3 + 2 * oversleep_ms, abs=1e-6)
    assert slip_ms == pytest.approx([oversleep_ms] * 2, abs=1e-6)
    assert (stack.ended_s - stack.began_s[-1]) * 1e3 == pytest.approx(5 + oversleep_ms, abs=1e-6)


def test_time_really_passes() -> None:
    """On the real clock a stack takes at least its exposures and settling."""
    microscope = SimulatedMicroscope(
        specimen_of(), frame_shape=(16, 16), pixel_size_um=1.0, exposure_ms=4.0, seed=0,
        settle_ms=1.0,
    )  # fmt: skip

    stack = microscope.stack(0.0, 0.0, [0.0, 0.0, 0.0])

    assert stack.ended_s - stack.due_s[0] >= 0.95 * (3 * 4 + 2 * 1) / 1e3
    assert all(b - d > -1e-3 for b, d in zip(stack.began_s, stack.due_s, strict=True))


@pytest.mark.parametrize(
    ("place", "device"),
    [
        ((0.0, 0.0, [0.0, 200.1]), "simulated focus drive"),
        ((0.0, 0.0, [-1e6]), "simulated focus drive"),
        ((0.0, 0.0, [float("nan")]), "simulated focus drive"),
        ((float("inf"), 0.0, [0.0]), "simulated stage"),
    ],
    ids=["just above", "far below", "z NaN", "x infinite"],
)
def test_a_position_beyond_the_limits_is_refused(
    place: tuple[float, float, list[float]], device: str
) -> None:
    """The device and its limits are named, and nothing has moved."""
    clock = Clock()
    microscope = microscope_on(specimen_of(), clock)

    with pytest.raises(CaptureError, match=device):
        microscope.stack(*place)

    assert clock() == 1000.0


def test_a_closed_microscope_refuses_stacks() -> None:
    """Stop and close are safe from any state and may be repeated; a stack is refused afterwards."""
    microscope = microscope_on(specimen_of())
    for call in (microscope.stop, microscope.close, microscope.close, microscope.stop):
        call()

    with pytest.raises(CaptureError, match="closed"):
        microscope.stack(0.0, 0.0, [0.0])


def test_brightness_and_exposure_scale_the_light() -> None:
    """Twice the exposure of half the brightness gathers the same light from an object."""
    bright = specimen_of((150.0, 150.0, 0.0))
    dim = replace(bright, brightness=bright.brightness / 2)

    short = light_of(microscope_on(bright, exposure_ms=5.0), 1.0)
    long = light_of(microscope_on(dim, exposure_ms=10.0), 1.0)

    np.testing.assert_allclose(short, long, atol=1e-3)


def test_corners_lack_the_light_that_is_asked_for() -> None:
    """Light falls smoothly from the centre to the corners; by default it does not."""
    empty = specimen_of()
    even = microscope_on(empty).electrons(0, 0, 0)
    light = microscope_on(empty, vignetting=0.45).electrons(0, 0, 0) / even

    np.testing.assert_allclose(light[[0, 0, -1, -1], [0, -1, 0, -1]], 0.55, rtol=1e-5)
    np.testing.assert_allclose(light[63:65, 63:65], 1, rtol=1e-3)
    assert (np.diff(light[64, 64:]) < 0).all()
    np.testing.assert_array_equal(even, even[0, 0])
