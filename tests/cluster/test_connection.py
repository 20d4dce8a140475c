"""Start Ray or join a cluster: what is refused, what is an error, and how soon that is known."""

from __future__ import annotations

import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from ray.exceptions import AuthenticationError

from cluster import connection
from config import Settings, validate
from scan.errors import ScanError, UserMistake


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """No Ray in this process; what it would be started with is noted."""
    started: list[dict[str, Any]] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(connection.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(connection.ray, "init", lambda **how: started.append(how))
    monkeypatch.setattr(connection.ray, "shutdown", lambda: None)
    monkeypatch.setattr(connection, "require_grpc", lambda host, port: None)
    monkeypatch.setattr(connection, "ray_watched", nullcontext)
    return started


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 MB of shared memory, as containers have them."""
    usage = shutil.disk_usage

    def container(path: Path) -> Any:
        return SimpleNamespace(free=2**26) if path == Path("/dev/shm") else usage(path)

    monkeypatch.setattr(shutil, "disk_usage", container)


needs_shared_memory = pytest.mark.skipif(
    sys.platform != "linux" or not Path("/dev/shm").is_dir(), reason="no /dev/shm here"
)


def start(settings: Settings) -> None:
    """Start Ray for these settings and end it."""
    with connection.ray_running(settings):
        pass


@needs_shared_memory
@pytest.mark.usefixtures("small_memory")
def test_too_little_shared_memory_is_refused(no_ray: list[dict[str, Any]]) -> None:
    """Where Ray would put batches into files it is not started; the message says what to do."""
    with pytest.raises(UserMistake, match="expected 500 MB free for batches, got 67 MB") as refused:
        start(validate({"object_store_mb": 500}))

    assert "--shm-size=550m" in str(refused.value)
    assert not no_ray


@needs_shared_memory
@pytest.mark.usefixtures("small_memory")
def test_shared_memory_is_needed_by_a_local_ray_alone(
    no_ray: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room that is just enough will do, so will Ray's own permission, and a cluster has its own."""
    connection.require_shared_memory(2**26)
    with pytest.raises(UserMistake):
        connection.require_shared_memory(2**26 + 1)

    start(validate({"address": "10.0.0.1:6379"}))
    monkeypatch.setenv("RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE", "1")
    start(validate({}))

    assert [how["address"] for how in no_ray] == ["10.0.0.1:6379", "local"]
    assert "num_cpus" not in no_ray[0]


@pytest.mark.parametrize("name", ["tasks.py", "driver/__init__.py"])
def test_modules_of_the_programs_names_are_refused(
    no_ray: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """In a folder with a `tasks.py` of the user's, Ray's workers would import that."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scan").mkdir()  # a folder alone hides no package
    (tmp_path / "mine.py").touch()
    start(validate({}))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()

    with pytest.raises(UserMistake, match=f"got {name.partition('/')[0]}; run it from another"):
        start(validate({}))

    assert len(no_ray) == 1


TOO_SMALL = {
    "address space": (connection.resource.RLIMIT_AS, "expected no limit, or 6500 MB, got 2000 MB"),
    "file": (connection.resource.RLIMIT_FSIZE, None),
    "small file": (connection.resource.RLIMIT_FSIZE, "no limit, or 2500 MB, got 2000 MB; raise it"),
}


@pytest.mark.parametrize(("kind", "message"), TOO_SMALL.values(), ids=list(TOO_SMALL))
def test_a_limit_that_keeps_ray_from_starting_is_refused(
    no_ray: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    kind: int,
    message: str | None,
) -> None:
    """Where Ray's processes could not start, one line says so at once."""
    infinite = connection.resource.RLIM_INFINITY
    monkeypatch.setattr(connection, "require_shared_memory", lambda size: None)
    monkeypatch.setattr(
        connection.resource,
        "getrlimit",
        lambda asked: (2 * 10**9 if asked == kind else infinite, infinite),
    )
    store_mb = 2500 if message and "2500" in message else 500

    if message is None:
        start(validate({"object_store_mb": store_mb}))
    else:
        with pytest.raises(UserMistake, match=message):
            start(validate({"object_store_mb": store_mb}))

    assert bool(no_ray) is (message is None)


def test_warnings_that_are_errors_are_refused(
    no_ray: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own processes would end by their warnings."""
    monkeypatch.setenv("PYTHONWARNINGS", "error")

    with pytest.raises(UserMistake, match="PYTHONWARNINGS: expected no warning that is an error"):
        start(validate({}))

    assert not no_ray


REFUSALS = {
    "version": RuntimeError("Version mismatch: The cluster was started with:\n  Ray: 2.59.0\n"),
    "token": AuthenticationError("RAY_AUTH_TOKEN_PATH is set but file cannot be opened"),
    "address": ValueError("Malformed address: nowhere:1"),
    "connection": ConnectionError("Failed to connect to Ray cluster"),
}


@pytest.mark.parametrize("error", REFUSALS.values(), ids=list(REFUSALS))
@pytest.mark.usefixtures("no_ray")
def test_a_cluster_that_cannot_be_joined_is_a_user_mistake(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Its reason and what to check stand in one line; exit code 2."""
    monkeypatch.setattr(connection.ray, "init", _raising(error))

    with pytest.raises(UserMistake, match="Ray at somewhere:1: expected a Ray") as refused:
        start(validate({"address": "somewhere:1"}))

    assert str(error).split()[0] in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["somewhere", "ray://somewhere", "ray://somewhere:10001", ":6379", "a:b", "a:0"]
)
@pytest.mark.parametrize("source", ["--address", "RAY_ADDRESS"])
def test_an_address_that_names_no_head_is_refused_at_once(
    no_ray: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, address: str, source: str
) -> None:
    """Nothing is asked for, and the line says where the address came from."""
    if source == "RAY_ADDRESS":
        monkeypatch.setenv(source, address)

    with pytest.raises(UserMistake, match=f"^{source}: expected host:port of .*'{address}'"):
        start(validate({"address": address} if source == "--address" else {}))

    assert not no_ray


@pytest.mark.usefixtures("no_ray")
def test_a_cluster_of_the_environment_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gave no --address is told that RAY_ADDRESS is set."""
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:1")
    monkeypatch.setattr(connection.ray, "init", _raising(REFUSALS["connection"]))

    with pytest.raises(UserMistake, match="check RAY_ADDRESS, which is set"):
        start(validate({}))


@pytest.mark.parametrize("address", ["local", "auto"])
def test_words_of_ray_are_understood(
    no_ray: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """`local` starts a Ray, `auto` joins the one that `ray start` left here."""
    monkeypatch.setenv("RAY_ADDRESS", address)

    start(validate({}))

    assert no_ray[0]["address"] == address


def test_the_last_cluster_of_this_computer_may_be_gone(
    no_ray: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`auto` asks for the address that `ray start` left, and does not wait minutes for it."""
    asked: list[tuple[str, int]] = []
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.9:6379\n")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(connection, "require_grpc", lambda *address: asked.append(address))

    start(validate({"address": "auto"}))

    assert asked == [("10.0.0.9", 6379)]
    assert no_ray[0]["address"] == "auto"


def test_a_long_temporary_folder_is_not_used(
    no_ray: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Sockets have short names: where a batch system sets a long TMPDIR, Ray uses /tmp."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(connection.tempfile, "gettempdir", lambda: str(tmp_path / ("x" * 100)))

    start(validate({}))

    assert no_ray[0]["_temp_dir"] == "/tmp/ray"


@pytest.mark.parametrize(
    "error", [RuntimeError("raylet died"), ValueError("bad port"), Exception("timed\nout")]
)
@pytest.mark.usefixtures("no_ray")
def test_a_local_ray_that_does_not_start_is_no_user_mistake(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Any error of Ray is reported in one line, with exit code 1."""
    monkeypatch.setattr(connection.ray, "init", _raising(error))

    with pytest.raises(ScanError, match="local Ray: expected to start, got ") as failed:
        start(validate({"object_store_mb": 80}))

    assert failed.value.exit_code == 1
    assert "\n" not in str(failed.value)


def _raising(error: Exception) -> Callable[..., None]:
    def init(**how: Any) -> None:
        raise error

    return init


def silent(client: socket.socket) -> None:
    """Take a connection and say nothing, for as long as it is held."""
    client.recv(100)
    client.recv(1)


def web_server(client: socket.socket) -> None:
    """Answer as a web server answers what it does not understand."""
    client.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("answer", [None, silent, web_server], ids=["none", "silent", "web"])
def test_what_is_no_cluster_is_known_soon(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[socket.socket], None] | None
) -> None:
    """Nothing at the address, or something else than gRPC: an error within the time-out."""
    assert connection.CONNECT_TIMEOUT_S <= 4
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if answer is None:
            server.close()
        else:
            threading.Thread(target=lambda: answer(server.accept()[0]), daemon=True).start()
        began_s = time.monotonic()
        with pytest.raises(OSError, match="no Ray answered within"):
            connection.require_grpc("127.0.0.1", port)
        assert time.monotonic() - began_s < 3


@pytest.fixture
def grpc_port() -> Iterator[int]:
    """The port of a gRPC server that serves nothing."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


def test_a_grpc_server_may_be_a_cluster(grpc_port: int) -> None:
    """A gRPC server is accepted; the rest is checked by Ray."""
    connection.require_grpc("127.0.0.1", grpc_port)


@pytest.mark.usefixtures("local_ray")
def test_another_ray_is_found_if_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grpc_port: int
) -> None:
    """The address that `ray start` wrote is reported if another Ray answers there."""
    (tmp_path / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    file = tmp_path / "ray" / "ray_current_cluster"
    own = connection.ray.get_runtime_context().gcs_address
    found = []
    for address in (None, f"127.0.0.1:{grpc_port}", "127.0.0.1:1", "nonsense", own):
        if address:
            file.write_text(address)
        found.append(connection.other_cluster())

    assert found == [None, f"127.0.0.1:{grpc_port}", None, None, None]
