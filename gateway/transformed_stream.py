"""A stream that LiteLLM's classes translate, event by event, in the shape that LiteLLM's own wrapper gives it.

Owns the order: the role in the first piece alone, no empty pieces, the end after all of them, then usage. Each item has
`model_dump()`, because that is what gateway.streams reads of LiteLLM's items. Must not judge how a stream ended.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import httpx

from gateway.seen import DONE, parse
from gateway.sse import Event, EventReader

Json = dict[str, Any]
# Merges LiteLLM's Usage objects, the last of a number first; `reasoning` is put where the provider counted none.
Total = Callable[[Sequence[Any], int | None], Any]
MOST_USAGES: Final = 100  # kept apart
SAYS: Final = ("reasoning_content", "provider_specific_fields", "annotations", "function_call", "audio", "images")


class Item:
    """One piece, as gateway.streams takes it."""

    __slots__ = ("_dump",)

    def __init__(self, dump: Json) -> None:
        self._dump = dump

    def model_dump(self) -> Json:
        return self._dump


class Reader(Protocol):
    """Translates the events of one answer; not to be used for another."""

    def read(self, event: Event) -> Json | None:
        """The dump of the event's translation as LiteLLM's ModelResponseStream; None when it has none."""

    def usage(self, reasoning: int | None) -> Json | None:
        """What the provider counted so far; `reasoning` stands for reasoning tokens that it did not count."""


class TransformedStream:
    """The items of one answer. Raises what reading and translating raise; judging that is not its own."""

    def __init__(self, response: httpx.Response, reader: Reader, model: str) -> None:
        self._response = response
        self._pieces = response.aiter_raw()
        self._events = EventReader()
        self._reader = reader
        self._model = model
        self._ready: deque[Item] = deque()
        self._over = False
        self._head: Json = {}  # id, created and model of the pieces so far
        self._created: int | None = None
        self._started = False  # a piece was given, with the role
        self._broken: Exception | None = None
        self._ended = False  # so was the end
        self._reason: str | None = None
        self._text_alone = True

    def __aiter__(self) -> "TransformedStream":
        return self

    async def __anext__(self) -> Item:
        while not self._ready:
            if self._broken is not None:
                raise self._broken
            if self._over:
                raise StopAsyncIteration
            await self._more()
        return self._ready.popleft()

    async def _more(self) -> None:
        piece = await anext(self._pieces, None)
        if piece is None:
            self._over = True
            self._close()
            return
        try:
            for event in self._events.feed(piece):
                if event.data.strip() != DONE and (dump := self._reader.read(event)) is not None:
                    self._take(dump)
        except Exception as error:  # noqa: BLE001 - LiteLLM's readers raise anything; what came before is told first
            self._broken = error

    def _take(self, dump: Json) -> None:
        self._head_of(dump)
        choices = dump["choices"]
        if not choices:
            return
        first = choices[0]
        self._reason = first["finish_reason"] or self._reason
        for choice in choices:
            choice["finish_reason"] = None
            if choice.get("logprobs"):
                _fill_in_bytes(choice["logprobs"])
        self._text_alone = self._text_alone and not any(first["delta"].get(name) for name in ("tool_calls", *SAYS))
        if self._says(first["delta"]):
            first["delta"].pop("role", None)
            if not self._started:
                first["delta"]["role"] = "assistant"
            self._started = True
            self._ready.append(Item({**dump, **self._head, "usage": None}))

    def _head_of(self, dump: Json) -> None:
        if self._created is None:
            self._created = dump["created"]
        self._head = {**self._head, "id": dump["id"], "created": self._created, "model": self._model}
        if dump.get("service_tier"):
            self._head["service_tier"] = dump["service_tier"]

    def _says(self, delta: Json) -> bool:
        if delta.get("content") or delta.get("tool_calls"):
            return True
        if not self._started and delta.get("role") is not None:
            return True
        return any(delta.get(name) is not None for name in SAYS)

    def _close(self) -> None:
        """The end of the first choice, then usage; a stream that said nothing has no head and neither of them."""
        if self._head:
            end = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": self._reason or "stop"}
            self._ready.append(Item({**self._head, "service_tier": None, "choices": [end], "usage": None}))
            # As LiteLLM does: text alone means that nothing was reasoned, where the provider does not say.
            usage = self._reader.usage(0 if self._text_alone else None)
            self._ready.append(Item({**self._head, "choices": [], "usage": usage}))

    async def aclose(self) -> None:
        """Close the upstream, also while being cancelled; may be called again."""
        await asyncio.shield(self._response.aclose())


def _fill_in_bytes(logprobs: Json) -> None:
    """OpenAI's shape has `bytes` beside every token, though it be null."""
    for token in logprobs.get("content") or []:
        token.setdefault("bytes", None)
        for other in token.get("top_logprobs") or []:
            other.setdefault("bytes", None)


class ChunkReader:
    """For classes whose parser gives a ModelResponseStream for the JSON of an event."""

    def __init__(self, chunk_parser: Callable[[Any], Any], total: Total) -> None:
        self._parse = chunk_parser
        self._total = total
        self._usages: list[Any] = []

    def read(self, event: Event) -> Json | None:
        chunk = self.chunk(parse(event.data))
        if chunk is None:
            return None
        self._note(chunk)
        dump: Json = chunk.model_dump()
        return dump

    def chunk(self, document: Any) -> Any:
        """LiteLLM's ModelResponseStream for the JSON of an event, or None."""
        return self._parse(document)

    def _note(self, chunk: Any) -> None:
        if chunk.usage is not None:
            self._usages.append(chunk.usage)
            if len(self._usages) > MOST_USAGES:
                self._usages = [self._total(self._usages, None)]

    def usage(self, reasoning: int | None) -> Json | None:
        return self._total(self._usages, reasoning).model_dump() if self._usages else None


class CountingReader(ChunkReader):
    """For a wire that tells the usage so far with every piece: LiteLLM's classes read it once, at the end. That costs a
    third of what a piece costs. The first is read for what else comes of it, and one beside sources, which are counted
    with it."""

    def __init__(self, chunk_parser: Callable[[Any], Any], total: Total) -> None:
        super().__init__(chunk_parser, total)
        self._counted: Json = {}

    def chunk(self, document: Any) -> Any:
        counted = document.get("usageMetadata") if isinstance(document, dict) else None
        if isinstance(counted, dict):
            if self._counted and not _has_sources(document):
                document = {name: value for name, value in document.items() if name != "usageMetadata"}
            self._counted = {**self._counted, **counted}
        return super().chunk(document)

    def usage(self, reasoning: int | None) -> Json | None:
        if self._counted:
            self._note(super().chunk({"usageMetadata": self._counted}))
        return super().usage(reasoning)


def _has_sources(document: Json) -> bool:
    candidates = document.get("candidates")
    return isinstance(candidates, list) and any("groundingMetadata" in one for one in candidates)


class GenericReader:
    """For classes whose parser gives LiteLLM's GenericStreamingChunk, a dict without id and date: `head` has those of
    the stream. The parser gets the event's name and the JSON again where it looks for them; `note` gets every JSON."""

    def __init__(self, chunk_parser: Callable[[Any], Any], head: Json, note: Callable[[Json], None]) -> None:
        self._parse = chunk_parser
        self._note = note
        self._head = head
        self._usage: Json | None = None

    def read(self, event: Event) -> Json | None:
        document = parse(event.data)
        if not isinstance(document, dict):
            return None
        self._note(document)
        chunk = self._parse({**document, "event": event.name or document.get("type"), "data": document})
        self._usage = chunk["usage"] or self._usage
        delta: Json = {"content": chunk["text"], "provider_specific_fields": chunk["provider_specific_fields"]}
        if chunk["tool_use"] is not None:
            delta["tool_calls"] = [{"index": 0, **chunk["tool_use"]}]
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": chunk["finish_reason"] or None}
        return {**self._head, "choices": [choice]}

    def usage(self, reasoning: int | None) -> Json | None:
        return self._usage
