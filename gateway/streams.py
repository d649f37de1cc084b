"""Streams on their way to the caller: the provider's own events as they came, or what LiteLLM makes of another wire.

Both judge the end by what was on the wire (`Exchange.seen`), not by what a library made of it.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

import httpx

from gateway import openai_shape
from gateway.chat_reader import error_event
from gateway.errors import Problem
from gateway.events import TokenUsage
from gateway.finish_reasons import finish_reason
from gateway.sse import MAX_EVENT
from gateway.stream_reader import StreamReader
from gateway.transport import Exchange
from gateway.upstream import UpstreamCall, UpstreamFailed
from gateway.upstream_errors import failure, failure_of
from router.failure import FailureKind

DONE_EVENT = b"data: [DONE]\n\n"


def event(payload: bytes) -> bytes:
    """One server-sent event: JSON on a single `data:` line."""
    return b"data: " + payload.replace(b"\n", b" ") + b"\n\n"


class ForwardedStream:
    """The provider's own events, byte for byte. `usage_of` reads the counts of its wire."""

    def __init__(
        self,
        call: UpstreamCall,
        exchange: Exchange,
        reader: StreamReader,
        pieces: AsyncIterator[bytes],
        close: Callable[[], None],
        leave: Callable[[], None] | None = None,
    ) -> None:
        self._call = call
        self._exchange = exchange
        self._reader = reader
        self._pieces = pieces
        self._close = close
        self._leave = leave

    @property
    def usage(self) -> TokenUsage | None:
        seen = self._exchange.seen
        return self._call.request.surface.usage_of(seen.usage, seen.service_tier)

    @property
    def produced(self) -> int:
        return self._exchange.seen.produced

    @property
    def reasoned(self) -> bool:
        return self._exchange.seen.reasoned

    @property
    def request_id(self) -> str | None:
        return self._exchange.request_id

    def broke(self, problem: Problem) -> bytes:
        return self._reader.broke(problem)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        reader, held, size = self._reader, list[bytes](), 0
        try:
            async for piece in self._pieces:
                out = reader.feed(piece)
                if held or not reader.started:
                    held.append(out)
                    size += len(out)
                    self._exchange.seen.malformed |= size > MAX_EVENT  # comments without an end
                    out = b"".join(held) if reader.started else b""
                if out:
                    yield out
                    held.clear()
                if reader.over:
                    break
        except httpx.HTTPError as error:
            self._exchange.fail(error)
        else:
            held.append(self._rest())
        check_end(self._call, self._exchange)
        if not reader.started:
            text = "the provider's stream held nothing but its end"
            raise UpstreamFailed(failure(self._call, FailureKind.TRUNCATED, text, status=self._exchange.status))
        if rest := b"".join(held):
            yield rest

    def _rest(self) -> bytes:
        """What of the last event, which has no end, goes out; whoever read along below did not see it whole."""
        rest, seen, own = self._reader.rest(), self._exchange.seen, self._reader.seen
        seen.malformed |= own.malformed
        seen.ended |= own.ended
        seen.error, seen.usage = seen.error or own.error, seen.usage or own.usage
        return rest

    async def aclose(self) -> None:
        """Close the upstream; may be called again. A stream whose end mark has come is left to end by itself."""
        seen = self._exchange.seen
        if self._leave is not None and seen.ended and seen.error is None and not seen.malformed:
            self._leave()
        else:
            self._close()


class TranslatedStream:
    """LiteLLM's translation of another wire, watched: what it invents or leaves out at the end does not pass."""

    def __init__(self, call: UpstreamCall, exchange: Exchange, wrapper: Any) -> None:
        self._call = call
        self._exchange = exchange
        self._wrapper = wrapper
        self._closed = False
        self._told: set[object] = set()
        self._usage_chunk: bytes | None = None
        self.usage: TokenUsage | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        iterator, last = self._wrapper.__aiter__(), None
        while True:
            try:
                item = await anext(iterator)
                last = item.model_dump()
                self._note_usage(last)
                shown = self._shown(last)
            except StopAsyncIteration:
                break
            except Exception as error:  # noqa: BLE001 - LiteLLM raises anything; failure_of reads what was on the wire
                check_error(self._call, self._exchange)
                raise UpstreamFailed(failure_of(self._call, self._exchange, error)) from None
            check_error(self._call, self._exchange)
            if shown is not None:
                yield self._chunk(shown)
        check_end(self._call, self._exchange)
        yield self._end(last)

    def _chunk(self, shown: dict[str, object]) -> bytes:
        """As OpenAI tells it: with `usage` null where usage is to come."""
        return event(openai_shape.encode({**shown, "usage": None} if self._call.request.include_usage else shown))

    def _end(self, last: Mapping[str, object] | None) -> bytes:
        """What is left to say: ends that LiteLLM swallowed, the usage if the caller wants it, the end mark."""
        ends = None if last is None else self._untold_ends(last)
        said = b"" if ends is None else self._chunk(ends)
        if self._call.request.include_usage and self._usage_chunk is not None:
            said += event(self._usage_chunk)
        return said + DONE_EVENT

    @property
    def produced(self) -> int:
        return self._exchange.seen.produced

    @property
    def reasoned(self) -> bool:
        return self._exchange.seen.reasoned

    @property
    def request_id(self) -> str | None:
        return self._exchange.request_id

    def broke(self, problem: Problem) -> bytes:
        return error_event(problem)

    def _shown(self, dumped: Mapping[str, object]) -> dict[str, object] | None:
        """The chunk with the provider's own finish reason; None when it says nothing, or ends what has not ended."""
        chunk = openai_shape.chunk(dumped)
        choices = chunk["choices"]
        assert isinstance(choices, list)  # noqa: S101 - openai_shape.chunk made it
        for choice in choices:
            if choice["finish_reason"] is not None:
                choice["finish_reason"] = self._reason(choice)
            if choice["finish_reason"] is not None:
                self._told.add(choice["index"])
        says = [choice for choice in choices if choice["delta"] or choice["finish_reason"] is not None]
        return chunk if says else None

    def _untold_ends(self, dumped: Mapping[str, object]) -> dict[str, object] | None:
        """A last chunk for the choices whose end LiteLLM swallowed: it tells the first choice's alone."""
        untold = [index for index in sorted(self._exchange.seen.finish) if index not in self._told]
        if not untold:
            return None
        told = [(index, told_reason(self._exchange.seen.finish[index], "", self._call)) for index in untold]
        choices: list[object] = [
            {"index": index, "delta": {}, "logprobs": None, "finish_reason": reason} for index, reason in told
        ]
        return openai_shape.chunk({**dumped, "choices": []}) | {"choices": choices}

    def _reason(self, choice: Mapping[str, Any]) -> str | None:
        seen = self._exchange.seen.finish.get(choice["index"])
        return None if seen is None else told_reason(seen, choice["finish_reason"], self._call)

    def _note_usage(self, dumped: Mapping[str, object]) -> None:
        usage = dumped.get("usage")
        if usage is not None and self._exchange.seen.usage:
            self.usage = openai_shape.token_usage(usage, self._exchange.seen.service_tier)
            head = openai_shape.chunk({**dumped, "choices": []})
            self._usage_chunk = openai_shape.encode(head | {"usage": openai_shape.usage_object(usage)})

    async def aclose(self) -> None:
        """Close the upstream; may be called again."""
        if not self._closed:
            self._closed = True
            self._exchange.hang_up()  # not every wrapper of LiteLLM's closes what it reads from
            with suppress(httpx.HTTPError):
                await self._wrapper.aclose()


def told_reason(provider_word: str, library_word: str, call: UpstreamCall) -> str:
    """The finish reason for the caller: the provider's own, through the table; tool calls are LiteLLM's finding, since
    some wires end an answer that calls tools with a plain stop."""
    told = finish_reason(provider_word, call.provider.litellm_prefix)
    return "tool_calls" if told == "stop" and library_word == "tool_calls" else told


def check_error(call: UpstreamCall, exchange: Exchange) -> None:
    """Raise UpstreamFailed when the provider sent an error inside its successful answer, or one JSON answer where a
    stream was asked for."""
    if exchange.seen.error is not None or exchange.seen.blocked is not None:
        raise UpstreamFailed(failure_of(call, exchange, None))
    if call.request.stream and exchange.status == 200 and not exchange.streams:
        text = "it sent one JSON answer where a stream was asked for"
        raise UpstreamFailed(failure(call, FailureKind.MALFORMED, text, status=exchange.status))


def check_end(call: UpstreamCall, exchange: Exchange) -> None:
    """Raise UpstreamFailed when the stream is over and the provider did not bring it to its end."""
    check_error(call, exchange)
    wanted = call.request.parameters.get("n", 1)
    if exchange.error is not None or exchange.seen.malformed:
        raise UpstreamFailed(failure_of(call, exchange, exchange.error))
    if not exchange.seen.complete(wanted if isinstance(wanted, int) else 1):
        text = "the provider's stream ended without its end"
        raise UpstreamFailed(failure(call, FailureKind.TRUNCATED, text, status=exchange.status))
