"""A network exported by the user: an ONNX file from image to maps."""

from pathlib import Path

import numpy as np

from config import is_file
from imaging.instances import GRID_PX
from prediction import Array, Normalisation, Samples
from prediction.network import NetworkPredictor, Weights, as_user_error, run, session_of
from scan.errors import UserMistake

LOW_PERCENTILE, HIGH_PERCENTILE = 1.0, 99.8  # of the scan's pixels; they become 0 and 1


class OnnxFile(NetworkPredictor):
    """A network from (1, 1, y, x) to (1, 2, y, x) float32, as described in docs/predictors.md."""

    def window_of(self, least_px: int) -> int:
        """Return the network's fixed edge, or a multiple of the grid."""
        rows = session_of(self.weights).get_inputs()[0].shape[-2]
        return rows if isinstance(rows, int) else -(-least_px // GRID_PX) * GRID_PX

    def normalisation(self, samples: Samples) -> Normalisation:
        """Return two percentiles of all pixels of all samples, as offset and scale."""
        pixels = np.concatenate([sample.ravel() for sample in samples])
        low, high = np.percentile(pixels, (LOW_PERCENTILE, HIGH_PERCENTILE))
        return float(low), max(float(high - low), 1e-6)

    def maps(self, pixels: Array, normalisation: Normalisation) -> Array:
        """Return maps (channel, y, x) of pixels (y, x)."""
        low, spread = normalisation
        return run(self.weights, ((pixels.astype(np.float64) - low) / spread)[None, None])[0]


def open_onnx(spec: str, path: Path, second_map: str) -> OnnxFile:
    """Open and test a network; a file that cannot be used raises UserMistake."""
    if not is_file(path):
        raise UserMistake(spec, "an ONNX file", "no regular file", "check the path")
    with as_user_error(spec):
        return OnnxFile(spec, Weights.of(path.read_bytes()), second_map).fitted()
