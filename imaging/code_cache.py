"""Where compiled loops are kept: by the text of their file, wherever a copy of it lies.

Numba keeps them by the path of the file. So a clone, and a job, which Ray unpacks into a new folder
on each computer, would compile for most of a minute again.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import _CacheLocator


class ByContent(_CacheLocator):
    """Locates the compiled code of a function of this package in the user's cache folder."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._text = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        self._line = function.__code__.co_firstlineno
        self._name = Path(file).stem

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> "ByContent | None":
        """Return the locator; None for functions of others, and if the folder is not writable."""
        try:
            if Path(file).parent == Path(__file__).parent:
                locator = cls(function, file)
                Path(locator.get_cache_path()).mkdir(parents=True, exist_ok=True)
                return locator if os.access(locator.get_cache_path(), os.W_OK) else None
        except OSError:
            pass
        return None

    def get_cache_path(self) -> str:
        """Return the folder of all functions of this file."""
        return str(cache_folder() / f"{self._name}-{self._text[:16]}")

    def get_source_stamp(self) -> str:
        """Return what compiled code must have been made from."""
        return self._text

    def get_disambiguator(self) -> str:
        """Return what tells functions of one name and file apart."""
        return str(self._line)


def cache_folder() -> Path:
    """Return the folder of compiled code: that which Numba is told, else one of the user's."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("NUMBA_CACHE_DIR") or Path(cache) / "stripe-scan")


def compiler(**options: Any) -> Callable[..., Any]:
    """Return the decorator that compiles functions, and keeps the code by content.

    Parameters
    ----------
    **options
        Of `numba.njit`.
    """
    others = "InTreeCacheLocator,UserWideCacheLocator,IPythonCacheLocator"
    locators = f"{__name__}.{ByContent.__name__},{others}"
    numba.config.CACHE_LOCATOR_CLASSES = locators  # type: ignore[attr-defined]
    return numba.njit(cache=True, nogil=True, **options)
