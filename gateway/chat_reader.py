"""Reads along a stream on OpenAI's chat wire, and decides what of it goes out: whole events, byte for byte.

An event that is not whole yet is held back, so that a stream that breaks never ends inside one. The usage chunk that
the gateway asked for and the caller did not is left out. Pure; each event is parsed once, into the fields that count.
"""

import re
from typing import Final

import msgspec

from gateway.seen import DONE, Seen, parse
from gateway.sse import MAX_EVENT, Event, event_of

# Two line ends. A "\r" behind a "\n" is not one yet where the bytes end: its own "\n" is still to come.
BOUNDARY: Final = re.compile(rb"\r?\n(?:\r?\n|\r(?!\n|\Z))|\r(?!\n)(?:\r?\n|\r(?!\n))")
_NULL: Final = b"null"
_ABSENT: Final = msgspec.Raw(_NULL)


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice]
    object: str = ""
    error: msgspec.Raw = _ABSENT
    usage: msgspec.Raw = _ABSENT
    service_tier: str | None = None


_CHUNK: Final = msgspec.json.Decoder(_Chunk)


class ChatReader:
    """Feed it the pieces of a stream. `seen` holds the facts; `started` says that an event with data has come."""

    __slots__ = ("_keep_usage", "_rest", "seen", "started")

    def __init__(self, seen: Seen, *, keep_usage: bool) -> None:
        self.seen = seen
        self.started = False
        self._keep_usage = keep_usage
        self._rest = bytearray()

    @property
    def over(self) -> bool:
        """Nothing more is to be sent: the end mark came, or what is no event of a good stream."""
        seen = self.seen
        return seen.ended or seen.malformed or seen.error is not None

    def feed(self, piece: bytes) -> bytes:
        """What goes out of this piece and of what was held back. Stops before what breaks the stream, and after its
        end mark."""
        if not self._rest and piece.endswith(b"\n\n") and b"\r" not in piece and b"\n\n\n" not in piece:
            events = piece.split(b"\n\n")
            events.pop()
            return self._plain(piece, events)
        return self._any(piece)

    def rest(self) -> bytes:
        """What was held back at the end of a stream that is whole: the provider's bytes all the same."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest

    def _plain(self, data: bytes, events: list[bytes]) -> bytes:
        """Whole events that end in two line feeds."""
        if len(events) == 1:
            return data if self._goes(events[0]) and not self._broken else b""
        out: list[bytes] = []
        for event in events:
            goes = self._goes(event)
            if self._broken:
                break
            if goes:
                out.append(event)
            if self.seen.ended:
                break
        return b"\n\n".join(out) + b"\n\n" if out else b""

    def _any(self, piece: bytes) -> bytes:
        """As `_plain`, for any line ends and for an event that is not whole yet. What was searched is not searched
        again: an event may be long and its pieces short."""
        rest = self._rest
        searched = max(0, len(rest) - 3)  # an end may have begun there
        rest += piece
        out: list[bytes] = []
        start = 0
        for end in [boundary.end() for boundary in BOUNDARY.finditer(rest, searched)]:
            event = bytes(rest[start:end])
            goes = self._goes(event.rstrip(b"\r\n"))
            if self._broken:
                break
            if goes:
                out.append(event)
            start = end
            if self.seen.ended:
                break
        del rest[: len(rest) if self.over else start]
        if len(rest) > MAX_EVENT:
            self.seen.malformed = True
        return b"".join(out)

    @property
    def _broken(self) -> bool:
        return self.seen.malformed or self.seen.error is not None

    def _goes(self, raw: bytes) -> bool:
        """Learn from one event, without its end; whether it goes out."""
        if raw.startswith(b"data: ") and b"\n" not in raw and b"\r" not in raw:
            return self._data(raw[6:], "")
        event = event_of(raw)
        return True if event is None else self._data(event.data, event.name)

    def _data(self, data: bytes, name: str) -> bool:
        try:
            chunk = _CHUNK.decode(data)
        except (ValueError, RecursionError):  # not a chunk: the end mark, an error, or something odd
            return self._odd(data, name) and (self._keep_usage or not _only_counts(data))
        counted = bytes(chunk.usage) != _NULL
        if counted or bytes(chunk.error) != _NULL or name == "error" or chunk.object == "error":
            return self._odd(data, name) and (self._keep_usage or bool(chunk.choices) or not counted)
        self.started = True
        seen = self.seen
        for choice in chunk.choices:
            seen.choices.add(choice.index)
            if choice.finish_reason:
                seen.finish[choice.index] = choice.finish_reason
        if chunk.service_tier:
            seen.service_tier = chunk.service_tier
        return True

    def _odd(self, data: bytes, name: str) -> bool:
        if data.strip() == DONE:
            self.seen.ended = True
            return True
        self.started = True
        self.seen.note_event(Event(name, data))
        return True


def _only_counts(data: bytes) -> bool:
    """Whether an odd chunk is the usage chunk."""
    document = parse(data)
    return isinstance(document, dict) and document.get("usage") is not None and not document.get("choices")
