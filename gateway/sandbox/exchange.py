"""One HTTP exchange, as ASGI sees it, with three powers that ASGI lacks: it notices at once that the client left, it
can break the connection at the TCP level, and it can write past HTTP's framing.

Owns the socket's side of an answer; knows nothing of wires and behaviours. The last two powers need the connection's
transport, which gateway.sandbox.server registers under the client's address.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from gateway.sandbox.behaviours import Cut

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Sequence[tuple[str, str]]
Address = tuple[str, int]
Connections = Mapping[Address, asyncio.Transport]

FLUSH_S = 0.02  # lets what was written leave before a reset, which would discard it
CLOSING_S = 5.0  # the longest wait for a connection that we closed to be gone
NO_LINGER = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing sends a reset


class ClientLeftError(Exception):
    """The client closed the connection before it had its answer."""


class SeveredError(Exception):
    """We broke the connection, as ordered."""


class Exchange:
    """Reads a request and answers it, until the answer is complete or one side leaves."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, connections: Connections) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._transport = connections.get(tuple(scope.get("client") or ("", 0)))
        self._left = asyncio.Event()
        self._complete = False
        self._watch: asyncio.Task[None] | None = None

    async def read(self) -> bytes:
        """The whole body; from now on the client's leaving is noticed. ClientLeftError when it left before its end."""
        body = bytearray()
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self._watch = asyncio.create_task(self._watch_client())
        return bytes(body)

    async def _watch_client(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._complete:
            self._left.set()

    async def pause(self, seconds: float) -> None:
        """Wait; ClientLeftError as soon as the client leaves."""
        await asyncio.sleep(0)  # a pause of 0 s still lets the loop hear that the client left
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._left.wait()
        self._raise_if_left()

    def _raise_if_left(self) -> None:
        if self._left.is_set():
            raise ClientLeftError

    async def start(self, status: int, headers: Headers) -> None:
        """Send status and headers."""
        encoded = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def write(self, data: bytes) -> None:
        """Send a part of the body."""
        self._raise_if_left()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the last part of the body."""
        self._raise_if_left()
        self._complete = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    def write_unframed(self, data: bytes) -> None:
        """Send bytes as they are, past HTTP's framing."""
        if self._transport is not None:
            self._transport.write(data)

    async def sever(self, cut: Cut) -> None:
        """Break the connection, after what was written has left; always raises SeveredError."""
        await self.pause(FLUSH_S)
        if self._transport is not None:
            if cut is Cut.RST:
                self._linger_off(self._transport)
                self._transport.abort()
            else:
                self._transport.close()
            await self._until_gone()
        raise SeveredError

    async def _until_gone(self) -> None:
        if self._watch is not None:
            await asyncio.wait([self._watch], timeout=CLOSING_S)

    @staticmethod
    def _linger_off(transport: asyncio.Transport) -> None:
        held = transport.get_extra_info("socket")
        if held is not None:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)

    async def close(self) -> None:
        """Stop watching the client."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
