"""Gemini's wire, small: generateContent, streamGenerateContent as server-sent events, and its errors.

Source of the shapes: Google's Generative Language API reference (v1beta), November 2026.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from gateway.sandbox.answers import Answer, Choice, Question, Tool, called_tool
from gateway.sandbox.behaviours import Finish
from gateway.sandbox.keys import GivenKey
from gateway.sandbox.wire import Event, Fault, Part, Path, objects, refuse, sse, texts_of, whole_number

_USUAL: Mapping[int, tuple[str, str]] = {  # status -> Google's status word, message
    400: ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    401: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    403: ("PERMISSION_DENIED", "The caller does not have permission"),
    404: ("NOT_FOUND", "The model is not found, or is not supported for generateContent."),
    429: ("RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    500: ("INTERNAL", "An internal error has occurred."),
    503: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
    504: ("DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
}
_FINISH_REASONS = {
    Finish.STOP: "STOP",
    Finish.LENGTH: "MAX_TOKENS",
    Finish.TOOL_CALLS: "STOP",
    Finish.CONTENT_FILTER: "SAFETY",
}


class GeminiWire:
    """What Gemini answers."""

    name = "gemini"

    def read(self, body: Mapping[str, Any], path: Path) -> Question:
        """The question in the body of `POST /models/{model}:generateContent`."""
        contents = objects(body.get("contents"))
        if not contents:
            raise refuse("* GenerateContentRequest.contents: contents is not specified")
        if path.stream and path.query.get("alt") != "sse":
            raise refuse("the sandbox streams with ?alt=sse only")
        config = _object(body, "generationConfig", "generation_config")
        asked = [content for content in contents if content.get("role", "user") == "user"]
        said = " ".join(texts_of(asked[-1].get("parts"))) if asked else ""
        system = _object(body, "systemInstruction", "system_instruction")
        answers_tool = any(
            "functionResponse" in p or "function_response" in p for p in objects(contents[-1].get("parts"))
        )
        return Question(
            wire=self.name,
            model=path.model,
            texts=tuple(text for content in (system, *contents) for text in texts_of(content.get("parts"))),
            said=said,
            stream=path.stream,
            choices=whole_number(config, "candidateCount", "candidate_count") or 1,
            max_tokens=whole_number(config, "maxOutputTokens", "max_output_tokens"),
            tool=None if answers_tool else _tool(body, said),
            schema=_schema(config),
        )

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The whole answer in one GenerateContentResponse."""
        candidates = [
            _candidate(index, [_part(choice)], _FINISH_REASONS[choice.finish])
            for index, choice in enumerate(answer.choices)
        ]
        return _response(answer, candidates, answer.output_tokens)

    def stream(self, answer: Answer, *, include_usage: bool) -> Iterator[Event]:
        """GenerateContentResponses with one piece each; a function call is never split. The last has the reason."""
        sent = 0
        for index, choice in enumerate(answer.choices):
            parts = [_part(choice)] if choice.tool else [{"text": piece} for piece in choice.pieces]
            for part in parts:
                tokens = len(choice.pieces) if choice.tool else 1
                sent += tokens
                yield Event(Part.TOKEN, sse(_response(answer, [_candidate(index, [part])], sent)), tokens)
        ends = [
            _candidate(index, [{"text": ""}], _FINISH_REASONS[choice.finish])
            for index, choice in enumerate(answer.choices)
        ]
        yield Event(Part.END, sse(_response(answer, ends, answer.output_tokens)))

    def error(self, fault: Fault) -> dict[str, Any]:
        """`{"error": {"code": number, "message", "status"}}`."""
        word, message = _USUAL.get(fault.status, _USUAL[500 if fault.status >= 500 else 400])
        shown = {"code": fault.status, "message": fault.message or message, "status": fault.code or word}
        return {"error": shown}

    def key_refused(self, key: GivenKey) -> tuple[int, dict[str, Any]]:
        """Google answers a bad key with 400 and its reason in the details, and a missing one with 403."""
        if not key.text:
            message = "Method doesn't allow unregistered callers (callers without established identity)."
            return 403, self.error(Fault(403, message))
        body = self.error(Fault(400, "API key not valid. Please pass a valid API key."))
        detail = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
            "metadata": {"service": "generativelanguage.googleapis.com"},
        }
        return 400, {"error": {**body["error"], "details": [detail]}}

    def stream_error(self, fault: Fault) -> bytes:
        """An error object in a data line."""
        return sse(self.error(fault))

    def headers(self, number: int) -> list[tuple[str, str]]:
        """Google's timing header; it sends no request id."""
        return [("server-timing", f"gfet4t7; dur={number}")]


def _response(answer: Answer, candidates: list[dict[str, Any]], output_tokens: int) -> dict[str, Any]:
    body = {
        "candidates": candidates,
        "modelVersion": answer.model,
        "responseId": f"sandbox-{answer.number}",
    }
    return {**body, "usageMetadata": _usage(answer, output_tokens)} if answer.usage else body


def _candidate(index: int, parts: list[dict[str, Any]], finish: str | None = None) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": parts}, "index": index}
    return {**candidate, "finishReason": finish} if finish else candidate


def _part(choice: Choice) -> dict[str, Any]:
    if choice.tool is None:
        return {"text": choice.text}
    try:
        arguments = orjson.loads(choice.text)
    except orjson.JSONDecodeError:  # cut by the answer's length
        arguments = {}
    return {"functionCall": {"name": choice.tool, "args": arguments}}


def _usage(answer: Answer, output_tokens: int) -> dict[str, Any]:
    usage = {
        "promptTokenCount": answer.input_tokens,
        "candidatesTokenCount": output_tokens,
        "totalTokenCount": answer.input_tokens + output_tokens,
    }
    return {**usage, "cachedContentTokenCount": answer.cached_tokens} if answer.cached_tokens else usage


def _tool(body: Mapping[str, Any], said: str) -> Tool | None:
    declared = [
        function
        for group in objects(body.get("tools"))
        for function in objects(group.get("functionDeclarations") or group.get("function_declarations"))
    ]
    tools = [Tool(str(f.get("name", "")), f.get("parameters") or f.get("parametersJsonSchema") or {}) for f in declared]
    config = _object(_object(body, "toolConfig", "tool_config"), "functionCallingConfig", "function_calling_config")
    mode = str(config.get("mode", "AUTO")).upper()
    if mode == "NONE":
        return None
    allowed = config.get("allowedFunctionNames") or config.get("allowed_function_names")
    forced = str(allowed[0]) if mode == "ANY" and isinstance(allowed, list) and allowed else None
    return called_tool(tools, said, forced=forced, required=mode == "ANY")


def _schema(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    names = ("responseJsonSchema", "responseSchema", "response_json_schema", "response_schema")
    found = next((config[name] for name in names if isinstance(config.get(name), dict)), None)
    if found is None and (config.get("responseMimeType") or config.get("response_mime_type")) == "application/json":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    return found


def _object(body: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    return next((value for name in names if isinstance(value := body.get(name), dict)), {})
