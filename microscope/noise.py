"""Noise of simulated images at little cost: rows of one long series that is drawn once a process.

Each row of an image begins at a random number of the series, so that two images hold the same
number at the same pixel as seldom as those of two draws would be alike, and what rows share lies
scattered: no shift of an image against another shows it.
"""

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

NUMBERS = 2**20  # of the series: 4 MB, which stay in the cache of a CPU
STRIP = 128  # rows, few enough to stay in the cache of a CPU
SEED = 20261129  # of the series; that of an image decides where its rows begin


@cache
def _series() -> NDArray[np.float32]:
    """The series, (NUMBERS,) float32: standard normal, its mean and variance exactly 0 and 1."""
    generator = np.random.Generator(np.random.SFC64(SEED))
    drawn = generator.standard_normal(NUMBERS)
    return np.asarray((drawn - drawn.mean()) / drawn.std(), np.float32)


def normal_noise(seeds: Sequence[int], shape: tuple[int, int]) -> Iterator[NDArray[np.float32]]:
    """Yield standard normal noise, `STRIP` rows at a time, (y, x) float32; the same for the same
    seeds in any process.

    Parameters
    ----------
    seeds : sequence of int
        0 or more each; other ones give noise that is independent of this.
    shape : (int, int)
        (y, x), of at most `NUMBERS` columns.
    """
    rows, columns = shape
    starts = np.random.Generator(np.random.SFC64(seeds)).integers(NUMBERS, size=rows)
    for first in range(0, rows, STRIP):
        yield _windows(columns)[starts[first : first + STRIP]]


@cache
def _windows(columns: int) -> NDArray[np.float32]:
    """Every row of so many numbers of the series, which begins again at its end; a view."""
    series = _series()
    return sliding_window_view(np.concatenate([series, series[: columns - 1]]), columns)
