"""A network in ONNX: its session, and how far it sees, which is measured and not believed.

A network is usable if what it says of a pixel depends on a bounded neighbourhood and on nothing
else; then the borders of fields leave no trace. Both are tried out when it is opened.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from math import ceil
from typing import Any, Self

import numpy as np

from imaging.detection import estimate_statistics
from imaging.instances import GRID_PX, REACH, in_windows, instances
from imaging.statistics import DetectionStatistics
from prediction import Array, ModelStatistics, Normalisation, Place, Samples
from scan.errors import UserMistake

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
def told_in_one_line(spec: str) -> Iterator[None]:
    """Whatever a model that is tried out raises, and the lack of a package, as a UserMistake."""
    try:
        yield
    except UserMistake:
        raise
    except ModuleNotFoundError as error:
        advice = "pip install -r requirements-models.txt"
        raise UserMistake(spec, f"the package {error.name}", "none", advice) from None
    except Exception as error:  # of libraries that have no base class of their own
        came = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        advice = "see 'Your own model' in README.md"
        raise UserMistake(spec, "a model that can be used", came, advice) from error


@lru_cache(maxsize=1)
def session_of(weights: Weights) -> Any:
    """The network, ready to run on one thread; built once in a process."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # as many as a task has CPUs
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(weights.content, options, providers=providers)


def run(weights: Weights, pixels: Array) -> Array:
    """The first output of a network with one input."""
    session = session_of(weights)
    return session.run(None, {session.get_inputs()[0].name: pixels.astype(np.float32)})[0]


def _noise(shape: tuple[int, ...]) -> Array:
    """Noise of a strength that differs from block to block: no network is blind to all of it."""
    rng = np.random.default_rng(0)
    blocks = PROBE_RANGE ** -rng.uniform(0, 1, [-(-edge // GRID_PX) for edge in shape])
    block_of = np.ix_(*(np.arange(edge) // GRID_PX for edge in shape))
    return (rng.uniform(0, PROBE_LEVELS, shape) * blocks[block_of]).astype(np.float32)


@dataclass(frozen=True)
class NetworkPredictor(ABC):
    """Finds objects by the maps of a network.

    Attributes
    ----------
    spec : str
        What the user asked for.
    weights : Weights
    second : str
        What the second map says: "boundary" or "distance".
    step_px, reach_px : int
        How far windows lie apart, and how far the network sees; set by `fitted`.
    """

    spec: str
    weights: Weights
    second: str
    step_px: int = 0
    reach_px: int = 0

    @abstractmethod
    def window_of(self, least_px: int) -> int:
        """The smallest edge of an image of at least that many pixels that the network takes."""

    @abstractmethod
    def normalisation(self, samples: Samples) -> Normalisation:
        """What the network subtracts and divides by, for the scan that the samples show."""

    @abstractmethod
    def maps(self, pixels: Array, normalisation: Normalisation) -> Array:
        """Maps (channel, y, x) of pixels (y, x)."""

    def describe(self, samples: Samples, diameter_px: float | None) -> DetectionStatistics:
        """Object size and normalisation of the scan."""
        seen = estimate_statistics(samples, diameter_px)
        halo_px = self.reach_px + ceil(REACH * seen.diameter_px)
        normalisation = self.normalisation(samples)
        return ModelStatistics(**vars(seen), reach_px=halo_px, normalisation=normalisation)

    def detect(self, image: Array, statistics: DetectionStatistics, origin: Place) -> Array:
        """Labels (y, x) int32 of one region."""
        assert isinstance(statistics, ModelStatistics)
        network = partial(self.maps, normalisation=statistics.normalisation)
        maps = in_windows(image, origin, network, self.window_of, self.step_px, self.reach_px)
        return instances(maps, self.second, statistics.diameter_px)

    def told(self) -> dict[str, str]:
        """What the journal says of it."""
        return {"predictor": self.spec, "model_sha256": self.weights.sha256}

    def fault(self, expected: str, came: str, advice: str) -> UserMistake:
        """An error about this network."""
        return UserMistake(self.spec, expected, came, advice)

    def fitted(self) -> Self:
        """The network with its reach, measured on noise, and the step of its windows."""
        size = self.window_of(STEP_PX)
        noise = _noise((2, 2 * size, 2 * size))
        norm = self.normalisation([noise[0]])
        reach_px = self._reach(noise[:, :size, :size], norm)
        window_px = self.window_of(STEP_PX + 2 * reach_px)
        step_px = (window_px - 2 * reach_px) // GRID_PX * GRID_PX
        if step_px <= 0:
            least_px = 2 * reach_px + GRID_PX
            expected = f"windows of at least {least_px} pixels, for it sees {reach_px} far"
            raise self.fault(expected, f"{window_px}", "export it with free height and width")
        self._require_same_when_shifted(noise[0], norm, reach_px)
        return replace(self, step_px=step_px, reach_px=reach_px)

    def _reach(self, noise: Array, norm: Normalisation) -> int:
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
            expected = f"a network that sees less than {limit} pixels far"
            advice = "take one without normalisation over the image (instance norm) or attention"
            raise self.fault(expected, "one that looks at the whole image", advice)
        # Seen from any pixel, not from the cut.
        return ceil((far + GRID_PX // 2 - 1) / GRID_PX) * GRID_PX

    def _sound_maps(self, pixels: Array, norm: Normalisation) -> Array:
        """Maps that have the shape and the range that the README asks for."""
        maps = self.maps(pixels, norm)
        expected = f"one or two maps of {pixels.shape[0]} x {pixels.shape[1]} pixels"
        if maps.shape[1:] != pixels.shape or len(maps) not in (1, 2):
            raise self.fault(expected, " x ".join(map(str, maps.shape)), "see README.md")
        probable = maps[:1] if self.second == "distance" else maps
        low, high = probable.min(), probable.max()
        if not (np.isfinite(maps).all() and low >= -TOLERANCE and high <= 1 + TOLERANCE):
            came = f"{low:.4g} to {high:.4g}"
            raise self.fault("probabilities from 0 to 1", came, "end the network with a sigmoid")
        return maps

    def _require_same_when_shifted(self, noise: Array, norm: Normalisation, reach: int) -> None:
        """Refuse a network for which it matters where on the grid an object lies."""
        size = len(noise) // 2
        there = self.maps(noise[:size, :size], norm)
        here = self.maps(noise[GRID_PX:, GRID_PX:][:size, :size], norm)
        inner, ahead = slice(reach, size - reach - GRID_PX), slice(reach + GRID_PX, size - reach)
        if (np.abs(here[:, inner, inner] - there[:, ahead, ahead]) > TOLERANCE).any():
            expected = f"the same maps when an image is shifted by {GRID_PX} pixels"
            raise self.fault(expected, "others", "take one of at most five halvings")
