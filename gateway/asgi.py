"""The few ASGI verbs that the data plane needs: read a body, send an answer, work while the client is there.

Plain ASGI instead of FastAPI's handlers: those validate bodies in the wrong shape and cost half the throughput.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping
from typing import Any

from gateway.errors import ApiError, Problem
from gateway.inbound.gone import GONE, Gone
from router.reasons import Fault

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

JSON = "application/json"
SMALL_BODY = 128 * 1024  # bytes that are always held
BODY_TIMEOUT_S = 30.0  # how long a request's body may take to arrive


class ClientLeft(Exception):
    """The client closed the connection before it had its answer."""


def header(scope: Scope, name: str) -> str | None:
    """The first value of a request header (`name` in lower case), or None."""
    wanted = name.encode("latin-1")
    for key, value in scope["headers"]:
        if key == wanted:
            return bytes(value).decode("latin-1")
    return None


def headers_named(scope: Scope, name: str) -> list[str]:
    """Every value of a request header, in order."""
    wanted = name.encode("latin-1")
    return [bytes(value).decode("latin-1") for key, value in scope["headers"] if key == wanted]


def was_sent(scope: Scope) -> bool:
    """Whether the whole body is here, so that nobody waits for it; False where the server does not say."""
    gone: Gone | None = scope.get(GONE)
    return gone is not None and gone.sent


async def read_body(
    scope: Scope,
    receive: Receive,
    *,
    limit: int,
    timeout_s: float = BODY_TIMEOUT_S,
    take: Callable[[int], None] | None = None,
) -> bytes:
    """The whole body, at most `limit` bytes and within `timeout_s`; raises ApiError 413 and 408 otherwise, and
    ClientLeft when the client goes. `take` hears of each further piece of a body that is not small, and may raise."""
    if was_sent(scope):  # the way of nearly every request; a deadline costs more than the reading
        return await _read_parts(scope, receive, limit, take)
    try:
        async with asyncio.timeout(timeout_s):
            return await _read_parts(scope, receive, limit, take)
    except TimeoutError:
        raise _too_slow(timeout_s) from None


async def _read_parts(scope: Scope, receive: Receive, limit: int, take: Callable[[int], None] | None) -> bytes:
    declared = header(scope, "content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        if take is not None and size > SMALL_BODY:
            take(len(part))
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _too_large(limit: int) -> ApiError:
    message = f"The request body is larger than {limit} bytes, the most that this gateway accepts."
    return ApiError(Problem(413, "request_too_large", message, Fault.CALLER, headers={"connection": "close"}))


def _too_slow(timeout_s: float) -> ApiError:
    message = f"The request body did not arrive within {timeout_s:g} seconds. Send it again."
    headers = {"connection": "close"}
    return ApiError(Problem(408, "request_timeout", message, Fault.CALLER, caller_may_retry=True, headers=headers))


def encode_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Header pairs for ASGI; characters outside latin-1 become `?` instead of an exception."""
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]


async def send_body(
    send: Send,
    status: int,
    body: bytes,
    *,
    headers: Mapping[str, str] | None = None,
    content_type: str = JSON,
    head: bool = False,
) -> None:
    """One complete answer; with `head`, its headers alone."""
    all_headers = {"content-type": content_type, "content-length": str(len(body)), **(headers or {})}
    await send({"type": "http.response.start", "status": status, "headers": encode_headers(all_headers)})
    await send({"type": "http.response.body", "body": b"" if head else body})


async def while_connected(
    scope: Scope, receive: Receive, work: Coroutine[Any, Any, None], *, answered: Callable[[], bool]
) -> None:
    """Run `work` and cancel it as soon as the client leaves; raises ClientLeft then. A server also reports a disconnect
    once the whole answer was sent: when `answered` says so, `work` is left to end.

    No server makes `send()` fail for a client that is gone. Our own protocol tells of it in the scope (GONE); behind
    another server `receive()` is raced from the moment the body was read. The cancelled work closes its upstream in its
    own `finally`, and that is waited for.
    """
    gone: Gone | None = scope.get(GONE)
    if gone is None:
        await _while_receiving(receive, work, answered)
        return
    task, left = asyncio.current_task(), False
    assert task is not None  # noqa: S101 - a coroutine runs in one

    def leave() -> None:
        nonlocal left
        if not answered():
            left = True
            task.cancel()

    gone.on_gone(leave)
    try:
        await work
    except asyncio.CancelledError:
        if not left or task.uncancel():  # somebody else cancelled as well
            raise
        raise ClientLeft from None
    finally:
        gone.forget()


async def _while_receiving(receive: Receive, work: Coroutine[Any, Any, None], answered: Callable[[], bool]) -> None:
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and answered():
            await asyncio.wait({task})
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            if task.cancelled() or task.exception() is not None:
                raise ClientLeft
        task.result()
    finally:
        await _settle((task, watcher))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _settle(tasks: Iterable["asyncio.Task[None]"]) -> None:
    pending = [task for task in tasks if not task.done()]
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending)
