"""The metadata of an OME-Zarr 0.5 image: scale, position and display window.

See ngff.openmicroscopy.org/0.5. The `omero` block has all keys of a window, because viewers that
miss one show 16 bit images black.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scan.plan import ScanPlan

NGFF_VERSION = "0.5"
# What is shown before the pixels are known: cameras of 12 bits and more are visible with it.
FIRST_END = 4095
FIRST_HEIGHTS_UM = {"start": -50.0, "end": 50.0, "min": -50.0, "max": 50.0}
DISPLAYED = (0.5, 99.8)  # percentiles that become black and white
MIN_SPAN = 1e-3  # between the ends of a window


def multiscale(
    name: str, plan: ScanPlan, origin_um: tuple[float, float], *, has_channels: bool = False
) -> dict[str, Any]:
    """Return axes, pyramid levels and their physical coordinates.

    Parameters
    ----------
    name : str
        Name of the image.
    plan : ScanPlan
        Number of levels and size of a pixel.
    origin_um : (float, float)
        Stage position, x and y, of the centre of the mosaic's first pixel.
    has_channels : bool
        Whether an axis of channels comes first.
    """
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    datasets = [_dataset(level, plan.pixel_size_um, origin_um) for level in range(plan.levels)]
    if has_channels:
        axes = [{"name": "c", "type": "channel"}, *axes]
        for dataset in datasets:
            scale, shift = dataset["coordinateTransformations"]
            scale["scale"], shift["translation"] = (
                [1.0, *scale["scale"]],
                [0.0, *shift["translation"]],
            )
    image = {"name": name, "axes": axes, "datasets": datasets}
    return {"version": NGFF_VERSION, "multiscales": [image]}


def _dataset(level: int, pixel_um: float, origin_um: tuple[float, float]) -> dict[str, Any]:
    """A pyramid level; its first pixel averages 2^level pixels along each axis, which moves the
    centre of that pixel."""
    scale, shift = pixel_um * 2**level, pixel_um * (2**level - 1) / 2
    x_um, y_um = origin_um
    transformations = [
        {"type": "scale", "scale": [scale, scale]},
        {"type": "translation", "translation": [y_um + shift, x_um + shift]},
    ]
    return {"path": str(level), "coordinateTransformations": transformations}


def omero(named: Sequence[tuple[str, str]], windows: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return the `omero` block of an image: name and colour (six hex digits) of each channel, and
    what of its light is shown."""
    channels = [
        {"label": label, "color": colour, "active": True, "window": window}
        for (label, colour), window in zip(named, windows, strict=True)
    ]
    return (
        {"channels": channels, "rdefs": {"model": "color"}}
        if len(named) > 1
        else {"channels": channels}
    )


def first_window(dtype: np.dtype[Any]) -> dict[str, float]:
    """Return a window for pixels of a type that are not known yet."""
    low, high = _limits(dtype, 0.0, float(FIRST_END))
    return {"start": low, "end": min(high, FIRST_END), "min": low, "max": high}


def fitted_window(pixels: NDArray[Any]) -> dict[str, float]:
    """Return the window in which pixels show best; those of value 0 count as never written."""
    written = pixels[pixels != 0] if (pixels != 0).any() else pixels
    start, end = (float(value) for value in np.percentile(written, DISPLAYED))
    start, end = round(start, 4), round(max(end, start + MIN_SPAN), 4)
    if np.issubdtype(pixels.dtype, np.integer):
        start, end = int(start), max(int(np.ceil(end)), int(start) + 1)
    low, high = _limits(pixels.dtype, float(written.min()), float(written.max()))
    return {"start": start, "end": end, "min": min(low, start), "max": max(high, end)}


def _limits(dtype: np.dtype[Any], low: float, high: float) -> tuple[float, float]:
    """The range of an integer type; of others that of the values."""
    if np.issubdtype(dtype, np.integer):
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return round(low, 4), round(high, 4)
