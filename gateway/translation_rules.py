"""What each translated wire carries through LiteLLM, as tables: roles, parts, parameters and values.

Owns the facts, which were measured against LiteLLM 1.106 (tests/gateway/test_translation.py repeats the measuring);
knows nothing of requests as a whole. What is not listed is refused. docs/translation.md tells it to callers.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.translation_schema import SchemaRule, carried_whole, check_answer_schema, check_gemini_tool, check_root

OTHER_WIRE = "ask for a provider on OpenAI's wire"
LEAVE_OUT = f"leave it out, or {OTHER_WIRE}"


class Untranslatable(Exception):
    """A part of a request cannot be said on a translated wire."""

    def __init__(self, param: str, why: str, help_: str = LEAVE_OUT) -> None:
        super().__init__(f"`{param}` {why}; {help_}.")
        self.param = param


# A check of a parameter's value: what is wrong with it (and, after a semicolon, what would help), or None.
ValueCheck = Callable[[object, str], str | None]


def _any(value: object, model: str) -> str | None:
    return None


def _one_of(*allowed: object) -> ValueCheck:
    words = ", ".join(str(word) for word in allowed)

    def check(value: object, model: str) -> str | None:
        return None if value in allowed else f"is not carried over with this value; use one of {words}"

    return check


def _stop(value: object, model: str) -> str | None:
    texts = value if isinstance(value, list) else [value]
    if 1 <= len(texts) <= 4 and all(isinstance(text, str) and text for text in texts):
        return None
    return "would be cut to four texts that are not empty; send one to four of them"


def _user(value: object, model: str) -> str | None:
    """LiteLLM drops what looks like an e-mail address or a telephone number."""
    if isinstance(value, str) and re.fullmatch(r"[\w.:/-]*[A-Za-z_][\w.:/-]*", value):
        return None
    return "would be dropped when it looks like an address or a number; send an opaque id such as user-123"


def _tool_choice(value: object, model: str) -> str | None:
    if value in ("auto", "none", "required"):
        return None
    if isinstance(value, dict) and value.keys() == {"type", "function"} and value["type"] == "function":
        function = value["function"]
        if isinstance(function, dict) and function.keys() == {"name"} and isinstance(function["name"], str):
            return None
    return 'is not carried over; use auto, none, required or {"type": "function", "function": {"name": ...}}'


def _empty(value: object, model: str) -> str | None:
    return None if value == {} else "has options that are dropped or changed; send an empty object"


def _thinking(budget: str, adaptive: str, disabled: str) -> ValueCheck:
    """`thinking` by its type, each with the models on which LiteLLM leaves it as it is."""
    models = {"enabled": re.compile(budget), "adaptive": re.compile(adaptive), "disabled": re.compile(disabled)}
    keys = {"enabled": {"type", "budget_tokens"}, "adaptive": {"type"}, "disabled": {"type"}}

    def check(value: object, model: str) -> str | None:
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind in models and isinstance(value, dict):
            budget = value.get("budget_tokens", 1)
            whole = isinstance(budget, int) and not isinstance(budget, bool)
            if value.keys() == keys[kind] and models[kind].fullmatch(model) and whole:
                return None
        return "would be changed into something else for this model; use `reasoning_effort`"

    return check


def _only_on(models: str, check: ValueCheck, why: str) -> ValueCheck:
    pattern = re.compile(models)

    def checked(value: object, model: str) -> str | None:
        return check(value, model) if pattern.fullmatch(model) else why

    return checked


def _effort(always: Sequence[str], none_on: str) -> ValueCheck:
    plain, pattern = _one_of(*always), re.compile(none_on)

    def check(value: object, model: str) -> str | None:
        return None if value == "none" and pattern.fullmatch(model) else plain(value, model)

    return check


def _response_format(types: Sequence[str], schema_models: str, rule: SchemaRule) -> ValueCheck:
    pattern = re.compile(schema_models)

    def check(value: object, model: str) -> str | None:
        if not isinstance(value, dict) or value.get("type") not in ("text", "json_object", "json_schema"):
            return "is not of a type that is carried over; use one of " + ", ".join(types)
        if value["type"] not in types:
            return f"of type {value['type']} would be dropped; use one of " + ", ".join(types)
        if value["type"] != "json_schema":
            return None if value.keys() == {"type"} else "has fields that would be dropped; send its type alone"
        if not pattern.fullmatch(model):
            return "with a schema would become text in the prompt for this model; ask for another model"
        return _json_schema(value, rule)

    return check


def _json_schema(value: Mapping[str, object], rule: SchemaRule) -> str | None:
    inner = value.get("json_schema")
    if value.keys() != {"type", "json_schema"} or not isinstance(inner, dict):
        return "must hold `type` and `json_schema`; see OpenAI's reference"
    if extra := {key for key, held in inner.items() if held is not None} - {"name", "schema", "strict"}:
        return f"has `json_schema.{min(extra)}`, which would be dropped; leave it out"
    if inner.get("strict") is False:
        return "has `strict` false, but this wire always keeps to the schema; leave `strict` out"
    if not isinstance(inner.get("schema"), dict) or not isinstance(inner.get("name"), str):
        return "needs a `json_schema.name` and a `json_schema.schema`; send both"
    return rule(inner["schema"])


@dataclass(frozen=True, slots=True)
class WireRules:
    """What one wire carries."""

    wire: str  # for sentences
    parameters: Mapping[str, ValueCheck]
    user_parts: frozenset[str]
    tool_schema: SchemaRule
    file_types: re.Pattern[str]
    image_types: re.Pattern[str]
    tools: bool = True
    roles: frozenset[str] = frozenset({"system", "developer", "user", "assistant", "tool"})
    cache_control: bool = False  # on text and image parts and on tools
    reasoning_content: bool = False  # of an assistant message
    joins_parts: frozenset[str] = frozenset()  # roles whose text parts are joined into one text
    trims_last: bool = False  # white space at the end of a last assistant message is cut
    adds_text: bool = False  # a blank text is added to user messages without text
    tools_for_calls: bool = False  # a dummy tool is added when calls stand without tools
    ids_dropped: bool = False  # a tool message is matched to its call by order alone
    call_ids: re.Pattern[str] = re.compile(r".+", re.DOTALL)
    tool_names_taken: frozenset[str] = frozenset()
    merges_system: re.Pattern[str] = re.compile(r"(?!)")  # models whose system message becomes user text


_SAMPLING: Mapping[str, ValueCheck] = {
    "max_completion_tokens": _any,
    "max_tokens": _any,
    "stop": _stop,
    "temperature": _any,
    "top_p": _any,
}
_IMAGES = re.compile(r"image/(?:png|jpeg|gif|webp)")
_GEMINI_2 = r"gemini-2\.\d.*"
_CLAUDE_BUDGET = r"claude-(?:haiku-4-5|opus-4-[56]|sonnet-4-[56])(?:-\d{8})?"
_CLAUDE_ADAPTIVE = r"claude-(?:opus-4-[678]|sonnet-4-6|(?:haiku|opus|sonnet|fable|mythos)-5|mythos-preview)(?:-.*)?"
_CLAUDE_OFF = r"claude-(?:haiku-4-5|haiku-5-5|opus-4-[5678]|opus-5|sonnet-4-[56]|sonnet-5)(?:-\d{8})?"
_CLAUDE_SCHEMA = r"claude-(?:haiku|opus|sonnet|fable|mythos)-(?:4-[5-9]|[5-9])(?:-.*)?|claude-mythos-preview"

ANTHROPIC = WireRules(
    wire="Anthropic's wire",
    parameters={
        **_SAMPLING,
        "parallel_tool_calls": _any,
        "reasoning_effort": _one_of("low", "medium", "high", "xhigh", "max"),
        "response_format": _response_format(("text", "json_schema"), _CLAUDE_SCHEMA, check_answer_schema),
        "thinking": _thinking(_CLAUDE_BUDGET, _CLAUDE_ADAPTIVE, _CLAUDE_OFF),
        "tool_choice": _tool_choice,
        "tools": _any,
        "user": _user,
        "web_search_options": _empty,
    },
    user_parts=frozenset({"text", "image_url", "file"}),
    tool_schema=check_root,
    file_types=re.compile(r"application/pdf"),
    image_types=_IMAGES,
    cache_control=True,
    trims_last=True,
    tools_for_calls=True,
    call_ids=re.compile(r"[a-zA-Z0-9_-]+"),
    tool_names_taken=frozenset({"json_tool_call"}),  # LiteLLM reads a call of it as an answer's text
)
GEMINI = WireRules(
    wire="Gemini's wire",
    parameters={
        **_SAMPLING,
        "frequency_penalty": _only_on(_GEMINI_2, _any, f"is dropped for this model; {LEAVE_OUT}"),
        "logprobs": _any,
        "modalities": _one_of(["text"]),
        "n": _any,
        "parallel_tool_calls": _one_of(True),
        "presence_penalty": _only_on(_GEMINI_2, _any, f"is dropped for this model; {LEAVE_OUT}"),
        "reasoning_effort": _effort(("low", "medium", "high"), r"gemini-2\.5-.*"),
        "response_format": _response_format(
            ("text", "json_object", "json_schema"), r"gemini-(?:2\.5|[3-9]).*", carried_whole
        ),
        "seed": _any,
        "service_tier": _one_of("default", "flex", "priority"),
        "thinking": _thinking(r"gemini-2\.5-.*", r"(?!)", r"(?!)"),
        "tool_choice": _tool_choice,
        "tools": _any,
        "web_search_options": _empty,
    },
    user_parts=frozenset({"text", "image_url", "file", "input_audio"}),
    tool_schema=check_gemini_tool,
    file_types=re.compile(r"application/(?:pdf|json)|(?:image|audio|video|text)/[a-z0-9.+-]+"),
    image_types=re.compile(r"image/(?:png|jpeg|gif|webp|heic|heif)"),
    reasoning_content=True,
    joins_parts=frozenset({"system", "developer", "tool"}),
    adds_text=True,
    ids_dropped=True,
    merges_system=re.compile(r".*(?:gemma|lyria|streaming).*"),
)
STRICT = WireRules(  # for any other prefix: nobody has measured it
    wire="this provider's wire",
    parameters=_SAMPLING,
    user_parts=frozenset({"text"}),
    tool_schema=check_root,
    file_types=re.compile(r"(?!)"),
    image_types=re.compile(r"(?!)"),
    tools=False,
    roles=frozenset({"system", "user", "assistant"}),
    joins_parts=frozenset({"system", "user", "assistant"}),
    trims_last=True,
)
RULES: Mapping[str, WireRules] = {"anthropic": ANTHROPIC, "gemini": GEMINI}

# Values that say what would hold without them: such a parameter need not travel.
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "metadata": ({},),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "service_tier": ("auto", "default"),
    "store": (False,),
}


def asks_nothing(name: str, value: object) -> bool:
    """Whether a parameter only spells out what it is without it."""
    return any(value == held and isinstance(value, bool) == isinstance(held, bool) for held in NEUTRAL.get(name, ()))
