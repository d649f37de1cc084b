"""A server that publishes a price list, on a real port, and does it badly when told."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PART = b" " * 65536


@dataclass
class Publisher:
    """What is answered to the next requests. `said` is how much of an endless answer was taken."""

    url: str = ""
    content: bytes = b"{}"
    status: int = 200
    etag: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    endless: bool = False
    cut_at: int | None = None  # the answer breaks off after so many bytes
    silent: threading.Event | None = None  # the answer comes when this is set
    asked: list[dict[str, str]] = field(default_factory=list)
    said: int = 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asks hangs up on purpose."""


@contextmanager
def publisher() -> Iterator[Publisher]:
    """Runs one."""
    told = Publisher()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            told.asked.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
            if told.silent is not None:
                told.silent.wait(20)
            unchanged = told.etag is not None and self.headers.get("if-none-match") == told.etag
            self.send_response(304 if unchanged else told.status)
            for name, value in (told.headers | ({"etag": told.etag} if told.etag else {})).items():
                self.send_header(name, value)
            if unchanged:
                self.end_headers()
            elif told.endless:
                self._without_end()
            else:
                self.send_header("content-length", str(len(told.content)))
                self.end_headers()
                self.wfile.write(told.content[: told.cut_at])
                self.close_connection = told.cut_at is not None

        def _without_end(self) -> None:
            self.send_header("content-length", str(1 << 30))
            self.end_headers()
            self.close_connection = True
            try:
                while told.said < 1 << 30:
                    told.said += self.wfile.write(PART)
            except OSError:
                pass

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield told
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
