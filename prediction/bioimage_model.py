"""A model folder of the BioImage.IO model zoo, as it was unpacked, with weights in ONNX.

Reading, hashes, axes, pre- and post-processing are those of bioimageio.core. Here the statistics
come from the scan and not from an image, and nothing is fetched: what the folder does not hold is
refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prediction import Array, Normalisation, Samples
from prediction.network import NetworkPredictor, Weights, run, told_in_one_line
from scan.errors import UserMistake

DOWNLOAD = "download the model's package again"


@dataclass(frozen=True)
class BioImageModel(NetworkPredictor):
    """A model with its description, of format 0.5."""

    description: Any = None

    def window_of(self, least_px: int) -> int:
        """The smallest edge that the description allows, of at least that many pixels."""
        (size,) = (axis.size for axis in self.description.inputs[0].axes if axis.id == "y")
        return size if isinstance(size, int) else size.get_size(max(0, size.get_n(least_px)))

    def normalisation(self, samples: Samples) -> Normalisation:
        """The measures that the description wants of an image or a data set, of all samples."""
        from bioimageio.core.stat_calculators import compute_measures

        pixels = np.concatenate([sample.ravel() for sample in samples])
        found = compute_measures(self._measures, [self._sample(pixels[None], {})])
        return tuple(float(np.asarray(found[measure]).item()) for measure in self._measures)

    @property
    def _measures(self) -> list[Any]:
        from bioimageio.core.proc_setup import get_requried_measures as required_measures

        return sorted(required_measures(self.description).pre, key=repr)

    def maps(self, pixels: Array, normalisation: Normalisation) -> Array:
        """Maps (channel, y, x) of pixels (y, x)."""
        known = dict(zip(self._measures, normalisation, strict=True))
        maps = self._outcome(self._sample(pixels, known))
        return maps.transpose(("channel", "y", "x"), missing_dims="expand").to_numpy()

    def _sample(self, pixels: Array, known: dict[Any, Any]) -> Any:
        from bioimageio.core import Sample, Tensor

        image = self.description.inputs[0]
        plain = Tensor(pixels.astype(np.float32), dims=("y", "x"))
        tensor = plain.transpose([axis.id for axis in image.axes], missing_dims="expand")
        return Sample(members={image.id: tensor}, stat=known, id=None)

    def _outcome(self, sample: Any) -> Any:
        """The processed output, with all its axes; a sample is measured if its measures lack."""
        from bioimageio.core import Sample, Tensor
        from bioimageio.core.proc_setup import get_pre_and_postprocessing

        before, after = get_pre_and_postprocessing(
            self.description, dataset_for_initial_statistics=[], fixed_dataset_stats=sample.stat
        )
        before(sample)
        maps = run(self.weights, sample.members[self.description.inputs[0].id].to_numpy())
        output = self.description.outputs[0]
        tensor = Tensor(maps, dims=[axis.id for axis in output.axes])
        answer = Sample(members={output.id: tensor}, stat=sample.stat, id=None)
        after(answer)
        return answer.members[output.id]

    def require_grey_to_maps(self) -> None:
        """Refuse more than one grey image and one output, and measures of a whole output."""
        from bioimageio.core.proc_setup import get_requried_measures as required_measures

        inputs, outputs = self.description.inputs, self.description.outputs
        free = [axis for axis in inputs[0].axes if axis.id not in ("y", "x")]
        more = [f"axis {axis.id}: {axis.size}" for axis in free if axis.size not in (None, 1)]
        more += [f"tensor {each.id}" for each in (*inputs[1:], *outputs[1:])]
        measured = sorted({each.name for each in required_measures(self.description).post})
        more += [f"{name} of the output" for name in measured]
        if more:
            raise self.fault("one grey image (y, x) to one output", ", ".join(more), "take another")

    def require_reproduced(self) -> None:
        """Refuse a model that does not give its own test output for its own test input, as near as
        its description says."""
        from bioimageio.core.digest_spec import get_test_input_sample, get_test_output_sample
        from bioimageio.spec.model.v0_5 import ReproducibilityTolerance

        came = self._outcome(get_test_input_sample(self.description)).to_numpy()
        (expected,) = get_test_output_sample(self.description).members.values()
        said = self.description.config.bioimageio.reproducibility_tolerance
        ours = (each for each in said if not each.weights_formats or "onnx" in each.weights_formats)
        allowed = next(ours, ReproducibilityTolerance())
        near = (allowed.relative_tolerance, allowed.absolute_tolerance)
        wrong = 1 - float(np.isclose(came, expected.to_numpy(), *near).mean())
        if wrong * 1e6 > allowed.mismatched_elements_per_million:
            promised = "its own test output for its own test input"
            raise self.fault(promised, f"{wrong:.1%} other values", DOWNLOAD)


def _require_files(spec: str, description: Any) -> None:
    """Refuse a model without ONNX weights, or whose files lie elsewhere."""
    from bioimageio.spec.common import HttpUrl

    formats = [name for name, given in description.weights if given]
    if "onnx" not in formats:
        raise UserMistake(spec, "ONNX weights", ", ".join(formats), "export the model to ONNX")
    tensors = [each.test_tensor for each in (*description.inputs, *description.outputs)]
    for part in filter(None, (description.weights.onnx, *tensors)):
        if isinstance(part.source, HttpUrl):
            raise UserMistake(spec, "all files in the folder", part.source, DOWNLOAD)


def open_bioimage_model(spec: str, folder: Path, second: str) -> BioImageModel:
    """A model from its folder, verified and tried out; whatever is wrong raises UserMistake."""
    with told_in_one_line(spec):
        from bioimageio.spec import load_model_description
        from loguru import logger

        logger.disable("bioimageio")  # what matters is told as an error
        # Its checks of files would ask the network for every address in the description.
        description: Any = load_model_description(
            folder, format_version="latest", perform_io_checks=False
        )
        _require_files(spec, description)
        weights = Weights.of(description.weights.onnx.get_reader().read())
        model = BioImageModel(spec, weights, second, description=description)
        model.require_grey_to_maps()
        model.require_reproduced()
        return model.fitted()
