"""The pass-through lane: a provider that speaks the caller's own wire gets the caller's bytes, and its bytes come back.

Of the body only `model` and what the gateway itself reads are changed, and what the provider's row renames; nothing
nested is written again. Of the headers nothing is passed on but the surface's own.
"""

from collections.abc import Mapping
from typing import Final

import httpx
import orjson

from gateway.attempt_costs import watch
from gateway.fields import NULL, Fields, Raw, write_fields
from gateway.outbound.answer import Answer
from gateway.seen import parse, skim
from gateway.streams import ForwardedStream, check_error
from gateway.transport import KEPT_ERROR_BODY, MAX_ANSWER, AnswerRefused, Exchange, Transport
from gateway.upstream import PlainReply, StreamReply, UpstreamCall, UpstreamFailed
from gateway.upstream_errors import failure, failure_of
from router.failure import FailureKind

# Read here and meant for nobody else.
OURS: Final = frozenset({"models", "provider", "wardgate", "usage"})
STREAM_OPTIONS: Final = "stream_options"


class PassThroughLane:
    """Times in seconds: `answer_timeout_s` until a plain answer is there, `idle_timeout_s` between two pieces."""

    def __init__(self, transport: Transport, *, answer_timeout_s: float, idle_timeout_s: float) -> None:
        self._transport = transport
        self._timeout_s = answer_timeout_s
        self._idle_s = idle_timeout_s

    async def complete(self, call: UpstreamCall) -> PlainReply:
        """One plain answer; raises UpstreamFailed."""
        exchange = self._transport.begin(call.credential, call.provider, idle_s=self._timeout_s)
        watch(call, exchange)
        try:
            answer = await self._post(call, exchange)
            await _read(answer, exchange)
        except httpx.HTTPError as error:
            raise UpstreamFailed(failure_of(call, exchange, exchange.fail(error))) from None
        if exchange.status != 200:
            raise UpstreamFailed(failure_of(call, exchange, None))
        return _reply(call, exchange)

    async def stream(self, call: UpstreamCall) -> StreamReply:
        """A stream that was opened (its status was a success); raises UpstreamFailed."""
        exchange = self._transport.begin(call.credential, call.provider, idle_s=self._idle_s, stream=True)
        watch(call, exchange)
        try:
            answer = await self._post(call, exchange)
            if not exchange.streams:
                await _read(answer, exchange)
        except httpx.HTTPError as error:
            raise UpstreamFailed(failure_of(call, exchange, exchange.fail(error))) from None
        if exchange.status != 200:
            raise UpstreamFailed(failure_of(call, exchange, None))
        if not exchange.streams:
            document = parse(bytes(exchange.body))
            exchange.seen.note(document if isinstance(document, dict) else {})
            check_error(call, exchange)
        reader = call.request.surface.reader(exchange.seen, call.request.include_usage)
        return ForwardedStream(call, exchange, reader, answer, answer.aclose, answer.leave)

    async def _post(self, call: UpstreamCall, exchange: Exchange) -> Answer:
        request = call.request
        body = upstream_body(request.fields, call)
        first_byte_s = self._idle_s if request.stream else self._timeout_s
        path = request.surface.path.encode() + request.query
        return await self._transport.post(exchange, path, request.headers, body, first_byte_s)


def upstream_body(fields: Fields, call: UpstreamCall) -> list[bytes | memoryview]:
    """The caller's fields with the provider's name for the model, under the names that the row's quirks give them,
    without those that were dropped."""
    request, quirks = call.request, call.provider.quirks
    sent: dict[str, Raw | bytes] = {}
    for name, value in fields.items():
        if name not in OURS and name not in request.dropped and name != STREAM_OPTIONS:
            told = quirks.get(name, name) if quirks else name
            if told not in sent or bytes(value) != NULL:  # `null` beside it must not take a limit away
                sent[told] = value
    sent["model"] = orjson.dumps(call.model)
    if request.stream and request.surface.asks_usage:
        sent[STREAM_OPTIONS] = _stream_options(fields.get(STREAM_OPTIONS))
    elif STREAM_OPTIONS in fields:
        sent[STREAM_OPTIONS] = fields[STREAM_OPTIONS]
    return write_fields(sent)


def _stream_options(own: Raw | None) -> bytes:
    """The caller's options, and usage in any case: it is what the request is charged by."""
    options = parse(bytes(own)) if own is not None and bytes(own) != NULL else None
    return orjson.dumps({**(options if isinstance(options, Mapping) else {}), "include_usage": True})


async def _read(answer: Answer, exchange: Exchange) -> None:
    """The whole body into the exchange; of an error's, what is needed to understand it."""
    most = MAX_ANSWER if exchange.status == 200 else KEPT_ERROR_BODY
    body = exchange.body
    try:
        async for piece in answer:
            if len(body) + len(piece) > most:
                if exchange.status != 200:
                    break
                raise AnswerRefused(f"the answer is larger than {MAX_ANSWER} bytes")
            body += piece
    finally:
        answer.aclose()
    exchange.whole = True


def _reply(call: UpstreamCall, exchange: Exchange) -> PlainReply:
    raw, surface = bytes(exchange.body), call.request.surface
    said_again = call.request.raw is None  # on another surface, whose translation reads all of it
    document = parse(raw) if said_again else skim(raw)
    if isinstance(document, dict):
        exchange.seen.note(document)
        check_error(call, exchange)
    if not isinstance(document, dict) or not surface.answered(document):
        text = "the provider's answer is not one of this kind"
        raise UpstreamFailed(failure(call, FailureKind.MALFORMED, text, status=exchange.status))
    return PlainReply(raw, surface.usage_of(exchange.seen.usage, exchange.seen.service_tier), exchange.request_id)
