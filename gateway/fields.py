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


def write_fields(fields: Mapping[str, Raw | bytes]) -> bytes:
    """The JSON object with these fields; names are escaped, values are put in as they are."""
    parts: list[bytes | Raw] = []
    for name, value in fields.items():
        parts += (b"," if parts else b"{", orjson.dumps(name), b":", value)
    return b"".join(parts) + b"}" if parts else b"{}"
