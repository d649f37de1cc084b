"""A body's JSON, read once and strictly: what readers of JSON disagree about is refused, and what would cost too much.

Knows no field of any surface.
"""

import json
import re
from collections.abc import Iterable

import orjson

from gateway.errors import ApiError, bad_request

MAX_DEPTH = 64
MAX_VALUES = 100_000  # of a body, objects and lists included
MAX_FIELDS = 500  # of its own: each is looked at
SHOWN_LENGTH = 64  # characters of a caller's field name that are repeated, and compared with the known names
COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"x\x9c", "zlib"), (b"\x28\xb5\x2f\xfd", "zstd"))  # how such data begin
MOST_ESCAPED = 4
BACKSLASH = ord("\\")
CHUNK_BYTES = 256 * 1024  # of a body's text, measured at a time: between two of them other threads may run


def parse_object(raw: bytes) -> dict[str, object]:
    """The JSON object in `raw`; raises ApiError 400 for anything else, and for what readers of JSON disagree about:
    a name twice in one object, and whole numbers beyond 64 bits."""
    if not raw or raw.isspace():
        raise _not_json("The request body is empty; send a JSON object.")
    pairs = _measure(raw)
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        for start, kind in COMPRESSED:
            if raw.startswith(start):
                raise _not_json(f"The request body is compressed ({kind}); send it as it is.") from error
        message = f"The request body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        raise _not_json(message) from error
    if not isinstance(body, dict):
        raise _not_json(f"The request body must be a JSON object, not {kind_of(body)}.")
    if len(body) > MAX_FIELDS:
        raise bad_request(f"The request body has more than {MAX_FIELDS} fields; send fewer.")
    if _count_pairs(body) != pairs:
        raise _not_json(f"The name {_duplicate(raw)} stands twice in one JSON object; send it once.")
    return body


def _not_json(message: str) -> ApiError:
    return bad_request(message, code="invalid_json")


_UNFINISHED = re.compile(rb"[\\0-9.eE+\-]*")  # what may go on in the next chunk: a number, an escape
_LONG_WHOLE = re.compile(rb"(?<![0-9.eE+\-])-?[0-9]{19,}(?![0-9.eE])")


def _measure(raw: bytes) -> int:
    """How many name-value pairs the text has outside its strings. Refuses too many values, before they become objects,
    and whole numbers beyond 64 bits, which the parser would round. What is no JSON is left to the parser."""
    start, inside, values, pairs = 0, 0, 1, 0
    while start < len(raw):
        if inside:  # a picture may be one string of megabytes: nothing in it is looked at
            start = _next_quote(raw, start)
        end = _chunk_end(raw, start + CHUNK_BYTES)
        pieces = raw[start:end].replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')
        outside = b'"'.join(pieces[inside::2])
        start, inside = end, (inside + len(pieces) - 1) % 2
        pairs += outside.count(b":")
        values += outside.count(b",") + outside.count(b"{") + outside.count(b"[")
        if values > MAX_VALUES:
            raise bad_request(f"The request body has more than {MAX_VALUES} values; send a smaller one.")
        for number in _LONG_WHOLE.findall(outside):
            if len(number) > 20 or not -(2**63) <= int(number) < 2**64:
                shown = number[:24].decode() + ("..." if len(number) > 24 else "")
                raise _not_json(f"The request body holds the whole number {shown}, which does not fit in 64 bits.")
    return pairs


def _next_quote(raw: bytes, start: int) -> int:
    """As far as may be passed over of the string that goes on at `start`: to the quotation mark that ends it, or behind
    the last of a few that are escaped (text is full of them, and is better looked at in chunks)."""
    for _ in range(MOST_ESCAPED):
        at = raw.find(b'"', start)
        if at < 0:
            return len(raw)
        before = at
        while before > start and raw[before - 1] == BACKSLASH:
            before -= 1
        if (at - before) % 2 == 0:
            return at
        start = at + 1
    return start


def _chunk_end(raw: bytes, wanted: int) -> int:
    """Where a chunk may end so that it splits no number and no escape of a string."""
    if wanted >= len(raw):
        return len(raw)
    unfinished = _UNFINISHED.match(raw, wanted - 1)
    end = max(wanted, unfinished.end() if unfinished else 0)
    return end + 1 if raw[end - 1] == BACKSLASH else end


def _count_pairs(body: dict[str, object]) -> int:
    """How many name-value pairs all objects have; refuses what is nested too deep for the libraries on the way. Level
    by level, so that it needs no stack."""
    pairs = 0
    level: list[object] = [body]
    for _ in range(MAX_DEPTH):
        objects = [item for item in level if isinstance(item, dict)]
        pairs += sum(map(len, objects))
        inner: list[Iterable[object]] = [item.values() for item in objects if item]
        inner += [item for item in level if isinstance(item, list)]
        level = [child for children in inner for child in children if isinstance(child, (dict, list))]
        if not level:
            return pairs
    raise _not_json(f"The request body is nested more than {MAX_DEPTH} levels deep.")


def _duplicate(raw: bytes) -> str:
    """The first name that stands twice in one object of `raw`, for the message."""
    found: list[str] = []

    def look(pairs: list[tuple[str, object]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                found.append(name)
            seen.add(name)

    json.loads(raw, object_pairs_hook=look)
    return f"`{shown_name(found[0])}`" if found else "of a field"


def shown_name(name: str) -> str:
    return name if len(name) <= SHOWN_LENGTH else name[:SHOWN_LENGTH] + "..."


def kind_of(value: object) -> str:
    """What a JSON value is, in JSON's own words."""
    kinds = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    return kinds.get(type(value), "a list" if isinstance(value, list) else "an object")
