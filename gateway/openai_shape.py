"""From LiteLLM's objects to OpenAI's wire shape: what a caller sees holds no trace of the library.

Required fields are present (`refusal` and `logprobs` are, as null), the library's own are gone, and what a provider
added beyond OpenAI's fields (`reasoning_content`, ...) is kept.
"""

from collections.abc import Mapping

from gateway.events import TokenUsage

LIBRARY_FIELDS = ("provider_specific_fields", "_hidden_params", "moderation", "citations")
Json = dict[str, object]


def completion(dumped: Mapping[str, object]) -> Json:
    """A plain answer from the dump of LiteLLM's ModelResponse."""
    body = _without_empty(dumped, keep=("system_fingerprint",))
    body["object"] = "chat.completion"
    body["choices"] = [_choice(choice) for choice in _objects(dumped.get("choices"))]
    if isinstance(dumped.get("usage"), Mapping):
        body["usage"] = usage_object(dumped["usage"])
    return body


def chunk(dumped: Mapping[str, object], *, with_usage: bool) -> Json:
    """One stream chunk from the dump of LiteLLM's ModelResponseStream; `usage: null` when usage was asked for."""
    body = _without_empty(dumped, keep=("system_fingerprint",))
    body.pop("usage", None)
    body["object"] = "chat.completion.chunk"
    body["choices"] = [_chunk_choice(choice) for choice in _objects(dumped.get("choices"))]
    if with_usage:
        body["usage"] = None
    return body


def without_finish(body: Json) -> None:
    """Take back the finish reasons of a plain answer whose provider gave none."""
    for choice in _choices(body):
        choice["finish_reason"] = None


def _choices(body: Json) -> list[Json]:
    choices = body.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def usage_object(usage: object) -> Json:
    """OpenAI's `usage`: three required counts, and the details that are known."""
    source = usage if isinstance(usage, Mapping) else {}
    counts: Json = {name: _count(source.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    for name in ("prompt_tokens_details", "completion_tokens_details"):
        details = source.get(name)
        if isinstance(details, Mapping) and (
            known := {key: value for key, value in details.items() if value is not None}
        ):
            counts[name] = known
    return counts


def token_usage(usage: object) -> TokenUsage | None:
    """The counts that cost is reckoned from; None when there are none."""
    if not isinstance(usage, Mapping) or usage.get("prompt_tokens") is None:
        return None
    return TokenUsage(
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
        cached_input_tokens=_detail(usage, "prompt_tokens_details", "cached_tokens"),
        reasoning_tokens=_detail(usage, "completion_tokens_details", "reasoning_tokens"),
    )


def _choice(choice: Mapping[str, object]) -> Json:
    message = choice.get("message")
    source = message if isinstance(message, Mapping) else {}
    shaped = _without_empty(source, keep=("content",))
    shaped.setdefault("refusal", _refusal(source))
    return {
        "index": choice.get("index", 0),
        "message": shaped,
        "logprobs": choice.get("logprobs"),
        "finish_reason": choice.get("finish_reason"),
    }


def _chunk_choice(choice: Mapping[str, object]) -> Json:
    delta = choice.get("delta")
    shaped = _without_empty(delta if isinstance(delta, Mapping) else {})
    calls = shaped.get("tool_calls")
    if isinstance(calls, list):
        shaped["tool_calls"] = [_tool_call_delta(call) for call in _objects(calls)]
    return {
        "index": choice.get("index", 0),
        "delta": shaped,
        "logprobs": choice.get("logprobs"),
        "finish_reason": choice.get("finish_reason"),
    }


def _tool_call_delta(call: Mapping[str, object]) -> Json:
    """`id`, `type` and the function's name stand in the first piece only; the rest are fragments of arguments."""
    shaped = _without_empty(call)
    function = shaped.get("function")
    if isinstance(function, Mapping):
        shaped["function"] = {key: value for key, value in function.items() if value is not None}
    return shaped


def _refusal(message: Mapping[str, object]) -> object:
    fields = message.get("provider_specific_fields")
    return fields.get("refusal") if isinstance(fields, Mapping) else None


def _without_empty(source: Mapping[str, object], keep: tuple[str, ...] = ()) -> Json:
    return {
        key: value
        for key, value in source.items()
        if key not in LIBRARY_FIELDS and (value is not None or key in keep) and not (key == "annotations" and not value)
    }


def _objects(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _detail(usage: Mapping[str, object], group: str, name: str) -> int:
    details = usage.get(group)
    return _count(details.get(name)) if isinstance(details, Mapping) else 0
