"""An upstream that answers with exactly the bytes that a test gives it, on a real port."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PIECE_S = 0.05  # so that two pieces do not arrive as one


@dataclass
class RawUpstream:
    """`answer` is what the next requests get, whole with its status line; `requests` what arrived, head and body."""

    url: str
    answer: bytes = b""
    reset: bool = False  # end with a TCP reset instead of a clean close
    requests: list[bytes] = field(default_factory=list)
    later: list[bytes] = field(default_factory=list)  # sent behind `answer`, each once the one before it is on its way

    def events(self, *datas: str | bytes, content_type: str = "text/event-stream") -> None:
        """Answer with a stream of events, ended by closing the connection."""
        parts = [data if isinstance(data, bytes) else data.encode() for data in datas]
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\nconnection: close\r\n\r\n".encode()
        self.answer = head + b"".join(b"data: " + part + b"\n\n" for part in parts)

    def plain(self, body: str | bytes, status: str = "200 OK", headers: str = "") -> None:
        """Answer with one JSON body."""
        raw = body if isinstance(body, bytes) else body.encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n{headers}\r\n"
        self.answer = head.encode() + raw


def _read_request(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65536)
        if not part:
            return received
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    while len(body) < length and (part := connection.recv(65536)):
        body += part
    return head + b"\r\n\r\n" + body


@contextmanager
def raw_upstream() -> Iterator[RawUpstream]:
    """A running upstream; every connection is one request."""
    listener = socket.create_server(("127.0.0.1", 0))
    upstream = RawUpstream(f"http://127.0.0.1:{listener.getsockname()[1]}")

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                upstream.requests.append(_read_request(connection))
                connection.sendall(upstream.answer)
                while upstream.later:
                    time.sleep(PIECE_S)
                    connection.sendall(upstream.later.pop(0))
                if upstream.reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield upstream
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
