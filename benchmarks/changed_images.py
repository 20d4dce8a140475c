"""Are the same objects found in images that are changed in ways that should not matter?

    python benchmarks/changed_images.py --data FOLDER

FOLDER holds `images/` and `labels/` of the same names, TIFF; each image is a scan of its own. F1 at
IoU 0.5 of all images together, as they are and changed: in size, contrast, noise, type, direction.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detection import Scene, f1_and_count_error, ours, real_scenes, resized

from benchmarks.conditions import print_conditions

SEED = 7  # of the noise
HALVES = (slice(None), slice(0, None, 2), slice(1, None, 2))


def curved(scene: Scene, gamma: float) -> Scene:
    """Light to a power, over the whole range of the type."""
    most = np.iinfo(scene[0].dtype).max
    return np.rint((scene[0] / most) ** gamma * most).astype(scene[0].dtype), scene[1]


def noisy(scene: Scene, amount: float) -> Scene:
    """White noise of so much of the range of light, pixel by pixel."""
    image = scene[0]
    noise = np.random.default_rng(SEED).normal(0, amount * float(np.ptp(image)), image.shape)
    most = np.iinfo(image.dtype).max
    return np.clip(np.rint(image + noise), 0, most).astype(image.dtype), scene[1]


def negative(scene: Scene) -> Scene:
    return np.iinfo(scene[0].dtype).max - scene[0], scene[1]


def with_offset(scene: Scene) -> Scene:
    """In 16 bit, with a camera's offset."""
    return scene[0].astype(np.uint16) * 16 + np.uint16(1000), scene[1]


def as_floats(scene: Scene) -> Scene:
    return scene[0].astype(np.float32) / np.iinfo(scene[0].dtype).max, scene[1]


def turned(scene: Scene) -> Scene:
    image, labels = (np.ascontiguousarray(np.rot90(array)[:, ::-1]) for array in scene)
    return image, labels


def dimmer(scene: Scene) -> Scene:
    return scene[0] // 2, scene[1]


def blurred(scene: Scene) -> Scene:
    return cv2.GaussianBlur(scene[0], (0, 0), 1.0), scene[1]


def cut(scene: Scene) -> Scene:
    image, labels = (np.ascontiguousarray(array[20:-20, 20:-20]) for array in scene)
    return image, labels


CHANGES: dict[str, Callable[[Scene], Scene]] = {
    "as they are": lambda scene: scene,
    **{
        f"{factor} times as large": partial(resized, factor=factor)
        for factor in (0.5, 0.75, 1.5, 2)
    },
    **{f"gamma {gamma}": partial(curved, gamma=gamma) for gamma in (0.8, 1.25)},
    "negatives": negative,
    **{f"noise of {amount:.0%}": partial(noisy, amount=amount) for amount in (0.02, 0.05, 0.1)},
    "16 bit with an offset": with_offset,
    "float": as_floats,
    "mirrored and turned": turned,
    "half as bright": dimmer,
    "blurred by 1 px": blurred,
    "20 px cut off around": cut,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and labels/")
    scenes = list(real_scenes(parser.parse_args().data, 1))
    print_conditions(images=len(scenes))
    for name, change in CHANGES.items():
        changed = [change(scene) for scene in scenes]
        found = [ours(image) for image, _ in changed]
        parts = [f1_and_count_error(changed[part], found[part]) for part in HALVES]
        f1 = " ".join(f"{part[0]:.3f}" for part in parts)
        print(f"{name:24} F1, even, odd {f1}, count error {parts[0][1]:.1%}", flush=True)


if __name__ == "__main__":
    main()
