"""The waiting room for bulk requests: they wait for a place and for their limits, instead of failing at once.

A request that is not bulk never waits here: it takes a place, and bulk gets what is left. Bulk waits in a queue for
each tenant, served in rotation, with an end to how many wait, how much they hold and for how long; a tenant's bulk can
be paused. Where too many wait, the last of the tenant that has most waiting yields to one that has few. Owns the tasks
that wait. Whose turn it is, is decided in `turns`. Must not know HTTP, nor what makes a request bulk.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import Final, NamedTuple

from gateway.limiting.asks import CONCURRENCY, Ask, Standing, Verdict, refusal, scope_of
from gateway.limiting.limiter import Limiter
from gateway.limiting.turns import Turns

PLACES: Final = 256  # requests at the same time in one process that leave room for bulk
MOST: Final = 1_000  # waiting at the same time in one process
MOST_EACH: Final = 200  # of one tenant
APART_S: Final = 0.002  # between two turns, in a process that serves: so long one call keeps the event loop
MOST_BYTES: Final = 128 * 1024 * 1024  # of bodies of those that wait
BYTES_EACH: Final = 4  # one tenant may hold one part of them in so many
LOOK_MS: Final = 100
KEPT_FREE: Final = 4  # one lease in so many is left to requests that are not bulk


class Left(StrEnum):
    """How a wait ended."""

    ADMITTED = "admitted"
    FULL = "full"  # too many wait already, of all tenants together
    CROWDED = "crowded"  # too many of the same tenant wait already
    EXPIRED = "expired"  # its deadline came first
    REFUSED = "refused"  # no wait helps: more is asked than a limit has
    CLOSED = "closed"  # this process is about to stop


class _Said(NamedTuple):
    """The limits' last answer, when it came, and when they were to be asked again (ms, on the room's clock)."""

    verdict: Verdict
    at_ms: int
    again_ms: int


class Waited(NamedTuple):
    """The end of a wait. `verdict` is the limits' last answer, None where they were not asked, or where the time that
    they named was over and something else has been waited for since. Who was admitted has a place, which must be given
    back by `leave`."""

    left: Left
    verdict: Verdict | None


def bulk_asks(asks: Sequence[Ask]) -> tuple[Ask, ...]:
    """The same limits as bulk is under them: of concurrency some is left to the tenant's other requests."""
    return tuple(_with_room(ask) if ask.kind is CONCURRENCY else ask for ask in asks)


def _wait_ms(verdict: Verdict, told_ms: int) -> int:
    """Until the limits are asked again. Nobody knows when a lease ends, so it is looked at more often than is told."""
    refusing = [each.ask.kind for each in verdict.standings if each.refuses]
    return min(told_ms, LOOK_MS) if refusing == [CONCURRENCY] else told_ms


def _later(said: Verdict, ms: int) -> Verdict:
    """The same refusal so much later: what is refilled is nearer. Of a lease that ends nobody knew when."""
    standings = tuple([each if each.ask.kind is CONCURRENCY else _nearer(each, ms) for each in said.standings])
    return refusal(standings, degraded=said.degraded, parts=said.parts)


def _nearer(standing: Standing, ms: int) -> Standing:
    retry_ms = standing.retry_ms and max(1, standing.retry_ms - ms)
    return standing._replace(reset_ms=max(0, standing.reset_ms - ms), retry_ms=retry_ms)


def _with_room(ask: Ask) -> Ask:
    kept = max(1, ask.limit // KEPT_FREE)
    return ask._replace(limit=max(min(1, ask.limit), ask.limit - kept))


def _lane(asks: Sequence[Ask]) -> str:
    """Of those under a limit of their own, beside the tenant's: they wait for it without holding up the tenant's
    others."""
    return next((ask.key for ask in asks if scope_of(ask) != "tenant"), "")


async def _as_said(asks: Sequence[Ask]) -> Sequence[Ask]:
    return asks


class WaitingRoom:
    """The places of one process. Two turns come at least `apart_s` seconds after one another: many at once would keep
    the event loop from everybody else."""

    def __init__(
        self,
        limiter: Limiter,
        *,
        places: int = PLACES,
        most: int = MOST,
        most_each: int = MOST_EACH,
        most_bytes: int = MOST_BYTES,
        apart_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limiter = limiter
        self._turns: Turns[asyncio.Future[Left]] = Turns(places, most, most_each)
        self._most_bytes = most_bytes
        self._held: Counter[str] = Counter()  # bytes, of each tenant
        self._clock = clock
        self._closed = False
        self._apart_s = apart_s
        self._pause: asyncio.TimerHandle | None = None  # between two turns

    def __len__(self) -> int:
        """How many wait."""
        return len(self._turns)

    @property
    def busy(self) -> int:
        """Requests that run, of both kinds; those that wait are not among them."""
        return self._turns.running + self._turns.urgent

    def begin(self) -> None:
        """A request that does not wait runs from now on, until `end`."""
        self._turns.urgent += 1

    def end(self) -> None:
        """A request that did not wait has ended."""
        self._turns.urgent -= 1
        self._call()

    async def enter(
        self,
        tenant: str,
        asks: Sequence[Ask],
        patience_s: float,
        size: int = 0,
        now: Callable[[], Awaitable[Sequence[Ask]]] | None = None,
    ) -> Waited:
        """Wait for a place and for the limits, for `patience_s` at most. `asks`: as `bulk_asks` gives them, and `now`
        does again each time that its turn has come; `size`: the bytes that it holds meanwhile."""
        turn: asyncio.Future[Left] = asyncio.get_running_loop().create_future()
        lane = _lane(asks)
        if (refused := self._join(tenant, turn, size, lane)) is not None:
            return Waited(refused, None)
        last: list[_Said] = []
        self._held[tenant] += size
        try:
            async with asyncio.timeout(patience_s):
                return await self._admitted(tenant, lane, now or partial(_as_said, asks), turn, last)
        except TimeoutError:
            return Waited(Left.EXPIRED, self._still_said(last))
        finally:
            self._held[tenant] -= size
            if not self._held[tenant]:
                del self._held[tenant]

    def _join(self, tenant: str, turn: "asyncio.Future[Left]", size: int, lane: str) -> Left | None:
        """Why it may not even wait."""
        mine, all_held = self._held[tenant], self._held.total()
        if self._turns.crowded(tenant) or (mine and mine + size > self._most_bytes // BYTES_EACH):
            return Left.CROWDED
        if all_held and all_held + size > self._most_bytes:
            return Left.FULL
        yielding = self._turns.yields(tenant)
        if yielding is not None and not yielding.done():
            yielding.set_result(Left.FULL)
        return None if self._turns.join(tenant, turn, lane) else Left.FULL

    async def _admitted(
        self,
        tenant: str,
        lane: str,
        now: Callable[[], Awaitable[Sequence[Ask]]],
        turn: "asyncio.Future[Left]",
        last: list[_Said],
    ) -> Waited:
        while True:
            told = await self._my_turn(tenant, lane, turn)
            if told is not Left.ADMITTED:
                return Waited(told, last[-1].verdict if last else None)
            verdict = await self._asked(now)
            if verdict.admitted:
                return Waited(Left.ADMITTED, verdict)
            if verdict.retry_ms is None:
                self.leave()
                return Waited(Left.REFUSED, verdict)
            wait_ms = _wait_ms(verdict, verdict.retry_ms)
            at_ms = self._now()
            last[:] = [_Said(verdict, at_ms, at_ms + wait_ms)]
            turn = self._defer(tenant, lane, wait_ms)

    def _still_said(self, last: Sequence[_Said]) -> Verdict | None:
        """The limits' last answer, unless it has long been time to ask again: then a place or a pause is what was
        waited for."""
        now = self._now()
        return _later(last[-1].verdict, now - last[-1].at_ms) if last and now - last[-1].again_ms <= LOOK_MS else None

    async def _my_turn(self, tenant: str, lane: str, turn: "asyncio.Future[Left]") -> Left:
        """ADMITTED when it has a place; else why it waits no longer."""
        self._call()
        if self._closed and self._turns.leave(tenant, turn, lane):
            return Left.CLOSED
        try:
            return await turn
        except asyncio.CancelledError:
            waited = self._turns.leave(tenant, turn, lane)
            if not waited and not turn.cancelled() and turn.result() is Left.ADMITTED:
                self.leave()  # its turn had come at that moment
            raise

    async def _asked(self, now: Callable[[], Awaitable[Sequence[Ask]]]) -> Verdict:
        try:
            return await self._limiter.admit(await now())
        except BaseException:
            self.leave()
            raise

    def _defer(self, tenant: str, lane: str, wait_ms: int) -> "asyncio.Future[Left]":
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[Left] = loop.create_future()
        self._turns.defer(tenant, turn, self._now() + wait_ms, lane)
        loop.call_later(wait_ms / 1000, self._call)
        return turn

    def leave(self) -> None:
        """Give a place back: a bulk request has ended."""
        self._turns.done()
        self._call()

    def pause(self, tenants: frozenset[str]) -> None:
        """Bulk of exactly these tenants waits until they are no longer among them, or its patience ends."""
        self._turns.pause(tenants)
        self._call()

    def is_paused(self, tenant: str) -> bool:
        """Whether the tenant's bulk is paused."""
        return self._turns.is_paused(tenant)

    @property
    def running(self) -> int:
        """Bulk requests that run."""
        return self._turns.running

    @property
    def abreast(self) -> int:
        """How many of them may."""
        return self._turns.abreast

    def allow(self, places: int, abreast: int) -> None:
        """From now on there are so many places, and so much bulk runs at a time; who runs goes on."""
        self._turns.places, self._turns.abreast = places, abreast
        self._call()

    def close(self) -> None:
        """This process is about to stop: who waits is told, and nobody waits from now on."""
        self._closed = True
        for turn in self._turns.clear():
            if not turn.done():
                turn.set_result(Left.CLOSED)

    def _call(self) -> None:
        """Call those whose turn it is, the next one behind the pause."""
        while self._pause is None and (turn := self._turns.take(self._now())) is not None:
            if turn.done():
                self._turns.done()
                continue
            turn.set_result(Left.ADMITTED)
            if self._apart_s:
                self._pause = asyncio.get_running_loop().call_later(self._apart_s, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._call()

    def _now(self) -> int:
        return int(self._clock() * 1000)
