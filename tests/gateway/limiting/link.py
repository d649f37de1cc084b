"""A line to a server that can be cut, fall silent or be late, while the processes at its ends know nothing of it."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from urllib.parse import urlsplit


class Link:
    """Carries bytes from its own port to a server; `down` closes and refuses, `reset` resets what is open alone,
    `silent` takes and never answers, `late_s` is how much later each piece of an answer comes."""

    def __init__(self, host: str, port: int = 0) -> None:
        """Of a server on a port, or where `host` is a path, on a socket there."""
        self._upstream = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.silent = False
        self.late_s = 0.0
        self.connections = 0
        self.requests = 0  # how often something was sent to the server

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def up(self) -> None:
        """Answer again, on the same port."""
        self.silent, self.late_s = False, 0.0
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def reset(self) -> None:
        """Reset what is open, as a balancer does with idle connections; what comes is taken."""
        for client in self._clients:
            with socket.socket(fileno=os.dup(client.get_extra_info("socket").fileno())) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def down(self) -> None:
        """Close what is open, refuse what comes."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            theirs, ours = await self._connect()
        except OSError:  # the server is away
            writer.transport.abort()
            return
        self._writers |= {writer, ours}
        self._clients.add(writer)
        tasks = [asyncio.create_task(self._pump(reader, ours, True)), asyncio.create_task(self._pump(theirs, writer))]
        self._tasks.update(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in (writer, ours):
            each.close()
            with contextlib.suppress(OSError):
                await each.wait_closed()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._writers -= {writer, ours}
        self._clients.discard(writer)
        self._tasks.difference_update(tasks)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self._upstream
        return await (asyncio.open_connection(host, port) if port else asyncio.open_unix_connection(host))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asks: bool = False) -> None:
        due = 0.0  # when the last piece is written: none overtakes it
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                self.requests += asks
                if self.silent:
                    continue
                now = asyncio.get_running_loop().time()
                due = now if asks else max(due, now + self.late_s)
                if due > now:
                    asyncio.get_running_loop().call_at(due, _write, writer, data)
                else:
                    writer.write(data)
                    await writer.drain()


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


@contextlib.asynccontextmanager
async def link_to(url: str) -> AsyncIterator[Link]:
    """A link to the Valkey at `url`, or to a socket's path, up."""
    parts = urlsplit(url)
    link = Link(parts.hostname or "127.0.0.1", parts.port or 6379) if parts.scheme else Link(url)
    await link.up()
    try:
        yield link
    finally:
        await link.down()
