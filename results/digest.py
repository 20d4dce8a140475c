"""The digest of a run: equal results have equal digests; one changed pixel or row changes it."""

import hashlib
from collections.abc import Mapping, Sequence

CORES = 3  # of the checksums of a field: image, depth, labels; its rows are in the table


def digest_of(written: Mapping[tuple[int, int], Sequence[int]], table: int | None) -> str:
    """Return the sha256 of the checksums that tasks computed when they wrote.

    Nothing is read back, so it takes as long for a large scan as for a small one.

    Parameters
    ----------
    written : mapping of (stripe, field) to sequence of int
        Checksums of all fields that were stacked.
    table : int or None
        Checksum of the table of all objects.
    """
    lines = [(*place, *checksums[:CORES]) for place, checksums in sorted(written.items())]
    return hashlib.sha256(f"{lines} {table}".encode()).hexdigest()
