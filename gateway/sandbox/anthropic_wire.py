"""Anthropic's wire, small: messages plain and as typed events, and its errors.

Source of the shapes: Anthropic's API reference and anthropic-python's types, November 2026.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from gateway.sandbox.answers import Answer, Choice, Question, Tool, called_tool
from gateway.sandbox.behaviours import Finish
from gateway.sandbox.keys import GivenKey
from gateway.sandbox.wire import Event, Fault, Part, Path, objects, refuse, sse, texts_of, whole_number

_USUAL: Mapping[int, tuple[str, str]] = {  # status -> type, message
    400: ("invalid_request_error", "Invalid request."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low."),
    403: ("permission_error", "Your API key does not have permission to use this resource."),
    404: ("not_found_error", "Not found"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your rate limit."),
    500: ("api_error", "Internal server error"),
    529: ("overloaded_error", "Overloaded"),
}
_STOP_REASONS = {
    Finish.STOP: "end_turn",
    Finish.LENGTH: "max_tokens",
    Finish.TOOL_CALLS: "tool_use",
    Finish.CONTENT_FILTER: "refusal",
}


class AnthropicWire:
    """What Anthropic answers."""

    name = "anthropic"

    def read(self, body: Mapping[str, Any], path: Path) -> Question:
        """The question in the body of `POST /messages`."""
        if "anthropic-version" not in path.headers:
            raise refuse("anthropic-version: header is required")
        model, messages, max_tokens = body.get("model"), body.get("messages"), whole_number(body, "max_tokens")
        if not isinstance(model, str) or not model:
            raise refuse("model: Field required")
        if max_tokens is None:
            raise refuse("max_tokens: Field required")
        if not isinstance(messages, list) or not objects(messages):
            raise refuse("messages: at least one message is required")
        asked = [message for message in objects(messages) if message.get("role") == "user"]
        said = " ".join(texts_of(asked[-1].get("content"))) if asked else ""
        spoken = [text for message in objects(messages) for text in texts_of(message.get("content"))]
        answers_tool = bool(asked) and any(b.get("type") == "tool_result" for b in objects(asked[-1].get("content")))
        return Question(
            wire=self.name,
            model=model,
            texts=(*texts_of(body.get("system")), *spoken),
            said=said,
            stream=body.get("stream") is True,
            max_tokens=max_tokens,
            tool=None if answers_tool else _tool(body, said),
            schema=_schema(body),
        )

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The `message` object."""
        choice = answer.choices[0]
        block: dict[str, Any] = {"type": "text", "text": choice.text}
        if choice.tool:
            block = {**_tool_block(answer, choice), "input": _arguments(choice)}
        body = {**_message(answer), "content": [block], "stop_reason": _STOP_REASONS[choice.finish]}
        return {**body, "usage": _usage(answer, answer.output_tokens)} if answer.usage else body

    def stream(self, answer: Answer, *, include_usage: bool) -> Iterator[Event]:
        """`message_start` to `message_stop`; usage is always told, in two of them."""
        choice = answer.choices[0]
        start = _message(answer)
        if answer.usage:
            start["usage"] = _usage(answer, 1)
        block = {**_tool_block(answer, choice), "input": {}} if choice.tool else {"type": "text", "text": ""}
        yield Event(Part.HEAD, _event("message_start", message=start))
        yield Event(Part.HEAD, _event("content_block_start", index=0, content_block=block))
        yield Event(Part.HEAD, _event("ping"))
        for piece in choice.pieces:
            delta = {"type": "input_json_delta", "partial_json": piece}
            delta = delta if choice.tool else {"type": "text_delta", "text": piece}
            yield Event(Part.TOKEN, _event("content_block_delta", index=0, delta=delta), 1)
        yield Event(Part.END, _event("content_block_stop", index=0))
        usage = {"usage": {"output_tokens": answer.output_tokens}} if answer.usage else {}
        stop = {"stop_reason": _STOP_REASONS[choice.finish], "stop_sequence": None}
        yield Event(Part.END, _event("message_delta", delta=stop, **usage))
        yield Event(Part.END, _event("message_stop"))

    def error(self, fault: Fault) -> dict[str, Any]:
        """`{"type": "error", "error": {"type", "message"}, "request_id"}`."""
        kind, message = _USUAL.get(fault.status, _USUAL[500 if fault.status >= 500 else 400])
        error = {"type": fault.code or kind, "message": fault.message or message}
        return {"type": "error", "error": error, "request_id": "req_sandbox"}

    def key_refused(self, key: GivenKey) -> tuple[int, dict[str, Any]]:
        """401; a missing key is told apart."""
        message = None if key.text else "x-api-key header is required"
        return 401, self.error(Fault(401, message))

    def stream_error(self, fault: Fault) -> bytes:
        """An `error` event."""
        return sse(self.error(fault), "error")

    def headers(self, number: int) -> list[tuple[str, str]]:
        """Anthropic's request id and its own limits."""
        return [("request-id", f"req_sandbox_{number}"), ("anthropic-ratelimit-requests-limit", "10000")]


def _event(kind: str, **fields: Any) -> bytes:
    return sse({"type": kind, **fields}, kind)


def _message(answer: Answer) -> dict[str, Any]:
    return {
        "id": f"msg_sandbox_{answer.number}",
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _tool_block(answer: Answer, choice: Choice) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_sandbox_{answer.number}", "name": choice.tool}


def _arguments(choice: Choice) -> Any:
    """The arguments as JSON; empty when the answer's length cut them."""
    try:
        return orjson.loads(choice.text)
    except orjson.JSONDecodeError:
        return {}


def _usage(answer: Answer, output_tokens: int) -> dict[str, Any]:
    """Anthropic counts cached tokens apart from the other input tokens."""
    return {
        "input_tokens": answer.input_tokens - answer.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": answer.cached_tokens,
        "output_tokens": output_tokens,
    }


def _tool(body: Mapping[str, Any], said: str) -> Tool | None:
    offered = objects(body.get("tools"))
    tools = [Tool(str(tool.get("name", "")), tool.get("input_schema") or {}) for tool in offered]
    choice = body.get("tool_choice") or {}
    kind = choice.get("type", "auto") if isinstance(choice, dict) else "auto"
    if kind == "none":
        return None
    return called_tool(tools, said, forced=choice.get("name") if kind == "tool" else None, required=kind == "any")


def _schema(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    config = body.get("output_config")
    asked = body.get("output_format") or (config.get("format") if isinstance(config, dict) else None)
    schema = asked.get("schema") if isinstance(asked, dict) else None
    return schema if isinstance(schema, dict) else None
