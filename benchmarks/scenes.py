"""Z-stacks whose sharp image and depth are known, for judging focus stacking.

Defocus is Gaussian and grows in proportion to the distance from focus. The lens itself blurs too:
the truth is what it would show if all were in focus. Light is counted in photo-electrons.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LENS_SIGMA_PX = 0.8  # of the lens in focus: about Nyquist sampling
READ_NOISE = 2.0  # photo-electrons
OFFSET, GAIN = 100.0, 2.0  # grey levels at no light, and per photo-electron


@dataclass(frozen=True)
class Scene:
    """A z-stack and its truth.

    Attributes
    ----------
    frames : (z, y, x) uint16
    sharp : (y, x) float32
        All in focus and free of noise, in the same grey levels.
    height : (y, x) float32
        Plane of best focus, with fractions.
    known : (y, x) bool
        Where there is something to see, so that a depth can be asked for.
    """

    frames: NDArray[np.uint16]
    sharp: Floats
    height: Floats
    known: NDArray[np.bool_]


def brightfield(seed: int, size: int, planes: int, blur: float, electrons: float) -> Scene:
    """Stained texture with detail at all scales over a smooth relief; `electrons` in the mean."""
    generator = np.random.default_rng(seed)
    stain = sum(_smooth(generator, size, s) for s in (0.8, 2.0, 5.0, 12.0))
    light = electrons * np.clip(1 + 0.22 * stain / stain.std(), 0.05, None)
    height = relief(generator, size, planes)
    return _photographed(generator, light, height, planes, blur, np.ones(light.shape, bool))


def fluorescence(seed: int, size: int, planes: int, blur: float, electrons: float) -> Scene:
    """Textured nuclei on a dark ground over a smooth relief; `electrons` in a bright nucleus."""
    generator = np.random.default_rng(seed)
    inside = _nuclei(generator, size)
    speckle = 1 + 0.25 * _smooth(generator, size, 1.5) + 0.25 * _smooth(generator, size, 4.0)
    light = electrons * (0.04 + inside * np.clip(speckle, 0.2, None))
    height = relief(generator, size, planes)
    return _photographed(generator, light, height, planes, blur, inside > 0.2)


def steps(seed: int, size: int, planes: int, blur: float, electrons: float) -> Scene:
    """Opaque textured discs and bars, each on a plane of its own, before a textured ground.

    The nearer hides the farther, and its blurred rim lets the farther through in proportion.
    """
    generator = np.random.default_rng(seed)
    depths = generator.permutation(np.linspace(0, planes - 2, 9))[:8]
    layers = [(planes - 1.0, np.ones((size, size), np.float32))]
    layers += [(float(d), _shape(generator, size)) for d in sorted(depths, reverse=True)]
    lights = [_painted(generator, size, electrons) for _ in layers]
    sharp, height = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    frames = np.zeros((planes, size, size), np.float32)
    for (depth, mask), light in zip(layers, lights, strict=True):
        sharp = _over(sharp, light, mask, LENS_SIGMA_PX)
        height = np.where(mask > 0.5, np.float32(depth), height)
        for plane, frame in enumerate(frames):
            sigma = float(np.hypot(LENS_SIGMA_PX, blur * abs(plane - depth)))
            frames[plane] = _over(frame, light, mask, sigma)
    camera = np.stack([_camera(generator, frame) for frame in frames])
    known = np.ones((size, size), bool)
    return Scene(camera, (OFFSET + GAIN * sharp).astype(np.float32), height, known)


@dataclass(frozen=True)
class Bright:
    """A z-stack of dim ground beside bright discs, and its truth.

    Attributes
    ----------
    frames : (z, y, x) uint16
    ground : (y, x) float32
        The ground alone, in focus, in grey levels.
    away : (y, x) float32
        Pixels from the nearest disc, 0 within.
    """

    frames: NDArray[np.uint16]
    ground: Floats
    away: Floats


def bright_discs(seed: int, size: int, radius: float, light: float, apart: float) -> Bright:
    """Discs of `light` grey levels, `apart` planes above a ground of 1,000 with fine detail.

    Light adds up, the camera saturates at 65,535; 15 planes, blur grows by 1.4 px per plane.
    """
    generator = np.random.default_rng(seed)
    ground = (1000 + 120 * _smooth(generator, size, 1.2)).astype(np.float32)
    discs = np.zeros((size, size), np.float32)
    for row in range(64, size - 32, 128):
        for column in range(64, size - 32, 128):
            centre = tuple(np.int32((np.array((column, row)) + generator.uniform(-12, 12, 2)) * 16))
            cv2.circle(discs, centre, int(radius * 16), 1.0, -1, cv2.LINE_AA, 4)
    frames = []
    for plane in range(15):
        sigmas = (float(np.hypot(LENS_SIGMA_PX, 1.4 * (plane - z))) for z in (3, 3 + apart))
        lit = _blur(ground, next(sigmas)) + _blur(light * discs, next(sigmas))
        frames.append(lit + generator.normal(0, 1, lit.shape) * np.sqrt(lit / 2 + 25))
    away = cv2.distanceTransform((discs <= 0).astype(np.uint8), cv2.DIST_L2, 5)
    camera = np.clip(np.rint(frames), 0, 65535).astype(np.uint16)
    return Bright(camera, _blur(ground, LENS_SIGMA_PX), np.asarray(away, np.float32))


def relief(generator: np.random.Generator, size: int, planes: int) -> Floats:
    """A smooth surface between the second plane and the last but one."""
    bumps = _smooth(generator, size, size / 5)
    low, high = bumps.min(), bumps.max()
    return np.asarray(1 + (planes - 3) * (bumps - low) / (high - low), np.float32)


def _photographed(
    generator: np.random.Generator,
    light: NDArray[np.floating],
    height: Floats,
    planes: int,
    blur: float,
    known: NDArray[np.bool_],
) -> Scene:
    """The z-stack of a surface: every place is blurred by its own distance from focus."""
    away = np.r_[np.arange(0, 2, 0.125), np.arange(2, planes + 0.5, 0.5)]
    sigmas = np.hypot(LENS_SIGMA_PX, blur * away)
    blurred = np.stack([_blur(light.astype(np.float32), float(s)) for s in sigmas])
    frames = []
    for plane in range(planes):
        place = np.interp(np.abs(height - plane), away, np.arange(len(away)))
        low = np.minimum(place.astype(int), len(away) - 2)
        pair = np.take_along_axis(blurred, np.stack([low, low + 1]), 0)
        frames.append(_camera(generator, pair[0] + (place - low) * (pair[1] - pair[0])))
    return Scene(np.stack(frames), OFFSET + GAIN * blurred[0], height, known)


def _camera(generator: np.random.Generator, light: NDArray[np.floating]) -> NDArray[np.uint16]:
    electrons = generator.poisson(light) + generator.normal(0, READ_NOISE, light.shape)
    return np.clip(np.rint(OFFSET + GAIN * electrons), 0, 65535).astype(np.uint16)


def _blur(image: Floats, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)


def _smooth(generator: np.random.Generator, size: int, sigma: float) -> Floats:
    """Gaussian noise of one scale, standard deviation 1."""
    noise = _blur(generator.standard_normal((size, size), np.float32), sigma)
    return np.asarray(noise / noise.std(), np.float32)


def _nuclei(generator: np.random.Generator, size: int) -> Floats:
    """Brightness (y, x) of ellipses 24 to 60 px wide, 0.3 to 1, that cover a fifth or so."""
    inside = np.zeros((size, size), np.float32)
    for _ in range(size * size // 6000):
        axes = generator.uniform(12, 30, 2)
        ellipse = np.zeros_like(inside)
        centre = generator.uniform(0, size, 2)
        box = (tuple(map(float, centre)), tuple(map(float, 2 * axes)), generator.uniform(0, 180))
        cv2.ellipse(ellipse, box, float(generator.uniform(0.3, 1)), -1, cv2.LINE_AA)
        inside = np.maximum(inside, ellipse)
    return _blur(inside, 1.0)


def _shape(generator: np.random.Generator, size: int) -> Floats:
    """An opaque disc or bar, 0 to 1."""
    mask = np.zeros((size, size), np.float32)
    centre = tuple(map(float, generator.uniform(0.1 * size, 0.9 * size, 2)))
    long, wide = generator.uniform(0.1, 0.5) * size, generator.uniform(0.05, 0.15) * size
    axes = (wide * 2, wide * 2) if generator.random() < 0.5 else (long, wide)
    box = (centre, tuple(map(float, axes)), float(generator.uniform(0, 180)))
    if axes[0] == axes[1]:
        cv2.ellipse(mask, box, 1.0, -1, cv2.LINE_AA)
    else:
        cv2.fillConvexPoly(mask, np.rint(cv2.boxPoints(box)).astype(np.int32), 1.0, cv2.LINE_AA)
    return mask


def _painted(generator: np.random.Generator, size: int, electrons: float) -> Floats:
    """Texture of one layer, of a brightness of its own."""
    paint = _smooth(generator, size, 1.0) + _smooth(generator, size, 4.0)
    level = generator.uniform(0.4, 1.2)
    return np.asarray(electrons * level * np.clip(1 + 0.15 * paint, 0.05, None), np.float32)


def _over(behind: Floats, light: Floats, mask: Floats, sigma: float) -> Floats:
    """A layer before what is behind it, both edges and paint blurred alike."""
    cover = _blur(mask, sigma)
    return np.asarray(behind * (1 - cover) + _blur(light * mask, sigma), np.float32)
