"""A microscope is driven by one process, also where its configuration is shared by computers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from microscope.lock import MicroscopeLock
from scan.errors import InputError


def test_another_computer_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A computer has temporary files of its own, but sees the lock of the shared file."""
    file = tmp_path / "scope.cfg"
    file.touch()
    first = MicroscopeLock(file, 0.0)
    (tmp_path / "another").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "another"))

    with pytest.raises(InputError, match=r"scope.cfg: expected a microscope that nobody drives"):
        MicroscopeLock(file, 0.02)
    first.release()
    first.release()

    MicroscopeLock(file, 0.0).release()


def test_a_file_system_without_locks_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the lock among this computer's temporary files is the only one."""
    from microscope import lock

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    file = tmp_path / "scope.cfg"
    file.touch()

    held = lock._locked(file, 0.0)

    assert held is None
