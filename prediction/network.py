"""A network in ONNX: its session, and how far it sees, which is measured and not believed.

A network is usable if what it says of a pixel depends on a bounded neighbourhood and on nothing
else; then the borders of fields leave no trace. Both are tried out when it is opened.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from math import ceil
from pathlib import Path
from typing import Any, Self

import numpy as np

from imaging.detection import estimate_statistics
from imaging.instances import GRID_PX, REACH, in_windows, instances
from imaging.statistics import DetectionStatistics
from prediction import ModelStatistics
from scan.errors import InputError, UserMistake

STEP_PX = 512  # of windows: large enough that their rims cost little, small enough for any memory
FARTHEST_PX = 208  # that a network may see: within half of what it is tried on
PROBE_LEVELS = 256.0  # grey levels of the noise that a network is tried on
PROBE_RANGE = 1000.0  # how much weaker the noise is in places
TOLERANCE = 1 / 512  # in probability: two steps, by which a shifted image may differ


@dataclass(frozen=True)
class Weights:
    """An ONNX file's content, equal where its hash is."""

    sha256: str
    content: bytes = field(repr=False, compare=False)

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Weights with their hash."""
        return cls(hashlib.sha256(content).hexdigest(), content)


@contextmanager
def optional_packages(subject: str) -> Iterator[None]:
    """Tell which package is missing in one line."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserMistake(
            subject,
            f"the package {error.name}",
            "none",
            "pip install -r requirements-models.txt",
        ) from None


@lru_cache(maxsize=1)
def session_of(weights: Weights) -> Any:
    """The network, ready to run on one thread; built once in a process."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # as many as a task has CPUs
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        weights.content, options, providers=["CPUExecutionProvider"]
    )


def read(path: Path) -> bytes:
    """The content of a file of the model."""
    try:
        return path.read_bytes()
    except OSError as error:
        came = str(error.strerror)
        raise InputError(str(path), "a readable file", came, "check the path") from None


def run(weights: Weights, pixels: np.ndarray) -> np.ndarray:
    """The first output of a network with one input."""
    session = session_of(weights)
    return session.run(None, {session.get_inputs()[0].name: pixels.astype(np.float32)})[0]


def _noise(shape: tuple[int, ...]) -> np.ndarray:
    """Noise of a strength that differs from block to block: no network is blind to all of it."""
    rng = np.random.default_rng(0)
    blocks = PROBE_RANGE ** -rng.uniform(0, 1, [-(-edge // GRID_PX) for edge in shape])
    for axis, edge in enumerate(shape):
        blocks = blocks.repeat(GRID_PX, axis).take(range(edge), axis)
    return (rng.uniform(0, PROBE_LEVELS, shape) * blocks).astype(np.float32)


@dataclass(frozen=True)
class NetworkPredictor(ABC):
    """Finds objects by the maps of a network.

    Attributes
    ----------
    spec : str
        What the user asked for.
    path : Path
        Where it lies, for messages.
    weights : Weights
    second : str
        What the second map says: "boundary" or "distance".
    step_px, reach_px : int
        How far windows lie apart, and how far the network sees; set by `fitted`.
    """

    spec: str
    path: Path
    weights: Weights
    second: str
    step_px: int = 0
    reach_px: int = 0

    @abstractmethod
    def window_of(self, least_px: int) -> int:
        """The smallest edge of an image of at least that many pixels that the network takes."""

    @abstractmethod
    def normalisation(self, samples: Sequence[np.ndarray]) -> tuple[float, ...]:
        """What the network subtracts and divides by, for the scan that the samples show."""

    @abstractmethod
    def maps(self, pixels: np.ndarray, normalisation: tuple[float, ...]) -> np.ndarray:
        """Maps (channel, y, x) of pixels (y, x)."""

    def describe(
        self, samples: Sequence[np.ndarray], diameter_px: float | None
    ) -> DetectionStatistics:
        """Object size and normalisation of the scan."""
        seen = estimate_statistics(samples, diameter_px)
        halo_px = self.reach_px + ceil(REACH * seen.diameter_px)
        return ModelStatistics(
            **vars(seen), reach_px=halo_px, normalisation=self.normalisation(samples)
        )

    def detect(
        self, image: np.ndarray, statistics: DetectionStatistics, origin: tuple[int, int]
    ) -> np.ndarray:
        """Labels (y, x) int32 of one region."""
        assert isinstance(statistics, ModelStatistics)
        network = partial(self.maps, normalisation=statistics.normalisation)
        windows = (self.window_of, self.step_px, self.reach_px)
        maps = in_windows(image, origin, network, *windows)
        return instances(maps, self.second, statistics.diameter_px)

    def told(self) -> dict[str, str]:
        """What the journal says of it."""
        return {"predictor": self.spec, "model_sha256": self.weights.sha256}

    def fault(self, expected: str, came: str, advice: str) -> InputError:
        """An error about this network."""
        return InputError(str(self.path), expected, came, advice)

    def require_one_image(self) -> None:
        """Refuse what is no network with one image as its input."""
        try:
            inputs = session_of(self.weights).get_inputs()
        except ModuleNotFoundError:
            raise
        except Exception as error:  # onnxruntime's errors have no base class of their own
            came = str(error).strip().splitlines()[0]
            raise self.fault("an ONNX network in one file", came, "export it anew") from None
        if [(each.type, len(each.shape)) for each in inputs] != [("tensor(float)", 4)]:
            came = ", ".join(f"{each.type} {each.shape}" for each in inputs)
            raise self.fault("one float32 input of four axes", came, "export it like that")

    def fitted(self) -> Self:
        """The network with its reach, measured on noise, and the step of its windows."""
        size = self.window_of(STEP_PX)
        noise = _noise((2, 2 * size, 2 * size))
        norm = self.normalisation([noise[0]])
        reach_px = self._reach(noise[:, :size, :size], norm)
        window_px = self.window_of(STEP_PX + 2 * reach_px)
        step_px = (window_px - 2 * reach_px) // GRID_PX * GRID_PX
        if step_px <= 0:
            raise self.fault(
                f"windows of more than {2 * reach_px + GRID_PX} pixels, for it sees {reach_px} far",
                f"{window_px}",
                "export it with free height and width",
            )
        self._require_same_when_shifted(noise[0], norm, size, reach_px)
        return replace(self, step_px=step_px, reach_px=reach_px)

    def _reach(self, noise: np.ndarray, norm: tuple[float, ...]) -> int:
        """How far a change in one corner of an image can be seen, in whole steps of the grid."""
        size = noise.shape[1]
        cut = size // 2 // GRID_PX * GRID_PX + GRID_PX // 2  # through the middle of coarse pixels
        plain, far = self._sound_maps(noise[0], norm), 0
        for corner, outward, edge in ((np.s_[:cut], 1, cut), (np.s_[cut:], -1, size - cut)):
            changed = noise[0].copy()
            changed[corner, corner] = noise[1][corner, corner]
            seen = (self.maps(changed, norm) != plain).any(axis=0)[::outward, ::outward]
            far = max(far, *(int(at.max(initial=0)) + 1 - edge for at in np.nonzero(seen)))
        limit = min(cut, size - cut, FARTHEST_PX)
        if far >= limit:
            raise self.fault(
                f"a network that sees less than {limit} pixels far",
                "one that looks at the whole image",
                "take one without normalisation over the image (instance norm) or attention",
            )
        return (
            ceil((far + GRID_PX // 2 - 1) / GRID_PX) * GRID_PX
        )  # seen from any pixel, not the cut

    def _sound_maps(self, pixels: np.ndarray, norm: tuple[float, ...]) -> np.ndarray:
        """Maps that have the shape and the range that the README asks for."""
        maps = self.maps(pixels, norm)
        expected = f"one or two maps of {pixels.shape[0]} x {pixels.shape[1]} pixels"
        if maps.shape[1:] != pixels.shape or len(maps) not in (1, 2):
            raise self.fault(expected, " x ".join(map(str, maps.shape)), "see README.md")
        probable = maps[:1] if self.second == "distance" else maps
        if not (np.isfinite(maps).all() and (np.abs(probable - 0.5) <= 0.5 + TOLERANCE).all()):
            raise self.fault(
                "probabilities from 0 to 1",
                f"{probable.min():.4g} to {probable.max():.4g}",
                "end the network with a sigmoid",
            )
        return maps

    def _require_same_when_shifted(
        self, noise: np.ndarray, norm: tuple[float, ...], size: int, reach: int
    ) -> None:
        """Refuse a network for which it matters where on the grid an object lies."""
        there = self.maps(noise[:size, :size], norm)
        here = self.maps(noise[GRID_PX:, GRID_PX:][:size, :size], norm)
        inner, ahead = slice(reach, size - reach - GRID_PX), slice(reach + GRID_PX, size - reach)
        if (np.abs(here[:, inner, inner] - there[:, ahead, ahead]) > TOLERANCE).any():
            raise self.fault(
                f"the same maps when an image is shifted by {GRID_PX} pixels",
                "others",
                "take a network that halves its image at most five times",
            )
