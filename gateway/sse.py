"""Reads server-sent events from bytes as they come (HTML standard, "Server-sent events"). Pure, bounded."""

from dataclasses import dataclass
from typing import Final

MAX_EVENT: Final = 16 * 1024 * 1024  # bytes; an event without an end is an attack on memory
BOM: Final = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """An event of the stream has no end."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `data` is what its `data:` lines hold, joined by line breaks."""

    name: str
    data: bytes


def event_of(raw: bytes) -> Event | None:
    """The event that these lines are, without the empty line behind them; None for one without data."""
    reader = EventReader()
    events = reader.feed(raw + b"\n\n")
    return events[0] if events else None


class EventReader:
    """Feed it the bytes in any pieces."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._name = ""
        self._skip_feed = False
        self._first = True

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are complete with this piece, without those that hold no data. Raises EventTooLarge."""
        events: list[Event] = []
        for piece in chunk.splitlines(keepends=True):  # bytes: splits at \n, \r and \r\n alone
            if self._skip_feed and piece == b"\n":  # the second half of a \r\n that was cut in two
                self._skip_feed = False
                continue
            self._skip_feed = False
            self._line += piece
            if not piece.endswith((b"\n", b"\r")):
                continue
            self._skip_feed = piece.endswith(b"\r")
            event = self._take_line()
            if event is not None:
                events.append(event)
        if len(self._line) + self._size > MAX_EVENT:
            raise EventTooLarge
        return events

    def _take_line(self) -> Event | None:
        line = bytes(self._line).rstrip(b"\r\n")
        self._line.clear()
        if self._first:
            line, self._first = line.removeprefix(BOM), False
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value) + 1
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> Event | None:
        data, name = self._data, self._name
        self._data, self._name, self._size = [], "", 0
        return Event(name, b"\n".join(data)) if data else None
