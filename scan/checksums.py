"""The checksum of arrays, by which their pixels are known again."""

from collections.abc import Iterable
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray


def crc_of_arrays(arrays: Iterable[NDArray[Any]]) -> int:
    """Return the crc32 of the values of all arrays, one after the other, in row order."""
    checksum = 0
    for array in arrays:
        checksum = crc32(np.ascontiguousarray(array).data, checksum)
    return checksum
