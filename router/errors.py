"""The errors of the router and the words they share: one base, the nearest known word, a quoted name.

Owns the classes and how a message names things. A class docstring is the default message. Must not know any other
module of the router.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_SHOWN_CHARACTERS: Final = 80  # what a message quotes of a caller's text, which may be as long as a body


class RouterError(Exception):
    """The router could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class PlanError(RouterError):
    """A plan row is not valid."""


class AliasError(RouterError):
    """A name for models is not valid."""


class PreferenceError(RouterError):
    """What the request says about routing is not valid. `param` is the field."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class ModelError(RouterError):
    """A row of the operator's models, or a quality score, is not valid."""


class PriceMapError(RouterError):
    """The price map cannot be read."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, or None when none is near."""
    found = get_close_matches(word[:_SHOWN_CHARACTERS], sorted(known), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence's tail that names the nearest known word: `; did you mean 'acme'?`, or nothing."""
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near else ""


def quoted(text: str) -> str:
    """`text` in quotes for a message: control characters escaped, long texts cut."""
    if len(text) <= _SHOWN_CHARACTERS:
        return repr(text)
    return f"{text[:_SHOWN_CHARACTERS]!r}... ({len(text)} characters)"
