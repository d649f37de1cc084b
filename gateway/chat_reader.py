"""Reads along a stream on OpenAI's chat wire, and decides what of it goes out: whole events, byte for byte.

An event that is not whole yet is held back, so that a stream that breaks never ends inside one. The usage chunk that
the gateway asked for and the caller did not is left out. Pure; each event is parsed once, into the fields that count.
"""

import re
from typing import Final

import msgspec

from gateway.seen import DONE, Seen
from gateway.sse import MAX_EVENT, Event, event_of

BOUNDARY: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
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
        self._rest = b""

    @property
    def over(self) -> bool:
        """Nothing more is to be sent: the end mark came, or what is no event of a good stream."""
        seen = self.seen
        return seen.ended or seen.malformed or seen.error is not None

    def feed(self, piece: bytes) -> bytes:
        """What goes out of this piece and of what was held back. Stops before what breaks the stream, and after its
        end mark."""
        data = self._rest + piece if self._rest else piece
        if data.endswith(b"\n\n") and b"\r" not in data:
            self._rest = b""
            events = data.split(b"\n\n")
            events.pop()
            return self._plain(data, events)
        return self._any(data)

    def rest(self) -> bytes:
        """What was held back at the end of a stream that is whole: the provider's bytes all the same."""
        rest, self._rest = self._rest, b""
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

    def _any(self, data: bytes) -> bytes:
        """As `_plain`, for any line ends and for an event that is not whole yet."""
        out: list[bytes] = []
        start = 0
        for boundary in BOUNDARY.finditer(data):
            goes = self._goes(data[start : boundary.start()])
            if self._broken:
                return b"".join(out)
            if goes:
                out.append(data[start : boundary.end()])
            start = boundary.end()
            if self.seen.ended:
                return b"".join(out)
        self._rest = data[start:]
        if len(self._rest) > MAX_EVENT:
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
        except ValueError:  # not a chunk: the end mark, an error, or something odd
            return self._odd(data, name)
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
