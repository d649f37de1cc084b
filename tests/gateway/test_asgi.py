"""Reading a request's body."""

import asyncio

import pytest

from gateway.asgi import Message, Scope, read_body
from gateway.errors import ApiError

SCOPE: Scope = {"headers": []}


async def test_half_sent_body_is_a_408_in_our_shape() -> None:
    parts = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Message:
        if parts:
            return parts.pop()
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(ApiError) as caught:
        await read_body(SCOPE, receive, limit=100, timeout_s=0.01)
    problem = caught.value.problem
    assert (problem.status, problem.code, problem.fault.value) == (408, "request_timeout", "caller")
    assert b'"type":"invalid_request_error"' in problem.body()
    assert problem.response_headers() == {"x-should-retry": "true", "connection": "close"}


async def test_body_in_parts_is_joined() -> None:
    parts: list[Message] = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"b"},
    ]

    async def receive() -> Message:
        return parts.pop(0)

    assert await read_body(SCOPE, receive, limit=2) == b"ab"
