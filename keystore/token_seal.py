"""The seal of a token's row: who can write the database can neither make a token nor give one more rights.

HMAC-SHA256, under a key that is not in the database in clear, over all that says whose the token is, what it may do and
until when. What is not under it: when it was last used. Pure. Must not know statements.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from keystore.sealing import encode_fields

SEALED: Final = (
    "id",
    "kind",
    "tenant_id",
    "name",
    "scopes",
    "hash",
    "created_at",
    "expires_at",
    "revoked_at",
    "allowed_models",
    "allowed_addresses",
    "replaced_by",
)


def seal_token(key: bytes, row: Mapping[str, Any]) -> bytes:
    """The seal of a row's fields as they will be stored."""
    fields = encode_fields("wg/token/1", *(_text(row.get(name)) for name in SEALED))
    return hmac.digest(key, fields, hashlib.sha256)


def token_seal_holds(key: bytes, key_id: str, row: Mapping[str, Any]) -> bool:
    """Whether the row is as it was sealed; false for one without a seal."""
    mac = row.get("mac")
    if mac is None or row.get("mac_key_id") != key_id:
        return False
    return hmac.compare_digest(seal_token(key, row), bytes(mac))


def _text(value: object) -> str:
    """One spelling for each value; NULL is like no text."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return "+" + value.astimezone(UTC).isoformat(timespec="microseconds")
    return "+" + (bytes(value).hex() if isinstance(value, bytes | memoryview) else str(value))
