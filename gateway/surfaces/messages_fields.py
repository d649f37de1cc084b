"""Reads the fields of a Messages request: right in type, or 400 by name; what chat cannot carry is gathered.

Pure. Owns how a caller's field is named and checked; knows no field's meaning.
"""

from collections.abc import Collection, Mapping
from typing import Final

from gateway.errors import ApiError, bad_request
from gateway.refusals import Refused

Object = Mapping[str, object]
Json = dict[str, object]

NATIVE: Final = "leave it out, or ask for a provider on Anthropic's wire"
SHOWN_LENGTH: Final = 64  # characters of a caller's name that are repeated
_KINDS: Final[Mapping[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
}


class Lacks:
    """What chat completions cannot carry of one request, in the order in which it was met."""

    def __init__(self) -> None:
        self._found: list[Refused] = []

    def add(self, where: str, why: str, help_: str = NATIVE) -> None:
        """`where` is the caller's field; `why` and `help_` complete the sentence."""
        sentence = f"Chat completions cannot carry this request: `{where}` {why}; {help_}."
        self._found.append(Refused(where, sentence))

    def found(self) -> tuple[Refused, ...]:
        return tuple(self._found)


def shown(name: str) -> str:
    """A caller's own word, cut where it is long."""
    return name if len(name) <= SHOWN_LENGTH else name[:SHOWN_LENGTH] + "..."


def wrong(where: str, must_be: str, value: object) -> ApiError:
    """400 that names the field and says what it must be."""
    kind = _KINDS.get(type(value), "an object")
    return bad_request(f"`{where}` must be {must_be}, not {kind}.", param=where)


def text(value: object, where: str) -> str:
    """A string; raises ApiError 400."""
    if not isinstance(value, str):
        raise wrong(where, "a string", value)
    return value


def texts(value: object, where: str) -> list[str]:
    """A list of strings; raises ApiError 400."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise wrong(where, "a list of strings", value)
    return value


def whole(value: object, where: str) -> int:
    """A whole number; raises ApiError 400."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong(where, "a whole number", value)
    return value


def number(value: object, where: str) -> int | float:
    """A number; raises ApiError 400."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong(where, "a number", value)
    return value


def flag(value: object, where: str) -> bool:
    """True or false; raises ApiError 400."""
    if not isinstance(value, bool):
        raise wrong(where, "true or false", value)
    return value


def an_object(value: object, where: str) -> Json:
    """An object; raises ApiError 400."""
    if not isinstance(value, dict):
        raise wrong(where, "an object", value)
    return value


def objects(value: object, where: str) -> list[Json]:
    """A list of objects; raises ApiError 400."""
    if not isinstance(value, list):
        raise wrong(where, "a list of objects", value)
    return [an_object(item, f"{where}[{index}]") for index, item in enumerate(value)]


def only(held: Object, where: str, known: Collection[str], lacks: Lacks) -> None:
    """Note each field of `held` that is not known; what is null, false or empty asks for nothing."""
    for name, value in held.items():
        if name not in known and value is not None and value is not False and value not in ([], {}, ""):
            lacks.add(f"{where}.{shown(name)}", "has no place in chat completions")


def check_cache_hint(held: Object, where: str = "") -> None:
    """`cache_control` is a hint: it changes what an answer costs where it is known, never the answer. It travels to
    providers on Anthropic's wire alone, and `usage` tells what really was read from a cache."""
    if held.get("cache_control") is not None:
        an_object(held["cache_control"], f"{where}.cache_control".lstrip("."))
