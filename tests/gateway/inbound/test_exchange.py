"""An answer goes out in the very bytes in which uvicorn itself would write it."""

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.inbound.exchange import Exchange

LOGGER = logging.getLogger("tests.exchange")
NAMES = st.sampled_from([b"content-type", b"x-y", b"Content-Length", b"connection", b"transfer-encoding", b"date"])
VALUES = st.sampled_from([b"1", b"4", b"close", b"keep-alive", b"chunked", b"text/plain", b"\xff", b"tab\there"])
BODIES = st.lists(st.sampled_from([b"", b"a", b"four", b"x" * 70_000]), max_size=4)


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def sent(
    kind: type[RequestResponseCycle], messages: list[dict[str, Any]], *, method: str, keep_alive: bool
) -> tuple[object, ...]:
    """What is written, whether it was closed, and what was raised."""
    wire: Any = Wire()
    scope: Any = {"type": "http", "method": method, "http_version": "1.1", "path": "/", "query_string": b""}
    cycle = kind(
        scope=scope,
        transport=wire,
        flow=FlowControl(wire),
        logger=LOGGER,
        access_logger=LOGGER,
        access_log=False,
        default_headers=[(b"date", b"today"), (b"server", b"x")],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=keep_alive,
        on_response=lambda: None,
    )
    try:
        for message in messages:
            await cycle.send(message)  # type: ignore[arg-type]
    except (RuntimeError, ValueError) as error:
        raised = ValueError if isinstance(error, ValueError) else RuntimeError
        return wire.written, wire.closed, raised, cycle.response_complete
    return wire.written, wire.closed, None, cycle.response_complete


@given(
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=4),
    bodies=BODIES,
    status=st.sampled_from([200, 204, 304, 404, 500]),
    method=st.sampled_from(["POST", "HEAD"]),
    keep_alive=st.booleans(),
)
async def test_bytes_are_those_of_uvicorn(
    headers: list[tuple[bytes, bytes]], bodies: list[bytes], status: int, method: str, *, keep_alive: bool
) -> None:
    messages: list[dict[str, Any]] = [{"type": "http.response.start", "status": status, "headers": headers}]
    messages += [{"type": "http.response.body", "body": body, "more_body": True} for body in bodies]
    messages.append({"type": "http.response.body", "body": b"", "more_body": False})
    theirs = await sent(RequestResponseCycle, messages, method=method, keep_alive=keep_alive)
    assert await sent(Exchange, messages, method=method, keep_alive=keep_alive) == theirs


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: x", b"a\nb", b"a\rb", b"a\0b", b"a\x7fb", b"\x1b[31m"])
async def test_no_header_holds_a_line_break_or_a_control_character(value: bytes) -> None:
    messages = [{"type": "http.response.start", "status": 200, "headers": [(b"x-y", value)]}]
    written, _, raised, _ = await sent(Exchange, messages, method="POST", keep_alive=True)
    assert (written, raised) == (b"", RuntimeError)


async def test_what_comes_in_the_wrong_order_is_refused() -> None:
    body = {"type": "http.response.body", "body": b"x", "more_body": True}
    assert (await sent(Exchange, [body], method="POST", keep_alive=True))[2] is RuntimeError
