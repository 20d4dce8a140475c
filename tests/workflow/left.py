"""What a run has left in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def summary_of(folder: Path) -> dict[str, Any]:
    """The summary of a run."""
    return dict(json.loads((folder / "summary.json").read_text()))


def digest_of(folder: Path) -> str:
    """The digest of a run."""
    return str(summary_of(folder)["digest"])


def events_in(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind in the journal."""
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]
