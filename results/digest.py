"""The digest: equal runs have equal digests, and one changed pixel or row shows."""

import hashlib
from pathlib import Path

import numpy as np

from results.store import DEPTH, LABELS, STACKED, read_region, shape_of
from results.table import TABLE

BAND_PX = 1024  # rows read at a time: bounds the memory, does not change the digest


def digest_of(folder: Path) -> str:
    """sha256 over the pixels of stacked, depth and labels and the rows of the table, from disk."""
    digest = hashlib.sha256()
    for name in (STACKED, DEPTH, LABELS):
        rows, columns = shape_of(folder / name)
        for top in range(0, rows, BAND_PX):
            band = read_region(
                folder / name, slice(top, min(rows, top + BAND_PX)), slice(0, columns)
            )
            digest.update(np.ascontiguousarray(band).data)
    digest.update((folder / TABLE).read_bytes())
    return digest.hexdigest()
