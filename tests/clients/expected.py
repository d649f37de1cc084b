"""What is expected of each client in each case: rows. A value must be equal; a function must hold.

Owns nothing but these rows; how a case is run is the programs' business.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Row = Mapping[str, object]
Rows = dict[str, Row]

TEXT = "This is MiniMax-M2 on the sandbox's openai wire. You said: Say hello."
CALLED_TEXT = "This is MiniMax-M2 on the sandbox's openai wire. You said: Please use lookup for me."
NATIVE_TEXT = TEXT.replace("MiniMax-M2", "claude-haiku-4-5").replace("openai", "anthropic")
CUT_TEXT = "This is MiniMax-M2"
TOKENS = [2, 12]  # words said, words answered
PIECES = 12


def holds(part: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and part in value


def between(least: float, most: float) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int | float) and least <= value <= most


def some_id(value: object) -> bool:
    return isinstance(value, str) and value.startswith("req_")


def a_city(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"city", "people"} and isinstance(value["people"], int)


@dataclass(frozen=True)
class Named:
    """What a client calls the errors. `broken` is a stream that broke off; `ignores_false`: it asks again although
    `x-should-retry` says that it is in vain."""

    e400: str = "BadRequestError"
    e401: str = "AuthenticationError"
    e403: str = "PermissionDeniedError"
    e404: str = "NotFoundError"
    e429: str = "RateLimitError"
    e5xx: str = "InternalServerError"
    broken: str = "APIError"
    ignores_false: bool = False


def one_name(name: str, broken: str, *, ignores_false: bool = False) -> Named:
    """Of a client that has one class for every answer that is an error."""
    return Named(name, name, name, name, name, name, broken, ignores_false)


def errors(named: Named, prefix: str = "") -> Rows:
    def one(error: str, status: int, code: str, asked: int, **more: object) -> Row:
        return {"error": error, "status": status, "code": code, "asked": asked, "request_id": some_id, **more}

    rows = {
        "error_401": one(named.e401, 401, "invalid_api_key", 0),
        "error_403": one(named.e403, 403, "provider_key_missing", 0),
        "error_404": one(named.e404, 404, "model_not_found", 0),
        "error_400": one(named.e400, 400, "provider_rejected_request", 1),
        "error_429": one(named.e429, 429, "rate_limit_exceeded", 1, retry_after="7"),
        "error_500": one(named.e5xx, 502, "provider_error", 1),
        "error_503": one(named.e5xx, 502, "provider_error", 1),
    }
    return {prefix + name: row for name, row in rows.items()}


def retries(named: Named, prefix: str = "") -> Rows:
    in_vain = {"status": 429, "code": "rate_limit_exceeded", "asked": 3 if named.ignores_false else 1}
    of_use = {"status": 502, "code": "provider_error", "asked": 3}
    return {f"{prefix}retries_in_vain": in_vain, f"{prefix}retries_of_use": of_use}


def streams(named: Named, prefix: str = "", text: str = TEXT) -> Rows:
    whole = {"text": text, "pieces": PIECES, "error": None}
    cut_text = " ".join(text.split()[:3])
    cut = {"text": cut_text, "pieces": 3, "error": named.broken, "code": "provider_stream_truncated"}
    rows: Rows = {
        "stream": whole,
        "slow": {**whole, "first_s": between(1.4, 10)},
        "cut": cut,
        "cut_fin": cut,
        "broken_event": {**cut, "code": "provider_malformed_answer"},
        "cancel": {"pieces": 2, "error": None, "left_s": between(0, 1)},
    }
    return {prefix + name: row for name, row in rows.items()}


COUNTED: Row = {"text": TEXT, "tokens": TOKENS}
SAID: Row = {"text": TEXT}
CALLED: Row = {"called": "lookup", "arguments": {"city": "text"}}
ROUND_TRIP: Row = {**CALLED, "text": CALLED_TEXT}
CITY: Row = {"object": a_city}
USAGE: Row = {"tokens": TOKENS}
USAGE_ONCE: Row = {"tokens": TOKENS, "chunks_with_it": 1}
NO_USAGE: Row = {"chunks_with_it": 0}
TYPED: Row = {"text": TEXT, "first": "response.created", "last": "response.completed"}
VECTORS: Row = {"lengths": [16, 16]}

OPENAI_SDK: Rows = {
    "normal": COUNTED,
    "stream_usage": USAGE_ONCE,
    "stream_no_usage": NO_USAGE,
    "tools": ROUND_TRIP,
    "tools_streamed": CALLED,
    "structured": CITY,
    "error_400_field": {
        "error": "BadRequestError",
        "status": 400,
        "code": "unsupported_parameter",
        "says": holds("no_such_field"),
    },
    "embeddings": {"alike": True, "length": 16, "tokens": [3, 3]},
    "models": {"listed": True, "one": "minimax/MiniMax-M2"},
    "responses": COUNTED,
    "responses_streamed": TYPED,
    "responses_structured": CITY,
    "responses_tools": ROUND_TRIP,
    "responses_cut": {"pieces": 3, "error": "APIError", "code": "provider_stream_truncated"},
    "responses_error_429": {
        "error": "RateLimitError",
        "status": 429,
        "code": "rate_limit_exceeded",
        "request_id": some_id,
        "retry_after": "7",
    },
    "without_v1": SAID,
    **streams(Named()),
    **streams(Named(), "translated_", NATIVE_TEXT),
    **errors(Named()),
    **retries(Named()),
}
OPENAI_NODE: Rows = {
    **{name: OPENAI_SDK[name] for name in ("normal", "stream_usage", "stream_no_usage", "tools", "tools_streamed")},
    **{name: OPENAI_SDK[name] for name in ("structured", "responses", "responses_streamed")},
    "embeddings": {"alike": True, "length": 16},
    "models": {"listed": True},
    **streams(Named()),
    **streams(Named(), "responses_"),
    **errors(Named()),
    **errors(Named(), "responses_"),
    **retries(Named()),
}


def _messages(prefix: str, text: str, called_text: str, named: Named) -> Rows:
    said = {"text": text, "tokens": TOKENS}
    rows: Rows = {
        "normal": said,
        "stream_usage": USAGE,
        "tools": {**CALLED, "stop": "tool_use", "text": called_text},
        "count_tokens": {"tokens": between(1, 20)},
    }
    own = {prefix + name: row for name, row in rows.items()}
    return {**own, **streams(named, prefix, text), **errors(named, prefix), **retries(named, prefix)}


def _anthropic(prefix: str, text: str, called_text: str, model: str, estimated: str | None) -> Rows:
    named = Named(broken="APIStatusError")
    said = {"text": text, "tokens": TOKENS, "stop": "end_turn"}
    more: Rows = {
        "by_api_key": said,
        "by_bare_header": said,
        "stream_usage": {**said, "first": "message_start", "last": "message_stop"},
        "tools_streamed": {**CALLED, "stop": "tool_use"},
        "structured": CITY,
        "count_tokens": {"tokens": between(1, 20), "estimated": estimated},
        "models": {"listed": True, "one": model},
    }
    return _messages(prefix, text, called_text, named) | {prefix + name: row for name, row in more.items()}


NATIVE_CALLED_TEXT = "This is claude-haiku-4-5 on the sandbox's anthropic wire."
ANTHROPIC_SDK = {
    **_anthropic("native_", NATIVE_TEXT, NATIVE_CALLED_TEXT, "anthropic/claude-haiku-4-5", None),
    **_anthropic("translated_", TEXT, CALLED_TEXT, "minimax/MiniMax-M2", "input_tokens"),
}
ANTHROPIC_NODE = {
    **_messages("native_", NATIVE_TEXT, NATIVE_CALLED_TEXT, Named()),
    **_messages("translated_", TEXT, CALLED_TEXT, Named()),
}

_LANGCHAIN = Named(
    "OpenAIInvalidRequestError",
    "OpenAIAuthenticationError",
    "OpenAIPermissionDeniedError",
    "OpenAIModelNotFoundError",
    "OpenAIRateLimitError",
    "OpenAIAPIError",
)
LANGCHAIN: Rows = {
    "normal": COUNTED,
    "stream_usage": USAGE_ONCE,
    "tools": ROUND_TRIP,
    "tools_streamed": CALLED,
    "structured": CITY,
    "structured_by_tool": CITY,
    "responses": COUNTED,
    "responses_streamed": SAID,
    "embeddings": VECTORS,
    **streams(_LANGCHAIN),
    **errors(_LANGCHAIN),
    **retries(_LANGCHAIN),
}
LLAMAINDEX: Rows = {
    "normal": COUNTED,
    "stream_usage": USAGE,
    "tools": ROUND_TRIP,
    "structured": CITY,
    "embeddings": VECTORS,
    **streams(Named()),
    **errors(Named()),
    "retries_of_use": {**retries(Named())["retries_of_use"], "asked": 6},  # its own retries around those of the SDK
}
_INSTRUCTOR = one_name("InstructorRetryException", "InstructorRetryException")
INSTRUCTOR: Rows = {
    "normal": {"object": a_city, "tokens": [2, 4]},
    "structured": CITY,
    "stream_objects": {"object": a_city, "several": True},
    "slow": {"error": None, "pieces": between(2, 20)},
    "cut": {"error": _INSTRUCTOR.broken, "code": "provider_stream_truncated"},
    "cut_fin": {"error": _INSTRUCTOR.broken, "code": "provider_stream_truncated"},
    "broken_event": {"error": _INSTRUCTOR.broken, "code": "provider_malformed_answer"},
    **errors(_INSTRUCTOR),
    **retries(_INSTRUCTOR),
}
_PYDANTIC_AI = Named(
    "ModelRequestRejectedError",
    "ModelAuthenticationError",
    "ModelAuthenticationError",
    "ModelNotFoundError",
    "ModelRateLimitError",
    "ModelServerError",
    "ModelAPIError",
)
PYDANTIC_AI: Rows = {
    "normal": COUNTED,
    "stream_usage": USAGE,
    "tools": ROUND_TRIP,
    "structured": CITY,
    "structured_by_tool": CITY,
    "responses": SAID,
    "responses_tools": ROUND_TRIP,
    **streams(_PYDANTIC_AI),
    **errors(_PYDANTIC_AI),
    **retries(_PYDANTIC_AI),
}
OPENAI_AGENTS: Rows = {
    "normal": COUNTED,
    "stream_usage": USAGE,
    "tools": ROUND_TRIP,
    "tools_streamed": ROUND_TRIP,
    "structured": CITY,
    **streams(Named()),
    **errors(Named()),
    **retries(Named()),
}


def _llm(says: str, **more: object) -> Row:
    return {"error": "CommandFailed", "says": holds(says), **more}


LLM: Rows = {
    "normal": SAID,
    "stream_usage": COUNTED,
    "tools": {"text": CALLED_TEXT},
    "tools_streamed": {"text": CALLED_TEXT},
    "structured": CITY,
    "responses": SAID,
    "stream": {"text": f"{TEXT}\n", "pieces": between(1, 13), "error": None},  # as the pipe has them
    "slow": {"text": f"{TEXT}\n", "error": None, "first_s": between(1.4, 20)},
    "cancel": {"error": None, "left_s": between(0, 1)},
    "cut": {"text": CUT_TEXT, **_llm("broke off its answer")},
    "cut_fin": {"text": CUT_TEXT, **_llm("broke off its answer")},
    "broken_event": {"text": CUT_TEXT, **_llm("an answer that cannot be used")},
    "error_401": _llm("Error code: 401", asked=0),
    "error_403": _llm("Error code: 403", asked=0),
    "error_404": _llm("Error code: 404", asked=0),
    "error_400": _llm("Error code: 400", asked=1),
    "retries_in_vain": _llm("Error code: 429", asked=1),
    "retries_of_use": _llm("Error code: 502", asked=3),
}


def _ai_sdk(prefix: str) -> Rows:
    named = one_name("AI_APICallError", "object", ignores_false=True)
    rows: Rows = {
        "normal": COUNTED,
        "stream_usage": COUNTED,
        "tools": ROUND_TRIP,
        "tools_streamed": ROUND_TRIP,
        "structured": CITY,
    }
    own = {prefix + name: row for name, row in rows.items()}
    translated = streams(named, f"{prefix}translated_", NATIVE_TEXT)
    return {**own, **streams(named, prefix), **translated, **errors(named, prefix), **retries(named, prefix)}


AI_SDK = {**_ai_sdk(""), **_ai_sdk("responses_"), "embeddings": VECTORS}
