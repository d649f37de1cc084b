"""A request body as top-level fields whose values stay the caller's bytes: what is nested is never written again."""

from collections.abc import Mapping

import msgspec
import orjson

Raw = msgspec.Raw
Fields = Mapping[str, Raw]

_READ = msgspec.json.Decoder(dict[str, Raw])
NULL = b"null"


def read_fields(raw: bytes) -> dict[str, Raw]:
    """The top-level fields of a JSON object in the order of the text; the values are views of `raw`. ValueError for
    anything else."""
    return _READ.decode(raw)


LARGE = 64 * 1024  # bytes of a value that is not copied once more


def write_fields(fields: Mapping[str, Raw | bytes]) -> list[bytes | memoryview]:
    """The JSON object with these fields, in pieces: one, or where there are large values, these by themselves. Names
    are escaped, values are put in as they are."""
    parts: list[bytes | Raw] = []
    for name, value in fields.items():
        parts += (b"," if parts else b"{", orjson.dumps(name), b":", value)
    return _joined([*parts, b"}"]) if parts else [b"{}"]


def _joined(parts: list[bytes | Raw]) -> list[bytes | memoryview]:
    pieces: list[bytes | memoryview] = []
    small: list[bytes | Raw] = []
    for part in parts:
        if len(part) < LARGE:
            small.append(part)
            continue
        pieces += (b"".join(small), memoryview(part))
        small = []
    return [*pieces, b"".join(small)]
