"""Tools and tool choice: flat in the Responses API, nested in chat completions.

Pure. Owns both shapes of a function and of a custom tool. On /responses only functions are carried: custom tools, of
free text, are known to the chat completions of OpenAI alone, which speaks the Responses API itself. A body that was
posted to /chat/completions gets its custom tools in chat's own shape, because its answer is chat's too.
"""

from gateway.surfaces.responses_lacking import Lacking, Object, list_of, malformed, object_of, text_of

MODES = ("none", "auto", "required")
# `allowed_callers: ["direct"]` and `defer_loading: false` ask for what holds anyway.
_FUNCTION = frozenset({"type", "name", "description", "parameters", "strict", "allowed_callers", "defer_loading"})
_CUSTOM = frozenset({"type", "name", "description", "format", "allowed_callers", "defer_loading"})
_HOSTED = "a tool of the provider's own, and chat completions have none"


def is_flat(tool: object) -> bool:
    """Whether a function or custom tool, or the choice of one, is in the shape of the Responses API."""
    if not isinstance(tool, dict):
        return False
    kind = tool.get("type")
    return kind in ("function", "custom") and kind not in tool and "name" in tool


def chat_tools(tools: object, lacking: Lacking, *, for_chat: bool = False) -> list[object]:
    """The tools that chat completions carry. `for_chat`: those that already are in chat's shape stay as they are."""
    carried: list[object] = []
    for index, tool in enumerate(list_of(tools, "tools")):
        where = f"tools[{index}]"
        held = object_of(tool, where)
        nested = _chat_tool(held, where, lacking, for_chat=for_chat)
        if nested is not None:
            carried.append(nested)
    return carried


def _chat_tool(tool: Object, where: str, lacking: Lacking, *, for_chat: bool) -> object | None:
    kind = text_of(tool.get("type"), f"{where}.type")
    if for_chat and kind in ("function", "custom") and kind in tool:
        return tool
    if kind == "function":
        return _function(tool, where, lacking)
    if kind != "custom":
        lacking.add(f"{where}.type", f"is {kind[:64]}, {_HOSTED}")
        return None
    if not for_chat:
        lacking.add(f"{where}.type", "is custom, a tool of free text, which chat completions know at OpenAI alone")
        return None
    return _custom(tool, where, lacking)


def _function(tool: Object, where: str, lacking: Lacking) -> Object:
    """`strict` goes as it was sent; unset, chat completions do not enforce the schema (OpenAI's Responses API does)."""
    lacking.add_unknown(tool, _FUNCTION, f"{where}.")
    _check_callers(tool, where, lacking)
    function: dict[str, object] = {"name": text_of(tool.get("name"), f"{where}.name")}
    if tool.get("description") is not None:
        function["description"] = text_of(tool["description"], f"{where}.description")
    if tool.get("parameters") is not None:
        function["parameters"] = object_of(tool["parameters"], f"{where}.parameters")
    if tool.get("strict") is not None:
        if not isinstance(tool["strict"], bool):
            raise malformed(f"{where}.strict", "true or false")
        function["strict"] = tool["strict"]
    return {"type": "function", "function": function}


def _custom(tool: Object, where: str, lacking: Lacking) -> Object:
    lacking.add_unknown(tool, _CUSTOM, f"{where}.")
    _check_callers(tool, where, lacking)
    custom: dict[str, object] = {"name": text_of(tool.get("name"), f"{where}.name")}
    if tool.get("description") is not None:
        custom["description"] = text_of(tool["description"], f"{where}.description")
    if tool.get("format") is not None:
        shape = object_of(tool["format"], f"{where}.format")
        grammar = {name: value for name, value in shape.items() if name != "type"}
        custom["format"] = {"type": "grammar", "grammar": grammar} if shape.get("type") == "grammar" else shape
    return {"type": "custom", "custom": custom}


def _check_callers(tool: Object, where: str, lacking: Lacking) -> None:
    if tool.get("allowed_callers") not in (None, ["direct"]):
        lacking.add(f"{where}.allowed_callers", "lets a program call the tool, which chat completions do not know")
    if tool.get("defer_loading"):
        lacking.add(f"{where}.defer_loading", "loads the tool on a search, which chat completions do not know")


def chat_tool_choice(choice: object, lacking: Lacking, *, for_chat: bool = False) -> object | None:
    """The choice in chat's shape; None when it cannot be carried."""
    if isinstance(choice, str):
        if choice not in MODES:
            raise malformed("tool_choice", f"one of {', '.join(MODES)}, or an object")
        return choice
    held = object_of(choice, "tool_choice")
    kind = text_of(held.get("type"), "tool_choice.type")
    if for_chat and kind in held:
        return held
    if kind == "allowed_tools":
        return _allowed(held, lacking)
    if kind == "function" or (for_chat and kind == "custom"):
        lacking.add_unknown(held, frozenset({"type", "name"}), "tool_choice.")
        return {"type": kind, kind: {"name": text_of(held.get("name"), "tool_choice.name")}}
    lacking.add("tool_choice", f"names a tool of type {kind[:64]}, and only functions are carried")
    return None


def _allowed(choice: Object, lacking: Lacking) -> Object | None:
    lacking.add_unknown(choice, frozenset({"type", "mode", "tools"}), "tool_choice.")
    named: list[object] = []
    for index, tool in enumerate(list_of(choice.get("tools"), "tool_choice.tools")):
        where = f"tool_choice.tools[{index}]"
        held = object_of(tool, where)
        if held.get("type") != "function":
            lacking.add(f"{where}.type", "is not function, and only functions are carried")
            return None
        named.append({"type": "function", "function": {"name": text_of(held.get("name"), f"{where}.name")}})
    allowed = {"mode": text_of(choice.get("mode"), "tool_choice.mode"), "tools": named}
    return {"type": "allowed_tools", "allowed_tools": allowed}
