"""The stand-in for a provider: as little work as Python can do for an answer, so that the sides are what is measured.

It speaks OpenAI's wire and Anthropic's Messages, plain and streamed, flat out or at a pace; what it says is in
`spoken`. It checks no key and no model. It runs as a script and knows nothing of Wardgate.
"""

import asyncio
import gc
import sys
from typing import cast

import httptools
import uvloop

from tests.benchmarks.spoken import Order, Script, order_of, plain, script

KEPT = 65_536  # bytes of a body that are looked at; the rest is counted and let go


class Connection(asyncio.Protocol):
    """One kept-alive connection; one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""
        self._body: list[bytes] = []
        self._size = 0
        self._due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._write = transport.write
        self._abort = transport.abort

    def connection_lost(self, error: Exception | None) -> None:
        if self._due is not None:
            self._due.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._abort()

    def on_message_begin(self) -> None:
        self._body.clear()
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._path = url

    def on_body(self, data: bytes) -> None:
        if self._size < KEPT:
            self._body.append(data)
        self._size += len(data)

    def on_message_complete(self) -> None:
        order = order_of(self._path, self._body[0] if len(self._body) == 1 else b"".join(self._body))
        if order.stream:
            self._stream(order)
        else:
            self._write(plain(order.anthropic))

    def _stream(self, order: Order) -> None:
        said = script(order.anthropic, order.usage, order.chunks)
        if order.gap_ms == 0 or order.chunks == 1:
            self._write(said.opening + said.token * (order.chunks - 1) + said.ending)
            return
        self._write(said.opening)
        gap_s = order.gap_ms / 1000
        self._later(self._loop.time() + gap_s, gap_s, order.chunks - 1, said)

    def _later(self, when: float, gap_s: float, left: int, said: Script) -> None:
        self._due = self._loop.call_at(when, self._go_on, when, gap_s, left, said)

    def _go_on(self, when: float, gap_s: float, left: int, said: Script) -> None:
        if left <= 1:
            self._due = None
            self._write(said.token + said.ending)
            return
        self._write(said.token)
        self._later(when + gap_s, gap_s, left - 1, said)


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(loop), "127.0.0.1", port, backlog=4096)
    gc.freeze()
    await server.serve_forever()


def main() -> int:
    """Serve on the port of loopback that is named until a signal."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
