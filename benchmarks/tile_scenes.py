"""Overlapping fields of a known slide, photographed by a stage that misses its targets.

The slide is smooth, as a lens leaves it, and each field gets photons of its own: two fields share
what they show and no noise. Positions are whole pixels or fractions of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

OFFSET, GAIN, READ_NOISE = 100.0, 2.0, 1.6  # grey levels, per photo-electron, photo-electrons
BORDER_PX = 64  # of the slide around the fields
TILE_PX = 1024  # the slide is drawn in parts, which differ
NUCLEUS_PX = 32  # from the middle of a nucleus to its end, or farther


@dataclass(frozen=True)
class Tiles:
    """Fields and where they are.

    Attributes
    ----------
    images : (stripes, fields, y, x) uint16
    origins : (stripes, fields, 2) int
        Nominal first pixel (y, x) of each field in the mosaic.
    offsets : (stripes, fields, 2) float64
        Where each field is, from there.
    slide : (y, x) float32
        What a camera without noise would show, in grey levels; the mosaic's first pixel is at
        (BORDER_PX, BORDER_PX).
    """

    images: NDArray[np.uint16]
    origins: NDArray[np.int64]
    offsets: NDArray[np.float64]
    slide: Floats


@dataclass(frozen=True)
class Stage:
    """How a stage misses its targets.

    Attributes
    ----------
    error_px : float
        Standard deviation of a normal error, per axis.
    turned_deg : float
        By how much its steps are turned against the camera.
    drift_px : float
        Added from field to field, to the right along each stripe.
    whole : bool
        Whether it stands at whole pixels.
    """

    error_px: float
    turned_deg: float = 0.0
    drift_px: float = 0.0
    whole: bool = False


def slide(kind: str, seed: int, shape: tuple[int, int]) -> Floats:
    """Light of a slide (y, x) in photo-electrons: dense, sparse or brightfield."""
    generator = np.random.default_rng(seed)
    light = np.empty(shape, np.float32)
    for y in range(0, shape[0], TILE_PX):
        for x in range(0, shape[1], TILE_PX):
            part = light[y : y + TILE_PX, x : x + TILE_PX]
            part[:] = _part(kind, generator)[: part.shape[0], : part.shape[1]]
    if kind == "sparse":
        light *= _areas(generator, shape)
        light += 50
    return cv2.GaussianBlur(light, (0, 0), 1.0)


def _part(kind: str, generator: np.random.Generator) -> Floats:
    if kind == "brightfield":
        stain = sum(_smooth(generator, s) * a for s, a in ((1.5, 0.6), (4.0, 1.0), (12.0, 1.0)))
        return np.asarray(1100 * np.clip(1 + 0.06 * stain, 0.05, None), np.float32)
    inside = np.zeros((TILE_PX, TILE_PX), np.float32)
    for _ in range(TILE_PX**2 // 5000):
        centre = generator.uniform(0, TILE_PX, 2)
        axes = generator.uniform(20, 44, 2)
        y, x = (max(int(edge) - NUCLEUS_PX, 0) for edge in centre[::-1])  # drawn where it is only
        part = inside[y : y + 2 * NUCLEUS_PX, x : x + 2 * NUCLEUS_PX]
        middle = float(centre[0] - x), float(centre[1] - y)
        box = (middle, tuple(map(float, axes)), generator.uniform(0, 180))
        ellipse = np.zeros_like(part)
        cv2.ellipse(ellipse, box, float(generator.uniform(0.3, 1)), -1, cv2.LINE_AA)
        np.maximum(part, ellipse, out=part)
    speckle = np.clip(1 + 0.25 * _smooth(generator, 1.5) + 0.25 * _smooth(generator, 4.0), 0.2, 2)
    return np.asarray(350 * inside * speckle + (50 if kind == "dense" else 0), np.float32)


def _smooth(generator: np.random.Generator, sigma: float) -> Floats:
    noise = generator.standard_normal((TILE_PX, TILE_PX), np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigma)
    return np.asarray(noise / noise.std(), np.float32)


def _areas(generator: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Where there are objects: areas a few fields wide that cover half of the slide."""
    coarse = generator.standard_normal([edge // 64 + 2 for edge in shape]).astype(np.float32)
    coarse = cv2.GaussianBlur(coarse, (0, 0), 1.6)
    wide = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return (wide > np.median(coarse)).astype(np.float32)


def cut_tiles(
    light: Floats,
    grid: tuple[int, int],
    stage: Stage,
    *,
    field_px: int,
    overlap_px: int,
    seed: int,
) -> Tiles:
    """Photograph a grid of stripes and fields."""
    generator = np.random.default_rng([seed, 1])
    stripes, fields = np.meshgrid(*map(np.arange, grid), indexing="ij")
    origins = np.stack([stripes, fields], axis=-1) * (field_px - overlap_px)
    offsets = generator.normal(0, stage.error_px, origins.shape)
    angle = np.deg2rad(stage.turned_deg)
    turn = np.array([[np.cos(angle) - 1, np.sin(angle)], [-np.sin(angle), np.cos(angle) - 1]])
    offsets += origins @ turn.T
    offsets[..., 1] += stage.drift_px * (stripes * grid[1] + fields)
    if stage.whole:
        offsets = np.rint(offsets)
    images = np.empty((*grid, field_px, field_px), np.uint16)
    for place in np.ndindex(grid):
        clean = _seen(light, origins[place] + offsets[place] + BORDER_PX, field_px)
        images[place] = photographed(generator, clean)
    return Tiles(images, origins, offsets, OFFSET + GAIN * light)


def slide_shape(
    grid: tuple[int, int], field_px: int, overlap_px: int, more_px: int = 0
) -> tuple[int, int]:
    """Size of the slide that a grid of fields needs, and `more_px` for a turned camera."""
    rows, columns = (
        n * (field_px - overlap_px) + overlap_px + 2 * (BORDER_PX + more_px) for n in grid
    )
    return rows, columns


def _seen(light: Floats, first: NDArray[np.float64], size: int) -> Floats:
    """The slide from a first pixel (y, x) on, between pixels by cubic interpolation."""
    whole = np.floor(first).astype(int)
    part = light[tuple(slice(max(w - 4, 0), w + size + 4) for w in whole)]
    if (whole == first).all():
        return part[4 : 4 + size, 4 : 4 + size]
    y, x = first - whole + 4
    move = np.array([[1, 0, x], [0, 1, y]], np.float64)
    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(part, move, (size, size), flags=flags))


def photographed(generator: np.random.Generator, light: Floats) -> NDArray[np.uint16]:
    spread = np.sqrt(np.maximum(light, 0) + READ_NOISE**2)
    electrons = light + generator.standard_normal(light.shape, np.float32) * spread
    return np.clip(np.rint(OFFSET + GAIN * electrons), 0, 65535).astype(np.uint16)
