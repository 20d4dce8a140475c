"""Counts in recordings whose truth is known: what a user would be told, beside what is right.

    python benchmarks/cases.py FOLDER

Each file and each folder in FOLDER is scanned as a recording with default settings. What is right
is known for the situations that people have met with programs of this kind; others are scanned,
too, and shown with a dash.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conditions import print_conditions

import cluster.environment  # noqa: F401  (before Ray, which reads it)
from cluster.connection import ray_running
from config import Settings
from driver import run_scan
from results.journal import JOURNAL, read_journal
from results.summary import format_summary
from scan.errors import ScanError
from scan.events import Warned

RIGHT = {  # name of the recording: what is right
    "01": "4 fields, 54 objects",
    "03_signed": "1 field, 16 objects, planes in the order of their heights",
    "03_decimal": "1 field, 16 objects, planes in the order of their heights",
    "05_la": "14 objects; alpha is dropped",
    "05_la16": "14 objects; alpha is dropped",
    "06_thumb": "14 objects; the reduced copy is passed over",
    "06_miniswhite": "14 objects; inverted, and told",
    "07": "4 fields, 46 objects",
    "08_full": "3 fields, 33 objects; the second channel is told of",
    "08_binaryonly": "3 fields, 33 objects; the second channel is told of",
    "08_imagej": "3 fields, 33 objects; the second channel is told of",
    "11_t": "14 objects with a warning, or refused",
    "11_c": "14 objects with a warning, or refused",
    "13_flicker": "told that planes differ in light",
    "13_steady": "nothing told",
    "14": "16 dark objects",
    "15_snake": "60 objects where the stage was",
    "18_touch": "36 objects",
    "18_tiny": "900 objects",
    "18_one": "1 object",
    "18_none": "0 objects",
    "18_zero": "0 objects",
    "19_plain": "70 objects",
    "19_vign": "70 objects",
    "19_shift": "70 objects",
    "25_rods": "24 objects",
    "25_sizes": "48 objects",
}


OPTIONS = {name: {"overlap_px": 48} for name in ("19_plain", "19_vign", "19_shift")}  # as told


def told_of(recording: Path, folder: Path) -> Iterator[str]:
    """What the program says of a recording: its counts, warnings, and doubts; or its refusal."""
    options: dict[str, Any] = OPTIONS.get(recording.name, {})
    settings = Settings(microscope="replay", replay_path=str(recording), **options)
    try:
        summary = run_scan(settings, folder)
    except ScanError as refusal:
        yield f"refused: {refusal}"
        return
    fields = summary["fields"]
    yield f"{fields['detected']} of {fields['planned']} fields, {summary['objects']} objects"
    events = read_journal(folder / JOURNAL)
    yield from (event.message for event in events if isinstance(event, Warned))
    yield from (line for line in format_summary(summary)[1:] if "check the counts" in line)
    yield from (line for line in format_summary(summary)[1:] if "flicker" in line)


def main() -> None:
    """Scan all recordings in a folder and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds the recordings")
    folder = parser.parse_args().folder
    print_conditions()
    print("| recording | said | right |\n|---|---|---|")
    with ray_running(Settings()), tempfile.TemporaryDirectory() as runs:
        for recording in sorted(folder.iterdir()):
            if recording.suffix not in (".npy", ".npz"):
                said = "; ".join(told_of(recording, Path(runs, recording.name)))
                print(
                    f"| {recording.name} | {said} | {RIGHT.get(recording.name, '-')} |", flush=True
                )


if __name__ == "__main__":
    main()
