"""Images of the mosaics as far as they are stacked, small enough for a page."""

from collections.abc import Sequence
from contextlib import suppress
from math import ceil, prod, sqrt
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from results.storage import Location
from results.store import (
    DEPTH,
    LABELS,
    STACKED,
    level_count,
    read_region,
    shape_of,
    shown_channels,
)
from scan.plan import Place

Array = NDArray[Any]

SHOWN = (0.5, 99.8)  # percentiles that become black and white
MAX_PIXELS = 6_000_000
MAX_EDGE_PX = 16_000  # WebP allows 16,383 pixels, which one long stripe can exceed
MAX_BYTES = {".jpg": 2_000_000, ".webp": 800_000}  # one JPEG, two WebP and charts: 10 MB as text
MAX_SAMPLED = 200_000  # pixels for percentiles
OUTLINE_BGRA = (0, 220, 255, 255)  # yellow, seen on any grey
MANY_FIELDS = 200  # are read all at once: opening chunks one by one takes longer
MIN_SPAN = 1e-30  # between black and white
PAGE_PX = 1_000  # typical width of a page
LOSSLESS = 101  # as OpenCV's quality of WebP


class Preview:
    """The mosaic, its depth map and the outlines of its objects, in at most `MAX_PIXELS` each.

    Parameters
    ----------
    folder : path or URL
        Where the mosaics of a run are.
    row_cuts, column_cuts : sequence of int
        Where the cores are cut, in pixels of level 0: stripe s owns the rows from cut s to s + 1.
    """

    def __init__(
        self, folder: Location, row_cuts: Sequence[int], column_cuts: Sequence[int]
    ) -> None:
        self._folder, self._cuts = folder, (row_cuts, column_cuts)
        image = f"{folder}/{STACKED}"
        self._level, self._step = _coarseness(image)
        shape = [ceil(edge / self._step) for edge in shape_of(image, self._level)]
        self._colours = [_bgr(colour) for _, colour in shown_channels(image)]
        several = [len(self._colours)] if self._colours else []
        self._image: Array = np.zeros([*several, *shape], np.float32)
        self._depth: Array = np.full(shape, np.nan, np.float32)
        self._labels: Array = np.zeros(shape, np.uint64)

    def add_stacks(self, fields: Sequence[Place]) -> None:
        """Read image and depth of stacked fields from disk."""
        self._paste(self._image, STACKED, fields)
        self._paste(self._depth, DEPTH, fields)

    def add_labels(self, fields: Sequence[Place]) -> None:
        """Read the labels of fields from disk."""
        self._paste(self._labels, LABELS, fields)

    def _paste(self, canvas: Array, name: str, fields: Sequence[Place]) -> None:
        image, step = f"{self._folder}/{name}", slice(None, None, self._step)
        if len(fields) >= MANY_FIELDS:
            with suppress(ValueError, OSError):
                whole = read_region(image, step, step, self._level)
                np.copyto(canvas, whole, where=self._mask(fields))
                return
        for field in fields:
            spans = [self._span(cuts, at) for cuts, at in zip(self._cuts, field, strict=True)]
            core = (..., spans[0][0], spans[1][0])
            rows, columns = (slice(k.start * self._step, stop, self._step) for k, stop in spans)
            with suppress(ValueError, OSError):  # damaged chunks are not shown
                canvas[core] = read_region(image, rows, columns, self._level)

    def _mask(self, fields: Sequence[Place]) -> NDArray[np.bool_]:
        """Where the cores of fields lie on the canvas, (y, x) bool."""
        mask = np.zeros([len(cuts) - 1 for cuts in self._cuts], bool)
        mask[tuple(np.transpose(fields))] = True
        for axis, cuts in enumerate(self._cuts):
            spans = [self._span(cuts, at)[0] for at in range(len(cuts) - 1)]
            mask = np.repeat(mask, [span.stop - span.start for span in spans], axis)
        return mask

    def _span(self, cuts: Sequence[int], at: int) -> tuple[slice, int]:
        """A core along one axis: as pixels of the canvas, and its end in pixels of the level."""
        start, stop = cuts[at] >> self._level, -(-cuts[at + 1] >> self._level)
        return slice(ceil(start / self._step), ceil(stop / self._step)), stop

    def layer(self, name: str) -> bytes:
        """Return a layer as an image file: `image`, `depth`, `outlines`, or of several channels
        `channel0`, `channel1` …; an empty one if there is none of that name."""
        if name in [f"channel{k}" for k in range(len(self._colours))]:
            return self._jpeg(self._coloured(int(name.removeprefix("channel"))))
        made = {"image": self._mosaic, "depth": self._heights, "outlines": self._outlines}
        return made[name]() if name in made else b""

    def _mosaic(self) -> bytes:
        """The mosaic as a JPEG, grey or with all channels in their colours; fields that are not
        stacked are black."""
        if not self._colours:
            return self._jpeg(self._grey(self._image))
        mixed = np.zeros((*self._depth.shape, 3), np.uint8)
        for channel in range(len(self._colours)):
            mixed = cv2.add(mixed, self._coloured(channel))  # ends at 255
        return self._jpeg(mixed)

    def _coloured(self, channel: int) -> NDArray[np.uint8]:
        """One channel in its colour, (y, x, 3) uint8."""
        grey, colour = self._grey(self._image[channel]), self._colours[channel]
        return np.asarray(grey[..., None] * (colour / 255), np.uint8)

    def _grey(self, image: Array) -> NDArray[np.uint8]:
        return _stretched(image, *_ends(image[np.isfinite(self._depth)]))

    def _jpeg(self, picture: Array) -> bytes:
        """A file of which those of all channels and their mixture are small enough together."""
        most = MAX_BYTES[".jpg"] // (1 + len(self._colours))
        return _encoded(".jpg", picture, most, cv2.IMWRITE_JPEG_QUALITY, 85)

    def depth_ends_um(self) -> tuple[float, float]:
        """Return the heights of the first and the last colour of the depth map."""
        return _ends(self._depth[np.isfinite(self._depth)])

    def _heights(self) -> bytes:
        """The depth map as a WebP in viridis; fields that are not stacked are transparent."""
        depth = self._depth[::2, ::2]  # it is smooth
        grey = _stretched(np.nan_to_num(depth), *self.depth_ends_um())
        coloured = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2BGRA)
        coloured[np.isnan(depth)] = 0
        return _encoded(".webp", coloured, MAX_BYTES[".webp"], cv2.IMWRITE_WEBP_QUALITY, 80)

    def _outlines(self) -> bytes:
        """The inner outlines of objects as a WebP, transparent elsewhere."""
        drawn = np.zeros((*self._labels.shape, 4), np.uint8)
        width = max(1, max(self._labels.shape) // PAGE_PX)  # of a line that is visible on a page
        wide = cv2.dilate(_rims(self._labels).astype(np.uint8), np.ones((width, width)))
        drawn[(wide > 0) & (self._labels > 0)] = OUTLINE_BGRA
        return _encoded(".webp", drawn, MAX_BYTES[".webp"], cv2.IMWRITE_WEBP_QUALITY, LOSSLESS)


def _coarseness(place: str) -> tuple[int, int]:
    """The finest level that is small enough, and the step of pixels if the coarsest is not."""
    shapes = [shape_of(place, level) for level in range(level_count(place))]
    excess = [max(sqrt(prod(k) / MAX_PIXELS), max(k) / MAX_EDGE_PX) for k in shapes]
    level = next((level for level, times in enumerate(excess) if times <= 1), len(shapes) - 1)
    return level, ceil(excess[level])


def _bgr(colour: str) -> NDArray[np.float32]:
    """Return blue, green and red, 0 to 255, of six hex digits."""
    return np.array([int(colour[k : k + 2], 16) for k in (4, 2, 0)], np.float32)


def _ends(values: Array) -> tuple[float, float]:
    some = values[:: values.size // MAX_SAMPLED + 1]
    low, high = np.percentile(some, SHOWN) if some.size else (0.0, 1.0)
    return float(low), float(high)


def _stretched(values: Array, low: float, high: float) -> NDArray[np.uint8]:
    scaled = (values - low) * (255 / max(high - low, MIN_SPAN))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _rims(labels: Array) -> NDArray[np.bool_]:
    rims = np.zeros(labels.shape, bool)
    down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    rims[1:] |= down
    rims[:-1] |= down
    rims[:, 1:] |= across
    rims[:, :-1] |= across
    return rims & (labels > 0)


def _encoded(kind: str, picture: Array, most: int, *options: int) -> bytes:
    """The image as a file; its size is halved until the file has at most so many bytes."""
    data = bytes(cv2.imencode(kind, picture, options)[1])
    if len(data) <= most:
        return data
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return _encoded(kind, half, most, *options)
