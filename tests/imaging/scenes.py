"""Z-stacks whose sharp image and depth are known."""

from __future__ import annotations

import cv2
import numpy as np

PLANES = 11


def texture(size: int, seed: int) -> np.ndarray:
    """A brightfield-like texture (y, x) float32 with detail at all scales, 0 to 1."""
    generator = np.random.default_rng(seed)
    scales = (
        cv2.GaussianBlur(generator.normal(size=(size, size)).astype(np.float32), (0, 0), s) * s
        for s in (0.7, 2.0, 6.0)
    )
    sharp = sum(scales)
    return np.asarray((sharp - sharp.min()) / np.ptp(sharp), np.float32)


def photographed(sharp: np.ndarray, height: np.ndarray, seed: int) -> np.ndarray:
    """A noisy z-stack of a surface: blur grows by one pixel per plane away from its height."""
    generator = np.random.default_rng(seed)
    blurs = np.arange(0, PLANES + 0.5, 0.5)
    levels = [sharp, *(cv2.GaussianBlur(sharp, (0, 0), b) for b in blurs[1:])]
    choices = np.stack(levels)
    frames = []
    for plane in range(PLANES):
        nearest = np.rint(np.abs(height - plane) * 2).astype(int)
        light = 500 + 3000 * np.take_along_axis(choices, nearest[None], 0)[0]
        frames.append(light + np.sqrt(light) * generator.normal(size=light.shape))
    return np.rint(frames).astype(np.uint16)


def tilted(size: int) -> np.ndarray:
    """A height map that rises from plane 2 to plane 8."""
    return np.broadcast_to(np.linspace(2, 8, size, dtype=np.float32), (size, size))


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal to noise ratio in dB over the truth's range."""
    error = np.square(image.astype(np.float64) - truth).mean()
    return float(10 * np.log10(np.ptp(truth) ** 2 / error))


def lit(
    sharp: np.ndarray, height: np.ndarray, electrons: float, blur: float
) -> tuple[np.ndarray, np.ndarray]:
    """A z-stack at a mean light in photo-electrons, and its truth; `blur` in px per plane."""
    generator = np.random.default_rng(7)
    away = np.arange(0, PLANES + 0.25, 0.25)
    sigmas = np.hypot(0.8, blur * away)
    levels = np.stack([cv2.GaussianBlur(sharp, (0, 0), s) for s in sigmas])
    frames = []
    for plane in range(PLANES):
        nearest = np.rint(np.abs(height - plane) * 4).astype(int)
        light = 2 * electrons * np.take_along_axis(levels, nearest[None], 0)[0]
        frames.append(generator.poisson(light) + generator.normal(0, 2, light.shape))
    clipped = np.clip(np.rint(frames) + 50, 0, 65535).astype(np.uint16)
    return clipped, 50 + 2 * electrons * levels[0]


def stepped(size: int = 256) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A textured disc on plane 2 before a textured ground on plane 9, its truth and height."""
    generator = np.random.default_rng(1)
    rows, columns = np.mgrid[:size, :size] - size / 2
    mask = (np.hypot(rows, columns) < size / 4).astype(np.float32)
    ground, disc = 500 + 3000 * texture(size, 2), 1500 + 5000 * texture(size, 3)

    def seen(plane: float) -> np.ndarray:
        far, near = (float(np.hypot(0.8, 1.5 * abs(plane - d))) for d in (9, 2))
        cover = cv2.GaussianBlur(mask, (0, 0), near)
        return cv2.GaussianBlur(ground, (0, 0), far) * (1 - cover) + cv2.GaussianBlur(
            disc * mask, (0, 0), near
        )

    frames = [seen(plane) + generator.normal(0, 20, mask.shape) for plane in range(PLANES)]
    cover = cv2.GaussianBlur(mask, (0, 0), 0.8)
    front = cv2.GaussianBlur(disc * mask, (0, 0), 0.8)
    truth = cv2.GaussianBlur(ground, (0, 0), 0.8) * (1 - cover) + front
    return np.rint(frames).astype(np.uint16), truth, np.where(mask > 0, 2, 9)
