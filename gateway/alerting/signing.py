"""The signature of what a webhook is sent, as standardwebhooks.com says: HMAC-SHA256 over id, time and body. Pure.

Must not know how anything is sent.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from keystore.errors import EnvelopeDamaged
from keystore.secret import Secret
from keystore.webhook_seal import PREFIX

LEAST_BYTES: Final = 24  # of a secret: anybody can make the MAC of an empty one


def signature(secrets: Sequence[Secret], message_id: str, timestamp: int, body: bytes) -> str:
    """`v1,` and the MAC in base64, for each of the secrets. EnvelopeDamaged when there is none, or one is no secret."""
    if not secrets:
        raise EnvelopeDamaged
    signed = f"{message_id}.{timestamp}.".encode() + body
    macs = [hmac.digest(_key(each), signed, hashlib.sha256) for each in secrets]
    return " ".join(f"v1,{base64.b64encode(mac).decode('ascii')}" for mac in macs)


def _key(secret: Secret) -> bytes:
    text = secret.reveal()
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise EnvelopeDamaged from None
    if not text.startswith(PREFIX) or len(key) < LEAST_BYTES:
        raise EnvelopeDamaged
    return key
