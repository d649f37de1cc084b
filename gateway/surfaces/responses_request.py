"""A Responses request said as a chat completions request, and what chat cannot carry of it.

Pure. Owns the table of the request's fields: each is carried, lacking, or without effect because what it asks for holds
anyway; what is in no table is lacking. Source: OpenAI's API document (CreateResponse) and openai-python's types,
November 2026; docs/responses.md is the same for readers.

Without effect, with these values or always:
- `store` unset or false, `background: false`, `truncation: "disabled"`, `text.format.type: "text"`, `top_logprobs: 0`,
  `stream_options.include_obfuscation: false`, `reasoning.mode: "standard"`: that holds anyway. OpenAI stores an answer
  unless told not to; a translated one is stored nowhere, and says `store: false`.
- `max_tool_calls` and the parts of `include` about hosted tools: of tools that are lacking themselves.
- `include: ["reasoning.encrypted_content"]`: a chat answer has no sealed reasoning to include.
- `reasoning.summary` auto or detailed: all that the provider tells of its reasoning becomes the summary.
- `tools: []`, and without tools `parallel_tool_calls` and `tool_choice` auto or none: nothing is called anyway.
- `client_metadata`: what Codex tells of itself; no provider's answer depends on it.
"""

from collections.abc import Callable, Mapping

from gateway.errors import bad_request
from gateway.parameters import PARAMETERS, READ_HERE
from gateway.surfaces.responses_input import Conversation
from gateway.surfaces.responses_lacking import (
    NATIVE,
    OTHER_ENDPOINT,
    Lacking,
    Object,
    list_of,
    malformed,
    object_of,
    text_of,
)
from gateway.surfaces.responses_tools import chat_tool_choice, chat_tools, is_flat
from gateway.surfaces.translation import Translation

Body = dict[str, object]
Reader = Callable[[object, Body, Lacking], None]

# Of one name and meaning in both APIs, and our own fields.
SAME = (
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "temperature",
    "top_p",
    "user",
)
OURS = ("model", "models", "provider", "wardgate", "stream")
NO_EFFECT = ("client_metadata", "max_tool_calls")
# Why chat cannot carry a field that asks for something.
STATE = "refers to what a provider has stored, and chat completions store nothing"
LACKING: Mapping[str, str] = {
    "conversation": STATE,
    "previous_response_id": STATE,
    "prompt": STATE,
    "context_management": "asks for compaction, which chat completions do not have",
    "moderation": "asks for results that chat completions tell in another shape",
}
# Values that ask for what holds anyway; any other is lacking.
HOLDS: Mapping[str, tuple[object, str]] = {
    "background": (False, "asks for an answer that is fetched later, and chat completions answer at once"),
    "store": (False, "asks for an answer that is kept, and a translated one is stored nowhere"),
    "truncation": ("disabled", "asks for a conversation that is cut to fit, and chat completions are sent whole"),
}
LOGPROBS = "message.output_text.logprobs"
INCLUDED = frozenset(
    {
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        "reasoning.encrypted_content",
        "web_search_call.action.sources",
        "web_search_call.results",
    }
)


def looks_like_responses(body: Object) -> bool:
    """Whether a body posted to /chat/completions is for the Responses API, in whole or in part: `input` and no
    `messages`, or tools (or the choice of one) in its flat shape. Cursor sends both."""
    if body.get("messages") is None and body.get("input") is not None:
        return True
    tools = body.get("tools")
    return is_flat(body.get("tool_choice")) or (isinstance(tools, list) and any(is_flat(tool) for tool in tools))


def to_chat(body: Object) -> Translation:
    """The chat completions request that `body` asks for; raises ApiError 400 for wrong types."""
    return _translated(body, for_chat=False)


def mixed_to_chat(body: Object) -> Translation:
    """The same for a body posted to /chat/completions, whose caller expects chat's answer.

    Chat's own fields stand beside those of the Responses API and stay as they are; items, parts and tools may be in
    either shape; custom tools get chat's shape. A body with `messages` keeps everything but its flat tools.
    """
    if body.get("messages") is None:
        return _translated(body, for_chat=True)
    lacking = Lacking(OTHER_ENDPOINT)
    return Translation(dict(body) | _tools(body, lacking, for_chat=True), lacking.found())


def _translated(body: Object, *, for_chat: bool) -> Translation:
    lacking = Lacking(OTHER_ENDPOINT if for_chat else NATIVE)
    chat: Body = {name: body[name] for name in OURS if name in body}
    for name, value in body.items():
        if value is not None and name not in _READ_APART:
            _field(name, value, chat, lacking, for_chat=for_chat)
    chat |= _tools(body, lacking, for_chat=for_chat)
    if not chat.get("tools"):  # chat refuses what is said of tools without any
        chat = {name: value for name, value in chat.items() if not _is_idle(name, value)}
    chat["messages"] = _messages(body, lacking, for_chat=for_chat)
    return Translation(chat, lacking.found())


def _field(name: str, value: object, chat: Body, lacking: Lacking, *, for_chat: bool) -> None:
    own = for_chat and (name in PARAMETERS or name in READ_HERE)
    if own and name not in ("top_logprobs", "reasoning"):  # these are read in the sense of the Responses API
        chat[name] = value
    elif name in SAME:
        chat[name] = _checked(name, name, value)
    elif name in _READERS:
        _READERS[name](value, chat, lacking)
    elif name in LACKING:
        if value:
            lacking.add(name, LACKING[name])
    elif name in HOLDS:
        holds, why = HOLDS[name]
        if value != holds:
            lacking.add(name, why)
    elif name not in NO_EFFECT:
        lacking.add(name[:64], "is not known to chat completions")


def _checked(name: str, chat_name: str, value: object) -> object:
    """`value` as the chat parameter `chat_name`; `name` is the caller's."""
    parameter = PARAMETERS[chat_name]
    if not parameter.check(value):
        raise malformed(name, parameter.must_be)
    return value


def _limit(value: object, chat: Body, lacking: Lacking) -> None:
    chat["max_completion_tokens"] = _checked("max_output_tokens", "max_completion_tokens", value)


def _top_logprobs(value: object, chat: Body, lacking: Lacking) -> None:
    if _checked("top_logprobs", "top_logprobs", value):
        chat["top_logprobs"] = value
        chat["logprobs"] = True


def _include(value: object, chat: Body, lacking: Lacking) -> None:
    for index, name in enumerate(list_of(value, "include")):
        where = f"include[{index}]"
        if text_of(name, where) == LOGPROBS:
            chat["logprobs"] = True
        elif name not in INCLUDED:
            lacking.add(where, "is not known to chat completions")


def _reasoning(value: object, chat: Body, lacking: Lacking) -> None:
    reasoning = object_of(value, "reasoning")
    known = frozenset({"effort", "summary", "generate_summary", "context", "mode"})
    lacking.add_unknown(reasoning, known, "reasoning.")
    if reasoning.get("effort") is not None:
        chat["reasoning_effort"] = _checked("reasoning.effort", "reasoning_effort", reasoning["effort"])
    for name in ("summary", "generate_summary"):
        if reasoning.get(name) not in (None, "auto", "detailed"):
            lacking.add(f"reasoning.{name}", "asks for a length, and chat cannot", "use auto")
    if reasoning.get("context") not in (None, "auto", "current_turn", "all_turns"):
        raise malformed("reasoning.context", "auto, current_turn or all_turns")
    if reasoning.get("mode") not in (None, "standard"):
        lacking.add("reasoning.mode", "is not standard, and chat completions know no other")


def _text(value: object, chat: Body, lacking: Lacking) -> None:
    text = object_of(value, "text")
    lacking.add_unknown(text, frozenset({"format", "verbosity"}), "text.")
    if text.get("verbosity") is not None:
        chat["verbosity"] = _checked("text.verbosity", "verbosity", text["verbosity"])
    if text.get("format") is not None:
        _format(object_of(text["format"], "text.format"), chat, lacking)


def _format(shape: Object, chat: Body, lacking: Lacking) -> None:
    kind = text_of(shape.get("type"), "text.format.type")
    if kind == "json_object":
        chat["response_format"] = {"type": kind}
    elif kind == "json_schema":
        lacking.add_unknown(shape, frozenset({"type", "name", "schema", "description", "strict"}), "text.format.")
        schema = {name: value for name, value in shape.items() if name != "type" and value is not None}
        text_of(schema.get("name"), "text.format.name")
        object_of(schema.get("schema"), "text.format.schema")
        chat["response_format"] = {"type": kind, kind: schema}
    elif kind != "text":
        lacking.add("text.format.type", "is not text, json_object or json_schema, which are chat's")


def _stream_options(value: object, chat: Body, lacking: Lacking) -> None:
    options = object_of(value, "stream_options")
    lacking.add_unknown(options, frozenset({"include_obfuscation"}), "stream_options.")
    if options.get("include_obfuscation"):
        lacking.add("stream_options.include_obfuscation", "is not made here", "set it to false")


_READERS: Mapping[str, Reader] = {
    "include": _include,
    "max_output_tokens": _limit,
    "reasoning": _reasoning,
    "stream_options": _stream_options,
    "text": _text,
    "top_logprobs": _top_logprobs,
}
_READ_APART = frozenset({*OURS, "input", "instructions", "tools", "tool_choice"})


def _tools(body: Object, lacking: Lacking, *, for_chat: bool) -> Body:
    """`tools` and `tool_choice`, where they are carried."""
    carried: Body = {}
    if body.get("tools") is not None:
        carried["tools"] = chat_tools(body["tools"], lacking, for_chat=for_chat)
    if body.get("tool_choice") is not None:
        choice = chat_tool_choice(body["tool_choice"], lacking, for_chat=for_chat)
        carried |= {"tool_choice": choice} if choice is not None else {}
    return carried


def _is_idle(name: str, value: object) -> bool:
    return name in ("tools", "parallel_tool_calls") or (name == "tool_choice" and value in ("auto", "none"))


def _messages(body: Object, lacking: Lacking, *, for_chat: bool) -> list[Body]:
    """At least one. Where only a provider's store knows what was said, an empty one stands for it: such a request is
    lacking, and no chat provider sees it."""
    reasoning = body.get("reasoning")
    all_turns = isinstance(reasoning, dict) and reasoning.get("context") == "all_turns"
    conversation = Conversation(lacking, all_turns=all_turns, for_chat=for_chat)
    if body.get("instructions") is not None:
        conversation.instruct(text_of(body["instructions"], "instructions"))
    said = body.get("input")
    if isinstance(said, str):
        said = [{"role": "user", "content": said}]
    for index, item in enumerate(list_of(said, "input") if said is not None else ()):
        conversation.take(item, f"input[{index}]")
    messages = conversation.messages()
    if not messages and not lacking.found():
        raise bad_request("`input` is missing or empty; send a string or a list of items.", param="input")
    return messages or [{"role": "user", "content": ""}]
