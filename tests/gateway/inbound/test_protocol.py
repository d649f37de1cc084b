"""What a connection does around a refusal: whose answer comes first, who still gets one, and what nobody may see."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.asgi import Receive, Scope, Send
from gateway.config import Limits
from gateway.inbound.gone import GONE
from gateway.inbound.refusals import ROWS, Refusal, answer
from gateway.sandbox.server import SandboxServer
from tests.gateway.inbound.conftest import Running, answers, drained, echo, running
from tests.harness import RunningGateway, eventually, sandbox_config

LAST = b"GET /last HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"


class Held:
    """An application whose answers to /held wait until they may end."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = 0
        self.left = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/held":
            await echo(scope, receive, send)
            return
        scope[GONE].on_gone(self._gone)
        self.begun += 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
        await send({"type": "http.response.body", "body": b"held", "more_body": True})
        while not self.go.is_set():
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"done"})

    def _gone(self) -> None:
        self.left += 1


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def server(held: Held) -> Iterator[Running]:
    with running(held, Limits(max_body_bytes=100_000)) as started:
        yield started


def told(connection: socket.socket) -> list[str]:
    return [each.told for each in answers(drained(connection))]


def test_refusal_waits_for_the_answer_before_it(server: Running, held: Held) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /held HTTP/1.1\r\nhost: h\r\n\r\nrubbish\r\n\r\n" + b"x" * 100_000)
        eventually(lambda: held.begun == 1)
        assert connection.recv(65536).endswith(b"held")
        held.go.set()
        came = drained(connection)
    assert came.startswith(b"done") and answers(came.removeprefix(b"done"))[0].told == "400 invalid_http"
    assert held.left == 0 and server.refused == {Refusal.MALFORMED: 1}


def test_bad_body_of_a_request_that_is_served_is_a_400(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /x HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n")
        connection.sendall(b"rubbish\r\n")
        assert told(connection) == ["400 invalid_http"]


def test_bad_body_behind_an_answer_that_has_begun_ends_the_connection(server: Running, held: Held) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /held HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n")
        eventually(lambda: held.begun == 1)
        connection.sendall(b"rubbish\r\n")
        assert b"400" not in drained(connection)
    assert held.left == 1
    held.go.set()


def test_refused_client_that_goes_on_sending_still_reads_its_answer(server: Running) -> None:
    """A close with unread bytes in the socket would be a reset, which takes the answer away."""
    with server.connect() as connection:
        connection.sendall(b"GET /x HTTP/1.1\r\nhost : h\r\n\r\n")
        for _ in range(20):
            connection.sendall(b"x" * 10_000)
        assert told(connection) == ["400 invalid_http"]


def test_large_body_that_is_refused_early_has_its_answer_read() -> None:
    async def too_large(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"2"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": b"no"})

    with running(too_large) as server:
        answer = httpx.post(f"http://127.0.0.1:{server.port}/x", content=b"x" * 20_000_000)
        assert (answer.status_code, answer.text) == (413, "no")
        eventually(lambda: not server.connections)


def test_client_that_never_stops_after_a_refusal_is_cut_off(server: Running) -> None:
    with server.connect() as connection, pytest.raises(OSError):
        connection.sendall(b"GET /x HTTP/1.1\r\nhost : h\r\n\r\n")
        for _ in range(1_000):
            connection.sendall(b"x" * 65_536)


def test_http_1_0_gets_a_stream_without_chunks() -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for part in (b"one ", b"two ", b"three"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    with running(stream) as server:
        with server.connect() as connection:
            connection.sendall(b"GET /x HTTP/1.0\r\n\r\n")
            head, _, body = drained(connection).partition(b"\r\n\r\n")
        assert b"chunked" not in head and b"connection: close" in head and body == b"one two three"
        with server.connect() as connection:
            connection.sendall(b"GET /x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
            assert drained(connection).endswith(b"4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n0\r\n\r\n")


def test_client_that_wants_to_be_asked_for_its_body_is_asked(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /x HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}" + LAST)
        assert told(connection) == ["200 POST /x {}", "200 GET /last "]


@pytest.mark.parametrize("refusal", ROWS)
def test_answer_of_every_row_is_whole(refusal: Refusal) -> None:
    words = answer(refusal, "req_1", "a detail")
    assert words is not None
    (parsed,) = answers(words)
    assert parsed.status == ROWS[refusal][0] and b"a detail" in parsed.body
    assert parsed.headers["x-request-id"] == parsed.headers["x-wardgate-request-id"] == "req_1"
    assert parsed.headers["x-should-retry"] == ("true" if parsed.status == 408 else "false")


def test_gateway_counts_and_logs_a_refusal(tmp_path: Path, sandbox: SandboxServer) -> None:
    limits = "[limits]\nheader_timeout_s = 0.3\nmax_headers = 20\n"
    with RunningGateway(tmp_path, sandbox_config(sandbox.url, limits)) as gateway:
        address = ("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        for sent, expected in ((b"GET /liv", "408 request_timeout"), (b"canary\r\n\r\n", "400 invalid_http")):
            with socket.create_connection(address, 10) as connection:
                connection.sendall(sent)
                assert told(connection) == [expected]
        with socket.create_connection(address, 10) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nhost: h\r\n" + b"a: b\r\n" * 20 + b"\r\n")
            assert told(connection) == ["431 headers_too_large"]
        for reason in ("header_timeout", "malformed", "too_many_headers"):
            assert gateway.metric("wardgate_inbound_refusals_total", reason=reason) == 1
        assert {line["reason"] for line in gateway.logs.records("connection.refused")} == {
            "header_timeout",
            "malformed",
            "too_many_headers",
        }
        assert "canary" not in gateway.logs.getvalue()
