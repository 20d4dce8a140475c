"""Import and compile what stacking and detection need, before the first batch."""

from typing import Any

import cv2
import numpy as np

from imaging.detection import detect, estimate_statistics, measure
from prediction import Predictor


def compile_kernels(predictor: Predictor, dtype: np.dtype[Any]) -> None:
    """Stack and detect once in a small stack of discs, of which one plane is sharp and two are
    brighter."""
    from imaging.stacking import focus_stack

    rows, columns = np.mgrid[:256, :256] % 32 - 16
    grain = np.random.default_rng(0).normal(100, 10, (256, 256))
    grain[np.hypot(rows, columns) < 5] += 100
    planes = ((3, 1.0), (0.5, 1.1), (3, 1.0), (3, 1.1))  # blur in px and light
    frames = np.stack([light * cv2.GaussianBlur(grain, (0, 0), blur) for blur, light in planes])
    image = focus_stack(frames.astype(dtype)).image
    statistics = predictor.estimate_statistics([image], None)
    labels = predictor.detect(image, statistics, (0, 0))
    measure(labels, image, np.zeros(image.shape, np.float32), statistics)
    detect(image, estimate_statistics([image], 64.0))  # large objects are binned
