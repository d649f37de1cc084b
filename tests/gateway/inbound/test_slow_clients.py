"""Clients that send, or take, too slowly: each is ended in its time while others are served (RELIABILITY.md T25).

WARDGATE_TEST_SLOW_CLIENTS multiplies their number.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from gateway.asgi import Receive, Scope, Send
from gateway.config import Limits
from gateway.inbound.gone import GONE
from gateway.inbound.refusals import Refusal
from tests.gateway.inbound.conftest import Running, answers, drained, echo, running
from tests.harness import eventually

TIMES = int(os.environ.get("WARDGATE_TEST_SLOW_CLIENTS", "1"))
SHORT = Limits(header_timeout_s=0.6, keep_alive_s=0.6, body_timeout_s=0.6, write_idle_s=1.2)
HEAD = b"POST /x HTTP/1.1\r\nhost: h\r\n"


async def many_faces(scope: Scope, receive: Receive, send: Send) -> None:
    """/stream: an endless answer; /unread: answers without a look at the body; /silent: never answers."""
    kinds = {"/stream": stream, "/unread": unread, "/silent": silent}
    await kinds.get(scope["path"], echo)(scope, receive, send)


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    gone: list[bool] = []
    scope[GONE].on_gone(lambda: gone.append(True))
    while not gone:
        await send({"type": "http.response.body", "body": b"x" * 16_384, "more_body": True})


async def unread(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@pytest.fixture
def server() -> Iterator[Running]:
    with running(many_faces, SHORT) as started:
        yield started


def closed_after(connection: socket.socket, began: float) -> tuple[bytes, float]:
    data = drained(connection)
    return data, time.monotonic() - began


def trickled(connection: socket.socket, stop: threading.Event) -> None:
    """One byte of a header at a time, for ever."""
    try:
        while not stop.wait(0.05):
            connection.send(b"a")
    except OSError:
        pass


def test_byte_at_a_time_does_not_move_the_time_for_headers(server: Running) -> None:
    stop = threading.Event()
    with server.connect() as connection:
        connection.sendall(HEAD + b"a: ")
        thread = threading.Thread(target=trickled, args=(connection, stop))
        thread.start()
        data, took = closed_after(connection, time.monotonic())
        stop.set()
        thread.join()
    (answer,) = answers(data)
    assert answer.told == "408 request_timeout" and answer.headers["x-should-retry"] == "true"
    assert 0.5 < took < 5
    assert server.refused[Refusal.HEADER_TIMEOUT] == 1


def test_second_request_has_its_own_time(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n")
        assert b"200" in connection.recv(65536)
        began = time.monotonic()
        connection.sendall(b"GET /b HTT")
        data, took = closed_after(connection, began)
    assert [answer.told for answer in answers(data)] == ["408 request_timeout"] and took < 5


def test_connection_without_a_request_is_closed_without_a_word(server: Running) -> None:
    began = time.monotonic()
    with server.connect() as fresh, server.connect() as idle:
        idle.sendall(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n")
        assert [answer.told for answer in answers(idle.recv(65536))] == ["200 GET /a "]
        assert drained(fresh) == b"" and drained(idle) == b""
    assert 0.5 < time.monotonic() - began < 5
    assert server.refused[Refusal.NO_REQUEST] == 1


def test_body_that_nobody_reads_has_its_time_too(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /unread HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\n\r\n{")
        data, took = closed_after(connection, time.monotonic())
    assert [answer.status for answer in answers(data)] == [200] and took < 5
    assert server.refused[Refusal.BODY_TIMEOUT] == 1


def test_body_that_nobody_reads_has_an_end() -> None:
    limits = Limits(max_body_bytes=1_000_000)
    with running(many_faces, limits) as server, server.connect() as connection:
        connection.sendall(b"POST /unread HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n")
        with pytest.raises(OSError):
            for _ in range(100):
                connection.sendall(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
                threading.Event().wait(0.001)
        assert server.refused[Refusal.UNREAD_BODY] == 1


def test_unread_body_within_bounds_keeps_the_connection(server: Running) -> None:
    with server.connect() as connection:
        body = b"POST /unread HTTP/1.1\r\nhost: h\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000
        connection.sendall(body + body + b"GET /again HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        assert [answer.told for answer in answers(drained(connection))] == ["200 ok", "200 ok", "200 GET /again "]


def test_reader_that_takes_nothing_is_ended(server: Running) -> None:
    with server.connect(receive_buffer=4096) as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nhost: h\r\n\r\n")
        eventually(lambda: server.refused[Refusal.SLOW_READER] == 1, 15)
        eventually(lambda: not server.connections)


def test_reader_that_takes_a_little_may_stay(server: Running) -> None:
    with server.connect(receive_buffer=4096) as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nhost: h\r\n\r\n")
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            assert connection.recv(65536)
            threading.Event().wait(0.02)
        assert server.refused[Refusal.SLOW_READER] == 0


def test_finished_answer_that_is_not_taken_ends_too(server: Running) -> None:
    """A large answer is whole for the application at once, and waits in our buffer."""
    with server.connect(receive_buffer=4096) as connection:
        big = b"x" * 8_000_000
        connection.sendall(HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(big))
        connection.sendall(big)
        eventually(lambda: server.refused[Refusal.SLOW_READER] == 1, 15)


@contextmanager
def crowd(server: Running, count: int, first: bytes, **options: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        held = []
        for _ in range(count):  # each speaks at once: a connection without a request is closed for that
            held.append(stack.enter_context(server.connect(**options)))
            held[-1].sendall(first)
        yield held


def test_good_requests_go_on_among_slow_clients(server: Running) -> None:
    url = f"http://127.0.0.1:{server.port}/good"
    with httpx.Client() as client, ExitStack() as stack:
        slow = stack.enter_context(crowd(server, 50 * TIMES, HEAD + b"a: "))
        slow += stack.enter_context(crowd(server, 50 * TIMES, HEAD + b"content-length: 5\r\n\r\n{"))
        stack.enter_context(crowd(server, 20 * TIMES, b"GET /stream HTTP/1.1\r\nhost: h\r\n\r\n", receive_buffer=4096))
        waits = []
        until = time.monotonic() + 2
        while time.monotonic() < until or server.refused[Refusal.SLOW_READER] < 20 * TIMES:
            assert time.monotonic() < until + 40, server.refused
            began = time.monotonic()
            assert client.get(url).status_code == 200
            waits.append(time.monotonic() - began)
        assert server.refused[Refusal.HEADER_TIMEOUT] == 50 * TIMES
        assert sorted(waits)[len(waits) // 2] < 0.1
    assert len(server.logs.records("connection.refused")) < 30, "one line a second and reason"


@pytest.mark.parametrize("path", ["/silent", "/stream"])
def test_client_that_leaves_is_known_at_once(path: str) -> None:
    told: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[GONE].on_gone(lambda: told.append(time.monotonic()))
        kind = silent if path == "/silent" else echo_slowly
        await kind(scope, receive, send)

    async def echo_slowly(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await silent(scope, receive, send)

    with running(app) as server:
        connection = server.connect()
        connection.sendall(b"GET %s HTTP/1.1\r\nhost: h\r\n\r\nGET /behind HTTP/1.1\r\nhost: h\r\n\r\n" % path.encode())
        if path == "/stream":
            assert connection.recv(65536)
        eventually(lambda: bool(server.connections))
        left = time.monotonic()
        connection.close()
        eventually(lambda: bool(told))
        assert told[0] - left < 1 and len(told) == 1
