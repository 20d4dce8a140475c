"""The OME-Zarr mosaics of a run: created once, then written core by core by many processes.

A core consists of whole chunks on every pyramid level, so two tasks never write the same chunk:
there are no locks, and a repeated write gives the same bytes.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from results.ome_metadata import (
    FIRST_HEIGHTS_UM,
    NGFF_VERSION,
    first_window,
    fitted_window,
    multiscale,
    omero,
)
from results.storage import Location, missing, storage_at
from scan.channels import ONE_CHANNEL, WHITE, Channels
from scan.checksums import crc_of_arrays
from scan.errors import StorageError
from scan.layout import label_dtype
from scan.plan import ScanPlan

Array = NDArray[Any]

STACKED = "stacked.ome.zarr"
VIEWS_BYTES = 2 * 10**6  # report without fields: measured 1.4 MB
VIEWS_BYTES_OF_FIELD = 20_000  # report 13 kB, trace 5.5 kB, journal 1 kB
DEPTH = "depth.ome.zarr"
LABELS = "stacked.ome.zarr/labels/objects"
MAX_SAMPLED_PX = 2048  # along each axis, for display windows


def create_mosaics(
    folder: Location,
    plan: ScanPlan,
    dtype: np.dtype[Any],
    origin_um: tuple[float, float] = (0.0, 0.0),
    channels: Channels = ONE_CHANNEL,
) -> None:
    """Create the three mosaics, empty; mosaics of the same plan that exist are kept.

    Parameters
    ----------
    folder : path or URL
        Where the run's images lie.
    plan : ScanPlan
        Size, chunks and pyramid of the mosaics.
    dtype : numpy.dtype
        Of the focus-stacked image.
    origin_um : (float, float)
        Stage position, x and y, of the mosaic's first pixel.
    channels : Channels
        Of several, the image has an axis.
    """
    named = [(each.name, each.colour) for each in channels.each] or [("focus stack", WHITE)]
    shown = omero(named, [first_window(dtype)] * len(named))
    count = len(named) if channels.several else 0
    _create_image(f"{folder}/{STACKED}", plan, dtype, origin_um, shown, count)
    heights = omero([("height", WHITE)], [FIRST_HEIGHTS_UM])
    _create_image(f"{folder}/{DEPTH}", plan, np.dtype(np.float32), origin_um, heights, 0)
    _write_group(f"{folder}/{STACKED}/labels", {"version": NGFF_VERSION, "labels": ["objects"]})
    source = {"image-label": {"source": {"image": "../../"}}}
    _write_group(f"{folder}/{LABELS}", multiscale("objects", plan, origin_um) | source)
    _create_levels(f"{folder}/{LABELS}", plan, label_dtype(plan.mosaic_shape))


def _create_image(
    image: str,
    plan: ScanPlan,
    dtype: np.dtype[Any],
    origin_um: tuple[float, float],
    shown: dict[str, Any],
    channels: int,
) -> None:
    """Create an image, with an axis of so many channels if there are any."""
    name = Path(image).name.split(".")[0]
    ome = multiscale(name, plan, origin_um, has_channels=channels > 0)
    _write_group(image, ome | {"omero": _omero_of(image) or shown})
    _create_levels(image, plan, dtype, channels)


def _create_levels(image: str, plan: ScanPlan, dtype: np.dtype[Any], channels: int = 0) -> None:
    storage = storage_at(image)
    for level in range(plan.levels):
        spec = _array_spec(image, plan, level, dtype, channels)
        with storage.as_storage_error():
            try:
                storage.result(ts.open(spec, create=True, open=True))
            except ValueError:  # its metadata is torn: only that is written again, pixels stay
                storage.remove(f"{level}/zarr.json")
                storage.result(ts.open(spec, create=True, open=True))


def _write_group(image: str, ome: dict[str, Any]) -> None:
    storage = storage_at(image)
    with storage.as_storage_error():
        storage.create()
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
    storage.write_bytes("zarr.json", json.dumps(group, indent=2).encode())


def _omero_of(image: str) -> dict[str, Any] | None:
    """The `omero` block of an image that exists."""
    with suppress(ValueError, LookupError, TypeError):  # a torn or a damaged file
        return dict(_read_ome(image)["omero"])
    return None


def shown_channels(image: Location) -> list[tuple[str, str]]:
    """Return name and colour (six hex digits) of each channel of an image that has an axis of
    them; none of one that has not."""
    ome = _read_ome(image)
    if ome["multiscales"][0]["axes"][0]["type"] != "channel":
        return []
    return [(channel["label"], channel["color"]) for channel in ome["omero"]["channels"]]


def _read_ome(image: Location) -> dict[str, Any]:
    group = json.loads(storage_at(image).read_bytes("zarr.json") or b"{}")
    return dict(group["attributes"]["ome"])


def fit_display_windows(folder: Location) -> None:
    """Set the display windows of image and depth to what their pixels need.

    The pixels of the coarsest level decide, so that equal mosaics have equal windows.
    """
    for name in (STACKED, DEPTH):
        image = f"{folder}/{name}"
        level = level_count(image) - 1
        rows, columns = shape_of(image, level)
        step = -(-max(rows, columns) // MAX_SAMPLED_PX)
        pixels = read_region(image, slice(0, rows, step), slice(0, columns, step), level)
        planes = pixels.reshape(-1, *pixels.shape[-2:])
        ome = _read_ome(image)
        named = [(channel["label"], channel["color"]) for channel in ome["omero"]["channels"]]
        shown = omero(named, [fitted_window(plane) for plane in planes])
        _write_group(image, ome | {"omero": shown})


def needed_bytes(plan: ScanPlan, pixel_bytes: int, stacked: int) -> int:
    """Return an upper limit for the disk space of all fields but the `stacked` ones.

    `pixel_bytes` are those of a pixel of the image. It counts image and depth uncompressed, with
    pyramids; labels and table, which compress to a few percent, as one twentieth of that; and
    journal, report and trace.
    """
    rows, columns = plan.mosaic_shape
    whole = rows * columns * (pixel_bytes + 4) * 4 / 3 * 1.05
    views = VIEWS_BYTES + VIEWS_BYTES_OF_FIELD * len(plan.fields)
    return int(whole * (1 - stacked / len(plan.fields))) + views


def _array_spec(
    image: str, plan: ScanPlan, level: int, dtype: np.dtype[Any], channels: int
) -> dict[str, Any]:
    several = [channels] if channels else []
    chunk = [1] * len(several) + [edge >> level for edge in plan.chunk_shape]
    return _open_spec(image, str(level)) | {
        "metadata": {
            "shape": several + [-(-edge >> level) for edge in plan.mosaic_shape],
            "data_type": dtype.name,
            "dimension_names": ["c", "y", "x"][-len(chunk) :],
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                # smaller and faster than zstd on camera data
                {
                    "name": "blosc",
                    "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle"},
                },
            ],
        }
    }


def _open_spec(image: Location, level: str) -> dict[str, Any]:
    return {"driver": "zarr3", "kvstore": storage_at(image).kvstore(level)}


@cache
def _levels(image: Location) -> tuple[Any, ...]:
    """The arrays of an image, opened once per process because opening takes time."""
    storage = storage_at(image)
    with storage.as_storage_error():
        if (group := storage.read_bytes("zarr.json")) is None:
            raise missing("zarr.json")
    datasets = json.loads(group)["attributes"]["ome"]["multiscales"][0]["datasets"]
    opening = [ts.open(_open_spec(image, str(level))) for level in range(len(datasets))]
    with storage.as_storage_error():
        return tuple(storage.result(future) for future in opening)


def write_core(image: Location, rows: slice, columns: slice, levels: Sequence[Array]) -> int:
    """Write a core to all levels of an image; return the checksum once it is on disk.

    StorageError when it cannot be written.

    Parameters
    ----------
    image : path or URL
        The image, as in f"{folder}/{STACKED}".
    rows, columns : slice
        The core in pixels of level 0.
    levels : sequence of arrays
        The pixels of the core, one array per level.
    """
    storage = storage_at(image)
    with storage.as_storage_error(sum(pixels.nbytes for pixels in levels)):
        storage.check_not_removed("zarr.json")  # tensorstore would create a new folder
        writing = [
            window.write(pixels)
            for window, pixels in zip(_windows(image, rows, columns), levels, strict=True)
        ]
        for future in writing:
            storage.result(future)
    return crc_of_arrays(levels)


def _windows(image: Location, rows: slice, columns: slice) -> list[Any]:
    """A core in every level of an image."""
    levels = enumerate(_levels(image))
    return [array[..., _coarser(rows, level), _coarser(columns, level)] for level, array in levels]


def _coarser(span: slice, level: int) -> slice:
    return slice(span.start >> level, -(-span.stop >> level))


def checksums_of(image: Location, rows: slice, columns: Sequence[slice]) -> list[int | None]:
    """Return the checksums on disk of cores that lie side by side, read at once; None for those
    that cannot be read.

    One by one, most of the time would be that of the requests: of small cores 20 times that of
    their pixels.
    """
    whole = slice(columns[0].start, columns[-1].stop)
    try:
        wait = storage_at(image).result
        levels = [wait(window.read()) for window in _windows(image, rows, whole)]
    except (StorageError, OSError, ValueError, LookupError, TypeError):
        if len(columns) == 1:
            return [None]
        return [found for each in columns for found in checksums_of(image, rows, [each])]
    return [crc_of_arrays(_part(levels, whole.start, each)) for each in columns]


def _part(levels: Sequence[Array], start: int, columns: slice) -> list[Array]:
    """The columns of a core on every level, of pixels that begin at a column of level 0."""
    spans = [_coarser(columns, level) for level in range(len(levels))]
    return [
        pixels[..., span.start - (start >> level) : span.stop - (start >> level)]
        for level, (pixels, span) in enumerate(zip(levels, spans, strict=True))
    ]


def level_count(image: Location) -> int:
    """Return the number of pyramid levels of an image."""
    return len(_levels(image))


def read_region(image: Location, rows: slice, columns: slice, level: int = 0) -> Array:
    """Return pixels (y, x), or (c, y, x) if there are several channels, of one level of an image;
    those that were never written are 0."""
    return np.asarray(storage_at(image).result(_levels(image)[level][..., rows, columns].read()))


def shape_of(image: Location, level: int = 0) -> tuple[int, int]:
    """Return rows and columns of one level of an image."""
    rows, columns = _levels(image)[level].shape[-2:]
    return int(rows), int(columns)
