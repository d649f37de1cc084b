"""From LiteLLM's objects to OpenAI's wire shape, for the wires that LiteLLM translates: no trace of it is left.

Required fields are present (`refusal` and `logprobs` are, as null), the library's own are gone.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeGuard

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
    """The counts that cost is reckoned from; None where input or output is not counted, or no call could have used so
    many. `service_tier` is what the answer says of it."""
    if not isinstance(usage, Mapping):
        return None
    read, wrote = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (is_count(read) and is_count(wrote)):
        return None
    reasoned = _detail(usage, "completion_tokens_details", "reasoning_tokens")
    return TokenUsage(
        input_tokens=read,
        output_tokens=wrote + _beside(reasoned, read + wrote, usage.get("total_tokens")),
        cached_input_tokens=next(_counts(usage, _CACHED), 0),
        reasoning_tokens=reasoned,
        cache_write_tokens=max(_counts(usage, _STORED), default=0),
        cache_write_1h_tokens=_stored_for_an_hour(usage),
        audio_input_tokens=_detail(usage, "prompt_tokens_details", "audio_tokens"),
        audio_output_tokens=_detail(usage, "completion_tokens_details", "audio_tokens"),
        service_tier=service_tier if isinstance(service_tier, str) else None,
    )


def embedding_usage(usage: object, service_tier: object = None) -> TokenUsage | None:
    """As `token_usage`, of what writes nothing: there, most providers count no output."""
    return token_usage({**usage, "completion_tokens": 0}, service_tier) if isinstance(usage, Mapping) else None


def is_count(value: object) -> TypeGuard[int]:
    """Whether it is a number of tokens that a call can have. Anything else is no count, and never a count of 0."""
    return type(value) is int and 0 <= value <= MOST_TOKENS


def _beside(reasoned: int, counted: int, total: object) -> int:
    """Reasoning that is not inside the completion: xAI counts it beside it, in the total alone, and charges it as
    output (docs.x.ai, "Consumption and Rate Limits"; 10120 + 1499 + 2809 = 14428). The total tells which it is."""
    return reasoned if total == counted + reasoned else 0


# Where providers say it; of what was read from a cache the first counts. All are inside `prompt_tokens`.
_DETAILS: Final = "prompt_tokens_details"
_CACHED: Final[tuple[tuple[str, ...], ...]] = (
    (_DETAILS, "cached_tokens"),
    ("prompt_token_details", "cached_tokens"),  # Mistral's API reference, UsageInfo: both spellings, and the one below
    ("cached_tokens",),  # Moonshot, without any details (promptfoo pull 10132, seen on api.moonshot.ai)
    ("prompt_cache_hit_tokens",),  # DeepSeek: prompt is hits and misses (api-docs.deepseek.com, Create Chat Completion)
    ("num_cached_tokens",),
)
_STORED: Final[tuple[tuple[str, ...], ...]] = (
    (_DETAILS, "cache_write_tokens"),
    (_DETAILS, "cache_creation_input_tokens"),  # DashScope (LiteLLM issue 40090), which charges it at 125 %
    ("cache_creation_input_tokens",),
)


def _counts(usage: Mapping[str, object], places: Iterable[tuple[str, ...]]) -> Iterator[int]:
    """What stands in these places, where it is a count."""
    for *outer, name in places:
        held = usage.get(outer[0]) if outer else usage
        if isinstance(held, Mapping) and is_count(count := held.get(name)):
            yield count


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
    return value if is_count(value) else 0


def _detail(usage: Mapping[str, object], group: str, name: str) -> int:
    details = usage.get(group)
    return _count(details.get(name)) if isinstance(details, Mapping) else 0
