"""Light of objects in every channel, named as scikit-image names it: intensity_mean-0, -1, …"""

import numpy as np
import scipy
from numpy.typing import NDArray

from imaging.ownership import Array, Table

INTENSITIES = ("intensity_mean", "intensity_max")


def with_channels(table: Table, labels: NDArray[np.int32], image: Array) -> Table:
    """Return a table with the columns of light of each channel in the place of those of one.

    Parameters
    ----------
    table : columns
        From `detection.measure`.
    labels : (y, x) int32
        1 to n, as in the table.
    image : (c, y, x), or (y, x)
        With one channel the table is returned as it is.
    """
    if image.ndim == 2:
        return table
    lights = [_light(labels, channel, table["label"]) for channel in image]
    measured: Table = {}
    for name, column in table.items():
        at = INTENSITIES.index(name) if name in INTENSITIES else None
        several = {f"{name}-{c}": light[at] for c, light in enumerate(lights) if at is not None}
        measured |= several or {name: column}
    return measured


def _light(labels: NDArray[np.int32], channel: Array, numbers: Array) -> tuple[Array, Array]:
    """Return mean and maximum of each object; sums are float64, whatever the region around it."""
    if not numbers.size:
        return np.empty(0), np.empty(0)
    inside = labels > 0
    found, light = labels[inside], channel[inside].astype(np.float64)
    count = int(numbers.max()) + 1
    mean = np.bincount(found, light, count)[numbers] / np.bincount(found, minlength=count)[numbers]
    return mean, np.asarray(scipy.ndimage.maximum(light, found, numbers), np.float64)
