"""The digest of a run: equal results have equal digests; one changed pixel or row changes it."""

import hashlib

import numpy as np

from results.storage import Location, storage_at
from results.store import DEPTH, LABELS, STACKED, read_region, shape_of
from results.table import TABLE

BAND_PX = 1024  # rows read at a time: limits the memory, does not change the digest


def digest_of(folder: Location) -> str:
    """Return the sha256 of the pixels of image, depth and labels and of the table on disk."""
    digest = hashlib.sha256()
    for name in (STACKED, DEPTH, LABELS):
        rows, columns = shape_of(f"{folder}/{name}")
        for top in range(0, rows, BAND_PX):
            across = slice(top, min(rows, top + BAND_PX)), slice(0, columns)
            band = read_region(f"{folder}/{name}", *across)
            digest.update(np.ascontiguousarray(band).data)
    digest.update(storage_at(folder).read_bytes(TABLE) or b"")
    return digest.hexdigest()
