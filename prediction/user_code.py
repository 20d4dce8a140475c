"""The user's own Python: a factory that returns a function from image to labels."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from traceback import extract_tb
from typing import Any

import numpy as np

from imaging.detection import estimate_statistics
from imaging.instances import raster_order
from imaging.statistics import DetectionStatistics
from prediction import Array, ModelStatistics, Origin, Samples
from scan.errors import UserMistake
from scan.text import describe

TRIAL_PX = 256  # edge of the test images: an empty one, and noise
HINT = "see docs/predictors.md"


@dataclass(frozen=True)
class UserCode:
    """Detects objects with the function that `module:factory` returns.

    Attributes
    ----------
    spec : str
        Name of the module, a colon, name of the factory.
    folder : str
        Added to the module search path.
    """

    spec: str
    folder: str

    def estimate_statistics(
        self, samples: Samples, diameter_px: float | None
    ) -> DetectionStatistics:
        """Estimate the object size; the halo is the model's `halo_px`, or that of this size."""
        seen = estimate_statistics(samples, diameter_px)
        with as_user_error(self.spec):
            reach_px = int(getattr(_user_function(self), "halo_px", seen.halo_px))
        return ModelStatistics(**vars(seen), reach_px=reach_px)

    def detect(self, image: Array, statistics: DetectionStatistics, origin: Origin) -> Array:
        """Return labels (y, x) int32 of a region."""
        return self.labelled(image)

    def labelled(self, image: Array) -> Array:
        """Call the user's function on an image (y, x); return labels in raster order.

        Labels of another shape, labels that are not integers, and any error of the function raise
        UserMistake.
        """
        with as_user_error(self.spec):
            labels = np.asarray(_user_function(self)(image.copy()))
        if labels.shape != image.shape or labels.dtype.kind not in "iu":
            expected = f"integers of shape {image.shape}, 0 for background"
            got = f"{labels.dtype} of shape {labels.shape}"
            raise UserMistake(f"predictor {self.spec}", expected, got, HINT)
        _, compact = np.unique(labels, return_inverse=True)
        return raster_order(np.where(labels == 0, 0, compact + 1))

    def to_event(self) -> dict[str, str]:
        """Return the values of the journal event."""
        return {"predictor": self.spec}


@lru_cache(maxsize=1)
def _user_function(predictor: UserCode) -> Callable[[Array], Array]:
    """Return what the factory returns; it is called once in a process."""
    made: Callable[[Array], Array] = imported(predictor.spec, predictor.folder)()
    return made


def imported(spec: str, folder: str) -> Any:
    """Return what `module:name` names; the folder is added to the module search path."""
    module, _, name = spec.partition(":")
    if folder not in sys.path:
        sys.path.append(folder)
    return getattr(importlib.import_module(module), name)


@contextmanager
def as_user_error(spec: str, expected: str = "a model that labels images") -> Iterator[None]:
    """Convert any error of the user's code to a UserMistake that names the line.

    Also SystemExit and the like: they would end the process of a task, which looks like a crash.
    """
    try:
        yield
    except UserMistake:
        raise
    except BaseException as error:
        frames = [frame for frame in extract_tb(error.__traceback__) if "<" not in frame.filename]
        where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}"
        got = f"{describe(error)} ({where})"
        raise UserMistake(f"predictor {spec}", expected, got, HINT) from None


def open_user_code(spec: str, dtype: np.dtype) -> UserCode:
    """Open a user's model and test it on an empty image and on noise; UserMistake if it fails."""
    predictor, rng = UserCode(spec, str(Path.cwd())), np.random.default_rng(0)
    for brightest in (0, 200):
        predictor.labelled(rng.integers(0, brightest + 1, (TRIAL_PX, TRIAL_PX)).astype(dtype))
    with as_user_error(spec):
        if int(getattr(_user_function(predictor), "halo_px", 0)) < 0:
            raise ValueError("halo_px is below 0")
    return predictor
