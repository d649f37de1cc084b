"""Whether a request can be said on a translated wire without loss: asked before anything is sent.

Pure. LiteLLM, which translates, drops or rewrites what it cannot say and fetches what a URL names; what would meet that
is refused here by name. Owns the checks of messages and tools; the facts are in translation_rules.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from gateway.chat_request import ChatRequest, near_parameter
from gateway.json_body import SHOWN_LENGTH
from gateway.refusals import Refused
from gateway.translation_rules import LEAVE_OUT, OTHER_WIRE, RULES, STRICT, Untranslatable, WireRules, asks_nothing
from gateway.translation_schema import without_dialect
from keystore.providers import Provider, Wire

Object = Mapping[str, object]

_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,([A-Za-z0-9+/]+={0,2})")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_AUDIO_FORMATS = ("wav", "mp3")
_MESSAGE_KEYS: Mapping[str, frozenset[str]] = {
    "system": frozenset({"role", "content"}),
    "developer": frozenset({"role", "content"}),
    "user": frozenset({"role", "content"}),
    "assistant": frozenset({"role", "content", "tool_calls"}),
    "tool": frozenset({"role", "content", "tool_call_id", "name"}),
}
_INSTRUCTIONS = ("system", "developer")


def refused_by(provider: Provider, model: str, request: ChatRequest) -> Refused | None:
    """What a provider's wire cannot carry of `request`; OpenAI's own wire carries all of it."""
    return None if provider.wire is Wire.OPENAI else untranslatable(request, provider.litellm_prefix, model)


def untranslatable(request: ChatRequest, wire_name: str, model: str = "") -> Refused | None:
    """What of `request` the wire of LiteLLM's prefix `wire_name` cannot carry; None when it carries all of it.

    `model` is the provider's own name for the model; some parameters survive only on some models.
    """
    rules = RULES.get(wire_name, STRICT)
    for name in request.unknown:
        sentence = f"`{name[:SHOWN_LENGTH]}` is no parameter that is known here; {LEAVE_OUT}.{near_parameter(name)}"
        return Refused(name[:SHOWN_LENGTH], f"{rules.wire} cannot carry this request: {sentence}")
    try:
        _check_options(request.body.get("stream_options"))
        _check_parameters(request.parameters, rules, model or request.model.rpartition("/")[2])
        _check_tools(request.parameters.get("tools"), rules)
        _check_messages(request.messages, rules, has_tools=bool(request.parameters.get("tools")))
        if rules.merges_system.fullmatch(model) and request.messages[0].get("role") in _INSTRUCTIONS:
            raise Untranslatable("messages[0].role", "would become the user's text on this model", "ask for another")
    except Untranslatable as refusal:
        return Refused(refusal.param, f"{rules.wire} cannot carry this request: {refusal}")
    return None


def _check_options(options: object) -> None:
    for name, value in options.items() if isinstance(options, dict) else ():
        if name != "include_usage" and value:
            raise Untranslatable(f"stream_options.{name[:SHOWN_LENGTH]}", "is not carried over")


def _check_parameters(parameters: Object, rules: WireRules, model: str) -> None:
    for name, value in parameters.items():
        if asks_nothing(name, value):
            continue
        check = rules.parameters.get(name)
        if check is None:
            raise Untranslatable(name, "is not carried over")
        if (wrong := check(value, model)) is not None:
            why, _, help_ = wrong.partition("; ")
            raise Untranslatable(name, why, f"{help_}, or {OTHER_WIRE}" if help_ else LEAVE_OUT)
    if "thinking" in parameters and "reasoning_effort" in parameters:
        raise Untranslatable("thinking", "and `reasoning_effort` would be made into one", "send one of them")
    if "tools" in parameters and "web_search_options" in parameters and rules is not RULES["anthropic"]:
        raise Untranslatable("web_search_options", "is dropped beside `tools`", "send one of them")


def _check_tools(tools: object, rules: WireRules) -> None:
    if tools is None:
        return
    if not isinstance(tools, list) or not tools:
        raise Untranslatable("tools", "is empty and would be dropped", "leave it out")
    for index, tool in enumerate(tools):
        _check_tool(tool, f"tools[{index}]", rules)


def _check_tool(tool: object, where: str, rules: WireRules) -> None:
    held = _object(tool, where)
    _only(held, where, {"type", "function"}, rules)
    if held.get("type") != "function":
        raise Untranslatable(f"{where}.type", "is not function, and only functions are carried over")
    function = _object(held.get("function"), f"{where}.function")
    _only(function, f"{where}.function", {"name", "description", "parameters", "strict"})
    _check_name(function.get("name"), f"{where}.function.name", rules)
    if function.get("strict"):
        raise Untranslatable(f"{where}.function.strict", "would be dropped")
    _optional_text(function.get("description"), f"{where}.function.description")
    schema = function.get("parameters")
    if schema is not None:
        wrong = rules.tool_schema(without_dialect(_object(schema, f"{where}.function.parameters")))
        if wrong is not None:
            why, _, help_ = wrong.partition("; ")
            raise Untranslatable(f"{where}.function.parameters", why, help_)


def _check_name(name: object, where: str, rules: WireRules) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Untranslatable(where, "would be rewritten", "use 1 to 64 letters, digits, _ and -")
    if name in rules.tool_names_taken:
        raise Untranslatable(where, "has a meaning of its own in the translation", "use another name")


def _check_messages(messages: Sequence[Object], rules: WireRules, *, has_tools: bool) -> None:
    started = False
    calls: dict[str, tuple[int, str]] = {}  # of the last assistant message: id -> place and function
    first = 0  # the first place that may still be answered
    for index, message in enumerate(messages):
        where, role = f"messages[{index}]", str(message.get("role"))
        if role not in rules.roles:
            raise Untranslatable(f"{where}.role", f"{role} is not carried over", _role_help(role))
        if role in _INSTRUCTIONS and started:
            raise Untranslatable(f"{where}.role", f"{role} would be moved or rewritten here", "put it first")
        started = started or role not in _INSTRUCTIONS
        _check_message(message, role, where, rules)
        if role == "assistant" and message.get("tool_calls") is not None:
            named = _calls(message["tool_calls"], f"{where}.tool_calls", rules, has_tools=has_tools)
            calls, first = {identity: (place, name) for place, (identity, name) in enumerate(named)}, 0
        if role == "tool":
            place = _answered(message, where, calls, first, rules)
            first = place + 1 if rules.ids_dropped else first
    if not started:
        raise Untranslatable("messages", "holds instructions alone, and a user message would be invented", "add one")
    if rules.adds_text:
        _check_runs(messages)
    if rules.trims_last:
        _check_last(messages[-1], f"messages[{len(messages) - 1}].content")


def _role_help(role: str) -> str:
    return "use the role tool and `tool_calls`" if role == "function" else OTHER_WIRE


def _check_message(message: Object, role: str, where: str, rules: WireRules) -> None:
    carried = {"reasoning_content"} if role == "assistant" and rules.reasoning_content else set()
    content = message.get("content")
    # A mark on the message is the mark of its one text; LiteLLM drops it beside parts.
    _only(message, where, _MESSAGE_KEYS[role] | carried, rules if isinstance(content, str) and content else None)
    if carried:
        _optional_text(message.get("reasoning_content"), f"{where}.reasoning_content")
    where = f"{where}.content"
    has_calls = message.get("tool_calls") is not None
    if content is None:
        if not has_calls:
            raise Untranslatable(where, "is missing, and the message would be dropped", "leave the message out")
    elif isinstance(content, str):
        may_be_empty = role == "tool" or has_calls  # beside calls: `gateway.litellm_door` sends null for it
        if not content.strip() and not (content == "" and may_be_empty):
            raise Untranslatable(where, "is blank", "send null beside `tool_calls`, else leave the message out")
    else:
        _check_parts(content, role, where, rules)


def _check_parts(content: object, role: str, where: str, rules: WireRules) -> None:
    if not isinstance(content, list) or not content:
        raise Untranslatable(where, "is empty, and the message would be dropped", "leave the message out")
    if len(content) > 1 and role in rules.joins_parts:
        raise Untranslatable(where, "has several parts, which would be joined into one", "send one text")
    allowed = rules.user_parts if role == "user" else frozenset({"text"})
    for index, part in enumerate(content):
        _check_part(_object(part, f"{where}[{index}]"), f"{where}[{index}]", allowed, rules)


def _check_part(part: Object, where: str, allowed: frozenset[str], rules: WireRules) -> None:
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in allowed:
        raise Untranslatable(f"{where}.type", "is not carried over in this message")
    _only(part, where, {"type", kind}, rules if kind in ("text", "image_url") else None)
    if kind == "text":
        text = part.get("text")
        if not isinstance(text, str) or not text.strip():
            raise Untranslatable(f"{where}.text", "must be a text that is not blank", "leave the part out")
        return
    inner, where = _object(part.get(kind), f"{where}.{kind}"), f"{where}.{kind}"
    if kind == "image_url":
        _only(inner, where, {"url", "detail"})
        if inner.get("detail") not in (None, "auto"):
            raise Untranslatable(f"{where}.detail", "is dropped on some models")
        _check_data_url(inner.get("url"), f"{where}.url", rules.image_types, "image")
    elif kind == "file":
        _only(inner, where, {"file_data"})
        _check_data_url(inner.get("file_data"), f"{where}.file_data", rules.file_types, "file")
    else:
        _only(inner, where, {"data", "format"})
        if inner.get("format") not in _AUDIO_FORMATS:
            raise Untranslatable(f"{where}.format", "is not wav or mp3", "send one of them")
        if not _is_base64(inner.get("data")):
            raise Untranslatable(f"{where}.data", "is not base64", "send the audio itself, base64-encoded")


def _check_data_url(url: object, where: str, types: re.Pattern[str], what: str) -> None:
    found = _DATA_URL.fullmatch(url) if isinstance(url, str) else None
    if found is None or not _is_base64(found[2]):
        why = "is not a data: URL with a type and base64, and nothing else is fetched or passed on"
        raise Untranslatable(where, why, f"send the {what} as a data: URL (data:<type>;base64,...)")
    if not types.fullmatch(found[1]):
        raise Untranslatable(where, f"is of type {found[1][:40]}, which is not carried over as a {what}", OTHER_WIRE)


def _is_base64(data: object) -> bool:
    try:
        return isinstance(data, str) and bool(base64.b64decode(data, validate=True))
    except ValueError:
        return False


def _calls(calls: object, where: str, rules: WireRules, *, has_tools: bool) -> Iterator[tuple[str, str]]:
    if not isinstance(calls, list) or not calls:
        raise Untranslatable(where, "must hold calls", "leave it out")
    if rules.tools_for_calls and not has_tools:
        raise Untranslatable("tools", "is missing beside earlier calls, and a tool would be invented", "send the tools")
    seen: set[str] = set()
    for index, call in enumerate(calls):
        identity, name = _call(_object(call, f"{where}[{index}]"), f"{where}[{index}]", rules)
        if identity in seen:
            raise Untranslatable(f"{where}[{index}].id", "is used twice, and one call would be dropped", "use another")
        seen.add(identity)
        yield identity, name


def _call(call: Object, where: str, rules: WireRules) -> tuple[str, str]:
    _only(call, where, {"id", "type", "function"}, rules)
    if call.get("type") != "function":
        raise Untranslatable(f"{where}.type", "is not function, and only functions are carried over")
    identity = call.get("id")
    if not isinstance(identity, str) or not rules.call_ids.fullmatch(identity):
        raise Untranslatable(f"{where}.id", "would be rewritten", "use letters, digits, _ and -")
    function = _object(call.get("function"), f"{where}.function")
    _only(function, f"{where}.function", {"name", "arguments"})
    _check_name(function.get("name"), f"{where}.function.name", rules)
    if not _is_json_object(function.get("arguments")):
        why = "is not the text of a JSON object with every name once"
        raise Untranslatable(f"{where}.function.arguments", why, 'send "{}" for none')
    return identity, str(function["name"])


def _answered(message: Object, where: str, calls: Mapping[str, tuple[int, str]], first: int, rules: WireRules) -> int:
    """The place of the call that this tool message answers; those before `first` are answered already."""
    identity = message.get("tool_call_id")
    place, name = calls.get(identity, (-1, "")) if isinstance(identity, str) else (-1, "")
    if place < first:
        why = "answers no call of the last assistant message with calls"
        if rules.ids_dropped:
            why += ", or not in the order of the calls"
        raise Untranslatable(f"{where}.tool_call_id", why, "send the answers in the order of the calls")
    if message.get("name") not in (None, "", name):
        raise Untranslatable(f"{where}.name", "is not the name of the function that was called", "leave it out")
    content = message.get("content")
    if isinstance(content, str) and content.lstrip().startswith("{") and _repeats_a_name(content):
        raise Untranslatable(f"{where}.content", "holds a JSON object with a name twice", "send every name once")
    return place


def _check_runs(messages: Sequence[Object]) -> None:
    """User messages in a row become one, to which a blank text is added when it has none."""
    numbered = [(f"messages[{index}]", message) for index, message in enumerate(messages)]
    for role, run in groupby(numbered, key=lambda pair: pair[1].get("role")):
        held = list(run)
        if role == "user" and not any(_has_text(message.get("content")) for _, message in held):
            raise Untranslatable(f"{held[0][0]}.content", "has no text, and a blank one would be added", "add a text")


def _has_text(content: object) -> bool:
    if isinstance(content, list):
        return any(isinstance(part, dict) and part.get("type") == "text" for part in content)
    return True


def _check_last(message: Object, where: str) -> None:
    content = message.get("content")
    if isinstance(content, list) and content and isinstance(content[-1], dict):
        content = content[-1].get("text")
    if message.get("role") == "assistant" and isinstance(content, str) and content != content.rstrip():
        raise Untranslatable(where, "ends with white space, which would be cut", "cut it yourself")


def _object(value: object, where: str) -> Object:
    if not isinstance(value, dict):
        raise Untranslatable(where, "must be an object", "see OpenAI's reference")
    return value


def _optional_text(value: object, where: str) -> None:
    if value is not None and not isinstance(value, str):
        raise Untranslatable(where, "must be a string", "send a string")


def _only(held: Object, where: str, allowed: frozenset[str] | set[str], rules: WireRules | None = None) -> None:
    """Refuse a key that is not carried; what is null or empty says nothing and may stand."""
    for key, value in held.items():
        if key in allowed or value is None or (value in ([], {}, "") and key != "tool_calls"):
            continue
        if key == "cache_control" and rules is not None and rules.cache_control and _is_cache_control(value):
            continue
        if key == "cache_control" and value == {"type": "ephemeral", "ttl": "1h"}:
            raise Untranslatable(
                f"{where}.cache_control", "for an hour has a price that is not reckoned yet", 'use "5m"'
            )
        shown = key if len(key) <= 64 else key[:64] + "..."
        raise Untranslatable(f"{where}.{shown}", "would be dropped")


def _is_cache_control(value: object) -> bool:
    return isinstance(value, dict) and value in (
        {"type": "ephemeral"},
        {"type": "ephemeral", "ttl": "5m"},
    )


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


def _is_json_object(text: object) -> bool:
    try:
        return isinstance(text, str) and isinstance(
            json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant), dict
        )
    except (ValueError, RecursionError):
        return False


def _repeats_a_name(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False  # no JSON: it is carried as text
    return not _is_json_object(text)
