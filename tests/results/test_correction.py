"""A run keeps the fields by which it corrects its frames, and uses no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from results.correction import read_correction, write_correction
from scan.correction import UNCORRECTED, Correction
from scan.errors import StorageError

FLAT = np.random.default_rng(1).uniform(0.5, 1.5, (16, 24)).astype(np.float32)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Pixels come back as they were, and twice the same bytes are written."""
    learned = Correction(FLAT, FLAT + 100, FLAT > 1), {"flat": "file"}

    record = write_correction(str(tmp_path), learned)
    flat, dark, defects = read_correction(str(tmp_path), record)

    np.testing.assert_array_equal(flat, FLAT)
    np.testing.assert_array_equal(dark, FLAT + 100)
    np.testing.assert_array_equal(defects, FLAT > 1)
    assert defects.dtype == bool
    assert write_correction(str(tmp_path), learned) == record
    assert record.flat == "file"


def test_without_fields_nothing_is_written(tmp_path: Path) -> None:
    """Most runs correct nothing and have no file for that."""
    assert write_correction(str(tmp_path), (Correction(), {})) == UNCORRECTED
    assert not list(tmp_path.iterdir())
    assert not read_correction(str(tmp_path), UNCORRECTED)


@pytest.mark.parametrize("damage", ["removed", "changed"])
def test_another_field_is_not_used(tmp_path: Path, damage: str) -> None:
    """A field that is gone, or is not the one of the run, ends it with one line."""
    record = write_correction(str(tmp_path), (Correction(dark=FLAT), {}))
    file = tmp_path / "dark_field.tif"
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"x")

    with pytest.raises(StorageError, match=r"dark_field\.tif: expected the field that this run"):
        read_correction(str(tmp_path), record)
