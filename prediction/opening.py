"""From the setting to a predictor, before Ray starts and before anything is written."""

from pathlib import Path

import numpy as np

from prediction import Predictor
from prediction.bioimage_model import open_bioimage_model
from prediction.classic import Classic
from prediction.onnx_file import open_onnx
from prediction.user_code import open_user_code

NETWORKS = {"onnx": open_onnx, "bioimageio": open_bioimage_model}


def open_predictor(spec: str, dtype: np.dtype) -> Predictor:
    """The predictor that a valid setting names, tried out.

    Parameters
    ----------
    spec : str
        "classic", "onnx:FILE", "bioimageio:FOLDER" or "module:factory"; what a network's second
        map says may follow its place as "?maps=boundary" (if not given) or "?maps=distance".
    dtype : dtype
        Of the images it will see.

    Raises
    ------
    UserMistake
        If it cannot be used, whatever the reason.
    """
    kind, _, rest = spec.partition(":")
    if kind in NETWORKS:
        place, _, second = rest.partition("?maps=")
        return NETWORKS[kind](spec, Path(place).resolve(), second or "boundary")
    return open_user_code(spec, dtype) if rest else Classic()
