"""The text of an API token: wg_<kind>_<id12>_<secret43><crc6>, base62. RELIABILITY 4.3.

Owns making and reading that text; the checksum tells a typo or garbage without asking anyone. Pure, randomness passed
in. Must not know databases or tenants.
"""

import hashlib
import re
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from keystore.clock import Random
from keystore.secret import Secret

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID: Final = 12  # 71 bits: never guessed into another's, and no secret
_SECRET: Final = 43  # 32 bytes: 62**43 > 2**256
_CRC: Final = 6  # CRC32: 62**6 > 2**32
_TOKEN: Final = re.compile(r"wg_(live|test|admin)_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})", re.ASCII)
LONGEST: Final = len("wg_admin_") + _ID + 1 + _SECRET + _CRC


class TokenKind(StrEnum):
    """What a token is for: a tenant's traffic, a tenant's tests, or the operator."""

    LIVE = "live"
    TEST = "test"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class TokenText:
    """A token's parts; only `secret` is one."""

    kind: TokenKind
    id: str
    secret: Secret

    @property
    def text(self) -> Secret:
        """The whole token, as its holder keeps it."""
        body = f"wg_{self.kind.value}_{self.id}_{self.secret.reveal()}"
        return Secret(body + _checksum(body))

    @property
    def hash(self) -> bytes:
        """SHA-256 of the secret part: 256 random bits need no slow hash (RELIABILITY 4.3)."""
        return hashlib.sha256(self.secret.reveal().encode("ascii")).digest()


def new_token(kind: TokenKind, random: Random) -> TokenText:
    """A token from `random` (so many random bytes)."""
    return TokenText(kind, _random_id(random), Secret(_base62(int.from_bytes(random(32), "big"), _SECRET)))


def parse_token(text: str) -> TokenText | None:
    """The parts of a well-formed token with a right checksum, else None."""
    match = _TOKEN.fullmatch(text) if len(text) <= LONGEST else None
    if match is None:
        return None
    kind, token_id, secret, checksum = match.groups()
    if _checksum(text[:-_CRC]) != checksum:
        return None
    return TokenText(TokenKind(kind), token_id, Secret(secret))


def is_token_id(text: str) -> bool:
    """Whether this can be the id of a token."""
    return len(text) == _ID and set(text) <= set(_ALPHABET)


def token_id_of(text: str) -> str:
    """The id of a whole token, which is its public part; any other text as it is."""
    found = parse_token(text.strip())
    return text if found is None else found.id


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), _CRC)


def _random_id(random: Random) -> str:
    """Uniform over the ids: a draw of 72 bits that is too large is drawn again."""
    while (number := int.from_bytes(random(9), "big")) >= 62**_ID:
        pass
    return _base62(number, _ID)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
