"""From LiteLLM's objects to OpenAI's wire shape, for the wires that LiteLLM translates: no trace of it is left.

Required fields are present (`refusal` and `logprobs` are, as null), the library's own are gone.
"""

import json
from collections.abc import Mapping
from typing import Final

import orjson

from gateway.events import TokenUsage

LIBRARY_FIELDS: Final = frozenset({"provider_specific_fields", "_hidden_params"})
ANSWER_FIELDS: Final = ("id", "object", "created", "model", "service_tier")
MOST_TOKENS: Final = 10**9  # of one call: a greater number is no count, and sums would not bear many
Json = dict[str, object]


def completion(dumped: Mapping[str, object]) -> Json:
    """A plain answer from the dump of LiteLLM's ModelResponse."""
    body = _head(dumped, "chat.completion")
    body["choices"] = [_choice(choice) for choice in _objects(dumped.get("choices"))]
    if isinstance(dumped.get("usage"), Mapping):
        body["usage"] = usage_object(dumped["usage"])
    return body


def chunk(dumped: Mapping[str, object]) -> Json:
    """One stream chunk, without usage, from the dump of LiteLLM's ModelResponseStream."""
    body = _head(dumped, "chat.completion.chunk")
    body["choices"] = [_chunk_choice(choice) for choice in _objects(dumped.get("choices"))]
    return body


def usage_object(usage: object) -> Json:
    """OpenAI's `usage`: three required counts, and the details that are known."""
    source = usage if isinstance(usage, Mapping) else {}
    counts: Json = {name: _count(source.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    for name in ("prompt_tokens_details", "completion_tokens_details"):
        details = source.get(name)
        known = _known(details) if isinstance(details, Mapping) else {}
        if known:
            counts[name] = known
    return counts


def token_usage(usage: object, service_tier: object = None) -> TokenUsage | None:
    """The counts that cost is reckoned from; None when there are none, or no call could have used so many.
    `service_tier` is what the answer says of it."""
    if not isinstance(usage, Mapping) or usage.get("prompt_tokens") is None:
        return None
    if any(_is_absurd(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")):
        return None
    written = _count(usage.get("cache_creation_input_tokens"))
    return TokenUsage(
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
        cached_input_tokens=_detail(usage, "prompt_tokens_details", "cached_tokens"),
        reasoning_tokens=_detail(usage, "completion_tokens_details", "reasoning_tokens"),
        cache_write_tokens=_detail(usage, "prompt_tokens_details", "cache_write_tokens") or written,
        cache_write_1h_tokens=_stored_for_an_hour(usage),
        audio_input_tokens=_detail(usage, "prompt_tokens_details", "audio_tokens"),
        audio_output_tokens=_detail(usage, "completion_tokens_details", "audio_tokens"),
        service_tier=service_tier if isinstance(service_tier, str) else None,
    )


def _stored_for_an_hour(usage: Mapping[str, object]) -> int:
    """As LiteLLM passes on what Anthropic says of the lifetimes of its cache."""
    details = usage.get("prompt_tokens_details")
    stored = details.get("cache_creation_token_details") if isinstance(details, Mapping) else None
    return _count(stored.get("ephemeral_1h_input_tokens")) if isinstance(stored, Mapping) else 0


def encode(value: object) -> bytes:
    """JSON text of what was read with `seen.parse`; half emojis and Infinity go out as they came in."""
    try:
        return orjson.dumps(value)
    except (TypeError, orjson.JSONEncodeError):
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def _head(dumped: Mapping[str, object], kind: str) -> Json:
    return _known({name: dumped.get(name) for name in ANSWER_FIELDS}) | {"object": kind}


def _choice(choice: Mapping[str, object]) -> Json:
    message = choice.get("message")
    source = message if isinstance(message, Mapping) else {}
    shaped = {"role": "assistant", "content": source.get("content")} | _known(source)
    shaped.setdefault("refusal", None)
    calls = shaped.get("tool_calls")
    if isinstance(calls, list):
        shaped["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in _objects(calls)]
    return _outer(choice, "message", shaped)


def _chunk_choice(choice: Mapping[str, object]) -> Json:
    delta = choice.get("delta")
    shaped = _known(delta if isinstance(delta, Mapping) else {})
    calls = shaped.get("tool_calls")
    if isinstance(calls, list):
        shaped["tool_calls"] = [_tool_call_delta(call) for call in _objects(calls)]
    return _outer(choice, "delta", shaped)


def _outer(choice: Mapping[str, object], name: str, inner: Json) -> Json:
    return {
        "index": choice.get("index", 0),
        name: inner,
        "logprobs": choice.get("logprobs"),
        "finish_reason": choice.get("finish_reason"),
    }


def _tool_call_delta(call: Mapping[str, object]) -> Json:
    """`id`, `type` and the function's name stand in the first piece only; the rest are fragments of arguments."""
    shaped = _known(call)
    function = shaped.get("function")
    if isinstance(function, Mapping):
        shaped["function"] = _known(function)
    return shaped


def _known(source: Mapping[str, object]) -> Json:
    return {
        key: value for key, value in source.items() if value is not None and value != [] and key not in LIBRARY_FIELDS
    }


def _objects(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value <= MOST_TOKENS else 0


def _is_absurd(value: object) -> bool:
    return isinstance(value, int) and value > MOST_TOKENS


def _detail(usage: Mapping[str, object], group: str, name: str) -> int:
    details = usage.get(group)
    return _count(details.get(name)) if isinstance(details, Mapping) else 0
