"""Small files are written whole or not at all: beside their place first, then moved into it."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's text; whoever reads it sees the old text or the new, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
