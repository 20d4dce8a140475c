"""The server process of the live view; see `live`."""

import asyncio
import json
import resource
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler

from report.report import LAYERS, Report, type_of

LOOPBACK = r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])"
MAX_CONNECTIONS = 100
IDLE_S = 60
POLL_INTERVAL_S = 0.5  # how often the journal is read
MAX_CPU_SHARE = 0.1  # of one CPU
FIXED = ("surface", "profile", "kept", "rejected")  # sources that do not change after autofocus


class Live(Report):
    """The report that all open pages show, with its parts as they were last sent."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, running=True)
        self.over = False
        self._parts_json: dict[tuple[str, str], str] = {}
        self._parts_s = -1.0
        self._page = self._page_shape = ""
        self._spent_s, self._rest_until_s = time.process_time(), 0.0

    def show(self, layer: str) -> str:
        """Return the URL of a layer of the mosaic in its current state."""
        return f"layer/{layer}?at={self.state_s}"

    def page(self, mark: str = "") -> str:
        """Return the page, rendered once for each shape; server-sent events update it."""
        if self.shape() != self._page_shape:
            self._page, self._page_shape = super().page(mark), self.shape()
        return self._page

    def parts(self) -> dict[tuple[str, str], str]:
        """Return every part of the page as JSON, updated as often as `MAX_CPU_SHARE` allows."""
        now_s = time.monotonic()
        if self.state_s != self._parts_s and (now_s > self._rest_until_s or self.over):
            self._parts_json = {key: _json(value) for key, value in self._made().items()}
            self._parts_s = self.state_s
            spent_s = time.process_time()  # includes images that pages requested
            self._rest_until_s = now_s + (spent_s - self._spent_s) / MAX_CPU_SHARE
            self._spent_s = spent_s
        return self._parts_json

    def _made(self) -> dict[tuple[str, str], Any]:
        sources = {k: columns for k, columns in self.sources().items() if k not in FIXED}
        return {
            **{("html", name): text for name, text in self.fragments().items()},
            **{("sources", name): columns for name, columns in sources.items()},
            ("scales", "depth_um"): self.depth_ends_um(),
        }


def _json(value: Any) -> str:
    return json.dumps(value, default=lambda array: array.tolist())


class _Handler(RequestHandler):
    live: Live

    def initialize(self, live: Live) -> None:
        self.live = live


class _Page(_Handler):
    def get(self) -> None:
        self.set_header("Cache-Control", "no-store")
        self.finish(self.live.page())


class _Layer(_Handler):
    def get(self, layer: str) -> None:
        picture = self.live.layer(layer)
        if not picture:
            raise HTTPError(404)
        self.set_header("Content-Type", type_of(layer))
        self.set_header("Cache-Control", "max-age=3600")
        self.finish(picture)


class _Events(_Handler):
    async def get(self) -> None:
        """Send the whole state, then the parts that change, as server-sent events."""
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-store")
        sent: dict[tuple[str, str], str] = {}
        with suppress(StreamClosedError):
            await self._send("retry: 1000\n\n")
            while self.live.shape() == self.get_query_argument("shape", ""):
                over, parts = self.live.over, self.live.parts()
                changed = {key: part for key, part in parts.items() if sent.get(key) != part}
                await self._send_parts(changed)
                sent = dict(parts)
                if over:
                    await self._send("event: over\ndata:\n\n")
                    return
                await asyncio.sleep(POLL_INTERVAL_S)
            await self._send("event: reload\ndata:\n\n")

    async def _send_parts(self, parts: dict[tuple[str, str], str]) -> None:
        groups: dict[str, list[str]] = {"html": [], "sources": [], "scales": []}
        for (group, name), part in parts.items():
            groups[group].append(f"{json.dumps(name)}: {part}")
        data = ", ".join(f'"{name}": {{{", ".join(each)}}}' for name, each in groups.items())
        await self._send(f"data: {{{data}}}\n\n" if parts else ": keep-alive\n\n")

    async def _send(self, text: str) -> None:
        self.write(text)
        await self.flush()


class _Server(HTTPServer):
    """Closes connections beyond a limit; without file descriptors it could accept none at all."""

    def initialize(self, *arguments: Any, **named: Any) -> None:
        super().initialize(*arguments, **named)
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._open, self._most = 0, min(MAX_CONNECTIONS, allowed // 2)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        if self._open >= self._most:
            stream.close()
            return
        self._open += 1
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        self._open -= 1
        super().on_close(server_conn)


async def serve(live: Live, listener: socket.socket) -> None:
    """Serve until standard input is closed, then inform the open pages."""
    routes: list[Any] = [
        (r"/", _Page, {"live": live}),
        (r"/events", _Events, {"live": live}),
        (rf"/layer/({'|'.join(LAYERS)}|channel\d+)", _Layer, {"live": live}),
    ]
    application = Application()
    address = listener.getsockname()[0]
    loopback = address == "::1" or address.startswith("127.")  # against DNS rebinding
    application.add_handlers(LOOPBACK if loopback else ".*", routes)
    server = _Server(application, idle_connection_timeout=IDLE_S)
    server.add_socket(listener)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    while not ended.is_set():
        with suppress(OSError):  # too many open files
            live.update()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(ended.wait(), POLL_INTERVAL_S)
    loop.remove_reader(sys.stdin.fileno())
    live.update()
    live.over = True
    server.stop()
    await asyncio.sleep(2 * POLL_INTERVAL_S)
    await server.close_all_connections()


def run(folder: Path, descriptor: int) -> None:
    """Serve a run folder on the listening socket of a file descriptor."""
    listener = socket.socket(fileno=descriptor)
    listener.setblocking(False)  # noqa: FBT003 (the library's own signature)
    asyncio.run(serve(Live(folder), listener))
