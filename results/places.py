"""Where the bulk of a run lies: in its folder, or in an object store (s3://, gs://) beside which a
folder on the driver's computer holds the small files and is copied there as they change.

Object stores are reached through tensorstore, like the mosaics. An S3 endpoint other than Amazon's
is told by the usual variable AWS_ENDPOINT_URL, on every node.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

import tensorstore as ts

from results.files import write_atomically
from scan.errors import InputError, StorageError

Place = Path | str

MARK = ".seen"  # a file by which nodes find out that they share a place
POINTER = ".place"  # in the folder on the driver's computer: the URL of the object store
DRIVERS = {"s3": "s3", "gs": "gcs"}
SMALL = ("scan.toml", "events.jsonl", "summary.json", "report.html", "trace.json")
COPIED_EVERY_S = 0.5
COPYING_SHARE = 0.1  # of the time, at most: the journal of a large scan is large
ANSWER_S = 20.0  # within which a store answers; left to itself tensorstore tries for many minutes


class CopyError(StorageError):
    """The small files of a run could not be copied to its object store; they are kept here."""


def is_url(place: Place) -> bool:
    """Whether a place is an object store's."""
    return "://" in str(place)


def place_of(folder: Place) -> str:
    """Where a run's images and objects lie: in its folder, or where that points to."""
    with suppress(OSError):
        return (Path(folder) / POINTER).read_text(encoding="utf-8")
    return str(folder)


def kvstore(place: Place) -> dict[str, Any]:
    """How tensorstore opens a place; InputError for a URL of an unknown kind."""
    if not is_url(place):
        return {"driver": "file", "path": str(Path(place).resolve()) + "/"}
    url = urlsplit(str(place))
    if url.scheme not in DRIVERS or not url.netloc:
        expected = "a folder, or a URL such as s3://bucket/run or gs://bucket/run"
        raise InputError("--out", expected, str(place), "choose another place")
    path = url.path.strip("/")
    spec = {"driver": DRIVERS[url.scheme], "bucket": url.netloc, "path": path and f"{path}/"}
    return spec | (_s3() if url.scheme == "s3" else {})


def _s3() -> dict[str, Any]:
    """What the usual variables say of an S3 store, of which tensorstore reads but a few."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    told: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    if region or endpoint:
        told["aws_region"] = region or "us-east-1"
    if "AWS_ACCESS_KEY_ID" in os.environ:  # else it looks for files, and logs those not there
        told["aws_credentials"] = {"type": "environment"}
    return told


def awaited(future: Any, place: Place) -> Any:
    """What tensorstore gives; TimeoutError where an object store does not answer in time."""
    return future.result(timeout=ANSWER_S if is_url(place) else None)


@cache
def _store(place: str) -> Any:
    return awaited(ts.KvStore.open(kvstore(place)), place)


def _split(place: Place) -> tuple[Any, str]:
    folder, _, name = str(place).rpartition("/")
    return _store(folder), name


@contextmanager
def _told(place: Place) -> Iterator[None]:
    """Whatever keeps a store from answering is told as a StorageError."""
    try:
        yield
    except (OSError, ValueError) as error:  # a time-out is an OSError
        raise unanswered(place, error) from error


def unanswered(place: Place, error: Exception) -> StorageError:
    """The StorageError to raise when an object store does not do what it is asked."""
    came = (str(error).splitlines() or [""])[0].partition(" [")[0][:200]
    came = came or f"no answer within {ANSWER_S:.0f} s"
    advice = "check the URL, AWS_ENDPOINT_URL, the credentials and the network of every node"
    return StorageError(str(place), "an object store that answers", came, advice)


def read_bytes(place: Place) -> bytes | None:
    """What lies at a place; None if nothing does."""
    if not is_url(place):
        return Path(place).read_bytes() if Path(place).is_file() else None
    with _told(place):
        store, name = _split(place)
        found = awaited(store.read(name), place)
    return bytes(found.value) if found.state == "value" else None


def write_bytes(place: Place, data: bytes) -> int:
    """Put a file at a place, whole or not at all; returns the checksum."""
    if not is_url(place):
        return write_atomically(Path(place), data)
    with _told(place):
        store, name = _split(place)
        awaited(store.write(name, data), place)
    return crc32(data)


def remove_under(place: Place) -> None:
    """Remove all that lies under a URL."""
    with _told(place):
        awaited(_store(str(place)).delete_range(ts.KvStore.KeyRange()), place)


def leave_mark(place: Place) -> None:
    """Write something that every node should see."""
    write_bytes(f"{place}/{MARK}", MARK.encode())


def answer_mark(place: Place, node: str) -> bool:
    """Whether the driver's mark is seen here; if so a mark is left that it should see."""
    if read_bytes(f"{place}/{MARK}") is None:
        return False
    write_bytes(f"{place}/{MARK}-{node}", node.encode())
    return True


def has_answered(place: Place, node: str) -> bool:
    """Whether the mark that a node left is seen here."""
    return read_bytes(f"{place}/{MARK}-{node}") is not None


def remove_marks(place: Place, nodes: Iterable[str]) -> None:
    """Remove the driver's mark and those of the nodes."""
    for name in (MARK, *(f"{MARK}-{node}" for node in nodes)):
        remove(f"{place}/{name}")


def remove(place: Place) -> None:
    """Remove a file, if it is there."""
    if is_url(place):
        with _told(place):
            store, name = _split(place)
            awaited(store.write(name, None), place)
    else:
        Path(place).unlink(missing_ok=True)


@contextmanager
def staged(place: Place) -> Iterator[Path]:
    """The folder of a run on this computer; a URL's is a copy of its small files, and copied back
    while they grow."""
    if re.match(r"\w{2,}:/(?!/)", str(place)):
        raise InputError("--out", "a folder, or a URL with ://", str(place), "correct the URL")
    if not is_url(place):
        yield Path(place)
        return
    url, folder = str(place).rstrip("/"), Path(tempfile.mkdtemp(prefix="stripe-scan-"))
    try:
        _fetch(url, folder)
        with _copied(folder, url):
            yield folder
    except CopyError:
        raise  # what lies there lies nowhere else
    except BaseException:
        shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def _fetch(url: str, folder: Path) -> None:
    """Bring the small files of a run here; InputError where the store cannot be written to."""
    try:
        leave_mark(url)
        remove_marks(url, ())
        for small in SMALL:
            if (data := read_bytes(f"{url}/{small}")) is not None:
                (folder / small).write_bytes(data)
    except StorageError as error:
        raise InputError(*error.args) from None
    (folder / POINTER).write_text(url, encoding="utf-8")


@contextmanager
def _copied(folder: Path, url: str) -> Iterator[None]:
    """Small files that change are copied to a URL, a last time in the end."""
    seen, over = _states(folder), Event()

    def copy() -> None:
        for name, state in _states(folder).items():
            if seen.get(name) != state:
                write_bytes(f"{url}/{name}", (folder / name).read_bytes())
                seen[name] = state

    def keep_copying() -> None:
        took_s = 0.0
        while not over.wait(max(COPIED_EVERY_S, took_s / COPYING_SHARE)):
            began_s = time.monotonic()
            with suppress(StorageError, OSError):  # the next time, or the last one, will tell
                copy()
            took_s = time.monotonic() - began_s

    thread = Thread(target=keep_copying, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        try:
            copy()
        except StorageError as error:
            subject, expected, came, advice = error.args
            kept = f"journal, summary and report are kept in {folder}"
            raise CopyError(subject, expected, came, f"{advice}; {kept}") from None


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each small file that is there."""
    found = {}
    for name in SMALL:
        with suppress(OSError):
            status = (folder / name).stat()
            found[name] = status.st_size, status.st_mtime_ns
    return found
