"""Predictions from the table of a whole scan."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from prediction.population import CLASSES, class_probabilities, classify
from prediction.scan_predictor import ScanPredictor, open_scan_predictor
from prediction.trial import try_scan_predictor
from scan.errors import UserMistake

ROOT = Path(__file__).parents[2]
TABLE = {"label": np.array([1.0, 5.0, 9.0, 12.0, 20.0]), "area": np.array([10.0, 11, 9, 40, 10])}


def written(folder: Path, name: str, body: str) -> str:
    """Write a module with a function of the table; returns its spec."""
    (folder / f"{name}.py").write_text(f"import numpy as np\ndef predict(table):\n    {body}\n")
    return f"{name}:predict"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the program is started."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_of_the_documentation_runs(here: Path) -> None:
    """The function that the documentation shows adds a column and a fact, after pickling."""
    (example,) = re.findall(
        r"```python\n(# my_scan\.py.*?)```", (ROOT / "docs" / "predictors.md").read_text(), re.S
    )
    (here / "my_scan.py").write_text(example)

    predictor = pickle.loads(pickle.dumps(open_scan_predictor("my_scan:predict")))
    prediction = predictor.predict(TABLE)

    assert prediction.columns["large"].tolist() == [False, False, False, True, False]
    assert prediction.facts == {"large objects": 1}


def test_the_table_is_not_changed(here: Path) -> None:
    """A function gets copies; what it writes into them is lost."""
    spec = written(here, "writes", "table['area'][:] = 0; return {}")

    ScanPredictor(spec, str(here)).predict(TABLE)

    assert TABLE["area"].any()


MISTAKES = {
    "raises": ("raise RuntimeError('no idea')", "no idea"),
    "returns_none": ("return None", "NoneType"),
    "few_rows": ("return {'new': np.zeros(2)}", "float64 of shape (2,) as new"),
    "objects": ("return {'new': np.array([{}] * 5)}", "object of shape (5,) as new"),
    "known_name": ("return {'area': np.zeros(5)}", "the name 'area'"),
    "bad_facts": ("return {}, {'list': [1, 2]}", "'list': [1, 2]"),
    "exits": ("raise SystemExit", "SystemExit"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_no_prediction_is_refused(here: Path, name: str) -> None:
    """A function that fails, or returns something else, is a mistake that names it in one line."""
    body, said = MISTAKES[name]
    spec = written(here, name, body)

    with pytest.raises(UserMistake, match=re.escape(spec)) as refused:
        ScanPredictor(spec, str(here)).predict(TABLE)

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("spec", ["not_there:predict", "os:not_there", "os:name"])
def test_what_cannot_be_called_is_refused_before_the_scan(here: Path, spec: str) -> None:
    """A function that is missing, or no function, is found before anything starts."""
    with pytest.raises(UserMistake, match=spec):
        try_scan_predictor(spec, 60.0)


def scan_of(single: int, clumps: int, debris: int, cut: int) -> dict[str, np.ndarray]:
    """Columns of a scan: discs of 100 px, pairs with a waist, specks, and halves at the edge."""
    numbers = (single, clumps, debris, cut)
    area = np.repeat([100.0, 205.0, 4.0, 50.0], numbers)
    area *= np.random.default_rng(1).uniform(0.9, 1.1, len(area))
    return {
        "area": area,
        "solidity": np.repeat([0.96, 0.8, 0.95, 0.95], numbers),
        "touches_border": np.repeat([0, 0, 0, 1], numbers),
        "score": np.full(len(area), 0.9),
    }


def test_objects_are_sorted_by_their_population() -> None:
    """Singles, pairs with a waist, specks and halves at the edge are told apart; a pair is two."""
    found = classify(scan_of(60, 8, 5, 7))

    assert found.columns["class"].tolist() == np.repeat(CLASSES, (60, 8, 5, 7)).tolist()
    assert found.columns["multiplicity"].tolist() == [1] * 60 + [2] * 8 + [0] * 5 + [1] * 7
    assert found.facts["count_low"] <= 60 + 16 + 7 <= found.facts["count_high"]
    assert abs(found.facts["count"] - 83) <= 0.1 * 83


def test_the_unit_of_area_makes_no_difference() -> None:
    """Objects are judged against each other: the same scan at twice the pixels is the same."""
    scan = scan_of(60, 8, 5, 7)

    fine = classify(scan | {"area": 4 * scan["area"]})

    assert fine.columns["class"].tolist() == classify(scan).columns["class"].tolist()
    assert fine.facts == classify(scan).facts


@pytest.mark.parametrize(
    ("area", "solidity"),
    [
        pytest.param([100.0] * 40 + [1600.0] * 8, [0.96] * 48, id="sizes of 1:4"),
        pytest.param([300.0] * 48, [0.55] * 48, id="curved rods"),
        pytest.param([100.0] * 48, [0.96] * 48, id="discs"),
    ],
)
def test_what_is_usual_in_a_scan_is_no_clump(area: list[float], solidity: list[float]) -> None:
    """Where sizes are mixed, or all outlines are ragged, the count is that of the objects."""
    scan = scan_of(48, 0, 0, 0) | {"area": np.array(area), "solidity": np.array(solidity)}

    found = classify(scan)

    assert set(found.columns["class"]) == {"single"}
    assert abs(found.facts["count"] - 48) <= 0.021 * 48


@pytest.mark.parametrize("objects", [0, 1, 2])
def test_few_objects_are_no_error(objects: int) -> None:
    """A scan with hardly an object has a count of about as many."""
    found = classify(scan_of(objects, 0, 0, 0))

    assert abs(found.facts["count"] - objects) <= 0.5
    alike = class_probabilities(np.full(3, 7.0), np.full(3, 0.95))
    assert alike.sum(axis=0) == pytest.approx([1, 1, 1])
