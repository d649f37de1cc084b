"""Sends a stream to the client as it comes.

After the first byte no other model may speak. A stream that breaks says so in the stream and ends in no end mark. While
the provider is silent, comments keep the connection open.
"""

import asyncio
import time
from dataclasses import replace
from typing import Final

from gateway.asgi import Send, encode_headers
from gateway.attempts import OpenStream
from gateway.errors import ApiError
from gateway.events import Outcome
from gateway.failures import problem_of, timed_out
from gateway.tally import Tally
from gateway.upstream import UpstreamFailed
from router.failure import Failure, FailureKind
from router.query import KeySource

STREAM_HEADERS: Final = encode_headers(
    {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-accel-buffering": "no",
    }
)
KEEP_ALIVE_S: Final = 15.0  # a silence after which a comment is sent


async def relay_stream(
    send: Send,
    stream: OpenStream,
    tally: Tally,
    *,
    most_s: float,
    keep_alive: bytes,
    keep_alive_s: float = KEEP_ALIVE_S,
) -> Failure | None:
    """Send a begun stream to its end, at most `most_s` after the request began; returns how it broke, if it did, with
    the outcome in `tally`. `keep_alive` is the surface's empty word."""
    await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
    tally.first_token_s = time.monotonic() - tally.started
    silence = _Silence(send, keep_alive, keep_alive_s)
    try:
        async with asyncio.timeout(most_s - tally.first_token_s):
            await _pieces(send, stream, tally, silence)
    except UpstreamFailed as failed:
        failure = failed.failure
    except ApiError as error:  # what the provider sent cannot be said on the caller's wire
        provider, model = tally.provider or "", tally.model or ""
        failure = Failure(FailureKind.MALFORMED, provider, model, 200, message=error.problem.message)
    except TimeoutError:
        failure = timed_out(tally.provider or "", tally.model or "", time.monotonic() - tally.started)
    else:
        silence.end()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return None
    finally:
        silence.end()
    failure = replace(failure, lent=tally.key_source == KeySource.MANAGED.value)
    problem = problem_of(failure, [failure])
    tally.outcome, tally.fault, tally.code = Outcome.CUT, problem.fault.value, problem.code
    tally.broke = failure.kind.value
    await send({"type": "http.response.body", "body": stream.reply.broke(problem), "more_body": False})
    return failure


async def _pieces(send: Send, stream: OpenStream, tally: Tally, silence: "_Silence") -> None:
    """Each piece in one write; time is counted as the provider's while it is waited for."""
    await send({"type": "http.response.body", "body": stream.first, "more_body": True})
    since = silence.last = time.monotonic()
    async for piece in stream.rest:
        now = time.monotonic()
        tally.upstream_s += now - since
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        since = silence.last = time.monotonic()
    tally.upstream_s += time.monotonic() - since


class _Silence:
    """Sends a comment whenever nothing was sent for a while: one timer for a stream, whatever passes through it. Pieces
    are whole events, so that a comment never stands inside one."""

    def __init__(self, send: Send, comment: bytes, after_s: float) -> None:
        self.last = time.monotonic()
        self._send = send
        self._comment = comment
        self._after_s = after_s
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(after_s, self._look)
        self._saying: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Nothing is said any more, nor is a comment for which the client has had no room yet."""
        self._timer.cancel()
        if self._saying is not None:
            self._saying.cancel()

    def _look(self) -> None:
        left = self.last + self._after_s - time.monotonic()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        if self._saying is None or self._saying.done():
            message = {"type": "http.response.body", "body": self._comment, "more_body": True}
            self._saying = self._loop.create_task(self._say(message))
        self.last = time.monotonic()
        self._timer = self._loop.call_later(self._after_s, self._look)

    async def _say(self, message: dict[str, object]) -> None:
        await self._send(message)
