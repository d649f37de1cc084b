"""Connections to providers, kept for all tenants alike: what separates tenants is the key of a request, not a socket.

Owns who may be connected to (`addresses`), how many connections there are in all and to one host, and which idle one is
used again. A connection is made to an address that was checked, never to a name.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from weakref import WeakSet

import httpx

from gateway.outbound.addresses import Address, Resolve, look_up, system_resolver
from gateway.outbound.answer import Answer
from gateway.outbound.connection import Body, Connection, Deadlines

KEPT_S: Final = 15.0  # how long an idle connection is kept: shorter than providers keep theirs
CLOSING_TURNS: Final = 100  # of the loop
SHARE: Final = 2  # one host has at most this part (a half) of all connections


def nothing() -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections of one kind lead."""

    host: str
    port: int
    tls: bool
    private_ok: bool = False  # the operator listed the host, so it may be at a private address


class _Place:
    """The connections of one origin."""

    __slots__ = ("idle", "open", "origin", "waiting")

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.idle: list[Connection] = []
        self.open = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


class Pool:
    """`most` bounds the connections in all; `resolve` looks names up."""

    def __init__(self, *, most: int, resolve: Resolve = system_resolver) -> None:
        self._most = most
        self._resolve = resolve
        self._context: ssl.SSLContext | None = None
        self._places: dict[Origin, _Place] = {}
        self._open = self._waiting = 0
        self._connections: WeakSet[Connection] = WeakSet()
        self._closing = False

    async def ask(
        self, origin: Origin, head: bytes, body: Body, deadlines: Deadlines, written: Callable[[], None] = nothing
    ) -> Answer:
        """Send a request over an idle connection or a new one; returns when the answer's head is there. `written` hears
        when the request is on its way. Raises httpx.HTTPError: ConnectError, ConnectTimeout, ReadTimeout, ReadError,
        RemoteProtocolError."""
        connection = self._idle(origin) or await self._connect(origin, deadlines.connect_s)
        if not connection.standing:
            raise httpx.ConnectError(f"{origin.host} hung up at once")
        answer = connection.ask(head, body, deadlines)
        written()
        try:
            await answer.head()
        except BaseException:
            answer.aclose()
            raise
        return answer

    async def aclose(self) -> None:
        """Close every connection, whatever it carries; who waits for one is told."""
        self._closing = True
        for place in self._places.values():
            for waiter in place.waiting:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiting -= len(place.waiting)
            place.waiting.clear()
        for connection in self._connections:
            connection.break_off("the connections to providers are being closed")
        for _ in range(CLOSING_TURNS):
            if not any(one.standing for one in self._connections):
                break
            await asyncio.sleep(0)  # they are gone when the loop has told them

    def _idle(self, origin: Origin) -> Connection | None:
        place = self._places.get(origin)
        oldest = asyncio.get_running_loop().time() - KEPT_S
        while place is not None and place.idle:
            connection = place.idle.pop()
            if connection.usable and connection.idle_since >= oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: Origin, within_s: float) -> Connection:
        first = False
        try:
            async with asyncio.timeout(within_s):
                while not self._closing:
                    place = self._place(origin)
                    if self._room(place):
                        return await self._dial(origin, place)
                    await self._turn(place, first=first)
                    if (idle := self._idle(origin)) is not None:
                        return idle
                    first = True  # it was its turn: whoever came in between does not push it back
        except TimeoutError:
            raise httpx.ConnectTimeout(f"no connection to {origin.host} within {within_s:g} s") from None
        raise httpx.ConnectError("the connections to providers are being closed")

    def _place(self, origin: Origin) -> _Place:
        place = self._places.get(origin)
        if place is None:
            place = self._places[origin] = _Place(origin)
        return place

    def _room(self, place: _Place) -> bool:
        """Whether one more connection may be made."""
        return self._open < self._most and place.open * SHARE < max(self._most, SHARE)

    async def _turn(self, place: _Place, *, first: bool) -> None:
        """Wait until a connection becomes free or may be made."""
        waiter = asyncio.get_running_loop().create_future()
        (place.waiting.appendleft if first else place.waiting.append)(waiter)
        self._waiting += 1
        if self._open >= self._most:
            self._drop_one()
        try:
            await waiter
        except BaseException:
            if waiter in place.waiting:
                place.waiting.remove(waiter)
                self._waiting -= 1
            else:
                self._wake(place)  # its turn is another's
            raise

    def _drop_one(self) -> None:
        """Close what is idle elsewhere, so that there is room."""
        for place in self._places.values():
            if place.idle and not place.waiting:
                place.idle.pop(0).abort()
                return

    def _wake(self, place: _Place) -> None:
        """The turn of one who can go on, of this place first: it may have been full itself."""
        if not self._waiting:
            return
        for each in (place, *self._places.values()):
            while each.waiting and (each.idle or self._room(each)):
                waiter = each.waiting.popleft()
                self._waiting -= 1
                if not waiter.done():
                    waiter.set_result(None)
                    return

    async def _dial(self, origin: Origin, place: _Place) -> Connection:
        """A connection to the first address that answers."""
        self._open += 1
        place.open += 1
        slot = _Slot(self, place)
        try:
            failed = ""
            found = await look_up(origin.host, origin.port, private_ok=origin.private_ok, resolve=self._resolve)
            for address in found:
                try:
                    return await self._reach(origin, place, slot, address)
                except ssl.SSLError as error:
                    raise httpx.ConnectError(f"no TLS with {origin.host} ({error.reason})") from None
                except OSError as error:
                    failed = error.strerror or type(error).__name__
            raise httpx.ConnectError(f"no connection to {origin.host} ({failed})")
        except BaseException:
            slot.free()
            raise

    async def _tls(self) -> ssl.SSLContext:
        """Made with the first connection that needs it, in a thread: it reads the system's certificates."""
        if self._context is None:
            self._context = await asyncio.to_thread(_context)
        return self._context

    async def _reach(self, origin: Origin, place: _Place, slot: "_Slot", address: Address) -> Connection:
        one = Connection(lambda one: self._released(one, place), lambda one: self._lost(one, place, slot))
        self._connections.add(one)  # weakly: one that never stands is nobody's
        tls = await self._tls() if origin.tls else None
        name = origin.host if origin.tls else None
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: one, str(address), origin.port, ssl=tls, server_hostname=name
            )
        except BaseException:
            one.disown()  # the loop closes what it had made, and tells nobody
            raise
        return one

    def _released(self, connection: Connection, place: _Place) -> None:
        full = self._waiting and self._open >= self._most
        if self._closing or (full and not place.waiting):
            connection.abort()  # others wait for the room that it takes
            return
        place.idle.append(connection)
        self._wake(place)

    def _lost(self, connection: Connection, place: _Place, slot: "_Slot") -> None:
        self._connections.discard(connection)
        if connection in place.idle:
            place.idle.remove(connection)
        slot.free()

    def freed(self, place: _Place) -> None:
        """A connection of this place is gone, and with its last one the place."""
        self._open -= 1
        place.open -= 1
        if not place.open and not place.waiting:
            self._places.pop(place.origin, None)
        self._wake(place)


class _Slot:
    """One of the connections that may be open; given back once, however it ends."""

    __slots__ = ("_place", "_pool", "_taken")

    def __init__(self, pool: Pool, place: _Place) -> None:
        self._pool = pool
        self._place = place
        self._taken = True

    def free(self) -> None:
        if self._taken:
            self._taken = False
            self._pool.freed(self._place)


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
