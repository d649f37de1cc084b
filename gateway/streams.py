"""Streams on their way to the caller: one reply for providers on OpenAI's wire, one for those that LiteLLM translates.

Both yield the JSON text of one chunk after the other in OpenAI's shape, without the usage chunk, and both judge the end
by what was on the wire (`Exchange.seen`), not by what a library made of it.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Final

import httpx

from gateway import openai_shape
from gateway.events import TokenUsage
from gateway.finish_reasons import finish_reason
from gateway.seen import DONE, parse
from gateway.sse import EventReader
from gateway.transport import Exchange
from gateway.upstream import UpstreamCall, UpstreamFailed
from gateway.upstream_errors import failure, failure_of
from router.failure import FailureKind

NULL_USAGE: Final = b'"usage"'


class OpenAIStream:
    """The provider's own chunks, byte for byte, read from the response that LiteLLM opened."""

    def __init__(self, call: UpstreamCall, exchange: Exchange, response: httpx.Response) -> None:
        self._call = call
        self._exchange = exchange
        self._response = response
        self.usage: TokenUsage | None = None
        self.usage_chunk: bytes | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        reader = EventReader()
        try:
            async for piece in self._response.aiter_raw():
                for event in reader.feed(piece):
                    check_error(self._call, self._exchange)
                    if event.data.strip() != DONE and (chunk := self._shown(event.data)) is not None:
                        yield chunk
        except httpx.HTTPError as error:
            raise UpstreamFailed(failure_of(self._call, self._exchange, error)) from None
        check_end(self._call, self._exchange)

    def _shown(self, data: bytes) -> bytes | None:
        """The chunk as it came, or None when it only carries usage, which not every caller asked for."""
        if NULL_USAGE not in data:
            return data
        chunk = parse(data)
        if not isinstance(chunk, dict):
            return data
        if chunk.get("usage"):
            self.usage = openai_shape.token_usage(chunk["usage"], chunk.get("service_tier"))
            if not chunk.get("choices"):
                self.usage_chunk = data
                return None
            return data
        if "usage" not in chunk or self._call.request.include_usage:
            return data
        del chunk["usage"]  # null, because we asked for usage and the caller did not
        return openai_shape.encode(chunk)

    async def aclose(self) -> None:
        """Close the upstream; may be called again."""
        with suppress(httpx.HTTPError):
            await self._response.aclose()


class TranslatedStream:
    """LiteLLM's translation of another wire, watched: what it invents or leaves out at the end does not pass."""

    def __init__(self, call: UpstreamCall, exchange: Exchange, wrapper: Any) -> None:
        self._call = call
        self._exchange = exchange
        self._wrapper = wrapper
        self._closed = False
        self._told: set[object] = set()
        self.usage: TokenUsage | None = None
        self.usage_chunk: bytes | None = None

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
                yield openai_shape.encode(shown)
        check_end(self._call, self._exchange)
        if last is not None and (ends := self._untold_ends(last)) is not None:
            yield openai_shape.encode(ends)

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
            self.usage = openai_shape.token_usage(usage, dumped.get("service_tier"))
            head = openai_shape.chunk({**dumped, "choices": []})
            self.usage_chunk = openai_shape.encode(head | {"usage": openai_shape.usage_object(usage)})

    async def aclose(self) -> None:
        """Close the upstream; may be called again."""
        if not self._closed:
            self._closed = True
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
    if exchange.error is not None:
        raise UpstreamFailed(failure_of(call, exchange, exchange.error))
    if not exchange.seen.complete(wanted if isinstance(wanted, int) else 1):
        text = "the provider's stream ended without its end"
        raise UpstreamFailed(failure(call, FailureKind.TRUNCATED, text, status=exchange.status))
