"""The storage of a run's images and objects: a folder or an object store (s3://, gs://).

`storage_at` is the only place that asks which of the two it is. Object stores are reached through
tensorstore; an S3 endpoint other than Amazon's is given by AWS_ENDPOINT_URL, on every node. A run
in an object store also has a folder on the driver's computer, with the small files (see `mirror`).
"""

import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from errno import ENOENT
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit
from zlib import crc32

import tensorstore as ts

from config import is_file
from results.files import not_written, write_atomically
from results.lease import LEASE, leased
from results.mirror import mirrored_folder
from scan.errors import InputError, StorageError, UserMistake

Location = Path | str

PROBE = ".seen"  # a file by which nodes find out whether they share a storage
POINTER = ".place"  # in the folder on the driver's computer: the URL of the object store
DRIVERS = {"s3": "s3", "gs": "gcs"}
ANSWER_S = 20.0  # timeout of one request; tensorstore itself retries for many minutes


class Storage(ABC):
    """A folder or an object store; names are relative to its location.

    Methods raise StorageError when the storage cannot be read or written.
    """

    sharing_hint: str
    """What to do when a node does not reach this storage."""

    def __init__(self, location: str) -> None:
        self.location = location

    @abstractmethod
    def read_bytes(self, name: str) -> bytes | None:
        """Return the content of a file, or None if there is none."""

    @abstractmethod
    def write_bytes(self, name: str, data: bytes) -> int:
        """Write a file completely or not at all; return the crc32 of its content."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""

    @abstractmethod
    def remove_tree(self, name: str) -> None:
        """Remove all files below a name."""

    @abstractmethod
    def create(self) -> None:
        """Create the folder itself; an object store has none."""

    @abstractmethod
    def check_not_removed(self, name: str) -> None:
        """Raise FileNotFoundError if a file was removed, where that is checked quickly."""

    @abstractmethod
    def kvstore(self, name: str = "") -> dict[str, Any]:
        """Return the kvstore specification of a sub-folder, as tensorstore opens it."""

    @abstractmethod
    def result(self, future: Any) -> Any:
        """Wait for a tensorstore future; TimeoutError if an object store does not answer."""

    @abstractmethod
    def write_error(self, needed_bytes: int, error: Exception) -> StorageError:
        """Return the StorageError to raise when tensorstore could not write so many bytes."""

    @abstractmethod
    def check_disk_space(self, needed_bytes: int) -> None:
        """Raise InputError unless there is room for the results; object stores have no limit."""

    @abstractmethod
    def check_same_on_all_nodes(self) -> None:
        """Raise UserMistake if the location means something else on another node."""

    @abstractmethod
    def path_to_quote(self, name: str) -> str:
        """Return a file as a command line names it; of an object store, the downloaded file."""

    @abstractmethod
    def local_folder(self) -> AbstractContextManager[Path]:
        """Return a context with the run folder on this computer.

        It is the folder itself. For an object store it is a temporary one with the small files,
        which are copied to the store as they change.
        """

    @abstractmethod
    def reserved(self) -> AbstractContextManager[None]:
        """Return a context in which no other run uses this place; InputError if one does.

        A folder has a lock for that, see `run_folder`.
        """

    @contextmanager
    def as_storage_error(self, needed_bytes: int = 0) -> Iterator[None]:
        """Raise StorageError if tensorstore cannot read or write."""
        try:
            yield
        except (OSError, ValueError) as error:  # tensorstore reports a full disk as a ValueError
            raise self.write_error(needed_bytes, error) from error

    # --------------------------------------------------------- do all nodes share this storage?

    def write_probe(self) -> None:
        """Write a file that every node should see."""
        self.write_bytes(PROBE, PROBE.encode())

    def answer_probe(self, node: str) -> bool:
        """Return whether the driver's probe is seen here; if so, write this node's answer."""
        if self.read_bytes(PROBE) is None:
            return False
        self.write_bytes(f"{PROBE}-{node}", node.encode())
        return True

    def probe_answered(self, node: str) -> bool:
        """Return whether the answer of a node is seen here."""
        return self.read_bytes(f"{PROBE}-{node}") is not None

    def remove_probes(self, nodes: Iterable[str]) -> None:
        """Remove the driver's probe and the answers of the nodes."""
        for name in (PROBE, *(f"{PROBE}-{node}" for node in nodes)):
            self.remove(name)


class Folder(Storage):
    """A folder of a file system. It is never created by writing a file into it, its sub-folders
    are."""

    sharing_hint = "give --out on storage that all nodes share, or a URL such as s3://bucket/run"

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self._path = Path(location)

    def read_bytes(self, name: str) -> bytes | None:
        """Return the content of a file, or None if there is none."""
        path = self._path / name
        return path.read_bytes() if is_file(path) else None

    def write_bytes(self, name: str, data: bytes) -> int:
        """Write a file completely or not at all; return the crc32 of its content."""
        path = self._path / name
        if path.parent != self._path:
            with suppress(OSError):  # the write raises the error
                path.parent.mkdir(exist_ok=True)
        return write_atomically(path, data)

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        (self._path / name).unlink(missing_ok=True)

    def remove_tree(self, name: str) -> None:
        """Remove a sub-folder."""
        shutil.rmtree(self._path / name, ignore_errors=True)

    def create(self) -> None:
        """Create the folder."""
        self._path.mkdir(parents=True, exist_ok=True)

    def check_not_removed(self, name: str) -> None:
        """Raise FileNotFoundError if a file does not exist."""
        (self._path / name).stat()

    def kvstore(self, name: str = "") -> dict[str, Any]:
        """Return the kvstore specification of a sub-folder, as tensorstore opens it."""
        return {"driver": "file", "path": f"{(self._path / name).resolve()}/"}

    def result(self, future: Any) -> Any:
        """Wait for a tensorstore future."""
        return future.result()

    def write_error(self, needed_bytes: int, error: Exception) -> StorageError:
        """Return a StorageError that gives the bytes needed and the bytes free."""
        return not_written(self._path, needed_bytes, error)

    def check_disk_space(self, needed_bytes: int) -> None:
        """Raise InputError unless the disk has room for so many bytes."""
        free_bytes = shutil.disk_usage(self._path).free
        if free_bytes < needed_bytes:
            expected = f"room for {needed_bytes} bytes of results"
            hint = "make room, or scan fewer or smaller fields"
            raise InputError(self.location, expected, f"{free_bytes} bytes free", hint)

    def check_same_on_all_nodes(self) -> None:
        """Raise UserMistake for a relative path."""
        if not self._path.is_absolute():
            expected = "an absolute path on storage that all nodes share"
            hint = "give --out /shared/run, or a URL such as s3://bucket/run"
            raise UserMistake(f"--out {self.location}", expected, "a relative one", hint)

    def path_to_quote(self, name: str) -> str:
        """Return the path of a file."""
        return str(self._path / name)

    def local_folder(self) -> AbstractContextManager[Path]:
        """Return a context with the folder itself."""
        return nullcontext(self._path)

    def reserved(self) -> AbstractContextManager[None]:
        """Return a context that does nothing."""
        return nullcontext()


class ObjectStore(Storage):
    """A bucket of S3 or Google Cloud Storage, or a prefix in it."""

    sharing_hint = "give every node AWS_ENDPOINT_URL and credentials, and a way to the store"

    def __init__(self, location: str) -> None:
        super().__init__(location.rstrip("/"))
        self._url = urlsplit(self.location)
        if self._url.scheme not in DRIVERS or not self._url.netloc:
            expected = "a folder, or a URL such as s3://bucket/run or gs://bucket/run"
            raise InputError("--out", expected, location, "choose another place")

    @cached_property
    def _store(self) -> Any:
        return self.result(ts.KvStore.open(self.kvstore()))

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # a time-out is an OSError
            raise _no_answer(f"{self.location}/{name}", error) from error

    def read_bytes(self, name: str) -> bytes | None:
        """Return the content of an object, or None if there is none."""
        with self._errors(name):
            found = self.result(self._store.read(name))
        return bytes(found.value) if found.state == "value" else None

    def write_bytes(self, name: str, data: bytes) -> int:
        """Write an object; return the crc32 of its content."""
        with self._errors(name):
            self.result(self._store.write(name, data))
        return crc32(data)

    def remove(self, name: str) -> None:
        """Remove an object, if it exists."""
        with self._errors(name):
            self.result(self._store.write(name, None))

    def remove_tree(self, name: str) -> None:
        """Remove all objects below a name."""
        with self._errors(name):
            below = ts.KvStore.KeyRange(f"{name}/", f"{name}0")  # "0" follows "/" in ASCII
            self.result(self._store.delete_range(below))

    def create(self) -> None:
        """Do nothing: an object store has no folders."""

    def check_not_removed(self, name: str) -> None:
        """Do nothing: a request would cost as much as the write that follows."""

    def kvstore(self, name: str = "") -> dict[str, Any]:
        """Return the kvstore specification of a prefix, as tensorstore opens it."""
        path = "/".join(filter(None, (self._url.path.strip("/"), name)))
        spec = {"driver": DRIVERS[self._url.scheme], "bucket": self._url.netloc}
        return spec | {"path": path and f"{path}/"} | _s3_options(self._url)

    def result(self, future: Any) -> Any:
        """Wait for a tensorstore future; TimeoutError if the store does not answer."""
        return future.result(timeout=ANSWER_S)

    def write_error(self, needed_bytes: int, error: Exception) -> StorageError:
        """Return a StorageError that says what to check."""
        return _no_answer(self.location, error)

    def check_disk_space(self, needed_bytes: int) -> None:
        """Do nothing: an object store does not report its free space."""

    def check_same_on_all_nodes(self) -> None:
        """Do nothing: a URL is the same everywhere."""

    def path_to_quote(self, name: str) -> str:
        """Return the name alone: the file must be downloaded before a command can read it."""
        return name

    @contextmanager
    def local_folder(self) -> Iterator[Path]:
        """Yield a temporary folder with copies of the small files."""
        try:
            self.write_probe()
            self.remove_probes(())
        except StorageError as error:
            raise InputError(*error.args) from None
        with mirrored_folder(self.read_bytes, self.write_bytes) as folder:
            (folder / POINTER).write_text(self.location, encoding="utf-8")
            yield folder

    def reserved(self) -> AbstractContextManager[None]:
        """Return a context that holds the lease of this place."""
        return leased(self.location, self._read_lease, self._write_lease)

    def _read_lease(self) -> tuple[bytes | None, bytes]:
        with self._errors(LEASE):
            found = self.result(self._store.read(LEASE))
        return (found.value if found.state == "value" else None), found.stamp.generation

    def _write_lease(self, content: bytes | None, generation: bytes) -> bytes | None:
        with self._errors(LEASE):
            stamp = self.result(self._store.write(LEASE, content, if_equal=generation))
        return stamp.generation or None


def _s3_options(url: SplitResult) -> dict[str, Any]:
    """What the usual environment variables say of S3; tensorstore itself reads few of them."""
    if url.scheme != "s3":
        return {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    if region or endpoint:
        options["aws_region"] = region or "us-east-1"
    if "AWS_ACCESS_KEY_ID" in os.environ:  # else it looks for files, and logs missing ones
        options["aws_credentials"] = {"type": "environment"}
    return options


def _no_answer(location: str, error: Exception) -> StorageError:
    got = (str(error).splitlines() or [""])[0].partition(" [")[0][:200]
    got = got or f"no answer within {ANSWER_S:.0f} s"
    hint = "check the URL, AWS_ENDPOINT_URL, the credentials and the network of every node"
    return StorageError(location, "an object store that answers", got, hint)


def storage_at(location: Location) -> Storage:
    """Return the storage at a path or URL; opened once per process, so repeated calls are cheap.

    InputError if a name is empty, or if a URL is mistyped or of an unknown kind.
    """
    return _storage_at(str(location))


@cache
def _storage_at(location: str) -> Storage:
    if not location.strip():
        raise InputError("--out", "a folder or a URL", "an empty name", "name one")
    if re.match(r"\w{2,}:/(?!/)", location):
        raise InputError("--out", "a folder, or a URL with ://", location, "correct the URL")
    return ObjectStore(location) if "://" in location else Folder(location)


def location_of(folder: Path) -> str:
    """Return where the images and objects of a run folder lie: there, or at a URL it points to."""
    if is_file(folder / POINTER):
        return (folder / POINTER).read_text(encoding="utf-8")
    return str(folder)


def missing(name: str) -> FileNotFoundError:
    """Return the error to raise for a file that does not exist."""
    return FileNotFoundError(ENOENT, os.strerror(ENOENT), name)
