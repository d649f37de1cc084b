"""The port on which a Prometheus server finds the metrics page. Must not know what stands on the page."""

import logging
import socket
import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Final

from gateway.metrics import CONTENT_TYPE

LOG: Final = logging.getLogger(__name__)


class MetricsPortError(Exception):
    """The metrics port cannot be listened on."""


class MetricsServer:
    """Serves `render()` as GET /metrics, and 404 elsewhere, from a thread of its own. Port 0 takes any free one."""

    def __init__(self, render: Callable[[], bytes], *, host: str, port: int) -> None:
        try:
            self._server = _Server(render, host, port)
        except OSError as error:
            raise MetricsPortError(
                f"cannot serve metrics on {host} port {port}: {error.strerror}; "
                "WARDGATE_METRICS_PORT and WARDGATE_METRICS_HOST choose another address"
            ) from error
        self.port: int = self._server.server_address[1]
        serve = partial(self._server.serve_forever, poll_interval=0.1)  # seconds: how soon it sees stop()
        self._thread = threading.Thread(target=serve, name="wardgate-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the port; returns when it is closed. May be called twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a scraper that hangs must not hold up the end of the process

    def __init__(self, render: Callable[[], bytes], host: str, port: int) -> None:
        self.render = render
        self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        super().__init__((host, port), _Page)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own looks the host name up, which can take seconds

    def handle_error(self, request: object, client_address: object) -> None:
        LOG.warning("a scrape of the metrics page failed", exc_info=True)


class _Page(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10  # seconds that a scraper may take to send its request

    def do_GET(self) -> None:
        if self.path.partition("?")[0] == "/metrics":
            self._answer(200, CONTENT_TYPE, self.server.render())
        else:
            self._answer(404, "text/plain; charset=utf-8", b"The metrics are at /metrics.\n")

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not logged."""
