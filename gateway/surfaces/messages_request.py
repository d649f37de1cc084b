"""A Messages request (Anthropic's API, November 2026) as a chat completions request.

Pure. Owns the table of top-level fields: each is carried, named as lacking, or asks for nothing. Null asks for nothing.

Without effect on other wires, since they ask for nothing there or change no answer: `cache_control` (a hint, anywhere),
`service_tier: auto`, `speed: standard`, `thinking: adaptive` (the model decides, as it does by itself),
`context_management` that clears nothing, `tools: []`.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

from gateway.errors import bad_request
from gateway.surfaces.messages_content import chat_messages, system_messages
from gateway.surfaces.messages_fields import (
    Json,
    Lacks,
    Object,
    an_object,
    check_cache_hint,
    flag,
    number,
    objects,
    only,
    shown,
    text,
    texts,
    whole,
)
from gateway.surfaces.messages_reasoning import chat_reasoning
from gateway.surfaces.messages_tools import chat_choice, chat_tools
from gateway.surfaces.translation import Translation

GATEWAY_FIELDS: Final = ("model", "models", "provider", "wardgate")  # the gateway's own: as they came
LONGEST_USER: Final = 64  # characters of `user` that OpenAI takes; Claude Code's ids are longer
FORMAT_NAME: Final = "answer"  # chat wants a name for a schema; Anthropic has none
# Fields that no other wire has, and why they matter to the answer, its price or where it is made.
LACKING: Final[Mapping[str, str]] = {
    "billing_policy": "says who pays at Anthropic",
    "compaction": "asks Anthropic to shorten the conversation",
    "container": "names a container that only Anthropic holds",
    "diagnostics": "asks for Anthropic's own diagnostics",
    "fallback_credit_token": "is a credit that only Anthropic holds",
    "fallbacks": "names models that Anthropic would fall back to; here `models` does",
    "inference_geo": "says where Anthropic may run the model",
    "mcp_servers": "names servers that Anthropic would call",
    "thread": "continues a conversation that only Anthropic holds",
    "user_profile_id": "names a profile that only Anthropic holds",
    "workspace_id": "names a workspace that only Anthropic holds",
}
Field = Callable[[object, Lacks], Json]


def to_chat(body: Object) -> Translation:
    """The chat completions request, and what it lacks; ApiError 400 names the caller's field that is malformed."""
    if body.get("max_tokens") is None:
        message = "`max_tokens` is missing: say how many tokens the answer may have at most."
        raise bad_request(message, param="max_tokens")
    lacks = Lacks()
    check_cache_hint(body)
    chat: Json = {name: body[name] for name in GATEWAY_FIELDS if name in body}
    chat["messages"] = [*system_messages(body.get("system"), lacks), *chat_messages(body.get("messages"), lacks)]
    chat |= _tools(body, lacks)
    chat |= _format(body, lacks)
    chat |= chat_reasoning(body, lacks)
    for name, value in body.items():
        if value is None or name in _TOGETHER:
            continue
        if name in _FIELDS:
            chat |= _FIELDS[name](value, lacks)
        else:
            lacks.add(shown(name), LACKING.get(name, "is no field that is known here"))
    return Translation(chat, lacks.found())


def count_body(body: Object) -> Mapping[str, object]:
    """The chat completions request whose input is counted: `max_tokens` is no field of `count_tokens`."""
    counted = to_chat({**body, "max_tokens": 1})
    return {name: value for name, value in counted.body.items() if name != "max_completion_tokens"}


def _tools(body: Object, lacks: Lacks) -> Json:
    offered = body.get("tools")
    tools = chat_tools(offered, lacks) if offered is not None else []
    chosen = body.get("tool_choice")
    choice = chat_choice(chosen, lacks, has_tools=bool(tools)) if chosen is not None else {}
    return {**({"tools": tools} if tools else {}), **choice}


def _format(body: Object, lacks: Lacks) -> Json:
    """Structured answers: `output_config.format`, or `output_format` as it was called before."""
    config = body.get("output_config")
    held = an_object(config, "output_config") if config is not None else {}
    only(held, "output_config", ("effort", "format"), lacks)
    named = {"output_config.format": held.get("format"), "output_format": body.get("output_format")}
    asked = {where: value for where, value in named.items() if value is not None}
    if len(asked) > 1:
        message = "`output_format` and `output_config.format` say the same; send `output_config.format`."
        raise bad_request(message, param="output_format")
    for where, value in asked.items():
        wanted = an_object(value, where)
        only(wanted, where, ("type", "schema"), lacks)
        if text(wanted.get("type"), f"{where}.type") == "json_schema":
            schema = an_object(wanted.get("schema"), f"{where}.schema")
            inner = {"name": FORMAT_NAME, "schema": schema, "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": inner}}
        lacks.add(f"{where}.type", "is no format that is known here")
    return {}


def _max_tokens(value: object, lacks: Lacks) -> Json:
    most = whole(value, "max_tokens")
    if most < 0:
        raise bad_request("`max_tokens` must be at least 0.", param="max_tokens")
    if most == 0:
        lacks.add("max_tokens", "of 0 asks for a stored prompt and no answer", "ask for at least 1")
        return {}
    return {"max_completion_tokens": most}


def _stop(value: object, lacks: Lacks) -> Json:
    stops = texts(value, "stop_sequences")
    return {"stop": stops} if stops else {}


def _metadata(value: object, lacks: Lacks) -> Json:
    """`user_id` as `user`. OpenAI takes 64 characters: of a longer id its SHA-256 travels, as much one user's."""
    held = an_object(value, "metadata")
    only(held, "metadata", ("user_id",), lacks)
    if held.get("user_id") is None:
        return {}
    user = text(held["user_id"], "metadata.user_id")
    if len(user) > LONGEST_USER:
        user = hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()
    return {"user": user} if user else {}


def _service_tier(value: object, lacks: Lacks) -> Json:
    tier = text(value, "service_tier")
    if tier == "standard_only":
        return {"service_tier": "default"}
    if tier != "auto":
        lacks.add("service_tier", "is no service tier that is known here")
    return {}


def _speed(value: object, lacks: Lacks) -> Json:
    if text(value, "speed") != "standard":
        lacks.add("speed", "asks for a speed that only Anthropic sells")
    return {}


def _context_management(value: object, lacks: Lacks) -> Json:
    """Edits that keep all thinking (Claude Code sends one) clear nothing."""
    held = an_object(value, "context_management")
    only(held, "context_management", ("edits",), lacks)
    edits = held.get("edits")
    for index, edit in enumerate(objects(edits, "context_management.edits") if edits is not None else []):
        keeps_all = edit.keys() == {"type", "keep"} and edit["keep"] in ("all", {"type": "all"})
        if not (keeps_all and str(edit["type"]).startswith("clear_thinking_")):
            lacks.add(f"context_management.edits[{index}]", "asks Anthropic to shorten the conversation")
    return {}


_FIELDS: Final[Mapping[str, Field]] = {
    "context_management": _context_management,
    "max_tokens": _max_tokens,
    "metadata": _metadata,
    "service_tier": _service_tier,
    "speed": _speed,
    "stop_sequences": _stop,
    "stream": lambda value, _: {"stream": flag(value, "stream")},
    "temperature": lambda value, _: {"temperature": number(value, "temperature")},
    "top_k": lambda value, _: {"top_k": whole(value, "top_k")},
    "top_p": lambda value, _: {"top_p": number(value, "top_p")},
}
# Read above, several together.
_TOGETHER: Final = frozenset(
    {"cache_control", "messages", "output_config", "output_format", "system", "thinking", "tool_choice", "tools"}
    | set(GATEWAY_FIELDS)
)
