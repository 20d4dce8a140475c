"""A network that a user exported: one ONNX file that turns an image into maps."""

from pathlib import Path

import numpy as np

from imaging.instances import GRID_PX
from prediction import Array, Normalisation, Samples
from prediction.network import NetworkPredictor, Weights, run, session_of, told_in_one_line

LOWEST, HIGHEST = 1.0, 99.8  # percentiles of the scan's pixels that become 0 and 1


class OnnxFile(NetworkPredictor):
    """A network (1, 1, y, x) to (1, 2, y, x) float32, as the README describes it."""

    def window_of(self, least_px: int) -> int:
        """The network's own edge, or any multiple of the grid."""
        rows = session_of(self.weights).get_inputs()[0].shape[-2]
        return rows if isinstance(rows, int) else -(-least_px // GRID_PX) * GRID_PX

    def normalisation(self, samples: Samples) -> Normalisation:
        """Two percentiles of all pixels of all samples."""
        pixels = np.concatenate([sample.ravel() for sample in samples])
        low, high = np.percentile(pixels, (LOWEST, HIGHEST))
        return float(low), max(float(high - low), 1e-6)

    def maps(self, pixels: Array, normalisation: Normalisation) -> Array:
        """Maps (channel, y, x) of pixels (y, x)."""
        low, spread = normalisation
        return run(self.weights, ((pixels.astype(np.float64) - low) / spread)[None, None])[0]


def open_onnx(spec: str, path: Path, second: str) -> OnnxFile:
    """A network from a file, tried out; a file that cannot be used raises UserMistake."""
    with told_in_one_line(spec):
        return OnnxFile(spec, Weights.of(path.read_bytes()), second).fitted()
