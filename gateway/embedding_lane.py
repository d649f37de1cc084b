"""Embeddings from providers on another wire: one request, said and read by gateway.embedding_wires.

Owns the call: the key's handle, the deadline, the errors by the one table. Must not know any wire.
"""

import asyncio
from typing import Final

import httpx

from gateway import openai_shape
from gateway.attempt_costs import watch
from gateway.embedding_wires import EmbeddingWire, NotEmbeddings, answered, said, wire_of
from gateway.seen import parse
from gateway.streams import check_error
from gateway.transport import HANDLE, Exchange, Transport
from gateway.upstream import PlainReply, UpstreamCall, UpstreamFailed
from gateway.upstream_errors import failure, failure_of
from router.failure import FailureKind

ON_LOOP_BYTES: Final = 128 * 1024  # a larger answer is told in a thread, so that nobody else waits for it


class EmbeddingLane:
    """`answer_timeout_s`: seconds until the answer must be there."""

    def __init__(self, transport: Transport, *, answer_timeout_s: float) -> None:
        self._transport = transport
        self._timeout_s = answer_timeout_s

    async def complete(self, call: UpstreamCall) -> PlainReply:
        """The vectors of one request; raises UpstreamFailed."""
        wire = wire_of(call.provider)
        assert wire is not None  # noqa: S101 - gateway.carrying lets no other candidate through
        exchange = self._transport.begin(call.credential, call.provider, idle_s=self._timeout_s)
        watch(call, exchange)
        try:
            await self._ask(_request(wire, call), exchange)
        except httpx.HTTPError as error:
            raise UpstreamFailed(failure_of(call, exchange, exchange.fail(error))) from None
        if exchange.status != 200:
            raise UpstreamFailed(failure_of(call, exchange, None))
        check_error(call, exchange)
        if len(exchange.body) <= ON_LOOP_BYTES:
            return _reply(wire, call, exchange)
        return await asyncio.to_thread(_reply, wire, call, exchange)

    async def _ask(self, request: httpx.Request, exchange: Exchange) -> None:
        """Send it and read the whole answer into the exchange."""
        response = await self._transport.send(request, exchange)
        try:
            await response.aread()
        finally:
            await asyncio.shield(response.aclose())


def _request(wire: EmbeddingWire, call: UpstreamCall) -> httpx.Request:
    """With the handle where the transport puts the key."""
    body = said(wire, call.model, call.request.asked, call.request.dropped)
    headers = {"authorization": HANDLE, "accept": "application/json", "content-type": "application/json"}
    return httpx.Request(
        "POST", wire.url(call.provider.base_url, call.model), headers=headers, content=openai_shape.encode(body)
    )


def _reply(wire: EmbeddingWire, call: UpstreamCall, exchange: Exchange) -> PlainReply:
    document = parse(bytes(exchange.body))
    try:
        body = answered(wire, document if isinstance(document, dict) else {}, call.model, call.request.asked)
    except NotEmbeddings as error:
        raise UpstreamFailed(failure(call, FailureKind.MALFORMED, str(error), status=exchange.status)) from None
    return PlainReply(openai_shape.encode(body), openai_shape.embedding_usage(body.get("usage")), exchange.request_id)
