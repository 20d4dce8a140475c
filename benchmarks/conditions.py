"""What every benchmark says first: on what it ran."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from results.run_folder import versions


def conditions(**more: object) -> str:
    """Date, processor, load and versions, and what the benchmark adds, in one line."""
    found = ", ".join(f"{name} {value}" for name, value in (versions() | more).items())
    load = f"load {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores"
    return f"{datetime.now(UTC):%Y-%m-%d}, {cpu()}, {load}, {found}"


def print_conditions(**more: object) -> None:
    """Print them, before anything is measured."""
    print(f"{conditions(**more)}\n", flush=True)


def cpu() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    return next((x.split(": ")[1] for x in lines if x.startswith("model name")), platform.machine())
