"""The load generator's own HTTP client: one request at a time on a kept-alive connection, as little work as can be.

A plain answer that arrives in one piece with its length told is checked without a parser; everything else goes through
httptools. Times are of `time.perf_counter`. An answer that is wrong in any way is told, never passed over.
"""

import asyncio
import re
import socket
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import httptools

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
SAYS_SOMETHING = re.compile(rb'"content"\s*:\s*"[^"]')
OK = b"HTTP/1.1 200"
FINISHED = b'"finish_reason"'
EVENT = b"data: {"
DONE = b"data: [DONE]"


class Wrong(Exception):
    """An answer that is no complete 200, or none at all."""


@dataclass(slots=True)
class Seen:
    """What came back, in seconds: the time to the end of each answer; of streams also to the first token and between
    events."""

    took: "array[float]" = field(default_factory=lambda: array("d"))
    first: "array[float]" = field(default_factory=lambda: array("d"))
    gaps: "array[float]" = field(default_factory=lambda: array("d"))
    events: int = 0
    unfinished: int = 0  # asked in time, not answered by the end of the patience

    def add(self, other: "Seen") -> None:
        """Take in another round."""
        self.took.extend(other.took)
        self.first.extend(other.first)
        self.gaps.extend(other.gaps)
        self.events += other.events
        self.unfinished += other.unfinished


class Connection(asyncio.Protocol):
    """One connection; `done` is called after each answer, `wrong` with the reason when there will be no more.

    `tokens` is 0 for plain answers, else the fewest events of a stream.
    """

    def __init__(self, seen: Seen, tokens: int, done: "Callable[[Connection], None]", wrong: Callable[[str], None]):
        self._seen = seen
        self._tokens = tokens
        self._done = done
        self._wrong = wrong
        self._parser: httptools.HttpResponseParser | None = None
        self._body = bytearray()
        self._began = 0.0
        self._last = 0.0
        self._first = False  # token seen
        self.busy = False
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._write = transport.write
        self.close = transport.abort
        self.open = True

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self.busy:
            self._wrong(f"the connection ended within an answer: {error!r}")

    def ask(self, request: bytes, began: float | None = None) -> None:
        """Send a request; its time counts from `began` where that was meant to be earlier."""
        self.busy = True
        self._began = time.perf_counter() if began is None else began
        self._write(request)

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            if not self._tokens and self._whole(data):
                self._end()
                return
            self._parser = httptools.HttpResponseParser(self)
            self._body.clear()
            self._first = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"no HTTP: {error!r}")

    def _whole(self, data: bytes) -> bool:
        """Whether this is all of a plain answer as it should be."""
        end = data.find(b"\r\n\r\n")
        length = LENGTH.search(data, 0, end + 2)
        return length is not None and len(data) == end + 4 + int(length[1]) and data.startswith(OK) and FINISHED in data

    def on_body(self, data: bytes) -> None:
        self._body += data
        if not self._tokens:
            return
        now = time.perf_counter()
        if self._first:
            self._seen.gaps.append(now - self._last)
        elif SAYS_SOMETHING.search(self._body):
            self._first = True
            self._seen.first.append(now - self._began)
        self._last = now

    def on_message_complete(self) -> None:
        assert self._parser is not None
        status, self._parser = self._parser.get_status_code(), None
        body = self._body
        events = body.count(EVENT)
        whole = events >= self._tokens and DONE in body if self._tokens else FINISHED in body
        if status != 200 or not whole or not SAYS_SOMETHING.search(body):
            self._fail(f"answered {status}: {bytes(body[:500])!r}")
            return
        self._seen.events += events
        self._end()

    def _end(self) -> None:
        self.busy = False
        self._seen.took.append(time.perf_counter() - self._began)
        self._done(self)

    def _fail(self, why: str) -> None:
        self.busy = False
        self._wrong(why)
