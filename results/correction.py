"""The fields by which a run corrects its frames, kept in its folder as TIFF files."""

from functools import lru_cache
from io import BytesIO
from zlib import crc32

import numpy as np
import tifffile

from results.storage import storage_at
from scan.correction import Correction, CorrectionRecord, Learned
from scan.errors import StorageError

NAMES = {"flat": "flat_field.tif", "dark": "dark_field.tif", "defects": "defects.tif"}


def write_correction(folder: str, learned: Learned) -> CorrectionRecord:
    """Write the fields into the run folder; returns what is known of them, with checksums."""
    correction, facts = learned
    files = []
    for field, pixels in correction._asdict().items():
        if pixels is not None:
            file = BytesIO()
            pixels = pixels.astype(np.uint8) if pixels.dtype == bool else pixels
            tifffile.imwrite(file, pixels, photometric="minisblack", metadata=None)
            checksum = storage_at(folder).write_bytes(NAMES[field], file.getvalue())
            files.append((NAMES[field], checksum))
    return CorrectionRecord(**facts, files=tuple(files))


@lru_cache(maxsize=2)  # each process stacks many fields of one run
def read_correction(folder: str, record: CorrectionRecord) -> Correction:
    """Return the correction of a run; StorageError if a file is not the one that the run wrote."""
    storage, fields = storage_at(folder), {}
    for name, checksum in record.files:
        data = storage.read_bytes(name)
        if data is None or crc32(data) != checksum:
            expected, got = "the field that this run wrote", "none" if data is None else "another"
            hint = "bring it back, or scan into a new folder"
            raise StorageError(f"{folder}/{name}", expected, got, hint)
        field = next(field for field, known in NAMES.items() if known == name)
        pixels = tifffile.imread(BytesIO(data))
        fields[field] = pixels.astype(bool) if field == "defects" else pixels
    return Correction(**fields)
