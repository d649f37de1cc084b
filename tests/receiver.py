"""A receiver of webhooks on a real port, which answers as it is told and remembers what came."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


@dataclass(frozen=True)
class Heard:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self.body)
        return found


@dataclass
class Receiver:
    """`statuses` are answered in turn, then 204. Answers wait for `silent`, where there is one."""

    url: str = ""
    host: str = ""
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""
    silent: threading.Event | None = None
    heard: list[Heard] = field(default_factory=list)

    def of(self, kind: str) -> list[Heard]:
        return [each for each in list(self.heard) if each.message["type"] == kind]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever sends may hang up."""


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Runs one."""
    told = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            told.heard.append(Heard(self.path, {name.lower(): text for name, text in self.headers.items()}, body))
            if told.silent is not None:
                told.silent.wait(20)
            self.send_response(told.statuses.pop(0) if told.statuses else 204)
            for name, text in told.headers.items():
                self.send_header(name, text)
            self.send_header("content-length", str(len(told.content)))
            self.end_headers()
            self.wfile.write(told.content)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    told.host = f"127.0.0.1:{server.server_address[1]}"
    told.url = f"http://{told.host}"
    try:
        yield told
    finally:
        if told.silent is not None:
            told.silent.set()
        server.shutdown()
        thread.join(10)
        server.server_close()
