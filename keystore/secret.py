"""A provider key or token in memory, masked everywhere.

Owns the one type that holds a secret and the one way to read it, `reveal()`. Must not know where secrets come from.
Python cannot wipe memory: this keeps a secret out of logs, errors, pickles and JSON, not out of a core dump.
"""

import hmac
from typing import Any, Final, NoReturn

_MASK: Final = "Secret(***)"


class Secret:
    """Text that shows itself only to `reveal()`. Never empty; compared in constant time; not hashable."""

    __slots__ = ("_text",)
    _text: str
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError("a secret is text")
        if not text:
            raise ValueError("a secret cannot be empty")
        object.__setattr__(self, "_text", text)

    def reveal(self) -> str:
        """The secret itself. Every caller of this is a place where a secret can leave."""
        return self._text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes(self.reveal()), _bytes(other.reveal()))

    def __repr__(self) -> str:
        return _MASK

    def __str__(self) -> str:
        return _MASK

    def __format__(self, spec: str) -> str:
        return format(_MASK, spec)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a secret does not change")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a secret does not change")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a secret is not copied or pickled")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not copied or pickled")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a secret is not copied or pickled")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
