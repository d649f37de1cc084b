"""New connections are taken beside a loop that is busy, and when files run out they wait instead of being lost."""

import asyncio
import os
import resource
import socket
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import uvloop

from gateway.inbound.accepting import AT_ONCE, Accepting
from gateway.sandbox.server import SandboxServer
from tests.harness import RunningGateway, eventually, sandbox_config


class Made(asyncio.Protocol):
    """Counts itself, and keeps its transport."""

    def __init__(self, made: list[asyncio.BaseTransport]) -> None:
        self._made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._made.append(transport)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as made:
        yield made


def never(error: OSError) -> None:
    pytest.fail(str(error))


def come(listener: socket.socket, stack: ExitStack, count: int) -> None:
    """Clients that are connected as far as the kernel does that."""
    for _ in range(count):
        stack.enter_context(socket.create_connection(listener.getsockname()))


async def until(made: list[asyncio.BaseTransport], count: int, turns: int) -> int:
    """How many turns of the loop it took until so many were taken; at most so many are waited for."""
    for turn in range(turns):
        if len(made) >= count:
            return turn
        await asyncio.sleep(0)
    return turns


def in_uvloop(story: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story)


def test_a_crowd_is_taken_in_few_turns(listener: socket.socket) -> None:
    """The loop's own server takes one a turn: a turn full of requests lasts 50 ms."""

    async def story() -> None:
        made: list[asyncio.BaseTransport] = []
        accepting = Accepting(listener, lambda: Made(made), never)
        with ExitStack() as stack:
            come(listener, stack, 5 * AT_ONCE)
            assert await until(made, 5 * AT_ONCE, 100) < 25
        assert made[0].get_extra_info("peername")[0] == "127.0.0.1"
        accepting.close()
        await accepting.wait_closed()

    in_uvloop(story())


def test_nobody_is_taken_after_the_end_and_those_that_were_go_on(listener: socket.socket) -> None:
    async def story() -> None:
        made: list[asyncio.BaseTransport] = []
        accepting = Accepting(listener, lambda: Made(made), never)
        with ExitStack() as stack:
            come(listener, stack, 1)
            await until(made, 1, 100)
            accepting.close()
            accepting.close()
            come(listener, stack, 1)
            assert await until(made, 2, 20) == 20
            assert not made[0].is_closing()
        await accepting.wait_closed()

    in_uvloop(story())


@contextmanager
def no_files() -> Iterator[None]:
    """Nothing more can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull) as next_one:  # noqa: PTH123 - its number is wanted
        free = next_one.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_comes_while_no_file_can_be_opened_waits(listener: socket.socket) -> None:
    async def story() -> None:
        made: list[asyncio.BaseTransport] = []
        told: list[OSError] = []
        accepting = Accepting(listener, lambda: Made(made), told.append)
        with ExitStack() as stack:
            come(listener, stack, 3)
            with no_files():
                for _ in range(50):
                    await asyncio.sleep(0)
            assert (len(made), len(told)) == (0, 1)  # told once, not in every turn
            assert told[0].strerror == "Too many open files"
            while len(made) < 3:
                await asyncio.sleep(0.01)
        accepting.close()

    in_uvloop(story())


def test_gateway_that_can_open_no_file_says_so(tmp_path: Path, sandbox: SandboxServer) -> None:
    with RunningGateway(tmp_path, sandbox_config(sandbox.url)) as gateway, socket.socket() as client:
        assert gateway.metric("wardgate_connections_not_taken_total") == 0
        client.settimeout(30)
        with no_files():
            client.connect(("127.0.0.1", int(gateway.url.rpartition(":")[2])))
            eventually(lambda: bool(gateway.logs.records("connections.not_taken")))
        client.sendall(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200"), "it waited"
        assert gateway.metric("wardgate_connections_not_taken_total") >= 1
        assert "Too many open files" in str(gateway.logs.records("connections.not_taken")[0]["why"])
