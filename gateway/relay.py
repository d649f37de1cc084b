"""Sends an answer to the client: one JSON body, or server-sent events as they come.

After the first byte no other model may speak. A stream that breaks says so in the stream and does not end in `[DONE]`.
"""

import asyncio
import time
from collections.abc import AsyncIterator

import orjson

from gateway.asgi import ClientLeft, Send, encode_headers
from gateway.attempts import OpenStream
from gateway.events import Outcome
from gateway.failures import problem_of, timed_out
from gateway.tally import Tally
from gateway.upstream import UpstreamFailed
from router.failure import Failure

STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
DONE = b"data: [DONE]\n\n"
WRITE_IDLE_S = 60.0  # how long a client may take to read a piece


def event(payload: bytes) -> bytes:
    """One server-sent event: JSON on a single `data:` line."""
    return b"data: " + payload.replace(b"\n", b" ") + b"\n\n"


async def relay_stream(
    send: Send, stream: OpenStream, tally: Tally, *, include_usage: bool, most_s: float
) -> Failure | None:
    """Send a begun stream to its end, at most `most_s` after the request began; returns how it broke, if it did, with
    the outcome in `tally`."""
    await send({"type": "http.response.start", "status": 200, "headers": encode_headers(STREAM_HEADERS)})
    tally.first_token_s = time.monotonic() - tally.started
    chunk: bytes | None = stream.first
    try:
        while chunk is not None:
            await _write(send, event(chunk), tally, most_s)
            chunk = await _next(stream.rest, tally, most_s)
    except UpstreamFailed as failed:
        await _break_off(send, failed, tally)
        return failed.failure
    if include_usage and stream.reply.usage_chunk is not None:
        await _write(send, event(stream.reply.usage_chunk), tally, most_s)
    await send({"type": "http.response.body", "body": DONE, "more_body": False})
    return None


async def _write(send: Send, body: bytes, tally: Tally, most_s: float) -> None:
    """Send a piece; raises ClientLeft when the client takes nothing for WRITE_IDLE_S, or the request's time is up."""
    try:
        async with asyncio.timeout(min(WRITE_IDLE_S, most_s - (time.monotonic() - tally.started))):
            await send({"type": "http.response.body", "body": body, "more_body": True})
    except TimeoutError:
        raise ClientLeft from None


async def _next(rest: AsyncIterator[bytes], tally: Tally, most_s: float) -> bytes | None:
    """The next chunk, or None at the end; raises UpstreamFailed when the stream breaks or the time is up."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(most_s - (started - tally.started)):
            return await anext(rest)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        raise UpstreamFailed(
            timed_out(tally.provider or "", tally.model or "", time.monotonic() - tally.started)
        ) from None
    finally:
        tally.upstream_s += time.monotonic() - started


async def _break_off(send: Send, failed: UpstreamFailed, tally: Tally) -> None:
    """Tell the client in the stream that it broke; both OpenAI SDKs raise on this event."""
    problem = problem_of(failed.failure, [failed.failure])
    tally.outcome, tally.fault, tally.code = Outcome.CUT, problem.fault.value, problem.code
    body = event(orjson.dumps({"error": problem.error_object()}))
    await send({"type": "http.response.body", "body": body, "more_body": False})
