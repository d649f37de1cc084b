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

# Two line ends. A "\r" behind a "\n" is not one yet where the bytes end: its own "\n" is still to come.
BOUNDARY: Final = re.compile(rb"\r?\n(?:\r?\n|\r(?!\n|\Z))|\r(?!\n)(?:\r?\n|\r(?!\n))")


class StreamReader(ABC):
    """Feed it the pieces of a stream. `seen` holds the facts; `started` says that a real event has come."""

    __slots__ = ("_rest", "seen", "started")

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.started = False
        self._rest = bytearray()

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
        if not self._rest and piece.endswith(b"\n\n") and b"\r" not in piece and b"\n\n\n" not in piece:
            events = piece.split(b"\n\n")
            events.pop()
            return self._plain(piece, events)
        return self._any(piece)

    def rest(self) -> bytes:
        """What of an event without its end goes out where the stream has ended: as of any other event, and nothing of
        one that was cut."""
        rest = b"" if self.over else bytes(self._rest)
        self._rest.clear()
        goes = self._goes(rest.rstrip(b"\r\n"))
        return rest if goes and not self._broken else b""

    def _plain(self, data: bytes, events: list[bytes]) -> bytes:
        """Whole events that end in two line feeds."""
        if len(events) == 1:
            return data if self._goes(events[0]) and not self._broken else b""
        out: list[bytes] = []
        seen = self.seen
        for event in events:
            goes = self._goes(event)
            if seen.malformed or seen.error is not None:
                break
            if goes:
                out.append(event)
            if seen.ended:
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
            return self.learn(raw[6:], "")
        if b"data" not in raw:  # a comment, an empty line: a provider may send millions of them
            return True
        event = event_of(raw)
        return True if event is None else self.learn(event.data, event.name)
