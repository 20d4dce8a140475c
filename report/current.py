"""Whether a view of a run is as it would be made again: it bears the mark of all that it shows."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from config import SETTINGS_FILE, VERSION, is_file
from results.journal import JOURNAL
from results.storage import location_of

ROOT = Path(__file__).parents[1]
MAKERS = ("config.py", "report/**/*", "results/*.py", "scan/*.py")  # of views
ENDS = (b"</html>", b"]}")  # of a view that is whole
HEAD_BYTES = 1000  # the mark is near the beginning
MARK_BYTES = 16


def mark_of(folder: Path) -> str:
    """Return the mark of a run as far as it has come: a checksum of the journal, which has those of
    images and table, of the settings, of where the run lies, and of the code that makes views."""
    mark = hashlib.blake2b(_mark_of_code(), digest_size=MARK_BYTES)
    mark.update(location_of(folder.resolve()).encode())
    for name in (SETTINGS_FILE, JOURNAL):
        content = (folder / name).read_bytes() if is_file(folder / name) else b""
        mark.update(hashlib.blake2b(content).digest())
    return mark.hexdigest()


def is_current(view: Path, mark: str) -> bool:
    """Return whether a view is whole and bears this mark."""
    if not is_file(view):
        return False
    with view.open("rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(-min(HEAD_BYTES, view.stat().st_size), 2)
        end = file.read().rstrip()
    return mark.encode() in head and end.endswith(ENDS)


@cache
def _mark_of_code() -> bytes:
    """The checksum of the code that makes views, and of Bokeh's version."""
    found = hashlib.blake2b(f"{VERSION} {version('bokeh')}".encode())
    for pattern in MAKERS:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and path.suffix != ".pyc":
                found.update(path.read_bytes())
    return found.digest()
