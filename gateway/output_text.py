"""How much of what a provider sent is text that its model wrote: in one event of a stream, or in a whole answer, on any
wire. Pure.

Text, thoughts, refusals, and what is called with which arguments are tokens of the output. What stands beside them is
none, however long it is: log probabilities, sounds, pictures, signatures, citations, what tools found, what is sealed.
"""

from typing import Final

from gateway.openai_shape import encode

# Fields whose text was written by the model, and fields in which such fields are.
_TEXT: Final = frozenset(
    {
        "content",
        "text",
        "reasoning_content",
        "reasoning",
        "thinking",
        "refusal",
        "name",
        "arguments",
        "partial_json",
        "input",
        "args",
        "code",
        "delta",
        "tool_plan",
        "transcript",
    }
)
_AROUND: Final = frozenset(
    {
        "choices",
        "delta",
        "message",
        "content",
        "text",
        "thinking",
        "tool_calls",
        "function",
        "function_call",
        "custom",
        "audio",
        "output",
        "summary",
        "candidates",
        "parts",
        "functionCall",
        "executableCode",
    }
)
_MOST: Final = 50_000  # lists and objects that are looked into, some 0.03 s: no answer has so many
_ARGUMENTS: Final = frozenset({"arguments", "input", "args"})  # which some send as the object that they are


def text_size(document: object) -> int:
    """In bytes of UTF-8."""
    size, inner, left = 0, [document], _MOST
    while inner and left:
        one, left = inner.pop(), left - 1
        if isinstance(one, list):
            inner += one
        elif isinstance(one, dict) and not _is_none_of_it(one.get("type")):
            for name, value in one.items():
                if isinstance(value, str):
                    size += _size(value) if name in _TEXT and not _is_said_again(name, one) else 0
                elif name in _AROUND:
                    inner.append(value)
                elif value and name in _ARGUMENTS:
                    size += _written(value)
    return size


def _is_none_of_it(kind: object) -> bool:
    """Sounds of the Responses API, and what Anthropic's own tools found."""
    return isinstance(kind, str) and kind.endswith(("audio.delta", "_result"))


def _is_said_again(name: str, beside: dict[str, object]) -> bool:
    """vLLM and those built on it name a thought twice."""
    return name == "reasoning" and bool(beside.get("reasoning_content"))


def _written(arguments: object) -> int:
    try:
        return len(encode(arguments))
    except RecursionError:  # no tool is called with what is so deep
        return 0


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
