"""Whether a request is bulk: its token's scope says so, else a header, else the tier that its body asks for.

Must not know what becomes of bulk.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from gateway.asgi import Scope
from gateway.errors import ApiError, bad_request

HEADER: Final = "x-wardgate-priority"
_NAME: Final = HEADER.encode()
FLEX: Final = "flex"  # OpenAI's tier for what may wait


class Priority(StrEnum):
    """What a caller may say of a request."""

    BULK = "bulk"
    INTERACTIVE = "interactive"


_SAID: Final[Mapping[bytes, Priority]] = {each.value.encode(): each for each in Priority}


def said(scope: Scope) -> Priority | None:
    """What the header says, None for a request without; raises ApiError 400 for any other word, and for two."""
    found = None
    for name, value in scope["headers"]:
        if name == _NAME:
            word = _SAID.get(value.strip().lower())
            if word is None or (found is not None and found is not word):
                raise _unknown()
            found = word
    return found


def _unknown() -> ApiError:
    words = " or ".join(f"`{each}`" for each in Priority)
    return bad_request(f"The header `{HEADER}` is {words}, sent once.", param=HEADER)


def is_bulk(wanted: Priority | None, *, token: bool, tier: object = None) -> bool:
    """`wanted` is what the header says, `token` whether every request of the token is bulk, which no header lifts, and
    `tier` the body's `service_tier`, which the header overrules."""
    return token or (tier == FLEX if wanted is None else wanted is Priority.BULK)
