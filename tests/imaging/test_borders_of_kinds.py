"""Fields of 256, 512 and 1024 px give the objects of the mosaic in one piece, of every kind."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import object_scenes as objects
from imaging.correction import correct
from imaging.detection import estimate_statistics
from imaging.stacking import focus_stack
from scan.correction import Correction
from scan.layout import make_plan
from scan.plan import Field, ScanPlan
from tests.imaging.fields import Scene, assert_no_trace_of_borders
from tests.imaging.scenes import texture

FIELDS = {256: (2, 4), 512: (1, 2), 1024: (1, 2)}  # down and across
OVERLAP_PX = 64
TILE_PX = 343  # of which mosaics are made
PLANES, DARK = 5, 100.0

Image = NDArray[np.uint16]
Stack = NDArray[np.uint16]


def discs(light: float, *, side: int = TILE_PX) -> NDArray[np.float32]:
    """Discs of 14 to 30 px, some touching, 40 % of them as bright as told, the others dim."""
    generator = np.random.default_rng(11)
    drawn = np.zeros((side, side), np.float32)
    for row, column in objects.cells(generator, side, 40):
        radius, bright = generator.uniform(7, 15), generator.random() < 0.4
        grey = light if bright else 900 * generator.uniform(0.8, 1.2)
        centre = tuple(np.int32(16 * (np.array((column, row)) + generator.uniform(-6, 6, 2))))
        cv2.circle(drawn, centre, int(16 * radius), float(grey), -1, cv2.LINE_AA, 4)
    return drawn


def stack_of(light: NDArray[np.float32], focus: int) -> Stack:
    """A z-stack whose blur grows by 1.4 px a plane from its focus, over a textured ground."""
    generator = np.random.default_rng(12)
    ground = 300 + 60 * texture(light.shape[0], 13)
    planes = [
        cv2.GaussianBlur(light + ground, (0, 0), float(np.hypot(0.8, 1.4 * (z - focus))))
        for z in range(PLANES)
    ]
    noisy = generator.poisson(np.stack(planes)) + generator.normal(0, 2, (PLANES, *light.shape))
    return np.clip(np.rint(noisy + DARK), 0, 65535).astype(np.uint16)


def highlights(frames: Stack, field: Field) -> Stack:
    """Frames as they are."""
    return frames


def flicker(frames: Stack, field: Field) -> Stack:
    """Frames whose planes have lights of their own, others in each field."""
    generator = np.random.default_rng([14, field.stripe, field.field])
    gains = 1 + 0.08 * generator.normal(size=(PLANES, 1, 1))
    return np.clip(DARK + (frames - DARK) * gains, 0, 65535).astype(np.uint16)


def shading(frames: Stack, field: Field) -> Stack:
    """Frames that lack 45 % of their light in the corners, corrected by the true flat."""
    away = sum(np.square(np.linspace(-1, 1, n)).reshape(-1, *(1,) * k)
               for n, k in zip(frames.shape[1:], (1, 0), strict=True))  # fmt: skip
    flat = 1 - 0.225 * away
    flat = (flat / flat.mean()).astype(np.float32)
    uneven = np.clip(np.rint(DARK + (frames - DARK) * flat), 0, 65535).astype(np.uint16)
    return np.asarray(correct(uneven, Correction(flat, np.full_like(flat, DARK))))


SHAPES: dict[str, Callable[[], objects.Scene]] = {
    "rods": lambda: objects.rods(21, 4, 12, TILE_PX, textured=False),
    "textured rods": lambda: objects.rods(21, 3, 10, TILE_PX, textured=True),
    "flat clumps": lambda: objects.clumps(21, "triangle", "flat", 16, TILE_PX),
    "chains of balls": lambda: objects.clumps(21, "chain of 4", "ball", 14, TILE_PX),
    "rimmed clumps": lambda: objects.clumps(21, "rosette of 7", "rimmed", 14, TILE_PX),
    "differing sizes": lambda: objects.sizes(21, 4, 10, textured=False),
    "rings": lambda: objects.rings(21, 34, 4, TILE_PX),
    "dark objects": lambda: objects.dark_discs(21, 22, TILE_PX),
}
STACKS: dict[str, tuple[float, Callable[[Stack, Field], Stack]]] = {
    "highlights": (60_000, highlights),
    "flicker": (2_500, flicker),
    "shading": (2_500, shading),
}  # light of the brightest, and what a field's frames are


def tiled(tile: NDArray[np.uint16], plan: ScanPlan) -> NDArray[np.uint16]:
    """A mosaic (…, y, x) of copies of a tile, of which a border cuts as many objects as it can."""
    shown = tile.reshape(-1, *tile.shape[-2:]).max(axis=0)
    unlike = np.abs(shown - np.median(shown)).mean(axis=0)
    moved = np.roll(tile, plan.column_cuts[1] - int(np.argmax(unlike)), axis=-1)
    sizes = zip(plan.mosaic_shape, tile.shape[-2:], strict=True)
    wide = np.tile(moved, (*(1,) * (tile.ndim - 2), *(-(-size // edge) for size, edge in sizes)))
    return np.ascontiguousarray(wide[..., : plan.mosaic_shape[0], : plan.mosaic_shape[1]])


def stacked_by_fields(
    tile: Stack, plan: ScanPlan, frames_of: Callable[[Stack, Field], Stack]
) -> Scene:
    """Image and height of the mosaic of a scan, each field's core stacked from its own frames."""
    whole = tiled(tile, plan)
    image = np.empty(plan.mosaic_shape, np.uint16)
    height = np.empty(plan.mosaic_shape, np.float32)
    for field in plan.fields:
        spans = zip(field.origin_px, plan.frame_shape, strict=True)
        frame = tuple(slice(start, start + size) for start, size in spans)
        stack = focus_stack(frames_of(whole[:, *frame], field))
        core, own = (slice(*field.rows), slice(*field.columns)), field.core_in_frame()
        image[core], height[core] = stack.image[own], stack.depth[own]
    return image, height


@pytest.mark.parametrize("edge_px", FIELDS)
@pytest.mark.parametrize("kind", [*SHAPES, *STACKS])
def test_no_kind_of_object_shows_borders(kind: str, edge_px: int) -> None:
    """Labels and table are those of the mosaic in one piece, to the bit, whatever the fields."""
    down, across = FIELDS[edge_px]
    plan = make_plan((across,) * down, (edge_px,) * 2, OVERLAP_PX, 0.5, steered=True)
    if kind in SHAPES:
        sample = SHAPES[kind]()[0]
        image = tiled(sample, plan)
        scene = image, (image % 7).astype(np.float32)
    else:
        light, frames_of = STACKS[kind]
        scene = stacked_by_fields(stack_of(discs(light), 1), plan, frames_of)
        sample = scene[0][:TILE_PX, :TILE_PX]

    table, _ = assert_no_trace_of_borders(scene, estimate_statistics([sample]), plan)

    left, right = table["bbox-1"], table["bbox-3"]
    assert ((left < plan.column_cuts[1]) & (right > plan.column_cuts[1])).sum() >= 3
