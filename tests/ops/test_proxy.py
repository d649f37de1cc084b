"""The cluster's proxy: who gets a connection, and that nothing in it is changed or ended on the way."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ops.cluster.proxy import MUTE_LOOKS, Backend, Proxy
from ops.cluster.waiting import until

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ASKING = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")


@dataclass
class Upstream:
    """Says `status` at `/readyz` and plays `answer` for all else; `asked` are the heads of that."""

    answer: Answer = hello
    status: bytes = b"200"
    port: int = 0
    asked: list[bytes] = field(default_factory=list)
    server: asyncio.Server | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /readyz "):
            writer.write(b"HTTP/1.1 " + self.status + b" X\r\ncontent-length: 0\r\n\r\n")
        else:
            self.asked.append(head)
            await self.answer(reader, writer)
        writer.close()


@asynccontextmanager
async def behind(proxy: Proxy, *upstreams: Upstream) -> AsyncIterator[list[Backend]]:
    """The upstreams run, the proxy runs, and has seen who is ready."""
    async with proxy:
        for upstream in upstreams:
            upstream.server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
            upstream.port = upstream.server.sockets[0].getsockname()[1]
        backends = [proxy.add(f"r{upstream.port}", upstream.port) for upstream in upstreams]
        wanted = [upstream.status == b"200" for upstream in upstreams]
        assert await until(lambda: [backend.ready for backend in backends] == wanted, 10)
        yield backends
        for upstream in upstreams:
            assert upstream.server is not None
            upstream.server.close()


async def asked(proxy: Proxy, what: bytes = ASKING, *, half_closed: bool = False) -> bytes:
    """All that comes for a new connection that says `what`. Raises ConnectionError where it is reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    writer.write(what)
    if half_closed:
        writer.write_eof()
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


async def test_replicas_take_turns() -> None:
    upstreams, proxy = [Upstream(), Upstream(), Upstream()], Proxy()
    async with behind(proxy, *upstreams):
        answers = [await asked(proxy) for _ in range(9)]
    assert {answer[-5:] for answer in answers} == {b"hello"}
    assert [len(upstream.asked) for upstream in upstreams] == [3, 3, 3]


async def test_replica_that_says_503_gets_nothing_until_it_says_200_again() -> None:
    leaving, staying, proxy = Upstream(), Upstream(), Proxy()
    async with behind(proxy, leaving, staying) as (backend, _):
        leaving.status = b"503"
        assert await until(lambda: not backend.ready, 10)
        assert [(await asked(proxy))[-5:] for _ in range(4)] == [b"hello"] * 4
        assert (len(leaving.asked), len(staying.asked)) == (0, 4)
        leaving.status = b"200"
        assert await until(lambda: backend.ready, 10)
        assert [(await asked(proxy))[-5:] for _ in range(4)] == [b"hello"] * 4
    assert len(leaving.asked) == 2


async def test_replica_that_does_not_listen_is_sent_nothing_and_nobody_notices() -> None:
    dead, alive, proxy = Upstream(), Upstream(), Proxy()
    async with behind(proxy, dead, alive) as (backend, _):
        assert dead.server is not None
        dead.server.close()
        backend.ready = True  # as it was seen just before
        assert [(await asked(proxy))[-5:] for _ in range(4)] == [b"hello"] * 4
        assert (backend.ready, backend.missed, backend.taken) == (False, 1, 0)
    assert proxy.refused == 0


async def test_nobody_ready_is_waited_for_and_then_refused() -> None:
    upstream, proxy = Upstream(status=b"503"), Proxy(wait_s=0.4)
    async with behind(proxy, upstream) as (backend,):
        answer = await asked(proxy)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"no_replica" in answer
        assert proxy.refused == 1 and upstream.asked == []
        waiting = asyncio.create_task(asked(proxy))
        upstream.status = b"200"
        assert (await waiting)[-5:] == b"hello" and backend.taken == 1


async def test_one_mute_look_retires_nobody_several_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listens:  # and lets nobody in
        backend = Backend("r", listens.getsockname()[1], ready=True)
        seen = []
        for _ in range(MUTE_LOOKS):
            await backend.look(0.05)
            seen.append(backend.ready)
    assert seen == [True] * (MUTE_LOOKS - 1) + [False]


async def test_stream_passes_as_it_comes() -> None:
    goes_on = asyncio.Event()

    async def in_two(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nfirst")
        await goes_on.wait()
        writer.write(b"second")

    proxy = Proxy()
    async with behind(proxy, Upstream(in_two)):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        writer.write(ASKING)
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"first")).endswith(b"first")
            goes_on.set()
            assert await reader.read() == b"second"
        writer.close()


async def test_answer_that_breaks_off_is_not_made_whole() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel")
        await writer.drain()
        writer.transport.abort()

    proxy = Proxy()
    async with behind(proxy, Upstream(reset)):
        try:
            answer = await asked(proxy)
        except ConnectionError:
            return
        assert not answer.endswith(b"0\r\n\r\n")


async def test_caller_who_has_said_all_still_gets_the_answer() -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"rest"
        await hello(reader, writer)

    proxy = Proxy()
    async with behind(proxy, Upstream(late)):
        assert (await asked(proxy, ASKING + b"rest", half_closed=True))[-5:] == b"hello"


async def test_replica_learns_that_its_caller_left() -> None:
    left = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        left.set()

    proxy = Proxy()
    async with behind(proxy, Upstream(waits)):
        _, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        writer.write(ASKING)
        assert await until(lambda: proxy.backends[0].open == 1, 10)
        writer.transport.abort()
        async with asyncio.timeout(10):
            await left.wait()
        assert await until(lambda: proxy.backends[0].open == 0, 10)
