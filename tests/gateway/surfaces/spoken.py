"""Chat completions for tests of the surfaces: chunks, and the plain answer that says the same."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import orjson

from gateway.sse import Event, EventReader

Json = dict[str, Any]
USAGE: Json = {
    "prompt_tokens": 20,
    "completion_tokens": 10,
    "total_tokens": 30,
    "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 4},
}


def chunk(delta: Mapping[str, Any] | None = None, finish: str | None = None, **choice: Any) -> Json:
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish, **choice}]
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}


def completion(message: Mapping[str, Any], finish: str | None = "stop", **choice: Any) -> Json:
    choices = [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **choice}]
    base: Json = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
    return base | {"usage": USAGE}


def call(index: int, arguments: str = "", **first: str) -> Json:
    """A piece of a tool call; `id` and `name` stand in the first."""
    function: Json = {"arguments": arguments} | ({"name": first["name"]} if "name" in first else {})
    return {"tool_calls": [{"index": index, **({"id": first["id"]} if "id" in first else {}), "function": function}]}


def read(stream: bytes) -> list[Event]:
    return EventReader().feed(stream)


def documents(stream: bytes) -> list[Json]:
    return [orjson.loads(event.data) for event in read(stream)]


def pieces(text: str, cuts: Sequence[int]) -> list[str]:
    """`text` cut at these places, taken modulo its length."""
    places = sorted({cut % (len(text) + 1) for cut in cuts} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(places)]
