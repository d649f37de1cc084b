"""An answer of the Responses API, made of a chat completion; and the object that is the same in its stream.

Pure. Owns the shape of `response` and of its output items. What the request asked for is repeated as it holds here:
`store` is false, because a translated answer is stored nowhere, and a function without `strict` says false.
Source: OpenAI's API document (Response) and openai-python's types, November 2026.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway import openai_shape
from gateway.errors import Problem
from gateway.events import TokenUsage

Object = Mapping[str, object]
Json = dict[str, object]

# How chat says that an answer is not whole, and how the Responses API does. Another word than these and the whole ones
# is passed on as the reason.
WHOLE = (None, "stop", "tool_calls", "function_call")
REASONS: Mapping[str, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
# Repeated from the request, and what holds when it says nothing.
REPEATED: Mapping[str, object] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
}


@dataclass(frozen=True, slots=True)
class Names:
    """The ids of an answer's items: made of the answer's own, so that nothing here is random."""

    answer_id: str

    def item(self, kind: str, index: int) -> str:
        """`kind`: msg, rs or fc; also call, for a call to which its provider gave no id."""
        return f"{kind}_{self.answer_id.removeprefix('resp_')}_{index}"


def answer(completion: Object, body: Object, *, answer_id: str, created: int) -> Json:
    """The `response` object for a whole chat.completion; `body` is the Responses request, `created` in seconds."""
    choice = _first(completion.get("choices"))
    reason = choice.get("finish_reason")
    output = _output(choice, Names(answer_id), summarised=wants_summary(body))
    made = response(body, answer_id=answer_id, created=created, model=str(completion.get("model", "")))
    made |= ending(reason, output)
    usage = completion.get("usage")
    made["usage"] = usage_object(usage) if isinstance(usage, Mapping) else None
    if isinstance(completion.get("service_tier"), str):
        made["service_tier"] = completion["service_tier"]
    return made


def response(body: Object, *, answer_id: str, created: int, model: str) -> Json:
    """The object without output, in progress."""
    reasoning = body.get("reasoning")
    asked = reasoning if isinstance(reasoning, Mapping) else {}
    return {
        "id": answer_id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "previous_response_id": None,
        "reasoning": {"effort": asked.get("effort"), "summary": asked.get("summary")},
        "store": False,
        "tools": _tools(body.get("tools")),
        "usage": None,
        **{name: held if body.get(name) is None else body[name] for name, held in REPEATED.items()},
    }


def ending(reason: object, output: list[Json]) -> Json:
    """The fields that change when an answer ends with chat's finish `reason`; the last item of one that is not whole is
    not whole either."""
    if reason in WHOLE:
        return {"status": "completed", "output": output}
    if output:
        output = [*output[:-1], output[-1] | {"status": "incomplete"}]
    told = REASONS.get(str(reason), str(reason))
    return {"status": "incomplete", "incomplete_details": {"reason": told}, "output": output}


def wants_summary(body: Object) -> bool:
    """Whether reasoning is told as summary, which who asks for one reads; else as the text that it is."""
    reasoning = body.get("reasoning")
    return isinstance(reasoning, Mapping) and bool(reasoning.get("summary") or reasoning.get("generate_summary"))


def message_item(name: str, parts: list[Json], status: str = "completed") -> Json:
    return {"id": name, "type": "message", "status": status, "role": "assistant", "content": parts}


def text_part(text: str, annotations: list[Json], logprobs: list[Json]) -> Json:
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": logprobs}


def refusal_part(refusal: str) -> Json:
    return {"type": "refusal", "refusal": refusal}


def reasoning_item(name: str, text: str, *, summarised: bool, status: str = "completed") -> Json:
    """An empty text has no part yet."""
    part: Json = {"type": "summary_text" if summarised else "reasoning_text", "text": text}
    item: Json = {"id": name, "type": "reasoning", "summary": [part] if summarised and text else []}
    return item | ({} if summarised else {"content": [part] if text else []}) | {"status": status}


def call_item(name: str, call_id: str, function: str, arguments: str, status: str = "completed") -> Json:
    call: Json = {"id": name, "type": "function_call", "status": status, "call_id": call_id}
    return call | {"name": function, "arguments": arguments}


def reasoning_of(message: Object) -> str:
    """What a message or delta tells of its reasoning. Providers use two names for it, some of them both; Mistral tells
    it in parts of the content."""
    for name in ("reasoning_content", "reasoning"):
        told = message.get(name)
        if isinstance(told, str) and told:
            return told
    return "".join(text_of(part, "thinking") for part in objects(message.get("content")))


def text_of(message: Object, name: str = "content") -> str:
    """A field's text; of a list of parts, those of text."""
    said = message.get(name)
    if isinstance(said, list):
        return "".join(str(part["text"]) for part in objects(said) if isinstance(part.get("text"), str))
    return said if isinstance(said, str) else ""


def annotations_of(message: Object) -> list[Json]:
    """Chat nests what a citation says, the Responses API does not."""
    found: list[Json] = []
    for held in objects(message.get("annotations")):
        kind = held.get("type")
        inner = held.get(str(kind))
        if isinstance(inner, Mapping):
            found.append({"type": kind, **inner})
    return found


def logprobs_of(choice: Object) -> list[Json]:
    """Of one choice's text, in the shape of the Responses API, where `bytes` are never null."""
    held = choice.get("logprobs")
    entries = objects(held.get("content")) if isinstance(held, Mapping) else []
    return [_logprob(entry) | {"top_logprobs": _tops(entry)} for entry in entries]


def usage_object(usage: Object) -> Json:
    """The Responses API's `usage` of chat's. The wire requires the counts: they are 0 where the provider has none."""
    held = openai_shape.token_usage(usage)
    counted = held or TokenUsage(_count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))
    return {
        "input_tokens": counted.input_tokens,
        "input_tokens_details": {
            "cached_tokens": counted.cached_input_tokens,
            "cache_write_tokens": counted.cache_write_tokens,
        },
        "output_tokens": counted.output_tokens,
        "output_tokens_details": {"reasoning_tokens": counted.reasoning_tokens},
        "total_tokens": _count(usage, "total_tokens"),
    }


def usage_of(usage: Object, service_tier: object = None) -> TokenUsage | None:
    """The counts of a native answer's `usage`; None when there are none. `service_tier` is what the answer says."""
    names = {
        "prompt_tokens": "input_tokens",
        "completion_tokens": "output_tokens",
        "prompt_tokens_details": "input_tokens_details",
        "completion_tokens_details": "output_tokens_details",
        "total_tokens": "total_tokens",
    }
    return openai_shape.token_usage({chat: usage.get(name) for chat, name in names.items()}, service_tier)


def problem_body(problem: Problem) -> bytes:
    """An error is told as in OpenAI's other APIs."""
    return problem.body()


def objects(value: object) -> list[Object]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _first(choices: object) -> Object:
    held = objects(choices)
    return held[0] if held else {}


def _output(choice: Object, names: Names, *, summarised: bool) -> list[Json]:
    held = choice.get("message")
    message = held if isinstance(held, Mapping) else {}
    output: list[Json] = []
    if told := reasoning_of(message):
        output.append(reasoning_item(names.item("rs", 0), told, summarised=summarised))
    parts: list[Json] = []
    if text := text_of(message):
        parts.append(text_part(text, annotations_of(message), logprobs_of(choice)))
    if refusal := text_of(message, "refusal"):
        parts.append(refusal_part(refusal))
    if parts:
        output.append(message_item(names.item("msg", len(output)), parts))
    for call in objects(message.get("tool_calls")):
        output.append(_call(call, names, len(output)))
    return output


def _call(call: Object, names: Names, index: int) -> Json:
    held = call.get("function")
    function = held if isinstance(held, Mapping) else {}
    call_id = text_of(call, "id") or names.item("call", index)
    return call_item(names.item("fc", index), call_id, text_of(function, "name"), text_of(function, "arguments"))


def _tools(tools: object) -> list[Json]:
    return [
        {"strict": False, "parameters": None, **{k: v for k, v in tool.items() if v is not None}}
        if tool.get("type") == "function"
        else dict(tool)
        for tool in objects(tools)
    ]


def _logprob(entry: Object) -> Json:
    token = text_of(entry, "token")
    known = entry.get("bytes")
    return {
        "token": token,
        "logprob": entry.get("logprob"),
        "bytes": known if isinstance(known, list) else list(token.encode("utf-8", "replace")),
    }


def _tops(entry: Object) -> list[Json]:
    return [_logprob(top) for top in objects(entry.get("top_logprobs"))]


def _count(usage: Object, name: str) -> int:
    value = usage.get(name)
    return value if openai_shape.is_count(value) else 0
