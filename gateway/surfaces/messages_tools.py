"""The tools of a Messages request as chat tools, and which of them is to be called.

Pure. Carries the caller's own tools; those that Anthropic runs or has taught its models (a `type` other than custom)
exist on its wire alone.
"""

from collections.abc import Mapping
from typing import Final

from gateway.errors import bad_request
from gateway.surfaces.messages_fields import (
    Json,
    Lacks,
    Object,
    an_object,
    check_cache_hint,
    flag,
    objects,
    only,
    shown,
    text,
)

LONGEST_NAME: Final = 64  # characters (OpenAI's API reference, tools[].function.name); Anthropic's wire takes 128
# `eager_input_streaming` says how arguments are streamed: as fragments they always are here.
_TOOL: Final = ("type", "name", "description", "input_schema", "strict", "cache_control", "eager_input_streaming")
_CHOICES: Final[Mapping[str, str]] = {"auto": "auto", "any": "required", "none": "none"}


def chat_tools(value: object, lacks: Lacks) -> list[Json]:
    """The tools that chat completions can describe."""
    found: list[Json] = []
    for index, tool in enumerate(objects(value, "tools")):
        where = f"tools[{index}]"
        kind = tool.get("type")
        if kind is None or kind == "custom":
            found.append(_function(tool, where, lacks))
        else:
            why = f"names a tool that only Anthropic's wire has ({shown(text(kind, f'{where}.type'))})"
            lacks.add(f"{where}.type", why)
    return found


def _function(tool: Object, where: str, lacks: Lacks) -> Json:
    direct = tool.get("allowed_callers") == ["direct"]
    only(tool, where, (*_TOOL, *(("allowed_callers",) if direct else ())), lacks)
    check_cache_hint(tool, where)
    name = text(tool.get("name"), f"{where}.name")
    if len(name) > LONGEST_NAME:
        lacks.add(f"{where}.name", f"is longer than {LONGEST_NAME} characters", "use a shorter name")
    function: Json = {"name": name, "parameters": an_object(tool.get("input_schema"), f"{where}.input_schema")}
    if tool.get("description") is not None:
        function["description"] = text(tool["description"], f"{where}.description")
    if tool.get("strict") is not None:
        function["strict"] = flag(tool["strict"], f"{where}.strict")
    return {"type": "function", "function": function}


def chat_choice(value: object, lacks: Lacks, *, has_tools: bool) -> Json:
    """`tool_choice` and `parallel_tool_calls`; what only says what holds without tools is left out."""
    choice = an_object(value, "tool_choice")
    only(choice, "tool_choice", ("type", "name", "disable_parallel_tool_use"), lacks)
    kind = text(choice.get("type"), "tool_choice.type")
    if kind not in (*_CHOICES, "tool"):
        message = "`tool_choice.type` must be one of auto, any, tool, none."
        raise bad_request(message, param="tool_choice.type")
    single = choice.get("disable_parallel_tool_use")
    alone = single is not None and flag(single, "tool_choice.disable_parallel_tool_use")
    if not has_tools and kind in ("auto", "none"):
        return {}
    return {"tool_choice": _chosen(kind, choice), **({"parallel_tool_calls": False} if alone else {})}


def _chosen(kind: str, choice: Object) -> object:
    if kind == "tool":
        return {"type": "function", "function": {"name": text(choice.get("name"), "tool_choice.name")}}
    return _CHOICES[kind]
