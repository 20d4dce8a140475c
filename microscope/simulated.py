"""A simulated widefield microscope over a known specimen, with realistic timing.

An image depends on the seed and the position only, not on earlier images or the process. Defocus
spreads light without loss. The image is computed during its exposure, so the microscope sleeps
only for the remaining time.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from microscope import ZStack
from microscope.blur import REACH, add_blurred, coarseness, coarser
from microscope.noise import normal_noise
from microscope.specimen import Specimen
from microscope.stage_errors import EXACT, StageErrors
from scan.clock import now_s
from scan.errors import CaptureError

NUMERICAL_APERTURE = 0.5
REFRACTIVE_INDEX = 1.0
WAVELENGTH_UM = 0.52
# Gaussian nearest to the in-focus pattern: Zhang, Zerubia and Olivo-Marin, Applied Optics 46:1819
# (2007), doi:10.1364/AO.46.001819, table 1.
FOCUSED_SIGMA_UM = 0.21 * WAVELENGTH_UM / NUMERICAL_APERTURE
# Out of focus a point becomes a disc as wide as the cone of light, tan(asin(NA / n)) per µm; an
# even disc has half its radius as standard deviation along either axis.
SIGMA_PER_DEFOCUS = math.tan(math.asin(NUMERICAL_APERTURE / REFRACTIVE_INDEX)) / 2

EDGE_UM = 0.8  # width over which the rim of an object fades
WAVES, WAVELENGTHS_UM, WAVE_HEIGHT = 12, (1.0, 3.0), 0.08  # speckle of chromatin
SPOTS, SPOT_UM, SPOT_SPREAD_UM = 5, (0.4, 0.9), 2.2  # nucleoli and dense spots
BACKGROUND_PER_MS = 2.0  # photo-electrons per ms and pixel
OFFSET_LEVELS = 100.0
LEVELS_PER_ELECTRON = 2.0
READ_NOISE_ELECTRONS = 1.6  # usual for a scientific CMOS camera
Z_LIMIT_UM = 200.0
SEEDS = 2**32  # by which the seeds of channels differ, so that their noise does
CACHED_PATCHES = 512  # some 10 kB each; a field of 2048 pixels shows fewer than 256 objects


@dataclass(eq=False)
class SimulatedMicroscope:
    """A stage, a focus drive and a 16 bit camera over a specimen.

    Parameters
    ----------
    specimen : Specimen
        The simulated slide.
    frame_shape : tuple of int
        (y, x) in pixels.
    pixel_size_um, exposure_ms : float
        Pixel size on the specimen and exposure time of the camera.
    seed : int
        Seed of the camera's noise, 0 or more.
    settle_ms : float
        Settling time after every move.
    stage_speed_um_per_ms, focus_speed_um_per_ms : float
        Of the xy stage and of the focus drive, which move simultaneously.
    vignetting : float
        Share of its light that a frame lacks in the corners.
    channels : sequence of (Specimen, float)
        For each channel what its stain shows, and its exposure time in ms; by default there is one,
        which shows the specimen.
    errors : StageErrors
        Where the stage stands instead of where it is sent.
    clock, sleep : callable
        Wall clock in s and wait in s; tests replace them.
    """

    specimen: Specimen
    _: KW_ONLY
    frame_shape: tuple[int, int]
    pixel_size_um: float
    exposure_ms: float
    seed: int
    settle_ms: float = 2.0
    stage_speed_um_per_ms: float = 10.0
    focus_speed_um_per_ms: float = 1.0
    vignetting: float = 0.0
    channels: Sequence[tuple[Specimen, float]] = ()
    errors: StageErrors = EXACT
    clock: Callable[[], float] = now_s
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        self.dtype = np.dtype(np.uint16)
        self._position_um = np.zeros(3)
        self._closed = False
        self._patch = lru_cache(CACHED_PATCHES)(self._draw_coarser)
        long_um = self.specimen.diameter_um * np.sqrt(self.specimen.elongation)
        self._reach_um = long_um / 2 + EDGE_UM
        self._views = [
            replace(self, specimen=stain, exposure_ms=ms, seed=self.seed + k * SEEDS, channels=())
            for k, (stain, ms) in enumerate(self.channels)
        ] or [self]

    def stack(self, x_um: float, y_um: float, z_um: Sequence[float], channel: int = 0) -> ZStack:
        """Capture a plane of a channel at each height, (z, y, x) uint16; moves and exposures take
        real time.

        Raises
        ------
        CaptureError
            A height beyond the limits of the focus drive, or a closed microscope.
        """
        self._check(x_um, y_um, z_um)
        frames = np.empty((len(z_um), *self.frame_shape), self.dtype)
        due_s, began_s, view = [], [], self._views[channel]
        for frame, z in zip(frames, z_um, strict=True):
            due_s.append(self._move(np.array([x_um, y_um, z])))
            began_s.append(self.clock())
            view._photograph(frame, x_um, y_um, z)
            self._wait_until(began_s[-1] + view.exposure_ms / 1e3)
        return ZStack(frames, tuple(due_s), tuple(began_s), self.clock())

    def stop(self) -> None:
        """Do nothing: every call returns with the stage at rest."""

    def close(self) -> None:
        """Refuse further stacks and release the cached patches."""
        self._closed = True
        for view in self._views:
            view._patch.cache_clear()

    def truth(self, x_um: float, y_um: float, channel: int = 0) -> np.ndarray:
        """Return the noise-free light of a channel with all objects in focus, (y, x) float32
        photo-electrons."""
        view = self._views[channel]
        return view.electrons(x_um, y_um, view.specimen.height_um)

    def electrons(self, x_um: float, y_um: float, z_um: float | np.ndarray) -> np.ndarray:
        """Return the noise-free light of one exposure, (y, x) float32 photo-electrons.

        The height is that of the focus, or one for each object.
        """
        right_um, down_um = self.errors.at(x_um, y_um)
        x_um, y_um = x_um + right_um, y_um + down_um
        light = np.full(self.frame_shape, BACKGROUND_PER_MS * self.exposure_ms, np.float32)
        defocus_um = self.specimen.height_um - z_um
        sigma_px = np.hypot(FOCUSED_SIGMA_UM, SIGMA_PER_DEFOCUS * defocus_um) / self.pixel_size_um
        seen = self._in_view(x_um, y_um, sigma_px)
        whole_px, phases = self._pixels(seen, np.array([[y_um], [x_um]]))
        for index, sigma, at, phase in zip(
            seen.tolist(), sigma_px[seen].tolist(), whole_px, phases, strict=True
        ):
            factor = coarseness(sigma)
            add_blurred(light, self._patch(index, *phase, factor), at, sigma, factor)
        if self.vignetting:
            light *= vignetted(self.frame_shape, self.vignetting)
        return light

    def _pixels(self, objects: np.ndarray, middle_um: np.ndarray) -> tuple[list[Any], list[Any]]:
        """Return the pixel (y, x) of the centre of each object and the fractions, by the position
        of the middle of the frame.

        They are rounded to a thousandth, so that fields of one mosaic share cached patches.
        """
        middle_px = (np.array(self.frame_shape) - 1)[:, None] / 2
        first_px = np.round(middle_um / self.pixel_size_um - middle_px, 3)
        centre_um = np.array([self.specimen.y_um[objects], self.specimen.x_um[objects]])
        centre_px = np.round(centre_um / self.pixel_size_um - first_px, 3)
        whole_px = np.floor(centre_px)
        phases = np.round(centre_px - whole_px, 3)
        return whole_px.astype(int).T.tolist(), phases.T.tolist()

    def _check(self, x_um: float, y_um: float, z_um: Sequence[float]) -> None:
        if self._closed:
            expected, got = "an open microscope", "a closed one"
            raise CaptureError("simulated microscope", expected, got, "open a new one")
        if not (math.isfinite(x_um) and math.isfinite(y_um)):
            got, hint = f"({x_um}, {y_um}) µm", "check the positions of the fields"
            raise CaptureError("simulated stage", "a finite position", got, hint)
        for z in z_um:
            if not abs(z) <= Z_LIMIT_UM:
                expected = f"z within -{Z_LIMIT_UM:g} … {Z_LIMIT_UM:g} µm"
                hint = "check the focus surface, the number of planes and the z-step"
                raise CaptureError("simulated focus drive", expected, f"z = {z:g} µm", hint)

    def _move(self, target_um: np.ndarray) -> float:
        """Move and settle; return the time at which settling should end."""
        stage, focus = self.stage_speed_um_per_ms, self.focus_speed_um_per_ms
        travel_ms = np.max(np.abs(target_um - self._position_um) / (stage, stage, focus))
        due_s = self.clock() + (float(travel_ms) + self.settle_ms) / 1e3
        self._wait_until(due_s)
        self._position_um = target_um
        return due_s

    def _wait_until(self, moment_s: float) -> None:
        remaining_s = moment_s - self.clock()
        if remaining_s > 0:
            self.sleep(remaining_s)

    def _photograph(self, frame: np.ndarray, x_um: float, y_um: float, z_um: float) -> None:
        """Write one plane: shot and read noise as one normal deviate for each pixel."""
        electrons = self.electrons(x_um, y_um, z_um)
        position_nm = [round(1000 * value) % 2**64 for value in (x_um, y_um, z_um)]
        noise = normal_noise([self.seed, *position_nm], self.frame_shape)
        gain, first = LEVELS_PER_ELECTRON, 0
        for deviation in noise:
            rows = slice(first, first := first + len(deviation))
            light = electrons[rows]
            deviation *= np.sqrt(light + np.float32(READ_NOISE_ELECTRONS**2))
            cv2.addWeighted(  # rounded, and limited to what a pixel holds
                light, gain, deviation, gain, OFFSET_LEVELS, dst=frame[rows], dtype=cv2.CV_16U
            )

    def _in_view(self, x_um: float, y_um: float, sigma_px: np.ndarray) -> np.ndarray:
        """Return the indices of the objects whose light reaches the frame."""
        height_um, width_um = np.array(self.frame_shape) * self.pixel_size_um / 2
        reach_um = self._reach_um + ((REACH + 0.5) * sigma_px + 4) * self.pixel_size_um
        outside_x = np.abs(self.specimen.x_um - x_um) > width_um + reach_um
        outside_y = np.abs(self.specimen.y_um - y_um) > height_um + reach_um
        return np.flatnonzero(~(outside_x | outside_y))

    def _draw_coarser(self, index: int, phase_y: float, phase_x: float, factor: int) -> np.ndarray:
        """Draw one object without blur for a blur at reduced resolution, in photo-electrons."""
        if factor > 1:
            return coarser(self._patch(index, phase_y, phase_x, 1), factor)
        return self._draw_sharp(index, phase_y, phase_x) * np.float32(self.exposure_ms)

    def _draw_sharp(self, index: int, phase_y: float, phase_x: float) -> np.ndarray:
        """Draw one object without blur, in photo-electrons per ms, at a subpixel phase."""
        specimen = self.specimen
        half = math.ceil(self._reach_um[index] / self.pixel_size_um) + 1
        steps_px = np.arange(-half, half + 1)
        y_um = (steps_px - phase_y) * self.pixel_size_um
        x_um = (steps_px - phase_x) * self.pixel_size_um
        cosine, sine = np.cos(specimen.orientation[index]), np.sin(specimen.orientation[index])
        along_um = x_um * cosine + y_um[:, None] * sine
        across_um = y_um[:, None] * cosine - x_um * sine
        stretch, radius_um = np.sqrt(specimen.elongation[index]), specimen.diameter_um[index] / 2
        distance = np.hypot(along_um / stretch, across_um * stretch) / radius_um
        body = np.clip((1 - distance) * radius_um / EDGE_UM + 0.5, 0, 1)
        light = body**2 * (3 - 2 * body) * specimen.brightness[index]
        light *= _texture(y_um, x_um, int(specimen.texture_seed[index]))
        return np.asarray(light, np.float32)


@lru_cache(maxsize=2)
def vignetted(frame_shape: tuple[int, int], share: float) -> np.ndarray:
    """Return the light over a frame, (y, x) float32: 1 in the centre, 1 - share in the corners.

    It falls as cos⁴ of the angle to the optical axis.
    """
    y, x = (np.linspace(-1, 1, size) for size in frame_shape)
    tangent = (1 / math.sqrt(1 - share) - 1) * (y[:, None] ** 2 + x**2) / 2
    return np.asarray(1 / (1 + tangent) ** 2, np.float32)


def _texture(y_um: np.ndarray, x_um: np.ndarray, seed: int) -> np.ndarray:
    """Return the texture of an object, about 1: speckle of random waves, dark and bright spots.

    Waves and spots are products of a function of y and one of x, so their sums over the patch are
    matrix products.
    """
    generator = np.random.default_rng(seed)
    angle, phase = generator.uniform(0, 2 * np.pi, (2, WAVES))
    turns = 2 * np.pi / generator.uniform(*WAVELENGTHS_UM, WAVES)
    rows = np.exp(1j * (np.outer(y_um, turns * np.sin(angle)) + phase))
    speckle = (rows @ np.exp(1j * np.outer(turns * np.cos(angle), x_um))).real
    spot_y_um, spot_x_um = generator.normal(0, SPOT_SPREAD_UM, (2, SPOTS, 1))
    width_um = np.sqrt(2) * generator.uniform(*SPOT_UM, (SPOTS, 1))
    spots_y = np.exp(-(((y_um - spot_y_um) / width_um) ** 2))
    spots_x = np.exp(-(((x_um - spot_x_um) / width_um) ** 2))
    spots = (spots_y * generator.choice([-0.5, 0.6], (SPOTS, 1))).T @ spots_x
    return np.asarray((1 + WAVE_HEIGHT * speckle + spots).clip(0.2, None))
