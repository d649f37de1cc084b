"""A provider on a real port that plays what a test gives it, and asking it through the pool."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from gateway.outbound.answer import Answer
from gateway.outbound.connection import Deadlines
from gateway.outbound.pool import Origin, Pool

SOON = Deadlines(connect_s=5, first_byte_s=5, idle_s=5)
HEAD = b"POST /v1 HTTP/1.1\r\nhost: x\r\n"


@dataclass
class Playing:
    """`requests` are the bodies that came; `connections` how many there were, `standing` how many there are."""

    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    standing: int = 0

    @property
    def origin(self) -> Origin:
        return Origin("127.0.0.1", self.port, tls=False, private_ok=True)


Play = Callable[[Playing, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def request(reader: asyncio.StreamReader) -> bytes:
    """The body of the next request; IncompleteReadError when there is none."""
    head = await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))


@asynccontextmanager
async def playing(play: Play, **options: object) -> AsyncIterator[Playing]:
    """Each connection is given to `play`, and closed after it."""
    state, tasks = Playing(), set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        state.connections += 1
        state.standing += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await play(state, reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over; asyncio's streams complain of a cancelled handler
        finally:
            state.standing -= 1
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, **options)  # type: ignore[arg-type]
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def always(answer: bytes, *, again: bool = True) -> Play:
    """The same bytes for every request; then, unless `again`, the connection is closed."""

    async def play(state: Playing, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            state.requests.append(await request(reader))
            writer.write(answer)
            await writer.drain()
            if not again:
                return

    return play


async def ask(pool: Pool, origin: Origin, body: bytes = b"{}", deadlines: Deadlines = SOON) -> Answer:
    return await pool.ask(origin, HEAD + b"content-length: %d\r\n\r\n" % len(body), [body], deadlines)


async def whole(answer: Answer) -> bytes:
    return b"".join([piece async for piece in answer])


def counts(pool: Pool) -> tuple[int, int, int]:
    """Connections that are open, places that are remembered, and who waits: all zero after the last."""
    return pool._open, len(pool._places), pool._waiting


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    """Let the loop run until `condition` holds."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)
