"""The proxy in front of the replicas: bytes in, bytes out, one replica after another.

Owns which replica gets a connection. A connection is given to a replica with its first bytes and stays there; nothing
in it is read, so streams pass as they come, and an answer that breaks off breaks off for the client too. Must not know
what a replica is but its address.
"""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

LOOPBACK: Final = "127.0.0.1"
PIECE: Final = 65_536  # bytes that are read at a time
FIRST_BYTE_S: Final = 75.0  # a connection that says nothing
CONNECT_S: Final = 2.0
LOOK_S: Final = 0.1  # between two looks at /readyz
ANSWER_S: Final = 2.0  # for /readyz to answer
MUTE_LOOKS: Final = 3  # looks without an answer until a replica counts as away: a busy one may be slow once
WAIT_S: Final = 10.0  # for any replica to be ready; then 503
ASK: Final = b"GET /readyz HTTP/1.1\r\nhost: replica\r\nconnection: close\r\n\r\n"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True, eq=False)
class Backend:
    """One replica as the proxy sees it: connections that it took, those open now, those that it did not let in."""

    name: str
    port: int
    ready: bool = False
    taken: int = 0
    open: int = 0
    missed: int = 0
    mute: int = 0

    async def connect(self) -> Streams:
        """A connection to it. Raises OSError or TimeoutError."""
        async with asyncio.timeout(CONNECT_S):
            return await asyncio.open_connection(LOOPBACK, self.port)

    async def look(self, answer_s: float = ANSWER_S) -> None:
        """Ask `/readyz`: 200 is ready, all else is not; no word at all only when it is said several times."""
        try:
            async with asyncio.timeout(answer_s):
                said = await self._status()
        except TimeoutError:
            self.mute += 1
            self.ready = self.ready and self.mute < MUTE_LOOKS
        except OSError:
            self.ready, self.mute = False, 0
        else:
            self.ready, self.mute = said == b"200", 0

    async def _status(self) -> bytes:
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        try:
            writer.write(ASK)
            words = (await reader.readline()).split()
            return words[1] if len(words) > 1 else b""
        finally:
            writer.close()


class Proxy:
    """A context manager. `refused` counts connections that no replica could be found for."""

    def __init__(self, port: int = 0, wait_s: float = WAIT_S) -> None:
        self.backends: list[Backend] = []
        self.refused = 0
        self._port, self._wait_s, self._next = port, wait_s, 0
        self._server: asyncio.Server | None = None
        self._looking: dict[Backend, asyncio.Task[None]] = {}
        self._relays: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://{LOOPBACK}:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, LOOPBACK, self._port, backlog=1024)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [*self._looking.values(), *self._relays]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def add(self, name: str, port: int) -> Backend:
        """Look at this replica from now on, and send it connections once it is ready."""
        backend = Backend(name, port)
        self.backends.append(backend)
        self._looking[backend] = asyncio.create_task(self._look(backend))
        return backend

    def remove(self, backend: Backend) -> None:
        """Send it nothing more; what runs goes on."""
        if backend in self.backends:
            self.backends.remove(backend)
            self._looking.pop(backend).cancel()
        backend.ready = False

    async def _look(self, backend: Backend) -> None:
        while True:
            await backend.look()
            await asyncio.sleep(LOOK_S)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the proxy ends
        finally:
            self._relays.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(FIRST_BYTE_S):
                first = await reader.read(PIECE)
        except (TimeoutError, OSError):
            return
        if not first:
            return
        found = await self._connected()
        if found is None:
            self.refused += 1
            await self._refuse(writer)
            return
        backend, (from_replica, to_replica) = found
        backend.taken += 1
        backend.open += 1
        try:
            to_replica.write(first)
            await relay((reader, writer), (from_replica, to_replica))
        finally:
            backend.open -= 1
            to_replica.transport.abort()

    async def _connected(self) -> tuple[Backend, Streams] | None:
        """The next replica that is ready and lets us in; nothing was sent to any other. None when none did in time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._wait_s
        while loop.time() < until:
            for backend in self._in_turn():
                try:
                    return backend, await backend.connect()
                except (OSError, TimeoutError):
                    backend.ready = False
                    backend.missed += 1
            await asyncio.sleep(LOOK_S / 4)
        return None

    def _in_turn(self) -> list[Backend]:
        self._next += 1
        ready = [backend for backend in self.backends if backend.ready]
        turn = self._next % len(ready) if ready else 0
        return ready[turn:] + ready[:turn]

    async def _refuse(self, writer: asyncio.StreamWriter) -> None:
        message = f"no replica was ready within {self._wait_s:g} s"
        body = json.dumps({"error": {"message": message, "type": "proxy_error", "code": "no_replica"}}).encode()
        head = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
        with contextlib.suppress(OSError):
            writer.write(head % len(body) + b"connection: close\r\n\r\n" + body)
            await writer.drain()
            writer.close()
            await writer.wait_closed()


async def relay(client: Streams, replica: Streams) -> None:
    """Both ways until the replica has ended its side, or either is lost. The client's end is told to the replica."""
    asking = asyncio.ensure_future(_pass_on(client[0], replica[1]))
    answering = asyncio.ensure_future(_pass_on(replica[0], client[1]))
    try:
        await asyncio.wait((asking, answering), return_when=asyncio.FIRST_COMPLETED)
        if asking.done() and asking.result():  # half closed: the answer may still come
            await answering
        if answering.done() and answering.result():
            await _ended(client[1])
    finally:
        asking.cancel()
        answering.cancel()
        await asyncio.gather(asking, answering, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Until the end of what is read; False when a side was lost before."""
    try:
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        return False
    return True


async def _ended(writer: asyncio.StreamWriter) -> None:
    """What was written has left."""
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()
