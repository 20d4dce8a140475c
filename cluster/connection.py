"""Start a local Ray or join a cluster, and check that its head still answers."""

import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayError

from config import Settings
from scan.errors import ScanError, UserMistake

CONNECT_HINT = (
    "check --address, that Ray has the same version there, and that both sides use one token "
    "(RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH)"
)
CONNECT_TIMEOUT_S = 4.0
MAX_JOINED_CHARS = 200


@contextmanager
def ray_running(settings: Settings) -> Iterator[None]:
    """Join the cluster of the settings or start a local Ray, and shut it down at the end.

    A Ray that this process already uses is used and left running. UserMistake (exit 2) if a cluster
    cannot be joined; ScanError (exit 1) if a local Ray does not start.
    """
    if ray.is_initialized():
        yield
        return
    address = requested_address(settings)
    if address:
        join_cluster(address)
    else:
        start_local(settings)
    try:
        yield
    finally:
        ray.shutdown()


def requested_address(settings: Settings) -> str | None:
    """The address of the cluster to join, or None for a local Ray."""
    return settings.address or os.environ.get("RAY_ADDRESS")


def join_cluster(address: str) -> None:
    """Connect this process to a running cluster."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if port.isdigit():
            require_grpc(host, int(port))
        with native_stderr_discarded():  # one message of ours replaces those of Ray's core
            ray.init(address=address, **_quiet())
    except (OSError, ValueError, RuntimeError, AuthenticationError) as error:
        raise UserMistake(
            f"Ray at {address}", "a Ray that answers", _lines_joined(error), CONNECT_HINT
        ) from None


def start_local(settings: Settings) -> None:
    """Start a Ray of this process's own; only then its size may be given."""
    store_bytes = settings.object_store_mb * 10**6
    require_shared_memory(store_bytes)
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=settings.num_cpus,
            object_store_memory=store_bytes,
            **_quiet(),
        )
    except Exception as error:  # Ray raises a bare Exception when one of its processes dies
        hint = "see the logs in session_latest of Ray's temporary folder"
        raise ScanError("local Ray", "to start", _lines_joined(error), hint) from error


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


def gcs_reachable() -> bool:
    """Whether the port of Ray's head accepts connections; calls to a dead head would block."""
    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    return _accepts(host, port)


def _accepts(host: str, port: str) -> bool:
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except (OSError, ValueError):
        return False
    return True


def require_gcs() -> None:
    """Raise ScanError if Ray's head is gone; Ray would wait for a minute and end this process."""
    if not gcs_reachable():
        raise ScanError("Ray", "its head to answer", "nothing", "see its logs, and resume the run")


def other_cluster() -> str | None:
    """The address of another Ray that `ray start` left on this machine, if it answers."""
    folder = os.environ.get("RAY_TMPDIR", tempfile.gettempdir())
    with suppress(OSError):  # `ray start` writes its address into this file
        address = Path(folder, "ray", "ray_current_cluster").read_text().strip()
        host, _, port = address.rpartition(":")
        if _accepts(host, port) and address != ray.get_runtime_context().gcs_address:
            return address
    return None


def task_events() -> list[dict[str, Any]]:
    """Ray's own record of its tasks; empty where it has none. It waits a second for reports."""
    if gcs_reachable():
        with suppress(RayError, RuntimeError, OSError, ValueError, LookupError):
            return list(ray.timeline())
    return []
