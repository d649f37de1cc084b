"""What a supervisor and a worker say to each other: JSON messages behind their length, over one pair of sockets.

Must not know what the messages mean.
"""

import contextlib
import socket
import struct
import threading
from typing import Any, Final

import orjson

LENGTH: Final = struct.Struct("!I")


def packed(message: dict[str, Any]) -> bytes:
    """A message as bytes for the wire."""
    body = orjson.dumps(message)
    return LENGTH.pack(len(body)) + body


class Link:
    """The worker's end, for threads. Both ends belong to this gateway: nothing here is checked."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire
        self._writing = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        """Send a whole message; raises OSError when the other end is gone."""
        with self._writing:
            self._wire.sendall(packed(message))

    def receive(self) -> dict[str, Any] | None:
        """The next message; None when the other end is gone."""
        head = self._exactly(LENGTH.size)
        body = self._exactly(LENGTH.unpack(head)[0]) if head else b""
        return orjson.loads(body) if body else None

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                part = self._wire.recv(size - len(data))
            except OSError:
                part = b""
            if not part:
                return b""
            data += part
        return data

    def hang_up(self) -> None:
        """End the talk: what was sent still arrives, and `receive` returns None on both sides."""
        with contextlib.suppress(OSError):  # the other end was quicker
            self._wire.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back."""
        self._wire.close()
