"""From a setting to a predictor, in the process that calls; the driver uses `trial`."""

from pathlib import Path

import numpy as np

from imaging.detection import AUTO
from prediction import Predictor
from prediction.bioimage_model import open_bioimage_model
from prediction.classic import Classic
from prediction.onnx_file import open_onnx
from prediction.user_code import open_user_code

NETWORKS = {"onnx": open_onnx, "bioimageio": open_bioimage_model}


def open_predictor(spec: str, dtype: np.dtype, polarity: str = AUTO) -> Predictor:
    """Open and test the predictor that a valid setting names.

    Parameters
    ----------
    spec : str
        "classic", "onnx:FILE", "bioimageio:FOLDER" or "module:factory"; the meaning of a network's
        second map may follow the path as "?maps=boundary" (the default) or "?maps=distance".
    dtype : dtype
        Of the images.
    polarity : str
        For "classic": "bright", "dark" or "auto".

    Raises
    ------
    UserMistake
        If it cannot be used, for any reason.
    """
    kind, _, rest = spec.partition(":")
    if kind in NETWORKS:
        path, _, second_map = rest.partition("?maps=")
        return NETWORKS[kind](spec, Path(path).absolute(), second_map or "boundary")
    return open_user_code(spec, dtype) if rest else Classic(polarity)
