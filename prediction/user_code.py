"""A user's own Python: a factory that returns a function from an image to labels."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from traceback import extract_tb

import numpy as np

from imaging.detection import estimate_statistics, raster_order
from imaging.statistics import DetectionStatistics
from prediction import Array, ModelStatistics, Place, Samples
from scan.errors import UserMistake

TRIAL_PX = 256  # edge of the images that a model is tried on: an empty one, and noise
ADVICE = "see 'Your own model' in README.md"


@dataclass(frozen=True)
class UserCode:
    """Finds objects by what `module:factory` returned.

    Attributes
    ----------
    spec : str
        The module's name, a colon, the factory's name.
    folder : str
        Where modules are looked for, beside the usual places.
    """

    spec: str
    folder: str

    def describe(self, samples: Samples, diameter_px: float | None) -> DetectionStatistics:
        """Object size of the scan; the model's `halo_px`, or what objects of that size need."""
        seen = estimate_statistics(samples, diameter_px)
        reach_px = int(getattr(_made(self), "halo_px", seen.halo_px))
        return ModelStatistics(**vars(seen), reach_px=reach_px)

    def detect(self, image: Array, statistics: DetectionStatistics, origin: Place) -> Array:
        """Labels (y, x) int32 of one region."""
        return self.labelled(image)

    def labelled(self, image: Array) -> Array:
        """What the user's function says of an image (y, x), as labels in raster order.

        Labels of another shape than the image, or of no whole numbers, raise UserMistake, as does
        whatever the function raises.
        """
        with told_by_line(self.spec):
            labels = np.asarray(_made(self)(image.copy()))
        if labels.shape != image.shape or labels.dtype.kind not in "iu":
            expected = f"whole numbers of shape {image.shape}, 0 for background"
            came = f"{labels.dtype} of shape {labels.shape}"
            raise UserMistake(f"predictor {self.spec}", expected, came, ADVICE)
        _, compact = np.unique(labels, return_inverse=True)
        return raster_order(np.where(labels == 0, 0, compact + 1))

    def told(self) -> dict[str, str]:
        """What the journal says of it."""
        return {"predictor": self.spec}


@lru_cache(maxsize=1)
def _made(predictor: UserCode) -> Callable[[Array], Array]:
    """What the factory returns; called once in a process."""
    module, _, factory = predictor.spec.partition(":")
    if predictor.folder not in sys.path:
        sys.path.append(predictor.folder)
    made: Callable[[Array], Array] = getattr(importlib.import_module(module), factory)()
    return made


@contextmanager
def told_by_line(spec: str) -> Iterator[None]:
    """Whatever code that is not ours raises, as a UserMistake that names its line."""
    try:
        yield
    except UserMistake:
        raise
    except Exception as error:
        places = [place for place in extract_tb(error.__traceback__) if "<" not in place.filename]
        where = f"{Path(places[-1].filename).name}, line {places[-1].lineno}"
        came = " ".join(f"{type(error).__name__}: {error}".split()) + f" ({where})"
        raise UserMistake(f"predictor {spec}", "a model that labels images", came, ADVICE) from None


def open_user_code(spec: str, dtype: np.dtype) -> UserCode:
    """A user's model, tried on an empty image and on noise; whatever fails is told in one line."""
    predictor, rng = UserCode(spec, str(Path.cwd())), np.random.default_rng(0)
    for brightest in (0, 200):
        predictor.labelled(rng.integers(0, brightest + 1, (TRIAL_PX, TRIAL_PX)).astype(dtype))
    with told_by_line(spec):
        if int(getattr(_made(predictor), "halo_px", 0)) < 0:
            raise ValueError("halo_px is below 0")
    return predictor
