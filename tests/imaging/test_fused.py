"""Objects at many depths are detected in the fused image as if all were in focus."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from imaging.detection import detect, estimate_statistics
from imaging.stacking import focus_stack

EDGE_PX, SPACING_PX = 320, 44  # cells are 26 to 36 pixels wide
MARGIN_PX = 58  # of a cell's centre, in which its widest blur lies
PLANES = 11
BLUR_PX = 1.2  # deviation per plane
OVERLAP = 0.8  # of drawn and detected pixels: a lower one is reached in any plane


class Cell(NamedTuple):
    """Light in a window of the image, all pixels of the cell, and its depth in planes."""

    window: tuple[slice, slice]
    light: np.ndarray
    inside: np.ndarray
    depth: float


def cells(seed: int) -> list[Cell]:
    """A carpet of cells with grain inside."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:EDGE_PX, :EDGE_PX]
    spots = np.arange(SPACING_PX, EDGE_PX - SPACING_PX // 2, SPACING_PX)
    drawn = []
    for spot in product(spots, spots):
        row, column = np.array(spot) + generator.uniform(-2, 2, 2)
        inside = np.hypot(rows - row, columns - column) < generator.uniform(13, 18)
        window = tuple(slice(max(0, at - MARGIN_PX), at + MARGIN_PX) for at in spot)
        shape = inside[window].shape
        grain = 1 + 0.3 * cv2.GaussianBlur(generator.normal(0, 3, shape), (0, 0), 1.5)
        light = inside[window] * np.clip(grain, 0.3, None) * generator.uniform(150, 500)
        drawn.append(Cell(window, light, inside, generator.uniform(0, PLANES - 1)))
    return drawn


def photograph(light: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=light.shape) * np.sqrt(light + 20)
    return np.clip(np.rint(100 + light + noise), 0, 65535).astype(np.uint16)


def plane(drawn: list[Cell], z: float | None) -> np.ndarray:
    """Light of one plane, or of all cells in focus."""
    light = np.zeros((EDGE_PX, EDGE_PX))
    for cell in drawn:
        sigma = 0.7 + (0 if z is None else BLUR_PX * abs(z - cell.depth))
        light[cell.window] += cv2.GaussianBlur(cell.light, (0, 0), sigma)
    return light


def f1(image: np.ndarray, drawn: list[Cell]) -> float:
    """F1 of the objects detected in an image."""
    labels = detect(image, estimate_statistics([image]))
    areas = np.bincount(labels.ravel())[1:]
    masks = [cell.inside for cell in drawn]
    both = np.array([np.bincount(labels[mask], minlength=len(areas) + 1)[1:] for mask in masks])
    either = np.array([[mask.sum()] for mask in masks]) + areas - both
    shared = both / either
    pairs = linear_sum_assignment(-shared)
    return float(2 * (shared[pairs] > OVERLAP).sum() / (len(drawn) + len(areas)))


@pytest.mark.parametrize("seed", range(2))
def test_the_fused_image_beats_any_plane_and_equals_a_sharp_one(seed: int) -> None:
    """Detection in the fused image beats every plane and equals that with all cells in focus."""
    drawn = cells(seed)
    stack = np.stack([photograph(plane(drawn, z), 100 * seed + z) for z in range(PLANES)])

    fused = f1(focus_stack(stack).image, drawn)

    assert fused >= 0.99 * f1(photograph(plane(drawn, None), seed), drawn)
    assert fused > max(f1(frame, drawn) for frame in stack)
    assert fused >= f1(stack.max(axis=0), drawn)
