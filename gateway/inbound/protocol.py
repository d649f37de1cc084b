"""HTTP/1.1 from a socket to the application: uvicorn's protocol over httptools, with the limits that it lacks.

Owns what a request on the wire may look like and how long each part may take (docs/adr/0006). Must not know what a
request asks for, or how a refusal is counted.
"""

import asyncio
from typing import Any, Final, NoReturn

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.inbound.door import Door
from gateway.inbound.exchange import Exchange, OldExchange
from gateway.inbound.gone import GONE, Gone
from gateway.inbound.reader import Reader
from gateway.inbound.refusals import Refusal, answer
from gateway.tally import mint_request_id

# What is read next. NEW: no byte came yet. REFUSED: what comes is thrown away.
NEW, IDLE, HEAD, BODY, REFUSED = range(5)

LF: Final = 10
WATCHED: Final = frozenset({b"host", b"expect", b"content-length", b"transfer-encoding"})
MOST_FRAMING: Final = 256 * 1024  # bytes of a chunked body that are not the body: sizes, extensions, trailers
MOST_PIPELINED: Final = 16  # requests that wait for the answer before them
LEAST_DISCARDED: Final = 1024 * 1024  # bytes that are thrown away after an early answer; a whole body if that is more
LINGER_S: Final = 10.0  # for a refused client to end and read: a close with unread bytes takes its answer away again


class Refused(Exception):
    """Thrown through the parser; the protocol knows the reason."""


class _Outlet:
    """The transport as an answer sees it: its `close` waits for a client that still sends."""

    __slots__ = ("_protocol", "is_closing", "write")

    def __init__(self, protocol: "InboundProtocol", transport: asyncio.Transport) -> None:
        self._protocol = protocol
        self.write = transport.write
        self.is_closing = transport.is_closing

    def close(self) -> None:
        self._protocol.finish()


class InboundProtocol(HttpToolsProtocol):
    """One connection. `door` holds the limits and hears of refusals."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Door,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._door = door
        self._reading = NEW
        self._due = 0.0  # when what is read next must be there; the loop's clock
        self._look_at = 0.0  # when the reader is looked at next
        self._running: RequestResponseCycle | None = None  # the answer under way
        self._refusal: tuple[Refusal, str] | None = None  # said once the answers before it are complete
        self._received = 0  # bytes since this head began; of a refused connection, since the refusal
        self._midway = False  # this head began behind other bytes, so that `_received` lacks some
        self._hosts = 0
        self._length = 0
        self._chunked = False
        self._framing = 0
        self._raw = 0  # bytes of a body that the parser leaves to us, because an upgrade was offered with it
        self._unread = 0  # bytes of a body that came after its answer
        self._given_up = False

    # --- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._outlet = _Outlet(self, transport)
        now = self.loop.time()
        self._due = now + self._door.header_timeout_s
        self._look_at = now + self._door.read_look_s
        self._reader = Reader(transport, now)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.pipeline.clear()
        self._lose()
        if self.flow is not None:
            self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        self.parser = None  # type: ignore[assignment]

    def _lose(self) -> None:
        """Whoever answers now need not go on."""
        running, self._running = self._running, None
        if running is not None:
            running.disconnected = True
            running.message_event.set()
            running.scope[GONE].lose()  # type: ignore[typeddict-item]

    def shutdown(self) -> None:
        """The server stops: a request that has begun may end, and is the last one here."""
        if self._running is not None:
            self.cycle.keep_alive = False
        elif self._reading != HEAD:
            self.transport.close()

    def finish(self) -> None:
        """Close once the client has what was written: what it still sends is thrown away for a while."""
        self._running = None
        if self._reading in (NEW, IDLE) or not self.transport.can_write_eof():
            self.transport.close()
        elif not self.transport.is_closing():
            self._discard()
            self._due = self.loop.time() + LINGER_S
            self.transport.write_eof()

    def _discard(self) -> None:
        self._reading = REFUSED
        self._received = 0
        self.flow.resume_reading()

    # --- the clock

    def look(self, now: float) -> None:
        """End what is overdue."""
        if self not in self.connections:  # it was lost since the list of them was made
            return
        if now >= self._look_at:
            self._look_at = now + self._door.read_look_s
            if self._reader.idle_s(now) >= self._door.write_idle_s:
                self._give_up(Refusal.SLOW_READER)
        if self._running is None and now > self._due:
            self._overdue()

    def _overdue(self) -> None:
        if self._reading == HEAD:
            self._refuse(Refusal.HEADER_TIMEOUT)
        elif self._reading == NEW:
            self._give_up(Refusal.NO_REQUEST)
        elif self._reading == BODY:  # its answer is complete
            self._give_up(Refusal.BODY_TIMEOUT)
        elif self._reading == REFUSED:
            self.transport.abort()
        else:
            self.transport.close()

    # --- what comes in

    def data_received(self, data: bytes) -> None:
        if self._reading in (NEW, IDLE):
            self._begin(data)
        self._received += len(data)
        if self._chunked:
            self._framing += len(data)
        if self._raw:
            data = self._take_raw(data)
        if self._reading == REFUSED:
            if self._received > max(LEAST_DISCARDED, self._door.max_body_bytes):
                self.transport.abort()
            return
        if data:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if rest := data[upgrade.args[0] :]:
                self.data_received(rest)
        except httptools.HttpParserError as error:
            self._refuse(*(self._refusal or (Refusal.MALFORMED, str(error))))
        else:
            if self._reading == HEAD and self._received > self._door.max_header_bytes:
                self._refuse(Refusal.HEADERS_TOO_LARGE)
            elif self._framing > MOST_FRAMING:
                self._refuse(Refusal.FRAMING)

    def _begin(self, data: bytes) -> None:
        if self._reading == IDLE:
            self._due = self.loop.time() + self._door.header_timeout_s
        self._reading = HEAD
        self._received = 0
        self._midway = False
        if data[0] == LF:
            self._refuse(Refusal.MALFORMED)

    def _take_raw(self, data: bytes) -> bytes:
        """The part of `data` that belongs to the body is taken; the rest is given back."""
        mine, rest = data[: self._raw], data[self._raw :]
        self._raw -= len(mine)
        self.on_body(mine)
        if not self._raw:
            self._whole()
            if rest:
                self._begin(rest)
        return rest

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._hosts = self._length = 0
        if self._reading != HEAD:  # behind another message in the same bytes
            self._reading = HEAD
            self._midway = True
            self._received = 0
            self._due = self.loop.time() + self._door.header_timeout_s

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading == BODY:  # a trailer: counted as framing, and never part of the request
            return
        name = name.lower()
        if name in WATCHED:
            self._note(name, value)
        headers = self.headers
        headers.append((name, value))
        if len(headers) > self._door.max_headers:
            self._stop(Refusal.TOO_MANY_HEADERS)

    def _note(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
        elif name == b"content-length":
            self._length = int(value)  # digits: the parser saw to it
        elif name == b"transfer-encoding":
            if value.strip().lower() != b"chunked" or self.parser.get_http_version() != "1.1":
                self._stop(Refusal.TRANSFER_ENCODING)
            self._chunked = True
            self._framing = 0
        elif value.lower() == b"100-continue":
            self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        self._check_head(version)
        scope: Any = self.scope
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        target = self._door.targets.find(self.url)
        if target is None:
            self._stop(Refusal.MALFORMED)
        scope["path"], scope["raw_path"], scope["query_string"] = target
        scope[GONE] = Gone()
        self._reading = BODY
        self._unread = 0
        self._due += self._door.body_timeout_s - self._door.header_timeout_s
        kind = Exchange if version == "1.1" else OldExchange
        cycle = self.cycle = kind(
            scope=self.scope,
            transport=self._outlet,  # type: ignore[arg-type]
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version == "1.1" and not self._door.closing and self._stays(),
            on_response=self.on_response_complete,
        )
        if self._running is None:
            self._start_asgi_task(cycle, self.app)
        elif len(self.pipeline) < MOST_PIPELINED:
            self.pipeline.appendleft((cycle, self.app))
        else:
            self._stop(Refusal.PIPELINED)

    def _check_head(self, version: str) -> None:
        if version not in ("1.1", "1.0"):
            self._stop(Refusal.VERSION)
        if self._hosts != 1 and (self._hosts > 1 or version == "1.1"):
            self._stop(Refusal.HOST)
        if self._midway or self._received > self._door.max_header_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self._door.max_header_bytes:
                self._stop(Refusal.HEADERS_TOO_LARGE)
        if self.parser.should_upgrade():  # an offer that is not taken; the parser then takes no body
            if self._chunked or self.parser.get_method() == b"CONNECT":
                self._stop(Refusal.UPGRADE)
            self._raw = self._length

    def _stays(self) -> bool:
        """Whether the connection may be used again. With an upgrade the parser says no; the header has the word."""
        if not self.parser.should_upgrade():
            return bool(self.parser.should_keep_alive())
        said = b",".join(value.lower() for name, value in self.headers if name == b"connection")
        return b"close" not in [word.strip() for word in said.split(b",")]

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if self._chunked:
            self._framing -= len(body)
        if cycle.response_complete:
            self._unread += len(body)
            if self._unread > self._door.max_body_bytes:
                self._give_up(Refusal.UNREAD_BODY)
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if not self._raw:
            self._whole()

    def _whole(self) -> None:
        """The request is here, and the next may come."""
        self._chunked = False
        self._framing = 0
        self._reading = IDLE
        cycle = self.cycle
        if cycle.response_complete:
            self._due = self.loop.time() + self._door.keep_alive_s
            return
        cycle.more_body = False
        cycle.scope[GONE].sent = True  # type: ignore[typeddict-item]
        cycle.message_event.set()
        if cycle is self._running:  # nobody asks for more of it, and who does not read does not see the client leave
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._running = None
        if self.transport.is_closing() or (self._reading == REFUSED and self._refusal is None):
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._tell(*self._refusal)
        elif self._reading == IDLE:
            self._due = self.loop.time() + self._door.keep_alive_s
        elif self._reading == HEAD:
            self._due = self.loop.time() + self._door.header_timeout_s

    # --- refusing

    def _stop(self, refusal: Refusal) -> NoReturn:
        """Refuse from inside a callback of the parser."""
        self._refusal = (refusal, "")
        raise Refused

    def _refuse(self, refusal: Refusal, detail: str = "") -> None:
        """The answer comes when it is this request's turn; what else is sent here is thrown away."""
        self._refusal = (refusal, detail)
        half = self.cycle if self._reading == BODY else None
        self._raw = 0
        self._discard()
        if half is None:
            pass
        elif half is not self._running:  # it waits in the line, or was answered before it was here
            if self.pipeline and self.pipeline[0][0] is half:
                self.pipeline.popleft()
        elif half.response_started:
            self._give_up(refusal)
            return
        else:
            self._lose()
        if self._running is None:
            self._tell(refusal, detail)

    def _tell(self, refusal: Refusal, detail: str) -> None:
        request_id = mint_request_id()
        self._refusal = None
        self._door.refused(refusal, request_id=request_id, peer=self._peer(), detail=detail)
        words = answer(refusal, request_id, detail)
        if words is not None and not self.transport.is_closing():
            self.transport.write(words)
        self.finish()

    def _give_up(self, refusal: Refusal) -> None:
        """End the connection without a word: an answer has begun, or nobody waits for one. What the parser still
        finds in the bytes that came with it counts no second time."""
        if self._given_up:
            return
        self._given_up = True
        self._reading = REFUSED
        self._refusal = None
        self._door.refused(refusal, request_id=mint_request_id(), peer=self._peer())
        self.transport.abort()

    def _peer(self) -> str:
        return self.client[0] if self.client else ""
