"""One connection to a provider: a request goes out, its answer is parsed (llhttp, through httptools) and handed on.

Owns what an answer may look like on the wire: how long its head may be, how many headers and trailers, how long it may
be silent, how large it may grow. What is not HTTP, or more than one answer to one request, ends the connection.
"""

import asyncio
import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, cast

import httptools
import httpx

from gateway.outbound.answer import Answer

LINGER_S: Final = 1.0  # for an answer whose end mark has come to be over
MOST_HEADERS: Final = 128  # of an answer, trailers included
MOST_HEAD: Final = 64 * 1024  # bytes of them, and of anything else between two pieces of a body
TOO_MUCH_HEAD: Final = f"the answer has more than {MOST_HEADERS} headers or {MOST_HEAD} bytes of them"
MOST_BODY: Final = 1024 * 1024 * 1024  # bytes of a body; those that are kept in memory have narrower bounds


Body = Sequence[bytes | memoryview]  # a request's, in pieces


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a provider may take, in seconds: until a connection stands, until the first byte of its answer, and
    between two pieces of it."""

    connect_s: float
    first_byte_s: float
    idle_s: float


class Connection(asyncio.Protocol):
    """Carries one exchange at a time; `released` is told when it may carry the next, `closed` when it is gone."""

    def __init__(self, released: Callable[["Connection"], None], closed: Callable[["Connection"], None]) -> None:
        self._released = released
        self._closed = closed
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self._parser: httptools.HttpResponseParser | None = None
        self._answer: Answer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._headers: dict[bytes, bytes] = {}
        self._idle_s = 0.0
        self._heard = self._until = 0.0
        self._head_size = self._header_count = self._body_size = self._unread = 0
        self._until_close = False
        self._refused = ""
        self.idle_since = 0.0

    @property
    def standing(self) -> bool:
        return self._transport is not None

    @property
    def usable(self) -> bool:
        """Whether it stands, carries nothing, and the other end has neither closed it nor sent anything: what the
        kernel knows of it may not have reached the event loop."""
        if self._transport is None or self._transport.is_closing() or self._answer is not None:
            return False
        return not self._poll.poll(0)

    def ask(self, head: bytes, body: Body, deadlines: Deadlines) -> Answer:
        """Send a request and return its answer, which is still to come."""
        assert self._transport is not None and self._answer is None  # noqa: S101 - the pool gives usable ones
        self._parser = httptools.HttpResponseParser(self)
        self._head_size = self._header_count = self._body_size = self._unread = 0
        self._until_close, self._refused = False, ""
        self._idle_s = deadlines.idle_s
        self._heard = self._loop.time()
        self._until = self._heard + deadlines.first_byte_s
        answer = self._answer = Answer(self._pause, self.abort, self._linger)
        self._timer = self._loop.call_at(self._until, self._look)
        if len(body) == 1 and len(body[0]) <= MOST_HEAD:
            self._transport.write(head + body[0])
        else:
            self._transport.writelines([head, *body])
        return answer

    def disown(self) -> None:
        """It never came to stand, or not for long enough to be told so: uvloop does not say when such a one is gone."""
        self.abort()
        self._transport = None

    def break_off(self, text: str) -> None:
        """Close at once; whoever reads an answer is told why."""
        self._fail(httpx.ReadError(text))

    def abort(self) -> None:
        """Close at once, without a word."""
        self._stop_timer()
        self._answer = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None or self._parser is None:
            self.abort()  # bytes that nobody asked for
            return
        self._heard = self._loop.time()
        size = self._body_size
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(httpx.RemoteProtocolError(self._refused or f"the answer is not HTTP ({type(error).__name__})"))
            return
        if self._body_size == size:
            self._unread += len(data)  # of a head, a trailer or a chunk's extension without an end
            if self._unread > MOST_HEAD and self._answer is not None:
                self._refused = self._refused or TOO_MUCH_HEAD
        else:
            self._unread = 0
        if self._refused:
            self._fail(httpx.RemoteProtocolError(self._refused))

    def eof_received(self) -> None:
        return None  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        answer = self._answer
        if answer is not None and answer.status and self._until_close and exc is None:
            self._stop_timer()
            self._answer = None
            answer.end()
        elif answer is not None:
            text = "the connection broke in the middle of the answer" if answer.status else "it hung up"
            self._fail(httpx.ReadError(text) if exc is not None else httpx.RemoteProtocolError(text))
        self._transport = None
        self._closed(self)

    # httptools

    def on_message_begin(self) -> None:
        self._headers = {}
        if self._answer is None:
            self._refused = "more than one answer came"

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        self._head_size += len(name) + len(value)
        if self._header_count > MOST_HEADERS or self._head_size > MOST_HEAD:
            self._refused = TOO_MUCH_HEAD
            return
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        answer, parser = self._answer, self._parser
        if answer is None or parser is None or self._refused:
            return
        status = parser.get_status_code()
        if status == 101:
            self._refused = "the answer switches protocols"
        elif status >= 200:
            empty = status in (204, 304)
            self._until_close = not empty and not {b"content-length", b"transfer-encoding"} & self._headers.keys()
            answer.begin(status, self._headers)
            self._headers = {}  # trailers are counted and not kept
            if self._heard + self._idle_s < self._until:
                self._stop_timer()
                self._timer = self._loop.call_at(self._heard + self._idle_s, self._look)

    def on_body(self, piece: bytes) -> None:
        self._body_size += len(piece)
        if self._body_size > MOST_BODY:
            self._refused = f"the answer is larger than {MOST_BODY} bytes"
        if self._answer is not None and not self._refused:
            self._answer.feed(piece)

    def on_message_complete(self) -> None:
        answer, parser, transport = self._answer, self._parser, self._transport
        if answer is None or parser is None or transport is None or self._refused or not answer.status:
            return  # an interim answer (1xx), or one after the end
        answer.end()
        self._stop_timer()
        self._answer = self._parser = None
        if transport.get_write_buffer_size():
            transport.abort()  # it answered without reading the request, and may never
        elif parser.should_keep_alive():
            self.idle_since = self._loop.time()
            self._released(self)
        else:
            transport.close()

    # itself

    def _look(self) -> None:
        """The time is up, unless something was heard since: then it is looked at again when it would be."""
        answer, now = self._answer, self._loop.time()
        if answer is None:
            return
        until = self._heard + self._idle_s
        if answer.status and now < until:
            self._timer = self._loop.call_at(until, self._look)
        else:
            self._fail(httpx.ReadTimeout("it fell silent" if answer.status else "nothing came in time"))

    def _pause(self, on: bool) -> None:
        """While the reader is behind, nothing is read, and the provider's silence is no fault of its own."""
        if self._transport is None or self._transport.is_closing() or self._answer is None:
            return
        self._heard = self._loop.time()
        if on:
            self._transport.pause_reading()
            self._stop_timer()
        else:
            self._transport.resume_reading()
            self._timer = self._loop.call_at(self._heard + self._idle_s, self._look)

    def _linger(self) -> None:
        """The answer has a moment left to end by itself."""
        if self._transport is not None and self._answer is not None:
            self._stop_timer()
            self._timer = self._loop.call_later(LINGER_S, self.abort)

    def _fail(self, error: httpx.HTTPError) -> None:
        answer = self._answer
        self.abort()
        if answer is not None:
            answer.fail(error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
