"""OpenAI's wire: chat completions plain and streamed, embeddings, models, and its errors.

Source of the shapes: OpenAI's API reference and openai-python's types, November 2026.
"""

import base64
import hashlib
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.sandbox.answers import Answer, Choice, Question, Tool, called_tool, words
from gateway.sandbox.keys import GivenKey
from gateway.sandbox.wire import Event, Fault, Part, Path, objects, refuse, sse, texts_of, whole_number

DONE = b"data: [DONE]\n\n"
MOST_CHOICES = 128
MOST_DIMENSIONS = 3072
DEFAULT_DIMENSIONS = 16
OWNER = "sandbox"

_USUAL: Mapping[int, tuple[str, str, str | None]] = {  # status -> type, message, code
    400: ("invalid_request_error", "Invalid request.", None),
    401: ("invalid_request_error", "Incorrect API key provided.", "invalid_api_key"),
    403: ("invalid_request_error", "You are not allowed to use this model.", "model_not_allowed"),
    404: ("invalid_request_error", "The model does not exist or you do not have access to it.", "model_not_found"),
    429: ("requests", "Rate limit reached for requests.", "rate_limit_exceeded"),
    500: ("server_error", "The server had an error while processing your request.", None),
    503: ("server_error", "The engine is currently overloaded, please try again later.", None),
}
_TYPES_BY_CODE = {"insufficient_quota": "insufficient_quota"}


class OpenAIWire:
    """What OpenAI and everyone who speaks its wire answers."""

    name = "openai"

    def read(self, body: Mapping[str, Any], path: Path) -> Question:
        """The question in the body of `POST /chat/completions`."""
        model, messages = model_of(body), _messages(body)
        stream = body.get("stream") is True
        options = body.get("stream_options")
        if options is not None and not stream:
            raise refuse("'stream_options' is only allowed when 'stream' is true.", param="stream_options")
        choices = whole_number(body, "n") or 1
        if not 1 <= choices <= MOST_CHOICES:
            raise refuse(f"'n' must be between 1 and {MOST_CHOICES}.", param="n")
        said = " ".join(next((texts_of(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), []))
        return Question(
            wire=self.name,
            model=model,
            texts=tuple(text for message in messages for text in texts_of(message.get("content"))),
            said=said,
            stream=stream,
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
            choices=choices,
            max_tokens=whole_number(body, "max_completion_tokens", "max_tokens"),
            tool=None if messages[-1].get("role") == "tool" else _tool(body, said),
            schema=_schema(body.get("response_format")),
        )

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The `chat.completion` object."""
        body = {
            **_envelope(answer, "chat.completion"),
            "choices": [_choice(answer, index) for index in range(len(answer.choices))],
        }
        return {**body, "usage": _usage(answer)} if answer.usage else body

    def stream(self, answer: Answer, *, include_usage: bool) -> Iterator[Event]:
        """`chat.completion.chunk` objects, then `[DONE]`; choices take turns."""
        counted = include_usage and answer.usage

        def chunk(choices: Sequence[Mapping[str, Any]], usage: Mapping[str, Any] | None = None) -> bytes:
            body = {**_envelope(answer, "chat.completion.chunk"), "choices": choices}
            return sse({**body, "usage": usage} if counted else body)

        for index, choice in enumerate(answer.choices):
            yield Event(Part.HEAD, chunk([_delta(index, _opening(answer, choice))]))
        for turn in range(max((len(choice.pieces) for choice in answer.choices), default=0)):
            for index, choice in enumerate(answer.choices):
                if turn < len(choice.pieces):
                    yield Event(Part.TOKEN, chunk([_delta(index, _piece(choice, choice.pieces[turn]))]), 1)
        for index, choice in enumerate(answer.choices):
            yield Event(Part.END, chunk([_delta(index, {}, choice.finish.value)]))
        if counted:
            yield Event(Part.END, chunk([], _usage(answer)))
        yield Event(Part.END, DONE)

    def error(self, fault: Fault) -> dict[str, Any]:
        """`{"error": {"message", "type", "param", "code"}}`."""
        kind, message, code = _USUAL.get(fault.status, _USUAL[500 if fault.status >= 500 else 400])
        code = (code if fault.code is None else fault.code) or None
        kind = _TYPES_BY_CODE.get(code or "", kind)
        return {"error": {"message": fault.message or message, "type": kind, "param": fault.param, "code": code}}

    def key_refused(self, key: GivenKey) -> tuple[int, dict[str, Any]]:
        """401, with the key masked as OpenAI masks it."""
        if not key.text:
            return 401, self.error(Fault(401, "You didn't provide an API key.", code=""))
        return 401, self.error(Fault(401, f"Incorrect API key provided: {key.masked}."))

    def stream_error(self, fault: Fault) -> bytes:
        """An error object in a data line."""
        return sse(self.error(fault))

    def headers(self, number: int) -> list[tuple[str, str]]:
        """OpenAI's request id, organisation and its own limits."""
        return [
            ("x-request-id", f"req_sandbox_{number}"),
            ("openai-organization", OWNER),
            ("openai-version", "2020-10-01"),
            ("openai-processing-ms", "1"),
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-remaining-requests", "9999"),
            ("x-ratelimit-reset-requests", "6ms"),
        ]


def models(ids: Sequence[str], created: int) -> dict[str, Any]:
    """The body of `GET /models`."""
    return {"object": "list", "data": [model_entry(model, created) for model in ids]}


def model_entry(model: str, created: int) -> dict[str, Any]:
    """The body of `GET /models/{id}`."""
    return {"id": model, "object": "model", "created": created, "owned_by": OWNER}


def embeddings(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of `POST /embeddings`: vectors of length 1 that depend on nothing but input and dimensions."""
    model, inputs = model_of(body), _inputs(body.get("input"))
    dimensions = whole_number(body, "dimensions") or DEFAULT_DIMENSIONS
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise refuse(f"'dimensions' must be between 1 and {MOST_DIMENSIONS}.", param="dimensions")
    vectors = [vector(str(item), dimensions) for item in inputs]
    as_base64 = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(v) if as_base64 else v}
        for index, v in enumerate(vectors)
    ]
    tokens = sum(words([item]) if isinstance(item, str) else len(item) for item in inputs)
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def vector(text: str, dimensions: int) -> list[float]:
    """A unit vector made of the text's hash; its numbers are exact in 32 bits, so that both encodings agree."""
    digest = hashlib.shake_256(text.encode()).digest(2 * dimensions)
    raw = [number - 32767.5 for (number,) in struct.iter_unpack("<H", digest)]
    length = math.sqrt(sum(number * number for number in raw))
    exact = struct.pack(f"<{dimensions}f", *(number / length for number in raw))
    return list(struct.unpack(f"<{dimensions}f", exact))


def model_of(body: Mapping[str, Any]) -> str:
    """The model that a body names; a 400 without one."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise refuse("you must provide a model parameter", param="model")
    return model


def _base64(numbers: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def _inputs(value: object) -> list[Any]:
    """The inputs as a list: one text, texts, one list of token numbers, or such lists."""
    if isinstance(value, str) and value:
        return [value]
    if isinstance(value, list) and value:
        listed = [value] if _tokens(value) else value
        if all(isinstance(one, str) or _tokens(one) for one in listed):
            return listed
    raise refuse("'input' must be a text, a list of texts, or lists of tokens, and not empty.", param="input")


def _tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(one) is int for one in value)


def _messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise refuse("'messages' must be a list with at least one message.", param="messages")
    return messages


def _tool(body: Mapping[str, Any], said: str) -> Tool | None:
    functions = [f for t in objects(body.get("tools")) if isinstance(f := t.get("function"), dict)]
    tools = [Tool(str(f.get("name", "")), f.get("parameters") or {}) for f in functions]
    choice = body.get("tool_choice", "auto")
    if choice == "none":
        return None
    forced = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
    return called_tool(tools, said, forced=forced, required=choice == "required")


def _schema(response_format: object) -> Mapping[str, Any] | None:
    if not isinstance(response_format, dict):
        return None
    if response_format.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    schema = response_format.get("json_schema", {}).get("schema")
    return schema if isinstance(schema, dict) else None


def _envelope(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-sandbox-{answer.number}",
        "object": kind,
        "created": answer.created,
        "model": answer.model,
        "service_tier": "default",
        "system_fingerprint": "fp_sandbox",
    }


def _call_id(answer: Answer) -> str:
    return f"call_sandbox_{answer.number}"


def _choice(answer: Answer, index: int) -> dict[str, Any]:
    choice = answer.choices[index]
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []}
    if choice.tool:
        function = {"name": choice.tool, "arguments": choice.text}
        message["content"] = None
        message["tool_calls"] = [{"id": _call_id(answer), "type": "function", "function": function}]
    return {"index": index, "message": message, "logprobs": None, "finish_reason": choice.finish.value}


def _opening(answer: Answer, choice: Choice) -> dict[str, Any]:
    if choice.tool is None:
        return {"role": "assistant", "content": "", "refusal": None}
    function = {"name": choice.tool, "arguments": ""}
    call = {"index": 0, "id": _call_id(answer), "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}


def _piece(choice: Choice, piece: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} if choice.tool else {"content": piece}


def _delta(index: int, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _usage(answer: Answer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
