"""What chat completions cannot carry of a Responses request, collected while it is read; and how wrong types are told.

Owns the sentences' shape. Must not know any field.
"""

from collections.abc import Mapping

from gateway.errors import ApiError, bad_request
from gateway.refusals import Refused
from gateway.translation_rules import Untranslatable

NATIVE = "ask for a provider that speaks the Responses API"
OTHER_ENDPOINT = "post it to /v1/responses"  # for a body that was posted to /chat/completions
LEAVE_OUT = "leave it out"

Object = Mapping[str, object]


class Lacking:
    """The list in the making. `elsewhere`: who might carry it all, for the end of each sentence."""

    def __init__(self, elsewhere: str = NATIVE) -> None:
        self._elsewhere = elsewhere
        self._refused: list[Refused] = []

    def add(self, param: str, why: str, help_: str = LEAVE_OUT) -> None:
        """Note that `param`, the caller's own field, cannot be carried."""
        told = Untranslatable(param, why, f"{help_}, or {self._elsewhere}")
        sentence = f"chat completions cannot carry this request: {told}"
        self._refused.append(Refused(param, sentence))

    def add_unknown(self, held: Object, known: frozenset[str], where: str = "") -> None:
        """Note each field of `held` that is not known; null asks for nothing."""
        for name, value in held.items():
            if name not in known and value is not None:
                self.add(f"{where}{name[:64]}", "is not known to chat completions")

    def found(self) -> tuple[Refused, ...]:
        return tuple(self._refused)


def malformed(where: str, must_be: str) -> ApiError:
    """400 for a value of the wrong type."""
    return bad_request(f"`{where}` must be {must_be}.", param=where)


def object_of(value: object, where: str) -> Object:
    if not isinstance(value, dict):
        raise malformed(where, "an object")
    return value


def text_of(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise malformed(where, "a string")
    return value


def list_of(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise malformed(where, "a list")
    return value
