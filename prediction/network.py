"""A network in ONNX: its session, and its receptive field, which is measured when it is opened.

A network is usable if its output for a pixel depends on a bounded neighbourhood only; then field
borders leave no trace. Both conditions are tested when it is opened.
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
from prediction import Array, ModelStatistics, Normalisation, Origin, Samples
from scan.errors import UserMistake
from scan.text import describe

STEP_PX = 512  # of windows: large enough that margins cost little, small enough for memory
MAX_RECEPTIVE_FIELD_PX = 208  # less than half of the test image
PROBE_LEVELS = 256.0  # grey levels of the noise in the test image
PROBE_RANGE = 1000.0  # ratio of the strongest to the weakest noise
TOLERANCE = 1 / 512  # in probability: two steps, allowed between shifted images


@dataclass(frozen=True)
class Weights:
    """Content of an ONNX file; equal if the hashes are."""

    sha256: str
    content: bytes = field(repr=False, compare=False)

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Return weights with their hash."""
        return cls(hashlib.sha256(content).hexdigest(), content)


@contextmanager
def as_user_error(spec: str) -> Iterator[None]:
    """Convert any error of a tested model, or a missing package, to a UserMistake."""
    try:
        yield
    except UserMistake:
        raise
    except ModuleNotFoundError as error:
        hint = "pip install -r requirements-models.txt"
        raise UserMistake(spec, f"the package {error.name}", "none", hint) from None
    except Exception as error:  # of libraries that have no base class of their own
        hint = "see docs/predictors.md"
        raise UserMistake(spec, "a model that can be used", describe(error), hint) from error


@lru_cache(maxsize=1)
def session_of(weights: Weights) -> Any:
    """Return a single-threaded session, which is created once in a process."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # as many as a task has CPUs
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(weights.content, options, providers=providers)


def run(weights: Weights, pixels: Array) -> Array:
    """Return the first output of a network with one input."""
    session = session_of(weights)
    return session.run(None, {session.get_inputs()[0].name: pixels.astype(np.float32)})[0]


def _noise(shape: tuple[int, ...]) -> Array:
    """Return noise of different strength in each block, so that any network responds to some."""
    rng = np.random.default_rng(0)
    blocks = PROBE_RANGE ** -rng.uniform(0, 1, [-(-edge // GRID_PX) for edge in shape])
    block_of = np.ix_(*(np.arange(edge) // GRID_PX for edge in shape))
    return (rng.uniform(0, PROBE_LEVELS, shape) * blocks[block_of]).astype(np.float32)


@dataclass(frozen=True)
class NetworkPredictor(ABC):
    """Detects objects from the maps of a network.

    Attributes
    ----------
    spec : str
        As in the settings.
    weights : Weights
    second_map : str
        Meaning of the second map: "boundary" or "distance".
    step_px, receptive_field_px : int
        Distance of windows, and radius of the receptive field; set by `fitted`.
    """

    spec: str
    weights: Weights
    second_map: str
    step_px: int = 0
    receptive_field_px: int = 0

    @abstractmethod
    def window_of(self, least_px: int) -> int:
        """Return the smallest image edge of at least that many pixels that the network accepts."""

    @abstractmethod
    def normalisation(self, samples: Samples) -> Normalisation:
        """Return what the network subtracts and divides by, for the scan of these samples."""

    @abstractmethod
    def maps(self, pixels: Array, normalisation: Normalisation) -> Array:
        """Return maps (channel, y, x) of pixels (y, x)."""

    def estimate_statistics(
        self, samples: Samples, diameter_px: float | None
    ) -> DetectionStatistics:
        """Estimate object size and normalisation of the scan."""
        seen = estimate_statistics(samples, diameter_px)
        halo_px = self.receptive_field_px + ceil(REACH * seen.diameter_px)
        normalisation = self.normalisation(samples)
        return ModelStatistics(**vars(seen), reach_px=halo_px, normalisation=normalisation)

    def detect(self, image: Array, statistics: DetectionStatistics, origin: Origin) -> Array:
        """Return labels (y, x) int32 of a region."""
        assert isinstance(statistics, ModelStatistics)
        network = partial(self.maps, normalisation=statistics.normalisation)
        maps = in_windows(
            image, origin, network, self.window_of, self.step_px, self.receptive_field_px
        )
        return instances(maps, self.second_map, statistics.diameter_px)

    def to_event(self) -> dict[str, str]:
        """Return the values of the journal event."""
        return {"predictor": self.spec, "model_sha256": self.weights.sha256}

    def user_error(self, expected: str, got: str, hint: str) -> UserMistake:
        """Return an error about this network."""
        return UserMistake(self.spec, expected, got, hint)

    def fitted(self) -> Self:
        """Return the network with its receptive field, measured on noise, and its window step."""
        size = self.window_of(STEP_PX)
        noise = _noise((2, 2 * size, 2 * size))
        norm = self.normalisation([noise[0]])
        radius_px = self._receptive_field_px(noise[:, :size, :size], norm)
        window_px = self.window_of(STEP_PX + 2 * radius_px)
        step_px = (window_px - 2 * radius_px) // GRID_PX * GRID_PX
        if step_px <= 0:
            least_px = 2 * radius_px + GRID_PX
            expected = (
                f"windows of at least {least_px} pixels, for a receptive field of {radius_px}"
            )
            raise self.user_error(expected, f"{window_px}", "export it with free height and width")
        self._require_same_when_shifted(noise[0], norm, radius_px)
        return replace(self, step_px=step_px, receptive_field_px=radius_px)

    def _receptive_field_px(self, noise: Array, norm: Normalisation) -> int:
        """Return how far a change in one corner of an image has an effect, in steps of the grid."""
        size = noise.shape[1]
        cut = size // 2 // GRID_PX * GRID_PX + GRID_PX // 2  # through the centre of coarse pixels
        plain, far = self._checked_maps(noise[0], norm), 0
        for corner, outward, edge in ((np.s_[:cut], 1, cut), (np.s_[cut:], -1, size - cut)):
            changed = noise[0].copy()
            changed[corner, corner] = noise[1][corner, corner]
            seen = (self.maps(changed, norm) != plain).any(axis=0)[::outward, ::outward]
            far = max(far, *(int(at.max(initial=0)) + 1 - edge for at in np.nonzero(seen)))
        limit = min(cut, size - cut, MAX_RECEPTIVE_FIELD_PX)
        if far >= limit:
            expected = f"a receptive field of less than {limit} pixels"
            hint = "take one without normalisation over the image (instance norm) or attention"
            raise self.user_error(expected, "one of the whole image", hint)
        # From any pixel, not only from the cut.
        return ceil((far + GRID_PX // 2 - 1) / GRID_PX) * GRID_PX

    def _checked_maps(self, pixels: Array, norm: Normalisation) -> Array:
        """Return maps after checking their shape and range as described in docs/predictors.md."""
        maps = self.maps(pixels, norm)
        expected = f"one or two maps of {pixels.shape[0]} x {pixels.shape[1]} pixels"
        if maps.shape[1:] != pixels.shape or len(maps) not in (1, 2):
            raise self.user_error(
                expected, " x ".join(map(str, maps.shape)), "see docs/predictors.md"
            )
        probable = maps[:1] if self.second_map == "distance" else maps
        low, high = probable.min(), probable.max()
        if not (np.isfinite(maps).all() and low >= -TOLERANCE and high <= 1 + TOLERANCE):
            got = f"{low:.4g} to {high:.4g}"
            raise self.user_error(
                "probabilities from 0 to 1", got, "end the network with a sigmoid"
            )
        return maps

    def _require_same_when_shifted(self, noise: Array, norm: Normalisation, margin: int) -> None:
        """Refuse a network whose output depends on the position of an object on the grid."""
        size = len(noise) // 2
        there = self.maps(noise[:size, :size], norm)
        here = self.maps(noise[GRID_PX:, GRID_PX:][:size, :size], norm)
        inner, ahead = (
            slice(margin, size - margin - GRID_PX),
            slice(margin + GRID_PX, size - margin),
        )
        if (np.abs(here[:, inner, inner] - there[:, ahead, ahead]) > TOLERANCE).any():
            expected = f"the same maps when an image is shifted by {GRID_PX} pixels"
            raise self.user_error(expected, "others", "take one of at most five halvings")
