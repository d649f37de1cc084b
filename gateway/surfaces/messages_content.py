"""The messages of a Messages request as chat messages: roles, blocks, tool calls and their results.

Pure. Owns which block becomes what. One text block is the same as a plain text (Anthropic's API reference), so it
becomes one; several stay several parts. Every other block is carried, or named as lacking.
"""

from collections.abc import Callable, Mapping
from typing import Final

from gateway.errors import bad_request
from gateway.openai_shape import encode
from gateway.surfaces.messages_fields import (
    NATIVE,
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

Parts = list[Json]
Reader = Callable[[Object, str, Lacks], Parts]

_FILES_API: Final = "names a file that only Anthropic holds"
_OTHERWISE: Final = "or ask for a provider on Anthropic's wire"
_SEND_IT: Final = f"send it base64-encoded, {_OTHERWISE}"
_AS_TEXT: Final = f"send its text in a text block, {_OTHERWISE}"
FAILED: Final = "Error: "  # before the text of a tool result with is_error: chat has no flag for it
# Why a block of this type is not carried; for any other, that chat has none of the kind.
_WHY: Final[Mapping[str, tuple[str, str]]] = {
    "search_result": ("is a search result, which chat completions do not have", _AS_TEXT),
    "redacted_thinking": (
        "is sealed by the provider that made it, and no other can read it",
        NATIVE,
    ),
}
_NO_BLOCK: Final = "is of a type that chat completions do not have"


def system_messages(system: object, lacks: Lacks) -> list[Json]:
    """`system` as the first message; none when it is absent or empty."""
    if system is None or system in ("", []):
        return []
    return [{"role": "system", "content": _content(_texts(system, "system", lacks))}]


def chat_messages(messages: object, lacks: Lacks) -> list[Json]:
    """All turns in order; a turn with tool results becomes several messages."""
    turns = objects(messages, "messages")
    if not turns:
        raise bad_request("`messages` is empty; send at least one message.", param="messages")
    said: list[Json] = []
    for index, turn in enumerate(turns):
        where = f"messages[{index}]"
        role = turn.get("role")
        if not isinstance(role, str) or role not in _TURNS:
            raise bad_request(f"`{where}.role` must be one of {', '.join(_TURNS)}.", param=f"{where}.role")
        only(turn, where, ("role", "content"), lacks)
        said += _TURNS[role](turn.get("content"), f"{where}.content", lacks)
    if turns[-1]["role"] == "assistant":
        why = "is the beginning of an answer (a prefill), which chat completions would not continue"
        lacks.add(f"messages[{len(turns) - 1}]", why, "end with a message from user")
    return said


def _user(content: object, where: str, lacks: Lacks) -> list[Json]:
    results: list[Json] = []
    parts: Parts = []
    for block, place in _blocks(content, where):
        if block.get("type") != "tool_result":
            parts += _parts(block, place, _USER_BLOCKS, lacks)
            continue
        if parts:
            lacks.add(place, "answers a tool after other content, which chat completions do not allow", "put it first")
        results.append(_tool_result(block, place, lacks))
    said = [{"role": "user", "content": _content(parts)}] if parts or not results else []
    return [*results, *said]


def _assistant(content: object, where: str, lacks: Lacks) -> list[Json]:
    parts: Parts = []
    calls: list[Json] = []
    thoughts: list[str] = []
    for block, place in _blocks(content, where):
        if block.get("type") == "tool_use":
            calls.append(_tool_call(block, place, lacks))
        elif block.get("type") == "thinking":
            thoughts += _thought(block, place, lacks)
        else:
            parts += _parts(block, place, _TEXT_BLOCKS, lacks)
    message: Json = {"role": "assistant", "content": _content(parts) if parts or not calls else None}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return [message]


def _system(content: object, where: str, lacks: Lacks) -> list[Json]:
    return [{"role": "system", "content": _content(_texts(content, where, lacks))}]


_TURNS: Final[Mapping[str, Callable[[object, str, Lacks], list[Json]]]] = {
    "user": _user,
    "assistant": _assistant,
    "system": _system,
}


def _texts(content: object, where: str, lacks: Lacks) -> Parts:
    """Content that may hold text alone."""
    return [part for block, place in _blocks(content, where) for part in _parts(block, place, _TEXT_BLOCKS, lacks)]


def _blocks(content: object, where: str) -> list[tuple[Json, str]]:
    """Each block with its place; a plain text is one text block."""
    if isinstance(content, str):
        return [({"type": "text", "text": content}, where)]
    return [(block, f"{where}[{index}]") for index, block in enumerate(objects(content, where))]


def _content(parts: Parts) -> object:
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _parts(block: Object, where: str, readers: Mapping[str, Reader], lacks: Lacks) -> Parts:
    kind = text(block.get("type"), f"{where}.type")
    check_cache_hint(block, where)
    reader = readers.get(kind)
    if reader is None:
        why, help_ = _WHY.get(kind, (f"{_NO_BLOCK} here ({shown(kind)})", NATIVE))
        lacks.add(where, why, help_)
        return []
    return reader(block, where, lacks)


def _text(block: Object, where: str, lacks: Lacks) -> Parts:
    only(block, where, ("type", "text", "cache_control"), lacks)
    return [{"type": "text", "text": text(block.get("text"), f"{where}.text")}]


def _image(block: Object, where: str, lacks: Lacks) -> Parts:
    only(block, where, ("type", "source", "cache_control"), lacks)
    where = f"{where}.source"
    source = an_object(block.get("source"), where)
    kind = text(source.get("type"), f"{where}.type")
    if kind == "base64":
        return [{"type": "image_url", "image_url": {"url": _data_url(source, where)}}]
    if kind == "url":
        return [{"type": "image_url", "image_url": {"url": text(source.get("url"), f"{where}.url")}}]
    lacks.add(where, _FILES_API if kind == "file" else _NO_BLOCK, _SEND_IT)
    return []


def _document(block: Object, where: str, lacks: Lacks) -> Parts:
    citations = block.get("citations")
    if isinstance(citations, dict) and citations.get("enabled") is False:
        citations = None
    known = ("type", "source", "cache_control", "citations", "title")
    only({**block, "citations": None}, where, known, lacks)
    if citations:
        lacks.add(f"{where}.citations", "asks for citations, which chat completions do not have")
    source = an_object(block.get("source"), f"{where}.source")
    kind = text(source.get("type"), f"{where}.source.type")
    if kind == "base64":
        return _file(block, source, where)
    if block.get("title"):
        lacks.add(f"{where}.title", "has no place beside a text in chat completions", "say it in the text")
    if kind == "text":
        return [{"type": "text", "text": text(source.get("data"), f"{where}.source.data")}]
    if kind == "content":
        blocks = _blocks(source.get("content"), f"{where}.source.content")
        return [part for inner, place in blocks for part in _parts(inner, place, _INNER_BLOCKS, lacks)]
    why = _FILES_API if kind == "file" else "is not in the request, and chat completions take no file by its address"
    lacks.add(f"{where}.source", why, _SEND_IT)
    return []


def _file(block: Object, source: Object, where: str) -> Parts:
    held: Json = {"file_data": _data_url(source, f"{where}.source")}
    if block.get("title"):
        held["filename"] = text(block["title"], f"{where}.title")
    return [{"type": "file", "file": held}]


def _data_url(source: Object, where: str) -> str:
    media_type = text(source.get("media_type"), f"{where}.media_type")
    return f"data:{media_type};base64,{text(source.get('data'), f'{where}.data')}"


_TEXT_BLOCKS: Final[Mapping[str, Reader]] = {"text": _text}
_INNER_BLOCKS: Final[Mapping[str, Reader]] = {**_TEXT_BLOCKS, "image": _image}
_USER_BLOCKS: Final[Mapping[str, Reader]] = {**_INNER_BLOCKS, "document": _document}


def _tool_call(block: Object, where: str, lacks: Lacks) -> Json:
    direct = block.get("caller") == {"type": "direct"}
    known = ("type", "id", "name", "input", "cache_control", *(("caller",) if direct else ()))
    only(block, where, known, lacks)
    check_cache_hint(block, where)
    arguments = encode(an_object(block.get("input"), f"{where}.input")).decode()
    function = {"name": text(block.get("name"), f"{where}.name"), "arguments": arguments}
    return {"id": text(block.get("id"), f"{where}.id"), "type": "function", "function": function}


def _tool_result(block: Object, where: str, lacks: Lacks) -> Json:
    only(block, where, ("type", "tool_use_id", "content", "is_error", "cache_control"), lacks)
    check_cache_hint(block, where)
    content = block.get("content")
    parts = [] if content is None else _result_parts(content, f"{where}.content", lacks)
    if block.get("is_error") is not None and flag(block["is_error"], f"{where}.is_error"):
        parts = parts or [{"type": "text", "text": ""}]
        parts[0] = {**parts[0], "text": f"{FAILED}{parts[0]['text']}"}
    identity = text(block.get("tool_use_id"), f"{where}.tool_use_id")
    return {"role": "tool", "tool_call_id": identity, "content": _content(parts)}


def _result_parts(content: object, where: str, lacks: Lacks) -> Parts:
    """Text alone: a picture moved into the user's next message would be said by somebody else."""
    kept: Parts = []
    for block, place in _blocks(content, where):
        for part in _parts(block, place, _USER_BLOCKS, lacks):
            if part["type"] == "text":
                kept.append(part)
            else:
                why = "is no text, and a tool's answer in chat completions holds text alone"
                lacks.add(place, why, f"put it beside the tool result, {_OTHERWISE}")
    return kept


def _thought(block: Object, where: str, lacks: Lacks) -> list[str]:
    """Thinking without a signature came from a provider on another wire, which takes it back as `reasoning_content`."""
    only(block, where, ("type", "thinking", "signature"), lacks)
    thinking = text(block.get("thinking"), f"{where}.thinking")
    signature = block.get("signature")
    if signature is None or text(signature, f"{where}.signature") == "":
        return [thinking] if thinking else []
    why = "was signed by the provider that made it, and means nothing to another"
    lacks.add(where, why, f"leave thinking blocks out, {_OTHERWISE}")
    return []
