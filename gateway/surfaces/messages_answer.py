"""A chat completion as a Messages answer: content blocks, why it ended, and usage, in both directions.

Pure. Anthropic counts cached and stored tokens apart from `input_tokens`; chat completions count them in it.
"""

import json
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Final

from gateway import openai_shape
from gateway.events import TokenUsage
from gateway.openai_shape import encode
from gateway.surfaces.messages_reasoning import hides_thoughts

Object = Mapping[str, object]
Json = dict[str, object]

STOP_REASONS: Final[Mapping[str, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
# Where the words differ: chat's `service_tier` to Anthropic's, and back for what is charged.
TIERS: Final[Mapping[str, str]] = {"default": "standard"}
_CHARGED_TIERS: Final[Mapping[str, str]] = {"standard": "default"}
# Anthropic's own word for arguments that are no JSON object ("Fine-grained tool streaming"): no tool takes it for its
# own field, and nothing is lost.
NO_JSON: Final = "INVALID_JSON"


class Kind(Enum):
    """What a piece of an answer is."""

    THINKING = auto()
    TEXT = auto()
    REFUSAL = auto()  # shown as text; the answer is then a refusal


def answer(completion: Object, body: Object, *, answer_id: str, created: int) -> Json:
    """The `message` object. `created` has no place on this wire; of choices, one was asked for."""
    choice = next(iter(objects(completion.get("choices"))), {})
    said = choice.get("message")
    message = said if isinstance(said, dict) else {}
    told = list(pieces(message, body))
    calls = objects(message.get("tool_calls"))
    content = [block_of(kind, text) for kind, text in told]
    content += [_tool_use(call, answer_id, index) for index, call in enumerate(calls)]
    model = completion.get("model")
    tier = completion.get("service_tier")
    return {
        **message_head(answer_id, model if isinstance(model, str) else body.get("model")),
        "content": content,
        **ending(choice, body, has_calls=bool(calls), refused=any(kind is Kind.REFUSAL for kind, _ in told)),
        "usage": usage_object(completion.get("usage"), tier),
    }


def message_head(answer_id: str, model: object) -> Json:
    """What every `message` object begins with; its id has Anthropic's prefix."""
    identity = answer_id if answer_id.startswith("msg_") else f"msg_{answer_id}"
    return {"id": identity, "type": "message", "role": "assistant", "model": model, "content": []}


def pieces(source: Object, body: Object) -> Iterator[tuple[Kind, str]]:
    """What a message or a delta says beside its tool calls, in the order in which Anthropic tells it; no empty piece.
    Providers name their thoughts `reasoning_content` or `reasoning`."""
    thoughts = source.get("reasoning_content") or source.get("reasoning")
    if isinstance(thoughts, str) and thoughts and not hides_thoughts(body):
        yield Kind.THINKING, thoughts
    content, refusal = source.get("content"), source.get("refusal")
    for part in content if isinstance(content, list) else [content]:
        if text := _text_of(part):
            yield Kind.TEXT, text
    if isinstance(refusal, str) and refusal:
        yield Kind.REFUSAL, refusal


def _text_of(part: object) -> str:
    """The text of a part; a part that is none is shown as it came."""
    if part is None or isinstance(part, str):
        return part or ""
    text = part.get("text") if isinstance(part, dict) else None
    return text if isinstance(text, str) else encode(part).decode()


def block_of(kind: Kind, text: str) -> Json:
    """A content block. Its signature is empty: only Anthropic signs thoughts, and its SDK wants the field."""
    if kind is Kind.THINKING:
        return {"type": "thinking", "thinking": text, "signature": ""}
    return {"type": "text", "text": text}


def tool_block(call: Object, answer_id: str, index: int) -> Json:
    """A `tool_use` block without input. A call without an id gets one of ours, so that its result can name it."""
    identity = str(call.get("id") or f"toolu_{answer_id.removeprefix('msg_')}_{index}")
    return {"type": "tool_use", "id": identity, "name": name_of(call), "input": {}}


def name_of(call: Object) -> str:
    """The function that is called; empty where it is not said."""
    function = call.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else ""


def arguments_of(call: Object) -> str:
    """The arguments of a call, or a piece of them, as text; some providers send them as JSON."""
    function = call.get("function")
    arguments = function.get("arguments") if isinstance(function, dict) else None
    return arguments or "" if arguments is None or isinstance(arguments, str) else encode(arguments).decode()


def _tool_use(call: Object, answer_id: str, index: int) -> Json:
    return {**tool_block(call, answer_id, index), "input": tool_input(arguments_of(call))}


def tool_input(arguments: str) -> Json:
    """Arguments as the object that they are; under NO_JSON as text when reading them would change or lose something."""
    if not arguments.strip():
        return {}
    read = read_arguments(arguments)
    return {NO_JSON: arguments} if read is None else read


def read_arguments(arguments: str) -> Json | None:
    """The JSON object in `arguments`; None for anything else, for a name twice, and for what is no JSON number."""
    try:
        read = json.loads(arguments, object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def _once(pairs: list[tuple[str, object]]) -> Json:
    held = dict(pairs)
    if len(held) != len(pairs):
        raise ValueError("a name stands twice")
    return held


def _refuse(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large")
    return value


def ending(choice: Object, body: Object, *, has_calls: bool, refused: bool) -> Json:
    """`stop_reason` and `stop_sequence`. An unknown word is passed on as it came; what no provider told stays null."""
    reason = choice.get("finish_reason")
    matched = choice.get("stop_reason")  # vLLM and those built on it tell which text they stopped at
    asked = body.get("stop_sequences")
    told = STOP_REASONS.get(reason, reason) if isinstance(reason, str) else None
    if told == "end_turn" and has_calls:
        told = "tool_use"  # a forced call ends with `stop` in chat completions
    elif told == "end_turn" and refused:
        told = "refusal"
    elif told == "end_turn" and isinstance(matched, str) and isinstance(asked, list) and matched in asked:
        return {"stop_reason": "stop_sequence", "stop_sequence": matched}
    return {"stop_reason": told, "stop_sequence": None}


def usage_object(usage: object, service_tier: object = None) -> Json:
    """Anthropic's `usage` from chat's. The wire requires the counts: they are 0 when the provider counted none."""
    held = openai_shape.token_usage(usage)
    counted = held or TokenUsage(_count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))
    apart = counted.cached_input_tokens + counted.cache_write_tokens
    told: Json = {
        "input_tokens": max(counted.input_tokens - apart, 0),
        "cache_creation_input_tokens": counted.cache_write_tokens,
        "cache_read_input_tokens": counted.cached_input_tokens,
        "output_tokens": counted.output_tokens,
    }
    if counted.reasoning_tokens:
        told["output_tokens_details"] = {"thinking_tokens": counted.reasoning_tokens}
    if counted.cache_write_1h_tokens:
        hour = min(counted.cache_write_1h_tokens, counted.cache_write_tokens)
        short = counted.cache_write_tokens - hour
        told["cache_creation"] = {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": hour}
    if isinstance(service_tier, str):
        told["service_tier"] = TIERS.get(service_tier, service_tier)
    return told


def usage_of(usage: Object, service_tier: object = None) -> TokenUsage | None:
    """What a native answer's `usage` counts; None when it does not count input and output. Compactions are charged and
    not in the totals (Anthropic's API reference, `usage.iterations`), so they are added."""
    if not all(openai_shape.is_count(usage.get(name)) for name in ("input_tokens", "output_tokens")):
        return None
    compactions = [each for each in objects(usage.get("iterations")) if each.get("type") == "compaction"]
    if any(isinstance(value, int) and value > openai_shape.MOST_TOKENS for value in usage.values()):
        return None
    parts = [usage, *compactions]
    stored = sum(_stored(part) for part in parts)
    cached = sum(_count(part, "cache_read_input_tokens") for part in parts)
    speed = usage.get("speed")
    tier = service_tier if isinstance(service_tier, str) else usage.get("service_tier")
    word = speed if speed == "fast" else tier
    return TokenUsage(
        input_tokens=sum(_count(part, "input_tokens") for part in parts) + stored + cached,
        output_tokens=sum(_count(part, "output_tokens") for part in parts),
        cached_input_tokens=cached,
        reasoning_tokens=_count(usage.get("output_tokens_details"), "thinking_tokens"),
        cache_write_tokens=stored,
        cache_write_1h_tokens=sum(_count(part.get("cache_creation"), "ephemeral_1h_input_tokens") for part in parts),
        service_tier=_CHARGED_TIERS.get(word, word) if isinstance(word, str) else None,
    )


def _stored(part: Object) -> int:
    """The tokens written to a cache; the lifetimes are told beside the sum, which some answers leave out."""
    by_lifetime = part.get("cache_creation")
    names = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
    return max(_count(part, "cache_creation_input_tokens"), sum(_count(by_lifetime, name) for name in names))


def _count(held: object, name: str) -> int:
    value = held.get(name) if isinstance(held, Mapping) else None
    return value if openai_shape.is_count(value) else 0


def objects(value: object) -> list[Object]:
    """The objects in a list; none for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
