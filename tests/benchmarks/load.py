"""The loads: who asks when. Closed: so many at once, each asks again when it is answered. Open: at a rate whatever the
answers do, and an answer's time counts from when it was due to be asked, so that a side that stalls cannot hide it.
Paced: so many streams at once, begun evenly over the length of one.

A wrong answer ends the benchmark: its time would mean nothing.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks.children import BenchmarkError
from tests.benchmarks.client import Connection, Seen

PATIENCE_S = 2.0  # for answers that are still missing at the end of an open round
CLOSED_PATIENCE_S = 60.0
HEAD_START_S = 0.01


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked: `at_once` connections, or `rate` requests a second over them; `chunks` of a stream, 0 for plain
    answers; `body_mb` of pictures in the request."""

    name: str  # for --only
    title: str
    sides: tuple[str, ...]
    at_once: int = 1
    rate: int = 0
    chunks: int = 0
    gap_ms: int = 0
    body_mb: int = 0
    rounds: int = 3

    @property
    def ramp_s(self) -> float:
        """Over how long paced streams begin."""
        return self.chunks * self.gap_ms / 1000


@dataclass(frozen=True, slots=True)
class Target:
    """Where to ask, and the whole request as bytes."""

    name: str
    host: str
    port: int
    request: bytes


class _Round:
    """One round of one load on one side, with connections of its own, opened before the clock starts."""

    def __init__(self, load: Load, target: Target) -> None:
        self._load = load
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._connections: list[Connection] = []
        self.seen = Seen()

    async def open(self) -> None:
        """Connect; raises BenchmarkError."""
        for _ in range(self._load.at_once):
            try:
                _, connection = await self._loop.create_connection(self._made, self._target.host, self._target.port)
            except OSError as error:
                raise BenchmarkError(f"{self._target.name} took no connection: {error}") from error
            self._connections.append(connection)

    def close(self) -> None:
        """Drop the connections, with what is still under way on them."""
        for connection in self._connections:
            connection.busy = False
            if connection.open:
                connection.close()

    def _made(self) -> Connection:
        return Connection(self.seen, self._load.chunks, self._next, self._wrong)

    def _next(self, connection: Connection) -> None:
        raise NotImplementedError

    def _wrong(self, why: str) -> None:
        if not self._over.done():
            self._over.set_exception(BenchmarkError(f"{self._target.name} {why}"))

    def _finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)


class ClosedRound(_Round):
    """As many at once as there are connections."""

    async def run(self, seconds: float, most: int = 1 << 62) -> float:
        """Ask for `seconds` once all have begun, `most` times at most; returns how long it took until the last answer
        was there."""
        started = time.perf_counter()
        seconds += self._load.ramp_s
        self._until, self._left, self._active = started + seconds, most, len(self._connections)
        for place, connection in enumerate(self._connections):
            if delay := self._load.ramp_s * place / self._active:
                self._loop.call_later(delay, self._ask, connection)
            else:
                self._ask(connection)
        try:
            async with asyncio.timeout(seconds + CLOSED_PATIENCE_S):
                await self._over
        except TimeoutError:
            raise BenchmarkError(f"{self._target.name} did not answer in {CLOSED_PATIENCE_S:.0f} s") from None
        return time.perf_counter() - started

    def _ask(self, connection: Connection) -> None:
        self._left -= 1
        connection.ask(self._target.request)

    def _next(self, connection: Connection) -> None:
        if self._left > 0 and time.perf_counter() < self._until:
            self._ask(connection)
            return
        self._active -= 1
        if not self._active:
            self._finish()


class OpenRound(_Round):
    """At a rate; when every connection is busy, what is due waits, and its time runs."""

    async def run(self, seconds: float) -> float:
        """Ask for `seconds`; returns how long it took until the last answer was there or patience ended."""
        self._idle, self._waiting = deque(self._connections), deque[float]()
        self._number = int(seconds * self._load.rate)
        started = time.perf_counter() + HEAD_START_S
        clock = threading.Thread(target=self._tick, args=(started,), daemon=True)
        clock.start()
        try:
            async with asyncio.timeout(HEAD_START_S + seconds + PATIENCE_S):
                await self._over
        except TimeoutError:
            self.seen.unfinished = self._number - len(self.seen.took)
        took = max(seconds, time.perf_counter() - started)
        clock.join()
        return took

    def _tick(self, started: float) -> None:
        """In a thread of its own: an event loop's timers are whole milliseconds."""
        for place in range(self._number):
            due = started + place / self._load.rate
            if (wait := due - time.perf_counter()) > 0:
                time.sleep(wait)
            self._loop.call_soon_threadsafe(self._due, due)

    def _due(self, due: float) -> None:
        if self._over.done():
            return
        if self._idle:
            self._idle.popleft().ask(self._target.request, due)
        else:
            self._waiting.append(due)

    def _next(self, connection: Connection) -> None:
        if self._waiting:
            connection.ask(self._target.request, self._waiting.popleft())
        else:
            self._idle.append(connection)
        if len(self.seen.took) == self._number:
            self._finish()


def round_of(load: Load, target: Target) -> ClosedRound | OpenRound:
    """The round that the load asks for; needs a running event loop."""
    return OpenRound(load, target) if load.rate else ClosedRound(load, target)


Say = Callable[[str], None]
