"""Whether a request refers to what only one provider has: a file, a stored answer, reasoning sealed for itself.

Such a request goes to no second provider, account or model: it could not be understood there. Owns the shapes by which
that is seen, in OpenAI's two APIs and in what providers add to messages. Must not know providers.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# At the root: a stored answer or conversation.
_ROOT: Final = ("previous_response_id", "conversation", "prompt")
# Anywhere in messages or input: a name whose text is a reference or a sealed text. `file_id`: uploaded files;
# `encrypted_content`: OpenAI's reasoning items; `thought_signature`: Gemini, in tool calls.
_NAMES: Final = ("file_id", "encrypted_content", "thought_signature")
# A part of this type binds when it has this field: Anthropic's thinking blocks, OpenRouter's reasoning_details.
_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {"thinking": "signature", "redacted_thinking": "data", "reasoning.encrypted": "data"}
)


def provider_bound(body: Mapping[str, object]) -> str | None:
    """The field that binds a request to the provider that made what it refers to, e.g. "messages.file_id"; None when
    nothing does. The whole of `messages` and `input` is looked at: ask only when it matters."""
    for name in _ROOT:
        value = body.get(name)
        if value and not (
            name == "prompt" and isinstance(value, (str, list))
        ):  # text of a completion refers to nothing
            return name
    for name in ("messages", "input"):
        found = _inside(body.get(name))
        if found:
            return f"{name}.{found}"
    return None


def _inside(value: object) -> str | None:
    level: list[object] = [value]
    while level:
        deeper: list[object] = []
        for item in level:
            if isinstance(item, dict):
                found = _bound(item)
                if found:
                    return found
                deeper += item.values()
            elif isinstance(item, list):
                deeper += item
        level = deeper
    return None


def _bound(item: Mapping[str, object]) -> str | None:
    for name in _NAMES:
        if isinstance(item.get(name), str) and item[name]:
            return name
    kind = item.get("type")
    if isinstance(kind, str) and isinstance(item.get(_TYPES.get(kind, "")), str) and item[_TYPES[kind]]:
        return kind
    if kind == "item_reference" or (kind == "reasoning" and "id" in item and not item.get("summary")):
        return kind
    audio = item.get("audio")  # an assistant's earlier answer in sound, kept by the provider under an id
    if item.get("role") == "assistant" and isinstance(audio, dict) and isinstance(audio.get("id"), str):
        return "audio.id"
    return None
