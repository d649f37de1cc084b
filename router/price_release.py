"""A price release as bytes: rows in one canonical form, its digest, and the version that answers name.

Owns the form. The same rows give the same bytes on every machine, in whatever order they came. Must not know where a
release is kept or what is in it.
"""

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import orjson

from router.errors import PriceMapError
from router.price_rows import Row

MOST_BYTES: Final = 32 * 1024 * 1024  # of a release, before it is compressed: ten times what LiteLLM publishes
_VERSION: Final = "release"


@dataclass(frozen=True, slots=True)
class Packed:
    """A release ready to be kept. `digest` is the SHA-256 of the rows, in hex."""

    content: bytes
    digest: str
    rows: int


def pack(rows: Mapping[str, Row]) -> Packed:
    """The rows, compressed. PriceMapError when they are too large, or hold what no JSON has."""
    text = encode(rows)
    if len(text) > MOST_BYTES:
        raise PriceMapError(f"the price release has {len(text)} bytes; at most {MOST_BYTES} are kept")
    return Packed(gzip.compress(text, 6, mtime=0), hashlib.sha256(text).hexdigest(), len(rows))


def unpack(content: bytes, digest: str) -> dict[str, Row]:
    """The rows of a release that was kept. PriceMapError when it is not what was kept."""
    try:
        text = zlib.decompressobj(wbits=31).decompress(content, MOST_BYTES + 1)
    except zlib.error:
        raise PriceMapError("the price release cannot be read: its content is damaged") from None
    if len(text) > MOST_BYTES or hashlib.sha256(text).hexdigest() != digest:
        raise PriceMapError("the price release cannot be read: its content is not what was kept")
    rows: dict[str, Row] = decode(text)
    return rows


def encode(value: object) -> bytes:
    """JSON with sorted names and every digit of each number."""
    try:
        return orjson.dumps(value, default=_number, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise PriceMapError(f"the price release holds what cannot be kept ({type(error).__name__})") from None


def decode(text: bytes | str) -> dict[str, Row]:
    """What `encode` made; numbers are Decimal or int."""
    found: dict[str, Row] = json.loads(text, parse_float=Decimal)
    return found


def _number(value: object) -> orjson.Fragment:
    if isinstance(value, Decimal) and value.is_finite():
        return orjson.Fragment(_canonical(value))
    raise TypeError


def _canonical(amount: Decimal) -> str:
    """One text for one number, and one that JSON reads back as the same Decimal: 2E-7 and 0.0000002 are one."""
    if not amount:
        return "0.0"
    sign, digits, exponent = amount.as_tuple()
    written = "".join(map(str, digits))
    kept = written.rstrip("0")
    return f"{'-' if sign else ''}{kept}e{int(exponent) + len(written) - len(kept)}"


def version_of(number: int, digest: str) -> str:
    """What `x-wardgate-catalogue` says of a release: "release-12-1f3a9c0e"."""
    return f"{_VERSION}-{number}-{digest[:8]}"


def number_of(text: str) -> int | None:
    """The number in "12", or in the version of a release; None when it is neither."""
    word = text.strip().removeprefix(f"{_VERSION}-").partition("-")[0]
    return int(word) if word.isascii() and word.isdigit() and len(word) < 10 else None
