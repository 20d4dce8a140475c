"""Resolution levels of an image, each at half the resolution of the previous one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def mean_pyramid(image: Array, levels: int) -> list[Array]:
    """Return an image (…, y, x) and its means over 2x2, 4x4, … pixels, in the image's dtype.

    Odd edges repeat the last row or column. Integers are rounded.
    """
    pyramid = [image]
    for _ in range(levels - 1):
        pyramid.append(_halve(pyramid[-1]))
    return pyramid


def _halve(image: Array) -> Array:
    *others, rows, columns = image.shape
    edges = ((0, 0),) * len(others) + ((0, rows % 2), (0, columns % 2))
    even = np.pad(image, edges, mode="edge").astype(np.float32)
    upper, lower = even[..., 0::2, :], even[..., 1::2, :]
    mean = (upper[..., 0::2] + lower[..., 0::2] + upper[..., 1::2] + lower[..., 1::2]) / 4
    return (np.rint(mean) if np.issubdtype(image.dtype, np.integer) else mean).astype(image.dtype)


def nearest_pyramid(labels: Array, levels: int) -> list[Array]:
    """Return a label image (y, x) and every second, fourth, … pixel: labels are not averaged."""
    return [np.ascontiguousarray(labels[:: 1 << level, :: 1 << level]) for level in range(levels)]
