"""Reads along a stream of server-sent events, and decides what of it goes out: whole events, byte for byte.

An event that is not whole yet is held back, so that a stream that breaks never ends inside one. What an event means is
a wire's own: a reader for each derives from this one. Pure.
"""

import re
from abc import ABC, abstractmethod
from typing import Final

from gateway.errors import Problem
from gateway.seen import Seen
from gateway.sse import MAX_EVENT, event_of

BOUNDARY: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")


class StreamReader(ABC):
    """Feed it the pieces of a stream. `seen` holds the facts; `started` says that a real event has come."""

    __slots__ = ("_rest", "seen", "started")

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.started = False
        self._rest = b""

    @abstractmethod
    def learn(self, data: bytes, name: str) -> bool:
        """Learn from the data of one event; whether it goes out."""

    @abstractmethod
    def broke(self, problem: Problem) -> bytes:
        """The event that tells in the stream how it broke."""

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
        start, self._rest = 0, b""
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
            return self.learn(raw[6:], "")
        event = event_of(raw)
        return True if event is None else self.learn(event.data, event.name)
