"""A model or the user's own Python, opened and tested in a process of its own.

What it does there cannot end the driver: exit, crash, hang, or print on the terminal of the scan.
"""

import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from prediction import Predictor
from prediction.opening import open_predictor
from prediction.scan_predictor import POPULATION, open_scan_predictor
from scan.errors import UserMistake
from scan.text import describe, one_line

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[1]
EXPECTED, HINT = "a model that can be opened", "see docs/predictors.md"
SLOW_S = 10.0  # after which the user is told what is waited for


def open_separately(
    spec: str, dtype: np.dtype, limit_s: float, polarity: str = "auto"
) -> Predictor:
    """Open and test the predictor that a valid setting names; the built-in one without a process.

    Parameters
    ----------
    spec : str
        As of `open_predictor`.
    dtype : dtype
        Of the images.
    limit_s : float
        Seconds that opening may take.
    polarity : str
        Of the built-in predictor.

    Raises
    ------
    UserMistake
        If it cannot be used, for any reason.
    """
    if spec == "classic":
        return open_predictor(spec, dtype, polarity)
    opened: Predictor = _opened(limit_s, spec, str(dtype))
    return opened


def try_scan_predictor(spec: str | None, limit_s: float) -> None:
    """Import what a valid setting names, in a process of its own; UserMistake if that fails."""
    if spec and spec != POPULATION:
        _opened(limit_s, spec)


def _opened(limit_s: float, spec: str, *arguments: str) -> Any:
    """Return what a process has opened."""
    with tempfile.TemporaryDirectory(prefix="stripe-scan-") as name:
        answer, said = Path(name, "answer"), Path(name, "said")
        with (
            said.open("wb") as errors,
            _process(errors.fileno(), answer, spec, *arguments) as process,
        ):
            _wait(process, spec, limit_s)
        if not answer.exists():
            raise UserMistake(spec, EXPECTED, _death(process.returncode, said), HINT)
        result = pickle.loads(answer.read_bytes())  # made by our own code, below
    if isinstance(result, UserMistake):
        raise result
    return result


@contextmanager
def _process(errors: int, answer: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the process that opens a predictor; end it if it still runs at the end."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "prediction.trial", str(answer), *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *sys.path)))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,  # its children end with it
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", spec: str, limit_s: float) -> None:
    """Wait for the end of the process; UserMistake if that takes too long."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(min(SLOW_S, limit_s))
        return
    if limit_s > SLOW_S:
        log.info("opening %s takes longer than %g s", spec, SLOW_S)
        with suppress(subprocess.TimeoutExpired):
            process.wait(limit_s - SLOW_S)
            return
    expected = f"{EXPECTED} within {limit_s:g} s"
    raise UserMistake(spec, expected, "none", "look where it waits, or raise task_timeout_s")


def _death(code: int, said: Path) -> str:
    """Why a process left no answer, and its last words."""
    how = f"with exit code {code}, before it was opened"
    if code < 0:
        how = f"by {signal.Signals(-code).name}"
    lines = said.read_bytes()[-2000:].decode(errors="replace").split("\n")
    last = next((one_line(line, 200) for line in reversed(lines) if line.strip()), "")
    return f"a process that ended {how}" + (f": {last}" if last else "")


def main(answer: str, spec: str, dtype: str | None = None) -> None:
    """Open a predictor, without dtype a scan predictor; write it, or the UserMistake, to a file."""
    try:
        opened = open_predictor(spec, np.dtype(dtype)) if dtype else open_scan_predictor(spec)
        data = pickle.dumps(opened)
    except UserMistake as error:
        data = pickle.dumps(error)
    except BaseException as error:  # whatever a model's code raises
        data = pickle.dumps(UserMistake(spec, EXPECTED, describe(error), HINT))
    Path(answer).write_bytes(data)
    os._exit(0)  # whatever the model's code has registered for the exit


if __name__ == "__main__":
    main(*sys.argv[1:])
