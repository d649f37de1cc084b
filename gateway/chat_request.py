"""The body of a chat completion: read once, checked against a table, never changed.

Only what is listed in PARAMETERS travels, so that no field of a caller can name a key, a base URL, a header, a price or
a callback. What is not listed is refused by name instead of being dropped.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import orjson

from gateway.errors import ApiError, bad_request

Check = Callable[[object], bool]

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAX_MODEL_LENGTH = 256
MAX_DEPTH = 64


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_stop(value: object) -> bool:
    return _is_text(value) or _is_texts(value)


def _is_text_or_object(value: object) -> bool:
    return _is_text(value) or _is_object(value)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A field that travels: its check, what it must be in words, and whether it is OpenAI's own."""

    check: Check
    must_be: str
    openai: bool = True  # False: an extension that only some OpenAI-wire providers know


NUMBER = Parameter(_is_number, "a number")
WHOLE = Parameter(_is_whole, "a whole number")
POSITIVE = Parameter(_is_positive, "a whole number of at least 1")
TEXT = Parameter(_is_text, "a string")
FLAG = Parameter(_is_flag, "true or false")
OBJECT = Parameter(_is_object, "an object")
OBJECTS = Parameter(_is_objects, "a list of objects")
TEXT_OR_OBJECT = Parameter(_is_text_or_object, "a string or an object")

# OpenAI's chat completion fields (API reference, 2026-11), then the extensions that open-weight providers document.
PARAMETERS: Mapping[str, Parameter] = {
    "audio": OBJECT,
    "frequency_penalty": NUMBER,
    "function_call": TEXT_OR_OBJECT,
    "functions": OBJECTS,
    "logit_bias": OBJECT,
    "logprobs": FLAG,
    "max_completion_tokens": POSITIVE,
    "max_tokens": POSITIVE,
    "metadata": OBJECT,
    "modalities": Parameter(_is_texts, "a list of strings"),
    "n": POSITIVE,
    "parallel_tool_calls": FLAG,
    "prediction": OBJECT,
    "presence_penalty": NUMBER,
    "prompt_cache_key": TEXT,
    "prompt_cache_retention": TEXT,
    "reasoning_effort": TEXT,
    "response_format": OBJECT,
    "safety_identifier": TEXT,
    "seed": WHOLE,
    "service_tier": TEXT,
    "stop": Parameter(_is_stop, "a string or a list of strings"),
    "store": FLAG,
    "temperature": NUMBER,
    "tool_choice": TEXT_OR_OBJECT,
    "tools": OBJECTS,
    "top_logprobs": WHOLE,
    "top_p": NUMBER,
    "user": TEXT,
    "verbosity": TEXT,
    "web_search_options": OBJECT,
    "chat_template_kwargs": Parameter(_is_object, "an object", openai=False),
    "enable_thinking": Parameter(_is_flag, "true or false", openai=False),
    "include_reasoning": Parameter(_is_flag, "true or false", openai=False),
    "min_p": Parameter(_is_number, "a number", openai=False),
    "reasoning": Parameter(_is_object, "an object", openai=False),
    "reasoning_split": Parameter(_is_flag, "true or false", openai=False),
    "repetition_penalty": Parameter(_is_number, "a number", openai=False),
    "thinking": Parameter(_is_object, "an object", openai=False),
    "thinking_budget": Parameter(_is_whole, "a whole number", openai=False),
    "top_k": Parameter(_is_whole, "a whole number", openai=False),
}
READ_HERE = ("model", "messages", "stream", "stream_options")  # fields with a meaning of their own below
NOT_YET = {
    "models": "lists of models are not part of this version; ask for one model, a family name or auto",
    "provider": "routing preferences are not part of this version",
    "route": "routing preferences are not part of this version",
    "usage": "usage.include is not part of this version; the cost is in the header x-wardgate-cost-usd",
    "plugins": "plugins are not part of this version",
    "transforms": "transforms are not part of this version",
}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked chat completion request. `parameters` are the caller's own values; null ones are left out."""

    model: str
    messages: list[dict[str, object]]
    parameters: Mapping[str, object]
    stream: bool
    include_usage: bool  # the caller asked for the usage chunk
    body: Mapping[str, object]  # as it came, for reading what the request needs


def read_chat_request(raw: bytes) -> ChatRequest:
    """Parse and check a body; raises ApiError 400 that names the field and says what it must be."""
    body = parse_object(raw)
    parameters = {name: _checked(name, value) for name, value in body.items() if _travels(name, value)}
    options = body.get("stream_options")
    stream = _flag(body, "stream")
    if options is not None and not isinstance(options, dict):
        raise bad_request("`stream_options` must be an object.", param="stream_options")
    if options is not None and not stream:
        raise bad_request("`stream_options` is only allowed when `stream` is true.", param="stream_options")
    return ChatRequest(
        model=_model(body),
        messages=_messages(body),
        parameters=parameters,
        stream=stream,
        include_usage=bool(options and options.get("include_usage")),
        body=body,
    )


def parse_object(raw: bytes) -> dict[str, object]:
    """The JSON object in `raw`; raises ApiError 400 for anything else."""
    if not raw.strip():
        raise bad_request("The request body is empty; send a JSON object.", code="invalid_json")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        message = f"The request body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        raise bad_request(message, code="invalid_json") from error
    if not isinstance(body, dict):
        raise bad_request(f"The request body must be a JSON object, not {_kind(body)}.", code="invalid_json")
    _check_depth(body)
    return body


def _check_depth(body: dict[str, object]) -> None:
    """Refuse what is nested too deep for the libraries on the way; level by level, so that it needs no stack."""
    level: list[object] = [body]
    for _ in range(MAX_DEPTH):
        children = [v for item in level if isinstance(item, dict) for v in item.values()]
        children += [v for item in level if isinstance(item, list) for v in item]
        level = [child for child in children if isinstance(child, dict | list)]
        if not level:
            return
    raise bad_request(f"The request body is nested more than {MAX_DEPTH} levels deep.", code="invalid_json")


def _travels(name: str, value: object) -> bool:
    if name in READ_HERE:
        return False
    if name not in PARAMETERS:
        raise _unknown(name)
    return value is not None


def _unknown(name: str) -> ApiError:
    if name in NOT_YET:
        return bad_request(
            f"`{name}` has no effect here yet: {NOT_YET[name]}.", param=name, code="unsupported_parameter"
        )
    near = get_close_matches(name, PARAMETERS, n=1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    shown = name if len(name) <= 64 else name[:64] + "..."
    message = f"`{shown}` is not a parameter that this gateway forwards, and it drops none silently; remove it.{hint}"
    return bad_request(message, param=shown, code="unsupported_parameter")


def _checked(name: str, value: object) -> object:
    parameter = PARAMETERS[name]
    if not parameter.check(value):
        raise bad_request(f"`{name}` must be {parameter.must_be}, not {_kind(value)}.", param=name)
    return value


def _flag(body: Mapping[str, object], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad_request(f"`{name}` must be true or false, not {_kind(value)}.", param=name)
    return bool(value)


def _model(body: Mapping[str, object]) -> str:
    model = body.get("model")
    if model is None:
        raise bad_request("`model` is missing: name a model, a family, `auto` or `default`.", param="model")
    if not isinstance(model, str):
        raise bad_request(f"`model` must be a string, not {_kind(model)}.", param="model")
    if not model.strip() or len(model) > MAX_MODEL_LENGTH:
        raise bad_request(f"`model` must be 1 to {MAX_MODEL_LENGTH} characters long.", param="model")
    return model.strip()


def _messages(body: Mapping[str, object]) -> list[dict[str, object]]:
    messages = body.get("messages")
    if messages is None and "input" in body:
        raise bad_request("`messages` is missing. The body looks like a Responses request (`input`).", param="messages")
    if not isinstance(messages, list):
        raise bad_request(f"`messages` must be a list of messages, not {_kind(messages)}.", param="messages")
    if not messages:
        raise bad_request("`messages` is empty; send at least one message.", param="messages")
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")
    return messages


def _check_message(message: object, where: str) -> None:
    if not isinstance(message, dict):
        raise bad_request(f"`{where}` must be an object, not {_kind(message)}.", param=where)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise bad_request(f"`{where}.role` must be one of {', '.join(ROLES)}.", param=f"{where}.role")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in content):
            raise bad_request(f"`{where}.content` must hold objects with a `type`.", param=f"{where}.content")
    elif content is not None and not isinstance(content, str):
        raise bad_request(f"`{where}.content` must be a string, a list of parts or null.", param=f"{where}.content")
    elif content is None and role != "assistant":
        raise bad_request(f"`{where}.content` is missing.", param=f"{where}.content")


def _kind(value: object) -> str:
    """What a JSON value is, in JSON's own words."""
    kinds = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return kinds.get(type(value), "a list" if isinstance(value, list) else "an object")
