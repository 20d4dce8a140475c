"""An unpacked model folder of the BioImage.IO model zoo, with ONNX weights.

bioimageio.core reads the description, checks hashes and does axes, pre- and post-processing. Here
statistics come from the scan, not from an image, and nothing is downloaded: files missing in the
folder are an error.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prediction import Array, Normalisation, Samples
from prediction.network import NetworkPredictor, Weights, as_user_error, run
from scan.errors import UserMistake

DOWNLOAD = "download the model's package again"


@dataclass(frozen=True)
class BioImageModel(NetworkPredictor):
    """A model with its description in format 0.5."""

    description: Any = None

    def window_of(self, least_px: int) -> int:
        """Return the smallest edge of at least that many pixels that the description allows."""
        (size,) = (axis.size for axis in self.description.inputs[0].axes if axis.id == "y")
        return size if isinstance(size, int) else size.get_size(max(0, size.get_n(least_px)))

    def normalisation(self, samples: Samples) -> Normalisation:
        """Return the measures that the description requires, over all samples."""
        from bioimageio.core.stat_calculators import compute_measures

        pixels = np.concatenate([sample.ravel() for sample in samples])
        found = compute_measures(self._measures, [self._sample(pixels[None], {})])
        return tuple(float(np.asarray(found[measure]).item()) for measure in self._measures)

    @property
    def _measures(self) -> list[Any]:
        from bioimageio.core.proc_setup import get_requried_measures as required_measures

        return sorted(required_measures(self.description).pre, key=repr)

    def maps(self, pixels: Array, normalisation: Normalisation) -> Array:
        """Return maps (channel, y, x) of pixels (y, x)."""
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
        """Return the processed output with all axes; missing measures are taken from the sample."""
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
        """Raise UserMistake unless the model maps one grey image to one output."""
        from bioimageio.core.proc_setup import get_requried_measures as required_measures

        inputs, outputs = self.description.inputs, self.description.outputs
        free = [axis for axis in inputs[0].axes if axis.id not in ("y", "x")]
        more = [f"axis {axis.id}: {axis.size}" for axis in free if axis.size not in (None, 1)]
        more += [f"tensor {each.id}" for each in (*inputs[1:], *outputs[1:])]
        measured = sorted({each.name for each in required_measures(self.description).post})
        more += [f"{name} of the output" for name in measured]
        if more:
            raise self.user_error(
                "one grey image (y, x) to one output", ", ".join(more), "take another"
            )

    def require_reproduced(self) -> None:
        """Raise UserMistake unless the model reproduces its test output within its tolerance."""
        from bioimageio.core.digest_spec import get_test_input_sample, get_test_output_sample
        from bioimageio.spec.model.v0_5 import ReproducibilityTolerance

        got = self._outcome(get_test_input_sample(self.description)).to_numpy()
        (expected,) = get_test_output_sample(self.description).members.values()
        given = self.description.config.bioimageio.reproducibility_tolerance
        onnx = (each for each in given if "onnx" in (each.weights_formats or ["onnx"]))
        allowed = next(onnx, ReproducibilityTolerance())
        near = (allowed.relative_tolerance, allowed.absolute_tolerance)
        wrong = 1 - float(np.isclose(got, expected.to_numpy(), *near).mean())
        if wrong * 1e6 > allowed.mismatched_elements_per_million:
            promised = "its own test output for its own test input"
            raise self.user_error(promised, f"{wrong:.1%} other values", DOWNLOAD)


def _require_files(spec: str, description: Any) -> None:
    """Raise UserMistake for a model without ONNX weights or with files outside the folder."""
    from bioimageio.spec.common import HttpUrl

    formats = [name for name, given in description.weights if given]
    if "onnx" not in formats:
        raise UserMistake(spec, "ONNX weights", ", ".join(formats), "export the model to ONNX")
    tensors = [each.test_tensor for each in (*description.inputs, *description.outputs)]
    for part in filter(None, (description.weights.onnx, *tensors)):
        if isinstance(part.source, HttpUrl):
            raise UserMistake(spec, "all files in the folder", part.source, DOWNLOAD)


def open_bioimage_model(spec: str, folder: Path, second_map: str) -> BioImageModel:
    """Open, verify and test a model folder; any fault raises UserMistake."""
    with as_user_error(spec):
        if odd := [each for each in folder.rglob("*") if not (each.is_file() or each.is_dir())]:
            raise UserMistake(spec, "regular files", f"{odd[0].name}, which is none", DOWNLOAD)
        from bioimageio.spec import load_model_description
        from loguru import logger

        logger.disable("bioimageio")  # errors are raised, the log is not needed
        # Its file checks would access every URL in the description.
        description: Any = load_model_description(
            folder, format_version="latest", perform_io_checks=False
        )
        _require_files(spec, description)
        weights = Weights.of(description.weights.onnx.get_reader().read())
        model = BioImageModel(spec, weights, second_map, description=description)
        model.require_grey_to_maps()
        model.require_reproduced()
        return model.fitted()
