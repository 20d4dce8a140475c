"""Other ways to fuse a z-stack, as they are usually written, for comparison."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

Frames = NDArray[np.generic]
Image = NDArray[np.float32]


def laplacian_argmax(frames: Frames) -> Image:
    """Each pixel from the plane of greatest absolute Laplacian: the usual OpenCV recipe."""
    best = np.full(frames.shape[1:], -1, np.float32)
    image = np.zeros(frames.shape[1:], np.float32)
    for plane in frames.astype(np.float32):
        edges = cv2.Laplacian(cv2.GaussianBlur(plane, (5, 5), 0), cv2.CV_32F, ksize=5)
        energy = cv2.GaussianBlur(np.abs(edges), (5, 5), 0)
        sharper = energy > best
        best[sharper], image[sharper] = energy[sharper], plane[sharper]
    return image


def laplacian_pyramid(frames: Frames, levels: int = 6) -> Image:
    """On every scale the coefficient of greatest energy in 5x5 (Burt and Adelson 1983)."""
    kept: list[Image] = []
    best: list[Image] = []
    for plane in frames.astype(np.float32):
        smooth, bands = plane, []
        for _ in range(levels - 1):
            small = cv2.pyrDown(smooth)
            bands.append(smooth - cv2.pyrUp(small, dstsize=smooth.shape[::-1]))
            smooth = small
        energies = [cv2.boxFilter(band * band, -1, (5, 5)) for band in bands]
        if not kept:
            kept, best = [*bands, smooth / len(frames)], energies
            continue
        for level, (band, energy) in enumerate(zip(bands, energies, strict=True)):
            sharper = energy > best[level]
            kept[level][sharper], best[level][sharper] = band[sharper], energy[sharper]
        kept[-1] = kept[-1] + smooth / len(frames)
    image = kept[-1]
    for band in kept[-2::-1]:
        image = cv2.pyrUp(image, dstsize=band.shape[::-1]) + band
    return image


def guided_filter_fusion(frames: Frames) -> Image:
    """Base and detail by weights from a guided filter (Li et al. 2013, IEEE TIP 22:2864)."""
    scale = float(frames.max()) or 1.0
    planes = [plane.astype(np.float32) / scale for plane in frames]
    edges = [np.abs(cv2.Laplacian(plane, cv2.CV_32F)) for plane in planes]
    winner = np.argmax([cv2.GaussianBlur(edge, (11, 11), 5) for edge in edges], axis=0)
    image = np.zeros((2, 2, *winner.shape), np.float32)  # weighted and weight, of base and detail
    for number, plane in enumerate(planes):
        mask = (winner == number).astype(np.float32)
        base = cv2.boxFilter(plane, -1, (31, 31))
        for part, pixels, radius, eps in ((0, base, 45, 0.3), (1, plane - base, 7, 1e-6)):
            weight = np.clip(_guided(plane, mask, radius, eps), 0, None) + 1e-9
            image[part] += np.stack([weight * pixels, weight])
    return (image[0, 0] / image[0, 1] + image[1, 0] / image[1, 1]) * scale


def _guided(guide: Image, mask: Image, radius: int, eps: float) -> Image:
    def mean(x: Image) -> Image:
        return cv2.boxFilter(x, -1, (2 * radius + 1, 2 * radius + 1))

    guide_mean, mask_mean = mean(guide), mean(mask)
    slope = (mean(guide * mask) - guide_mean * mask_mean) / (
        mean(guide * guide) - guide_mean**2 + eps
    )
    return mean(slope) * guide + mean(mask_mean - slope * guide_mean)


def enfuse(frames: Frames) -> Image:
    """The program enfuse with hard masks by contrast; its time includes its files."""
    with tempfile.TemporaryDirectory() as folder:
        for number, plane in enumerate(frames):
            tifffile.imwrite(f"{folder}/{number:03d}.tif", plane, photometric="minisblack")
        planes = sorted(map(str, Path(folder).glob("*.tif")))
        weights = ("--exposure-weight=0", "--saturation-weight=0", "--contrast-weight=1")
        command = ["enfuse", *weights, "--hard-mask", "-o", f"{folder}/fused.tif", *planes]
        subprocess.run(command, check=True, capture_output=True)
        fused = tifffile.imread(f"{folder}/fused.tif")
    return fused[..., 0].astype(np.float32)  # the rest is alpha


def peers() -> dict[str, Callable[[Frames], Image]]:
    """All that can be run here, by name."""
    found = {
        "OpenCV Laplacian argmax": laplacian_argmax,
        "Laplacian pyramid, 5x5 energy": laplacian_pyramid,
        "guided-filter fusion": guided_filter_fusion,
    }
    return found | ({"enfuse": enfuse} if shutil.which("enfuse") else {})
