"""A user's own Python: imported, tested on an empty image, and given copies of arrays."""

from __future__ import annotations

import pickle
import re
from math import ceil
from pathlib import Path

import numpy as np
import pytest

from imaging.statistics import CLUMP
from prediction.opening import open_predictor
from scan.errors import UserMistake
from tests.prediction.networks import slide

ROOT = Path(__file__).parents[2]
UINT16 = np.dtype(np.uint16)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A module of a name of its own, in the folder where the program is started."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / f"model_{abs(hash(request.node.name))}.py"


def test_the_documentation_has_a_model_that_works(module: Path) -> None:
    """The documentation's example detects the discs of a slide, in raster order, after pickling."""
    (example,) = re.findall(
        r"```python\n(# my_model\.py.*?)```", (ROOT / "docs" / "predictors.md").read_text(), re.S
    )
    module.write_text(example)
    image = np.full((200, 200), 100, np.uint16)
    image[20:40, 100:130] = image[90:120, 20:50] = 900
    predictor = pickle.loads(pickle.dumps(open_predictor(f"{module.stem}:factory", UINT16)))

    statistics = predictor.estimate_statistics([image], 20.0)
    labels = predictor.detect(image, statistics, (0, 0))

    # what its halo of 64 px holds beyond a clump of objects may be spoilt by what is not seen
    assert statistics.filter_reach_px == max(0, 64 - ceil(CLUMP * 20.0))
    assert labels.dtype == np.int32
    assert (labels[30, 110], labels[100, 30], labels.max()) == (1, 2, 2)
    assert predictor.to_event() == {"predictor": f"{module.stem}:factory"}


LABELS = {
    "any numbers": "np.where(image > 500, 7_000_000_000 + image.astype(np.int64), 0)",
    "below zero": "np.where(image > 500, -3, 0)",
    "bytes": "(image > 500).astype(np.uint8) * 200",
    "in place": "(image.fill(0), np.zeros(image.shape, np.int8))[1]",
}


@pytest.mark.parametrize("expression", LABELS.values(), ids=LABELS)
def test_labels_may_be_any_integers(module: Path, expression: str) -> None:
    """Any labels become 1 to n in raster order; the image is not modified."""
    module.write_text(
        f"import numpy as np\n\ndef factory():\n    return lambda image: {expression}\n"
    )
    predictor = open_predictor(f"{module.stem}:factory", UINT16)
    image = slide((150, 150), 5)
    before = image.copy()

    labels = predictor.detect(image, predictor.estimate_statistics([image], 20.0), (0, 0))

    found = np.unique(labels)
    np.testing.assert_array_equal(found, np.arange(found.size))
    np.testing.assert_array_equal(image, before)


def test_a_model_may_set_its_halo(module: Path) -> None:
    """The halo is the model's `halo_px`, or that of objects of this size."""
    module.write_text(
        "import numpy as np\n\n"
        "class Model:\n    halo_px = 17\n    __call__ = staticmethod(np.zeros_like)\n\n"
        "def factory(): return np.zeros_like\n"
    )
    image = slide((150, 150), 5)
    said = open_predictor(f"{module.stem}:Model", UINT16).estimate_statistics([image], 30.0)
    silent = open_predictor(f"{module.stem}:factory", UINT16).estimate_statistics([image], 30.0)

    assert said.halo_px == 17
    assert silent.halo_px > 60


HALO = "def find(image):\n    return image * 0\nfind.halo_px = "
WRONG = {
    "no module": ("", "no_such_module_here:factory", "ModuleNotFoundError: No module named"),
    "no factory": ("", "{}:factory", "AttributeError"),
    "broken": ("1 / 0", "{}:factory", "ZeroDivisionError: division by zero (model_"),
    "no function": ("factory = int", "{}:factory", "TypeError"),
    "arguments": ("def factory(size): pass", "{}:factory", "TypeError"),
    "shape": ("factory = lambda: lambda image: image[1:]", "{}:factory", "uint16 of shape (255,"),
    "kind": ("factory = lambda: lambda image: image / 2", "{}:factory", "float64 of shape (256,"),
    "nothing": ("factory = lambda: lambda image: None", "{}:factory", "got object of shape ()"),
    "noise": ("factory = lambda: lambda x: x if x.max() == 0 else 1 / 0", "{}:factory", "ZeroDiv"),
    "negative halo": (f"{HALO}-2\nfactory = lambda: find", "{}:factory", "halo_px is below 0"),
    "exit": ("import sys\nsys.exit(0)", "{}:factory", "SystemExit: 0 (model_"),
    "exit in the factory": ("import sys\nfactory = sys.exit", "{}:factory", "SystemExit:"),
    "exit in an image": (
        "import sys\nfactory = lambda: lambda x: sys.exit(0)",
        "{}:factory",
        "SystemExit: 0",
    ),
    "interrupt": ("raise KeyboardInterrupt", "{}:factory", "KeyboardInterrupt: (model_"),
    "end of a generator": ("raise GeneratorExit", "{}:factory", "GeneratorExit: (model_"),
    "its own kind": ("class Odd(BaseException): pass\nraise Odd('!')", "{}:factory", "Odd: ! (mo"),
    "no message": (
        "class Mute(Exception):\n    def __str__(self): raise SystemExit\nraise Mute",
        "{}:factory",
        "Mute: its message raises SystemExit (model_",
    ),
    "many lines": ("raise ValueError('a\\n\\x1b[2J' + 'b' * 10**6)", "{}:factory", "ValueError: a"),
    "exit of the halo": (
        "import sys\nclass Halo(int):\n    def __int__(self): sys.exit(0)\n"
        "def find(image): return image * 0\nfind.halo_px = Halo()\nfactory = lambda: find",
        "{}:factory",
        "SystemExit: 0",
    ),
    "no halo": (f"{HALO}'far'\nfactory = lambda: find", "{}:factory", "invalid literal for int"),
}


@pytest.mark.parametrize(("code", "spec", "said"), WRONG.values(), ids=WRONG)
def test_wrong_code_fails_in_one_line(module: Path, code: str, spec: str, said: str) -> None:
    """A model that cannot be used is refused when it is opened, in one line."""
    module.write_text(code + "\n")

    with pytest.raises(UserMistake) as refused:
        open_predictor(spec.format(module.stem), UINT16)

    assert said in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1000


def test_an_exit_in_a_field_is_an_error_of_the_task(module: Path) -> None:
    """A model that exits after its test does not end the process of a task, which nobody could
    tell from a crash."""
    module.write_text(
        "import sys\n\n"
        "def find(image): return image * 0 if image.max() <= 200 else sys.exit(0)\n\n"
        "def factory(): return find\n"
    )
    predictor, image = open_predictor(f"{module.stem}:factory", UINT16), slide((150, 150), 5)

    with pytest.raises(UserMistake, match="SystemExit: 0"):
        predictor.detect(image, predictor.estimate_statistics([image], 20.0), (0, 0))
