"""The run folder: a new one for every run, never a second run's results in an old one."""

import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from scan.errors import InputError

PACKAGES = ("ray", "numpy", "opencv-python-headless", "numba", "scikit-image", "tensorstore")


def choose_folder(out: Path | None) -> Path:
    """The folder to make, by default named by the time; one that holds something is refused."""
    folder = out or Path("runs") / datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            str(folder), "a new or empty folder", "one that holds something", "choose another --out"
        )
    return folder


def make_folder(folder: Path, settings_toml: str) -> None:
    """Create the run folder with the complete settings of the run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scan.toml").write_text(settings_toml, encoding="utf-8")
    except OSError as error:
        raise InputError(
            str(folder), "a folder that can be written", str(error.strerror), "choose another --out"
        ) from None


def versions() -> dict[str, str]:
    """Versions of what the result depends on, and the commit where there is one."""
    found = {"python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES}
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    )
    return found | ({"commit": git.stdout.strip()} if git.returncode == 0 else {})
