"""How a webhook's URL and secrets are sealed, and what a secret looks like.

A secret is made here and nowhere else, so that none is empty or short: "whsec_" and 32 random bytes in base64
(standardwebhooks.com). The URL is sealed with it: whoever can write the database cannot have alerts signed for another
place. The key is derived from one of the keystore's own for this very webhook. Pure. Must not know statements.
"""

import base64
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keystore.clock import Random
from keystore.errors import EnvelopeDamaged
from keystore.sealing import NONCE_BYTES, derived, encode_fields
from keystore.secret import Secret

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is in an envelope; `former` signs too until `former_until`."""

    url: str = field(repr=False)
    secret: str = field(repr=False)
    former: str | None = field(default=None, repr=False)
    former_until: datetime | None = None

    def secrets(self, at: datetime) -> tuple[Secret, ...]:
        """Those that sign at this time, the newest first."""
        overlaps = self.former is not None and self.former_until is not None and at < self.former_until
        return (Secret(self.secret), *((Secret(self.former),) if overlaps and self.former else ()))


def new_secret(random: Random) -> str:
    """A secret that nobody has seen."""
    return PREFIX + base64.b64encode(random(SECRET_BYTES)).decode("ascii")


def seal_webhook(key: bytes, content: Sealed, webhook_id: str, *, nonce: bytes) -> bytes:
    """The envelope, bound to the webhook."""
    bound = _bound(webhook_id)
    return nonce + AESGCM(derived(key, bound)).encrypt(nonce, msgspec.json.encode(content), bound)


def open_webhook(key: bytes, envelope: bytes, webhook_id: str) -> Sealed:
    """What was sealed. EnvelopeDamaged when key, envelope or webhook is not the very same."""
    bound = _bound(webhook_id)
    try:
        text = AESGCM(derived(key, bound)).decrypt(envelope[:NONCE_BYTES], envelope[NONCE_BYTES:], bound)
        return msgspec.json.decode(text, type=Sealed)
    except (InvalidTag, ValueError):
        raise EnvelopeDamaged from None


def _bound(webhook_id: str) -> bytes:
    return encode_fields("wg/webhook/1", webhook_id)
