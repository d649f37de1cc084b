"""The cipher: how root keys wrap tenant keys, and tenant keys seal secrets. RELIABILITY 4.2, format wg1.

Owns the byte formats and the associated data; golden vectors (tests/vectors/sealing.json) keep them from drifting. Pure
functions of their arguments, nonces included. Must not know files, databases or where keys come from.

    root key (KEK)  --wraps-->  tenant key (DEK)  --seals-->  {"hosts": [...], "s": <secret, base64>, "f": {...}}

    wrapped   nonce12 || AES-256-GCM(KEK, DEK,  aad = E("wg/dek/1", kek_id, tenant_id, dek_id))
    service   nonce12 || AES-256-GCM(KEK, key,  aad = E("wg/svc/1", kek_id, purpose, key_id))
    envelope  wg1.<dek_id>.<base64url(nonce12 || AES-256-GCM(DEK, text, aad =
                                      E("wg/cred/1", tenant_id, dek_id, credential_id, setting_key)))>
    E(...)    each field as its length in 4 bytes, big-endian, and its UTF-8 bytes: no two lists of fields look alike

`setting_key` is the name under which the row was stored, so a provider may be renamed without sealing anything again.
The hosts are sealed with the secret: who can write the database cannot send a key elsewhere. "f" is there only when the
key came with fields, such as a region.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keystore.errors import EnvelopeDamaged

KEY_BYTES: Final = 32  # AES-256
NONCE_BYTES: Final = 12  # 96 bits, random: NIST SP 800-38D, 8.2.2
MAX_SEALS: Final = 2**20  # values under one tenant key; random nonces are safe far beyond (RELIABILITY 4.1)
_TAG_BYTES: Final = 16
_LENGTH: Final = struct.Struct(">I")
_BASE64: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# With which characters a text may end whose length modulo 4 is the place: those whose spare bits are zero.
_LAST: Final = (frozenset(_BASE64), frozenset[str](), frozenset(_BASE64[::16]), frozenset(_BASE64[::4]))
_SHORT: Final = tuple(_LENGTH.pack(length) for length in range(256))  # of nearly every field
_ENVELOPE: Final = re.compile(r"wg1\.([A-Za-z0-9-]{1,32})\.([A-Za-z0-9_-]+)")


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A tenant key as it lies in the database."""

    dek_id: str
    tenant_id: str
    kek_id: str
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class WrappedServiceKey:
    """A key of the keystore's own as it lies in the database."""

    key_id: str
    purpose: str
    kek_id: str
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed value belongs; a value moved to any other place does not open."""

    tenant_id: str
    credential_id: str
    setting_key: str


@dataclass(frozen=True, slots=True)
class Opened:
    """What was sealed: the secret, byte for byte, the hosts it may travel to, and the fields that came with it."""

    secret: bytes = field(repr=False)
    hosts: frozenset[str]
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)


def encode_fields(*fields: str) -> bytes:
    """E(...): an injective encoding of a list of texts."""
    parts: list[bytes] = []
    for one in fields:  # no comprehensions: this is on the way of every request, four times
        text = one.encode("utf-8")
        length = len(text)
        parts += (_SHORT[length] if length < 256 else _LENGTH.pack(length), text)
    return b"".join(parts)


def check_value(kek: bytes) -> bytes:
    """8 bytes that tell one root key from another and say nothing about either."""
    return hmac.digest(kek, b"wg/kcv/1", hashlib.sha256)[:8]


# --- tenant keys ---------------------------------------------------------------------------------------------------


def wrap(kek: bytes, dek: bytes, *, kek_id: str, tenant_id: str, dek_id: str, nonce: bytes) -> WrappedKey:
    """The tenant key `dek` wrapped by the root key `kek`."""
    sealed = AESGCM(kek).encrypt(nonce, dek, encode_fields("wg/dek/1", kek_id, tenant_id, dek_id))
    return WrappedKey(dek_id, tenant_id, kek_id, nonce + sealed)


def unwrap(kek: bytes, key: WrappedKey) -> bytes:
    """The tenant key again. EnvelopeDamaged when anything about it was changed."""
    dek = _decrypt(kek, key.wrapped, encode_fields("wg/dek/1", key.kek_id, key.tenant_id, key.dek_id))
    if len(dek) != KEY_BYTES:
        raise EnvelopeDamaged
    return dek


def wrap_service_key(
    kek: bytes, key: bytes, *, kek_id: str, purpose: str, key_id: str, nonce: bytes
) -> WrappedServiceKey:
    """A key of the keystore's own, wrapped by the root key `kek` and bound to its purpose."""
    sealed = AESGCM(kek).encrypt(nonce, key, encode_fields("wg/svc/1", kek_id, purpose, key_id))
    return WrappedServiceKey(key_id, purpose, kek_id, nonce + sealed)


def unwrap_service_key(kek: bytes, key: WrappedServiceKey) -> bytes:
    """The key again. EnvelopeDamaged when anything about it was changed."""
    opened = _decrypt(kek, key.wrapped, encode_fields("wg/svc/1", key.kek_id, key.purpose, key.key_id))
    if len(opened) != KEY_BYTES:
        raise EnvelopeDamaged
    return opened


# --- secrets -------------------------------------------------------------------------------------------------------


def seal(dek: bytes, content: Opened, place: Place, *, dek_id: str, nonce: bytes) -> str:
    """The envelope of a secret and its hosts, bound to its place and tenant key."""
    sealed = AESGCM(dek).encrypt(nonce, _to_text(content), _associated(place, dek_id))
    return f"wg1.{dek_id}.{_b64url(nonce + sealed)}"


def open_envelope(dek: bytes, envelope: str, place: Place) -> Opened:
    """What `seal` was given. EnvelopeDamaged when envelope, key or place is not the very same."""
    dek_id, sealed = _split(envelope)
    return _from_text(_decrypt(dek, sealed, _associated(place, dek_id)))


def dek_id_of(envelope: str) -> str:
    """The id of the tenant key that opens this envelope. EnvelopeDamaged when it is none."""
    return _split(envelope)[0]


def _associated(place: Place, dek_id: str) -> bytes:
    return encode_fields("wg/cred/1", place.tenant_id, dek_id, place.credential_id, place.setting_key)


def _decrypt(key: bytes, sealed: bytes, associated: bytes) -> bytes:
    if len(sealed) < NONCE_BYTES + _TAG_BYTES:
        raise EnvelopeDamaged
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], associated)
    except InvalidTag:
        raise EnvelopeDamaged from None


def _to_text(content: Opened) -> bytes:
    record: dict[str, object] = {
        "hosts": sorted(content.hosts),
        "s": base64.b64encode(content.secret).decode("ascii"),
    }
    if content.fields:
        record["f"] = dict(content.fields)
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode("ascii")


def _from_text(text: bytes) -> Opened:
    try:
        record = orjson.loads(text)
        secret = binascii.a2b_base64(record["s"], strict_mode=True)
        return Opened(secret, frozenset(record["hosts"]), dict(record.get("f", {})))
    except (ValueError, KeyError, TypeError):
        raise EnvelopeDamaged from None


def _split(envelope: str) -> tuple[str, bytes]:
    match = _ENVELOPE.fullmatch(envelope)
    if match is None:
        raise EnvelopeDamaged
    dek_id, body = match.groups()
    try:
        sealed = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise EnvelopeDamaged from None
    if body[-1] not in _LAST[len(body) % 4]:  # spare bits of the last character: one envelope has one spelling
        raise EnvelopeDamaged
    return dek_id, sealed


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


# --- fingerprints --------------------------------------------------------------------------------------------------


def fingerprint_key(kek: bytes) -> bytes:
    """The key of `fingerprint`, derived from a root key: HKDF-SHA256, no salt, info "wg/fp/1"."""
    return derived(kek, b"wg/fp/1")


def derived(key: bytes, info: bytes) -> bytes:
    """A key for one purpose alone, which `info` names: HKDF-SHA256 without salt."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(key)


def fingerprint(key: bytes, secret: str) -> bytes:
    """8 bytes that are equal for equal secrets, white space around them aside. Never leaves the keystore."""
    return hmac.digest(key, secret.strip().encode("utf-8", "surrogatepass"), hashlib.sha256)[:8]
