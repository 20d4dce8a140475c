"""The live view: a page of the run as it grows, and nothing but that."""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from playwright.sync_api import Browser

import main
from command.command_line import parse
from config import SettingsError
from report.live import LOWEST_PRIORITY, live_view
from scan.errors import UserMistake
from tests.report.runs import FakeRun

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30


class Page:
    """A page as a browser sees it: its HTML, and what the server sends it afterwards."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.html = get(port, "/")[1].decode()
        shape = json.loads(re.findall(r"follow\((.*)\)", self.html)[-1])
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        self._connection.request("GET", f"/events?shape={shape.replace(' ', '%20')}")
        self._lines = self._connection.getresponse()
        self.state: dict[str, dict[str, Any]] = {"html": {}, "sources": {}, "scales": {}}

    def next(self) -> str:
        """What the next event is: `change`, which `state` has then, `reload`, `over` or `end`."""
        kind = "change"
        while line := self._lines.readline().decode().strip("\n") or self._blank():
            name, _, data = line.partition(": ")
            if name == "event":
                kind = data
            elif name.startswith("data"):
                for part, news in (json.loads(data) if data else {}).items():
                    self.state[part] |= news
                return kind
        return "end"

    def _blank(self) -> str:
        return "" if self._lines.isclosed() else " "

    def until(self, verdict: str) -> None:
        """Wait until the page says so."""
        while verdict not in self.state["html"].get("verdict", ""):
            assert self.next() == "change"


def get(port: int, path: str, host: str | None = None) -> tuple[int, bytes]:
    """Status and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request("GET", path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    return answer.status, answer.read()


@contextmanager
def served(folder: Path, capsys: pytest.CaptureFixture[str], port: int = 0) -> Iterator[int]:
    """A server for a run folder; gives its port."""
    with live_view(folder, ("127.0.0.1", port)):
        yield int(capsys.readouterr().out.strip().rpartition(":")[2])


def finish(run: FakeRun, number: int) -> None:
    """Take a field through all steps."""
    field = run.plan.fields[number]
    run.capture(field)
    run.stack(field)
    run.detect(field)


def test_a_page_grows_with_its_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From before the first event to the end: what happens comes to the page, pictures and all."""
    with served(tmp_path, capsys) as port:
        run = FakeRun(tmp_path)
        early = Page(port)
        assert "starting Ray" in early.html
        assert get(port, "/layer/image")[0] == 404  # there is no mosaic yet
        run.begin()
        run.focus()
        while (kind := early.next()) == "change":
            pass
        assert kind == "reload"  # there is more to draw now

        page = Page(port)
        assert "running: 0 of 6 fields" in page.html
        finish(run, 0)
        page.until("running: 1 of 6 fields")
        first = page.state["sources"]["pictures"]["image"][0]
        finish(run, 1)
        page.until("running: 2 of 6 fields")

        sources = page.state["sources"]
        assert sources["pictures"]["image"][0] != first
        assert sorted(sources["fields"]["state"]) == ["detected"] * 2 + ["planned"] * 4
        assert len(sources["objects"]["label"]) == 2 * run.squares
        picture = cv2.imdecode(np.frombuffer(get(port, "/layer/image")[1], np.uint8), -1)
        last = run.plan.fields[-1]
        assert picture[slice(*run.plan.fields[1].rows), slice(*run.plan.fields[1].columns)].any()
        assert not picture[slice(*last.rows), slice(*last.columns)].any()

        late = Page(port)  # opened in the middle of it, or again after the connection was lost
        assert late.next() == "change"
        assert late.state == page.state
        run.finish("complete")
    page.until("complete: 2 of 6 fields")
    assert page.next() == "over"
    assert page.next() == "end"


def test_an_early_request_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A request before the journal exists is answered once it exists."""
    with served(tmp_path, capsys) as port:
        early = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        early.request("GET", "/")
        FakeRun(tmp_path)
        assert early.getresponse().status == 200


NOT_SERVED = [
    "/events.jsonl",
    "/summary.json",
    "/report.html",
    "/../scan.toml",
    "/layer/../scan.toml",
    "/layer/image/../../scan.toml",
    "/layer/..%2f..%2fscan.toml",
    "/layer/%2e%2e/scan.toml",
    "/layer//etc/passwd",
    "//etc/passwd",
    "/static/scan.toml",
]


def test_nothing_else_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page and the layers of its mosaic: no path of the disk, and nothing by another name."""
    before = set(psutil.Process().children())
    with served(tmp_path, capsys) as port:
        run = FakeRun(tmp_path)
        run.begin()
        run.focus()
        assert get(port, "/")[0] == 200
        assert get(port, "/", host=f"localhost:{port}")[0] == 200
        assert {path: get(port, path)[0] for path in NOT_SERVED} == dict.fromkeys(NOT_SERVED, 404)
        assert get(port, "/", host="elsewhere.example")[0] == 404
        assert get(port, "/", host="localhost.elsewhere.example")[0] == 404
        listening = [
            connection.laddr
            for child in set(psutil.Process().children()) - before
            for connection in child.net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening == [("127.0.0.1", port)]


def test_the_server_has_low_priority_and_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the lowest priority, and is gone when the block is left, even by an error."""
    before = psutil.Process().children()
    with suppress(ZeroDivisionError), served(tmp_path, capsys):
        (server,) = set(psutil.Process().children()) - set(before)
        assert server.nice() == LOWEST_PRIORITY
        raise ZeroDivisionError

    assert not server.is_running()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of others: Linux alone")
def test_more_pages_than_file_descriptors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Connections beyond a limit are closed, so that others are answered once there is room; also
    by the loopback of IPv6."""
    before = set(psutil.Process().children())
    with live_view(tmp_path, parse(["--live", "[::1]:0"]).live):
        url = capsys.readouterr().out.split()[-1]
        (server,) = set(psutil.Process().children()) - before
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (64, 64))
        run = FakeRun(tmp_path)
        run.begin()
        port = int(url.rpartition(":")[2])
        opened = [socket.create_connection(("::1", port), PATIENCE_S) for _ in range(80)]
        assert opened[-1].recv(1) == b""  # closed
        for connection in opened:
            connection.close()
        while True:
            with suppress(OSError), urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
                assert answer.status == 200
                break

    assert url.startswith("http://[::1]:")


OWNER = """
import sys
from pathlib import Path
from report.live import live_view
with live_view(Path(sys.argv[1]), ("127.0.0.1", 0)):
    sys.stdin.read()
"""


def test_a_server_whose_scan_is_killed_ends(tmp_path: Path) -> None:
    """A server ends when the process of its scan is killed."""
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as owner:
        assert owner.stdout
        port = int(owner.stdout.readline().strip().rpartition(":")[2])
        FakeRun(tmp_path)
        page = Page(port)
        owner.send_signal(signal.SIGKILL)
        kinds = [page.next()]
        while kinds[-1] != "end":
            kinds.append(page.next())

    assert "over" in kinds


def test_a_port_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 2, and no run folder, before anything begins."""
    folder = tmp_path / "run"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code = main.main(["--live", str(port), "--out", str(folder)])

    assert code == 2
    assert capsys.readouterr().err == (
        f"--live {port}: expected a free port, got Address already in use; "
        "choose another, or 0 for any that is free\n"
    )
    assert not folder.exists()


@pytest.mark.parametrize("address", ["203.0.113.1", "x" * 300, "a\0b", " "])
def test_a_foreign_address_is_refused(tmp_path: Path, address: str) -> None:
    """An address that this computer does not have is refused with a message."""
    with pytest.raises(UserMistake, match="--live"), live_view(tmp_path, (address, 0)):
        pass


@pytest.mark.parametrize(
    ("option", "at"),
    [
        ("8000", ("127.0.0.1", 8000)),
        ("0", ("127.0.0.1", 0)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:8", ("::1", 8)),
    ],
)
def test_only_loopback_unless_asked(option: str, at: tuple[str, int]) -> None:
    """A port alone is served to this computer alone."""
    assert parse(["--live", option]).live == at
    assert parse([]).live is None


@pytest.mark.parametrize("option", ["", "http", "70000", "-1", "²", "127.0.0.1:", "80:here"])
def test_an_invalid_port_is_refused(option: str) -> None:
    """One line that says what was expected."""
    with pytest.raises(SettingsError, match="expected a port up to 65535") as caught:
        parse([f"--live={option}"])
    assert os.linesep not in str(caught.value)


def test_a_page_in_a_browser_grows_and_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], browser: Browser
) -> None:
    """Verdict and mosaic grow; a page whose server dies says so, and goes on with another."""
    page = browser.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    before = set(psutil.Process().children())
    with served(tmp_path, capsys) as port:
        run = FakeRun(tmp_path)
        run.begin()
        run.focus()
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("html[data-drawn=yes]", state="attached")
        black, image = (
            page.locator("#mosaic").screenshot(),
            "modelsNamed('pictures')[0].data.image[0]",
        )
        first = page.evaluate(image)
        finish(run, 0)
        page.wait_for_selector("text=running: 1 of 6 fields")
        page.wait_for_function(f"first => {image} !== first", arg=first)
        assert page.evaluate("modelsNamed('objects')[0].data.label.length") == run.squares
        (server,) = set(psutil.Process().children()) - before
        server.kill()
        page.wait_for_selector("text=The connection is lost")
        server.wait()
    with served(tmp_path, capsys, port):
        finish(run, 1)
        page.wait_for_selector("text=running: 2 of 6 fields")
        page.wait_for_selector("#connection", state="hidden")
        grown = page.locator("#mosaic").screenshot()
        run.finish("complete")
    page.wait_for_selector("text=complete: 2 of 6 fields")
    page.wait_for_selector("text=The run is over")
    page.close()
    assert faults == []
    assert grown != black
