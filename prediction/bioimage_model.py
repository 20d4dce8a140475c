"""A model folder of the BioImage.IO model zoo, as it was unpacked, with weights in ONNX.

Reading, axes, pre- and post-processing are those of bioimageio.core. Here the statistics come
from the scan and not from an image, files are checked before they are used, and nothing is
fetched: what the folder does not hold is refused.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prediction.network import NetworkPredictor, Weights, optional_packages, read, run
from scan.errors import InputError

DOWNLOAD = "download the model's package again"
ANOTHER = "take a model from one grey image to maps of the same size"


@dataclass(frozen=True)
class BioImageModel(NetworkPredictor):
    """A model with its description, of format 0.5."""

    description: Any = None

    def window_of(self, least_px: int) -> int:
        """The smallest edge that the description allows, of at least that many pixels."""
        rows, columns = (self._axes[name].size for name in "yx")
        if rows != columns:
            raise self.fault("a square input", f"{rows} and {columns}", ANOTHER)
        if isinstance(rows, int):
            return rows
        return int(rows.min + max(0, -(-(least_px - rows.min) // rows.step)) * rows.step)

    @property
    def _axes(self) -> dict[str, Any]:
        return {str(axis.id): axis for axis in self.description.inputs[0].axes}

    def normalisation(self, samples: Sequence[np.ndarray]) -> tuple[float, ...]:
        """The measures that the description wants of an image or a data set, of all samples."""
        from bioimageio.core.stat_calculators import compute_measures

        pixels = np.concatenate([sample.ravel() for sample in samples])
        found = compute_measures(self._measures, [self._sample(pixels[None])])
        return tuple(float(np.asarray(found[measure]).item()) for measure in self._measures)

    @property
    def _measures(self) -> list[Any]:
        from bioimageio.core.proc_setup import get_requried_measures as required_measures

        return sorted(required_measures(self.description).pre, key=repr)

    def maps(self, pixels: np.ndarray, normalisation: tuple[float, ...]) -> np.ndarray:
        """Maps (channel, y, x) of pixels (y, x)."""
        known = dict(zip(self._measures, normalisation, strict=True))
        maps = self.outcome(self._sample(pixels, known))
        return maps.transpose(("channel", "y", "x"), missing_dims="expand").to_numpy()

    def outcome(self, sample: Any) -> Any:
        """The processed output of a sample that knows its measures, with all its axes."""
        from bioimageio.core import Sample, Tensor
        from bioimageio.core.digest_spec import get_axes_infos
        from bioimageio.core.proc_setup import get_pre_and_postprocessing

        before, after = get_pre_and_postprocessing(
            self.description, dataset_for_initial_statistics=[], fixed_dataset_stats=sample.stat
        )
        before(sample)
        maps = run(self.weights, sample.members[self.description.inputs[0].id].to_numpy())
        output = self.description.outputs[0]
        tensor = Tensor.from_numpy(maps, dims=get_axes_infos(output))
        answer = Sample(members={output.id: tensor}, stat=sample.stat, id=None)
        after(answer)
        return answer.members[output.id]

    def _sample(self, pixels: np.ndarray, known: dict[Any, Any] | None = None) -> Any:
        from bioimageio.core import Sample, Tensor

        plain = Tensor(pixels.astype(np.float32), dims=("y", "x"))
        tensor = plain.transpose([axis.id for axis in self._axes.values()], missing_dims="expand")
        return Sample(members={self.description.inputs[0].id: tensor}, stat=known or {}, id=None)

    def require_one_grey_image(self) -> None:
        """Refuse what does not turn one grey image into one output."""
        inputs, outputs = self.description.inputs, self.description.outputs
        came = f"{len(inputs)} inputs and {len(outputs)} outputs"
        if len(inputs) == len(outputs) == 1:
            others = [axis for name, axis in self._axes.items() if name not in ("y", "x")]
            came = "axes " + ", ".join(f"{axis.id}: {axis.size or 1}" for axis in others)
            if {"y", "x"} <= set(self._axes) and all(axis.size in (None, 1) for axis in others):
                return
        raise self.fault("one grey image (y, x) to one output", came, ANOTHER)

    def require_no_measures_of_output(self) -> None:
        """Refuse post-processing that measures what only a whole mosaic could be measured on."""
        from bioimageio.core.proc_setup import get_requried_measures as required_measures

        measures = sorted({measure.name for measure in required_measures(self.description).post})
        if measures:
            raise self.fault("post-processing without measures", ", ".join(measures), ANOTHER)

    def require_reproduced(self) -> None:
        """Refuse a model that does not give its own test output for its own test input."""
        from bioimageio.core.digest_spec import get_test_input_sample
        from bioimageio.core.stat_calculators import compute_measures

        content_of(self.path, self.description.inputs[0].test_tensor)
        (output,), sample = self.description.outputs, get_test_input_sample(self.description)
        expected = np.load(io.BytesIO(content_of(self.path, output.test_tensor)))
        sample.stat.update(compute_measures(self._measures, [sample]))
        came = self.outcome(sample).to_numpy()
        allowed = _tolerance(self.description)
        wrong = 1.0
        if came.shape == expected.shape:
            near = (allowed.relative_tolerance, allowed.absolute_tolerance)
            wrong = 1 - float(np.isclose(came, expected, *near).mean())
        if wrong * 1e6 > allowed.mismatched_elements_per_million:
            raise self.fault(
                "its own test output for its own test input", f"{wrong:.1%} other values", DOWNLOAD
            )


def content_of(folder: Path, part: Any) -> bytes:
    """The content of a file of a model's folder; a URL and a wrong hash raise InputError."""
    place = part.source.absolute() if hasattr(part.source, "absolute") else part.source
    if not isinstance(place, Path):
        raise InputError(str(folder), "all files in the folder", str(part.source), DOWNLOAD)
    content = read(place)
    weights = Weights.of(content)
    if part.sha256 and weights.sha256 != part.sha256:
        raise InputError(
            str(place), f"sha256 {part.sha256[:12]}...", f"{weights.sha256[:12]}...", DOWNLOAD
        )
    return content


def _tolerance(description: Any) -> Any:
    """How near the test output has to be reproduced, as the description says."""
    from bioimageio.spec.model.v0_5 import ReproducibilityTolerance

    said = description.config.bioimageio.reproducibility_tolerance
    fitting = (each for each in said if not each.weights_formats or "onnx" in each.weights_formats)
    return next(fitting, ReproducibilityTolerance())


def open_bioimage_model(spec: str, folder: Path, second: str) -> BioImageModel:
    """A model from its folder, verified and tried out; whatever is wrong raises UserMistake."""
    with optional_packages(spec):
        description = _description(folder)
        onnx = description.weights.onnx
        if onnx is None or getattr(onnx, "external_data", None):
            came = ", ".join(name for name, given in description.weights if given) or "none"
            raise InputError(
                str(folder), "ONNX weights in one file", came, "export the model to ONNX"
            )
        weights = Weights.of(content_of(folder, onnx))
        model = BioImageModel(spec, folder, weights, second, description=description)
        model.require_one_image()
        model.require_one_grey_image()
        model.require_no_measures_of_output()
        model.require_reproduced()
        return model.fitted()


def _description(folder: Path) -> Any:
    """The description in a folder, in the newest format; nothing that it names is looked at."""
    from bioimageio.spec import InvalidDescr, load_description
    from loguru import logger

    logger.disable("bioimageio")  # what matters is told as an error, in one line
    if not folder.is_dir():
        raise InputError(str(folder), "a BioImage.IO model folder", "no folder", "check the path")
    try:
        found = load_description(folder, format_version="latest", perform_io_checks=False)
    except (OSError, ValueError) as error:
        came = str(error).split("[")[0]
    else:
        if found.type == "model" and not isinstance(found, InvalidDescr):
            return found
        came = str(found.get_reason() if isinstance(found, InvalidDescr) else found.type)
    came = " ".join(came.split())
    raise InputError(str(folder), "a BioImage.IO model folder", came, "unpack a model's package")
