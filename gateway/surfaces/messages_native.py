"""A Messages request on its way to a provider that speaks Anthropic's wire itself: which headers go along, what fits.

Pure. The body travels as it came; of the caller's headers two do: the version of the API and the features that are
tried out.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from gateway.refusals import Refused

Object = Mapping[str, object]

TRAVEL: Final = (b"anthropic-version", b"anthropic-beta")
DEFAULT_VERSION: Final = (b"anthropic-version", b"2023-06-01")  # where the caller sends none; the wire requires one


def native_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that travel, untouched and in their order; names in lower case, as ASGI gives them."""
    kept = [(name, value) for name, value in headers if name in TRAVEL]
    return kept if any(name == DEFAULT_VERSION[0] for name, _ in kept) else [DEFAULT_VERSION, *kept]


def unsigned_thought(body: Object) -> Refused | None:
    """The first thought without a signature, which Anthropic refuses (400 "Invalid `signature` in `thinking` block"):
    it came from a provider on another wire, and only such a provider can take the conversation on. None: all are
    signed. Reads what it knows and passes over the rest; it never raises."""
    for index, turn in enumerate(_list(body.get("messages"))):
        content = turn.get("content") if isinstance(turn, dict) else None
        for place, block in enumerate(_list(content)):
            if isinstance(block, dict) and block.get("type") == "thinking" and not block.get("signature"):
                where = f"messages[{index}].content[{place}]"
                why = "is a thought of a model on another wire, without a signature, which Anthropic refuses"
                return Refused(where, f"`{where}` {why}; leave it out, or ask for a provider on another wire.")
    return None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
