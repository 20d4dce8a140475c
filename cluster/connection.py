"""Start a local Ray or join a cluster."""

import logging
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayError

from cluster.liveness import connects, ray_answers, ray_watched
from config import Settings
from scan.errors import ScanError, UserMistake

CONNECT_HINT = (
    "that Ray has the same version there, and that both sides use one token "
    "(RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH)"
)
ADDRESS_HINT = "give the address that `ray start --head` printed, or auto on that computer"
OF_ENVIRONMENT = "RAY_ADDRESS"
CONNECT_TIMEOUT_S = 4.0
ROOT = Path(__file__).resolve().parents[1]
MAX_JOINED_CHARS = 200
LIMITS = {  # by name: the limit, its option of ulimit, and what is needed beside the object store
    "address space of a process": (resource.RLIMIT_AS, "-v", 6 * 10**9),
    "size of a file": (resource.RLIMIT_FSIZE, "-f", 0),
}
MAX_TEMPORARY_CHARS = 40  # a socket's path has at most 103; Ray adds up to 63


@contextmanager
def ray_running(settings: Settings) -> Iterator[None]:
    """Join the cluster of the settings or start a local Ray, and shut it down at the end.

    A Ray that this process already uses is used and left running. UserMistake (exit 2) if a cluster
    cannot be joined; ScanError (exit 1) if a local Ray does not start.
    """
    if ray.is_initialized():
        with ray_watched():
            yield
        return
    require_own_modules(Path.cwd())
    if address := requested_address(settings):
        join_cluster(address, "--address" if settings.address else OF_ENVIRONMENT)
    else:
        start_local(settings)
    try:
        with ray_watched():
            yield
    finally:
        ray.shutdown()


def requested_address(settings: Settings) -> str | None:
    """The address of the cluster to join, or None for a local Ray."""
    address = settings.address or os.environ.get(OF_ENVIRONMENT, "").strip()
    return None if address in ("", "local") else address


def join_cluster(address: str, source: str) -> None:
    """Connect this process to a running cluster; `source` is where its address was given."""
    host, _, port = address.rpartition(":")
    if address != "auto" and not (host and "/" not in host and port.isdecimal() and int(port)):
        raise UserMistake(source, "host:port of Ray's head", repr(address), ADDRESS_HINT)
    if address == "auto":
        host, _, port = _last_started().rpartition(":")
    try:
        if port.isdecimal():
            require_grpc(host, int(port))
        with native_stderr_discarded():  # one message of ours replaces those of Ray's core
            ray.init(address=address, **_quiet())
    except (OSError, ValueError, RuntimeError, AuthenticationError) as error:
        given = ", which is set in the environment" if source == OF_ENVIRONMENT else ""
        raise UserMistake(
            f"Ray at {address}",
            "a Ray that answers",
            _lines_joined(error),
            f"check {source}{given}, {CONNECT_HINT}",
        ) from None


def start_local(settings: Settings) -> None:
    """Start a Ray of this process's own; only then its size may be given."""
    store_bytes = settings.object_store_mb * 10**6
    require_shared_memory(store_bytes)
    require_limits(store_bytes)
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=settings.num_cpus,
            object_store_memory=store_bytes,
            _temp_dir=_temporary_folder(),
            **_quiet(),
        )
    except Exception as error:  # Ray raises a bare Exception when one of its processes dies
        hint = "see the logs in session_latest of Ray's temporary folder"
        raise ScanError("local Ray", "to start", _lines_joined(error), hint) from error


def _temporary_folder() -> str | None:
    """The folder of Ray's files where its own choice would make names too long for sockets."""
    if "RAY_TMPDIR" in os.environ or len(tempfile.gettempdir()) <= MAX_TEMPORARY_CHARS:
        return None
    return "/tmp/ray"


def _quiet() -> dict[str, Any]:
    return {"logging_level": logging.ERROR, "log_to_driver": False}


def _lines_joined(error: Exception) -> str:
    return " ".join(str(error).split())[:MAX_JOINED_CHARS] or type(error).__name__


def require_shared_memory(needed_bytes: int) -> None:
    """Raise UserMistake where Ray would silently keep batches in files on disk."""
    memory, override = Path("/dev/shm"), "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE"
    if sys.platform != "linux" or not memory.is_dir() or os.environ.get(override):
        return
    free_bytes = shutil.disk_usage(memory).free
    if free_bytes < needed_bytes:
        raise UserMistake(
            str(memory),
            f"{needed_bytes // 10**6} MB free for batches",
            f"{free_bytes // 10**6} MB",
            f"start the container with --shm-size={needed_bytes * 11 // 10**7}m, give a smaller "
            f"--object-store-mb (at least 80), or set {override}=1 to use slow files",
        )


def require_grpc(host: str, port: int) -> None:
    """Raise OSError unless a gRPC server answers; Ray itself would try for minutes."""
    import grpc  # a fifth of a second, needed only to join a cluster

    channel = grpc.insecure_channel(f"{host}:{port}")
    try:
        grpc.channel_ready_future(channel).result(timeout=CONNECT_TIMEOUT_S)
    except grpc.FutureTimeoutError:
        raise TimeoutError(f"no Ray answered within {CONNECT_TIMEOUT_S:g} s") from None
    finally:
        channel.close()


def require_own_modules(folder: Path) -> None:
    """Raise UserMistake if a folder has modules of this program's names.

    Ray's workers look for modules in the current folder first.
    """
    if folder.resolve() == ROOT:
        return
    own = {path.stem for path in _modules(ROOT)}
    if found := sorted(path.name for path in _modules(folder) if path.stem in own):
        expected, hint = "no module with a name of this program's", "run it from another folder"
        raise UserMistake(str(folder), expected, ", ".join(found), hint)


def _modules(folder: Path) -> list[Path]:
    return [*folder.glob("*.py"), *(path.parent for path in folder.glob("*/__init__.py"))]


def require_limits(store_bytes: int) -> None:
    """Raise UserMistake where Ray's processes would not start, which takes half a minute to show.

    Each of them maps the object store; without it they reserve up to 5 GB, and use little of it.
    """
    for name, (kind, option, more_bytes) in LIMITS.items():
        needed_bytes, (allowed_bytes, _) = store_bytes + more_bytes, resource.getrlimit(kind)
        if resource.RLIM_INFINITY != allowed_bytes < needed_bytes:
            hint = f"raise it with ulimit {option}, or give a smaller --object-store-mb"
            expected = f"no limit, or {needed_bytes // 10**6} MB"
            raise UserMistake(name, expected, f"{allowed_bytes // 10**6} MB", hint)
    if "error" in (filters := os.environ.get("PYTHONWARNINGS", "")):
        expected, hint = "no warning that is an error", "Ray gives some: unset it"
        raise UserMistake("PYTHONWARNINGS", expected, repr(filters), hint)


@contextmanager
def native_stderr_discarded() -> Iterator[None]:
    """Discard what compiled code writes to standard error."""
    screen = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)


def other_cluster() -> str | None:
    """The address of another Ray that `ray start` left on this machine, if it answers."""
    address = _last_started()
    host, _, port = address.rpartition(":")
    if port.isdecimal() and address != ray.get_runtime_context().gcs_address:
        return address if connects((host, int(port))) else None
    return None


def _last_started() -> str:
    """The address that `ray start` wrote on this computer; empty if there is none."""
    folder = os.environ.get("RAY_TMPDIR", tempfile.gettempdir())
    with suppress(OSError, UnicodeError):
        return Path(folder, "ray", "ray_current_cluster").read_text().strip()
    return ""


def task_events() -> list[dict[str, Any]]:
    """Ray's own record of its tasks; empty where it has none. It waits a second for reports."""
    if ray_answers():
        with suppress(RayError, RuntimeError, OSError, ValueError, LookupError):
            return list(ray.timeline())
    return []
