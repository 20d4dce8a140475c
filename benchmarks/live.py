"""What the live view costs a scan: not served, served to nobody, and watched, in turns.

    python benchmarks/live.py --rounds 5

*Followed* is a client that asks for everything a page asks for, and draws nothing. *Chromium* is a
page in a headless browser on the same cores, whose drawing is the browser's; it is left out where
there is none. Medians over rounds, and the least and the greatest; all scans must give one digest.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.conditions import print_conditions  # noqa: E402
from benchmarks.stress import ROWS  # noqa: E402

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
SHOWN = [name for name in ROWS if re.search("began|longest|percentile|first|answer|least", name)]
Summary = dict[str, Any]


def fetched(port: int, path: str) -> bytes:
    """The body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    return connection.getresponse().read()


def follow(port: int) -> None:
    """Do as a page does until the run is over: read all events, fetch every new picture."""
    with suppress(OSError, http.client.HTTPException):
        while True:
            shape = json.loads(re.findall(r"follow\((.*)\)", fetched(port, "/").decode())[-1])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", f"/events?shape={quote(shape)}")
            if read(port, connection.getresponse()):
                return


def read(port: int, events: http.client.HTTPResponse) -> bool:
    """Read events until a page would reload, or until the run is over, which is true."""
    for line in iter(events.readline, b""):
        if line.startswith(b"event: "):
            return b"over" in line
        if line.startswith(b"data: {"):
            pictures = json.loads(line[6:])["sources"].get("pictures", {})
            for layer in ("image", "depth", "outlines"):
                for url in pictures.get(layer, ()):
                    fetched(port, f"/{url}")
    return True


@contextmanager
def followed(port: int) -> Iterator[None]:
    """A client follows."""
    thread = threading.Thread(target=follow, args=(port,))
    thread.start()
    yield
    thread.join()


@contextmanager
def in_chromium(port: int) -> Iterator[None]:
    """A page is open in a browser."""
    with tempfile.TemporaryDirectory() as profile:
        command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                   "--disable-background-networking", f"--user-data-dir={profile}",
                   "--remote-debugging-port=0", f"http://127.0.0.1:{port}/"]  # fmt: skip
        silent = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=silent, stderr=silent) as browser:
            yield
            browser.terminate()


Watch = Callable[[int], Any]
CONDITIONS: dict[str, Watch | None] = {
    "not served": None,
    "served to nobody": lambda _: nullcontext(),
    "followed": followed,
    **({"Chromium": in_chromium} if BROWSER else {}),
}


def scan(options: list[str], watch: Watch | None) -> Summary:
    """One scan by the program, watched from its first line on; what its summary says."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "main.py"), "--plain", "--out", f"{folder}/run"]
        command += [*options, *(["--live=0"] if watch else [])]
        environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
        pipe: Any = {"stdout": subprocess.PIPE, "text": True, "env": environment}
        with subprocess.Popen(command, **pipe) as program:
            assert program.stdout
            port = int(program.stdout.readline().rpartition(":")[2]) if watch else 0
            with watch(port) if watch else nullcontext():
                program.stdout.read()
        return dict(json.loads((Path(folder) / "run" / "summary.json").read_text()))


def run_from_command_line() -> int:
    """Print conditions and a column for each; exit code 1 unless all digests are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fields", type=int, default=12, help="per stripe")
    parser.add_argument("--exposure-ms", type=float, default=20.0)
    given = parser.parse_args()
    print_conditions(rounds=given.rounds, fields=3 * given.fields, exposure_ms=given.exposure_ms)
    options = [f"--fields={given.fields}", f"--exposure-ms={given.exposure_ms}"]
    found: dict[str, list[Summary]] = {name: [] for name in CONDITIONS}
    for _ in range(given.rounds):
        for name, watch in CONDITIONS.items():
            found[name].append(scan(options, watch))
    print("| | " + " | ".join(CONDITIONS) + " |", "|---" * (1 + len(CONDITIONS)) + "|", sep="\n")
    for row in SHOWN:
        cells = (spread([ROWS[row](summary) for summary in each]) for each in found.values())
        print(f"| {row} |", " | ".join(cells), "|")
    digests = {summary["digest"] for summaries in found.values() for summary in summaries}
    print(f"\n{len(digests)} digest(s) in {given.rounds * len(CONDITIONS)} scans")
    return int(len(digests) > 1)


def spread(values: list[Any]) -> str:
    """Median, least and greatest."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    sys.exit(run_from_command_line())
