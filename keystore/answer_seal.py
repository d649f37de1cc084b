"""The seal of a kept answer: status, headers and body, bound to whose they are and to the request that they answer.

    sealed  "wa1" || length of the data key's id, 1 byte || data key's id || nonce12 ||
            AES-256-GCM(key, text, aad = E("wg/answer/1", tenant_id, dek_id, key_hash, request_mac, request_id, status))
    key     HKDF-SHA256(the tenant's data key, info = the same E(...))
    text    how it is packed, 1 byte || zlib or nothing of (length of the headers, 4 bytes || headers as JSON || body)

Each row has a key of its own, so that answers are not counted among the values that one data key may seal. Pure
functions, nonces included. Must not know statements, nor what a header means.
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keystore.errors import EnvelopeDamaged
from keystore.sealing import NONCE_BYTES, derived, encode_fields

MOST_BYTES: Final = 4 * 1024 * 1024  # of a packed answer
_MOST_PLAIN: Final = 4 * MOST_BYTES  # before it is packed: more is not tried
_LARGE: Final = 1024  # bytes from which on it is compressed
_LEVEL: Final = 1  # zlib's fastest
_PLAIN: Final = b"\x00"
_ZLIB: Final = b"\x01"
_MAGIC: Final = b"wa1"
_LENGTH: Final = struct.Struct(">I")
_TAG_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: what a second caller gets for the same request."""

    status: int
    headers: Mapping[str, str] = field(hash=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a sealed answer belongs; one moved to any other spot does not open. `request_id` is of the first."""

    tenant_id: str
    key_hash: bytes
    request_mac: bytes
    request_id: str
    status: int


def pack(answer: Answer) -> bytes | None:
    """Headers and body as they are sealed; None for an answer that is too large to be kept."""
    if len(answer.body) > _MOST_PLAIN:
        return None
    headers = orjson.dumps(dict(answer.headers))
    text = _LENGTH.pack(len(headers)) + headers + answer.body
    packed = _PLAIN + text if len(text) < _LARGE else _ZLIB + zlib.compress(text, _LEVEL)
    return packed if len(packed) <= MOST_BYTES else None


def unpack(packed: bytes, status: int) -> Answer:
    """What `pack` was given. EnvelopeDamaged when it is not that."""
    try:
        text = zlib.decompress(packed[1:]) if packed[:1] == _ZLIB else packed[1:]
        (length,) = _LENGTH.unpack_from(text)
        body_at = _LENGTH.size + length
        return Answer(status, orjson.loads(text[_LENGTH.size : body_at]), text[body_at:])
    except (ValueError, zlib.error, struct.error):
        raise EnvelopeDamaged from None


def seal_answer(dek: bytes, packed: bytes, spot: Spot, *, dek_id: str, nonce: bytes) -> bytes:
    """A packed answer, sealed for its spot with a key derived from the tenant's data key."""
    bound = _bound(spot, dek_id)
    sealed = AESGCM(derived(dek, bound)).encrypt(nonce, packed, bound)
    return b"".join((_MAGIC, bytes((len(dek_id),)), dek_id.encode("ascii"), nonce, sealed))


def open_answer(dek: bytes, sealed: bytes, spot: Spot) -> bytes:
    """The packed answer again. EnvelopeDamaged when answer, key or spot is not the very same."""
    dek_id, nonce, text = _split(sealed)
    bound = _bound(spot, dek_id)
    try:
        return AESGCM(derived(dek, bound)).decrypt(nonce, text, bound)
    except InvalidTag:
        raise EnvelopeDamaged from None


def dek_id_of_answer(sealed: bytes) -> str:
    """The id of the data key that opens this. EnvelopeDamaged when it is no sealed answer."""
    return _split(sealed)[0]


def _split(sealed: bytes) -> tuple[str, bytes, bytes]:
    begins = len(_MAGIC) + 1
    if len(sealed) < begins or not sealed.startswith(_MAGIC):
        raise EnvelopeDamaged
    nonce_at = begins + sealed[len(_MAGIC)]
    text_at = nonce_at + NONCE_BYTES
    try:
        dek_id = sealed[begins:nonce_at].decode("ascii")
    except UnicodeDecodeError:
        raise EnvelopeDamaged from None
    if len(sealed) < text_at + _TAG_BYTES:
        raise EnvelopeDamaged
    return dek_id, sealed[nonce_at:text_at], sealed[text_at:]


def _bound(spot: Spot, dek_id: str) -> bytes:
    hashes = (spot.key_hash.hex(), spot.request_mac.hex())
    return encode_fields("wg/answer/1", spot.tenant_id, dek_id, *hashes, spot.request_id, str(spot.status))
