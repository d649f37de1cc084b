"""The header `Idempotency-Key`: its form, on both planes.

Must not know what becomes of a key (gateway.repeats, gateway.admin.once).
"""

import re
from typing import Final

from gateway.asgi import Scope, header, headers_named
from gateway.errors import bad_request

HEADER: Final = "idempotency-key"
WELL_FORMED: Final = re.compile(r"[!-~]{1,255}")
INVALID: Final = "The Idempotency-Key header must be sent once, with 1 to 255 visible ASCII characters."


def key_of(scope: Scope) -> str | None:
    """The request's key, None for nearly every request; raises ApiError 400 for one that is not well formed."""
    if header(scope, HEADER) is None:
        return None
    sent = headers_named(scope, HEADER)
    if len(sent) > 1 or not WELL_FORMED.fullmatch(sent[0]):
        raise bad_request(INVALID, code="invalid_idempotency_key")
    return sent[0]
