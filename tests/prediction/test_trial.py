"""A predictor is opened in a process of its own, so that none can end, hang or crash the scan."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

import main
from prediction.classic import Classic
from prediction.trial import open_separately
from prediction.user_code import UserCode
from scan.errors import UserMistake

UINT16 = np.dtype(np.uint16)
LIMIT_S = 60.0


def test_the_built_in_predictor_needs_no_process() -> None:
    """It is opened at once."""
    began_s = time.process_time()

    assert isinstance(open_separately("classic", UINT16, 0.0), Classic)
    assert time.process_time() - began_s < 0.1


def test_a_predictor_comes_back_from_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As it was opened there, whatever its code does afterwards; nothing is printed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good_model.py").write_text(
        "import atexit, os\natexit.register(os._exit, 3)\nprint('hello', flush=True)\n"
        "factory = lambda: lambda image: image * 0\n"
    )

    opened = open_separately("good_model:factory", UINT16, LIMIT_S)

    assert opened == UserCode("good_model:factory", str(tmp_path))
    assert capfd.readouterr() == ("", "")


ENDS = {
    "exit code 0": (
        "import os, sys\nprint('no license', file=sys.stderr, flush=True)\nos._exit(0)",
        "ended with exit code 0, before it was opened: no license",
    ),
    "a crash": ("import os\nos.kill(os.getpid(), 11)", "ended by SIGSEGV"),
}


@pytest.mark.parametrize(("code", "said"), ENDS.values(), ids=ENDS)
def test_a_process_that_ends_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    code: str,
    said: str,
) -> None:
    """The program ends with exit code 2 and one line that names the module; nothing is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad_model.py").write_text(code)

    assert main.main(["--predictor", "bad_model:factory", "--out", str(tmp_path / "run")]) == 2

    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("bad_model:factory: expected a model that can be opened, got a process")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_import_that_never_ends_is_told() -> None:
    """The process is ended after the limit, which the message names."""
    with pytest.raises(UserMistake, match=r"within 0\.05 s, got none; .*task_timeout_s"):
        open_separately("no_such_module:factory", UINT16, 0.05)
