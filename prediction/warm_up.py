"""Import and compile what stacking and detection need, before the first batch."""

from typing import Any

import cv2
import numpy as np

from imaging.detection import measure
from prediction import Predictor


def compile_kernels(predictor: Predictor, dtype: np.dtype[Any]) -> None:
    """Stack and detect once in a small stack, of which one plane is sharp."""
    from imaging.stacking import focus_stack

    grain = np.random.default_rng(0).normal(100, 20, (256, 256))
    frames = np.stack([cv2.GaussianBlur(grain, (0, 0), blur) for blur in (3, 0.5, 3)])
    image = focus_stack(frames.astype(dtype)).image
    statistics = predictor.estimate_statistics([image], 10.0)
    labels = predictor.detect(image, statistics, (0, 0))
    measure(labels, image, np.zeros(image.shape, np.float32), statistics)
