"""Predictions from the object table of a whole scan, made once at its end."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from prediction import Array
from prediction.user_code import as_user_error, imported
from scan.errors import UserMistake

Table = Mapping[str, Array]
POPULATION = "population"
EXPECTED = "a function of a table"
HINT = "see docs/predictors.md, and resume the run"


class ScanPrediction(NamedTuple):
    """What a table says of its scan.

    Attributes
    ----------
    columns : mapping of str to ndarray
        Added to the table: numbers or text, a value for each row.
    facts : mapping of str to number or text
        For the summary.
    """

    columns: Mapping[str, Array]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class ScanPredictor:
    """Calls the function that a setting names.

    Attributes
    ----------
    spec : str or None
        "population", or name of the module, a colon, name of the function; None predicts nothing.
    folder : str
        Added to the module search path.
    """

    spec: str | None
    folder: str = field(default_factory=os.getcwd)

    def predict(self, table: Table) -> ScanPrediction:
        """Call the function with copies of all columns.

        A function of the user's own returns a dictionary of columns, or this and one of facts.

        Raises
        ------
        UserMistake
            If it fails, or returns something else.
        """
        if self.spec is None:
            return ScanPrediction({}, {})
        with as_user_error(self.spec, EXPECTED):
            made = _function(self)({name: np.array(values) for name, values in table.items()})
        if isinstance(made, ScanPrediction):
            return made
        columns, facts = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
        return ScanPrediction(_checked(self.spec, columns, table), _facts(self.spec, facts))


def open_scan_predictor(spec: str) -> ScanPredictor:
    """Import the function that a valid setting names; UserMistake if it cannot be called."""
    predictor = ScanPredictor(spec)
    with as_user_error(spec, EXPECTED):
        if not callable(_function(predictor)):
            raise TypeError("it cannot be called")
    return predictor


def _function(predictor: ScanPredictor) -> Callable[[dict[str, Array]], Any]:
    if predictor.spec == POPULATION:
        from prediction.population import classify

        return classify
    function: Callable[[dict[str, Array]], Any] = imported(predictor.spec or "", predictor.folder)
    return function


def _checked(spec: str, columns: Any, table: Table) -> dict[str, Array]:
    """Return columns that can be added to the table."""
    rows = len(next(iter(table.values())))
    expected = f"new columns of {rows} numbers or texts"
    if not isinstance(columns, Mapping):
        raise _mistake(spec, expected, type(columns).__name__)
    checked = {name: np.asarray(values) for name, values in columns.items()}
    for name, values in checked.items():
        if not isinstance(name, str) or not name.strip() or name in table:
            raise _mistake(spec, expected, f"the name {name!r}")
        if values.shape != (rows,) or values.dtype.kind not in "biufU":
            got = f"{values.dtype} of shape {values.shape} as {name}"
            raise _mistake(spec, expected, got)
    return checked


def _facts(spec: str, facts: Any) -> dict[str, float | int | str]:
    """Return facts as plain numbers and text."""
    if not isinstance(facts, Mapping):
        raise _mistake(spec, "facts by name", type(facts).__name__)
    plain = {name: np.asarray(value) for name, value in facts.items()}
    for name, value in plain.items():
        if not isinstance(name, str) or value.ndim or value.dtype.kind not in "biufU":
            raise _mistake(spec, "a number or text for each fact", f"{name!r}: {facts[name]!r}")
    return {name: value.item() for name, value in plain.items()}


def _mistake(spec: str, expected: str, got: str) -> UserMistake:
    return UserMistake(f"scan_predictor {spec}", expected, got, HINT)
