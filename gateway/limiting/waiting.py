"""The waiting room for bulk requests: they wait for a place and for their limits, instead of failing at once.

A request that is not bulk never waits here: it takes a place, and bulk gets what is left. Bulk waits in a queue for
each tenant, served in rotation, with an end to how many wait and for how long; a tenant's bulk can be paused. Owns the
tasks that wait. Whose turn it is, is decided in `turns`. Must not know HTTP, nor what makes a request bulk.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from gateway.limiting.asks import CONCURRENCY, Ask, Verdict
from gateway.limiting.limiter import Limiter
from gateway.limiting.turns import Turns

PLACES: Final = 256  # requests at the same time in one process that leave room for bulk
MOST: Final = 1_000  # waiting at the same time in one process
MOST_EACH: Final = 200  # of one tenant
LOOK_MS: Final = 100
KEPT_FREE: Final = 4  # one lease in so many is left to requests that are not bulk


class Left(StrEnum):
    """How a wait ended."""

    ADMITTED = "admitted"
    FULL = "full"  # too many wait already
    EXPIRED = "expired"  # its deadline came first
    REFUSED = "refused"  # no wait helps: more is asked than a limit has


class Waited(NamedTuple):
    """The end of a wait. `verdict` is the limits' last answer, None where they were not asked. Who was admitted has a
    place, which must be given back by `leave`."""

    left: Left
    verdict: Verdict | None


def bulk_asks(asks: Sequence[Ask]) -> tuple[Ask, ...]:
    """The same limits as bulk is under them: of concurrency some is left to the tenant's other requests."""
    return tuple(_with_room(ask) if ask.kind is CONCURRENCY else ask for ask in asks)


def _wait_ms(verdict: Verdict, told_ms: int) -> int:
    """Until the limits are asked again. Nobody knows when a lease ends, so it is looked at more often than is told."""
    refusing = [each.ask.kind for each in verdict.standings if each.refuses]
    return min(told_ms, LOOK_MS) if refusing == [CONCURRENCY] else told_ms


def _with_room(ask: Ask) -> Ask:
    kept = max(1, ask.limit // KEPT_FREE)
    return ask._replace(limit=max(min(1, ask.limit), ask.limit - kept))


class WaitingRoom:
    """The places of one process."""

    def __init__(
        self,
        limiter: Limiter,
        *,
        places: int = PLACES,
        most: int = MOST,
        most_each: int = MOST_EACH,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limiter = limiter
        self._turns: Turns[asyncio.Future[None]] = Turns(places, most, most_each)
        self._clock = clock

    def __len__(self) -> int:
        """How many wait."""
        return len(self._turns)

    @contextlib.contextmanager
    def interactive(self) -> Iterator[None]:
        """A request that does not wait, for as long as it runs."""
        self._turns.urgent += 1
        try:
            yield
        finally:
            self._turns.urgent -= 1
            self._call()

    async def enter(self, tenant: str, asks: Sequence[Ask], patience_s: float) -> Waited:
        """Wait for a place and for the limits, for `patience_s` at most. `asks`: as `bulk_asks` gives them."""
        turn = asyncio.get_running_loop().create_future()
        if not self._turns.join(tenant, turn):
            return Waited(Left.FULL, None)
        last: list[Verdict] = []
        try:
            async with asyncio.timeout(patience_s):
                return await self._admitted(tenant, asks, turn, last)
        except TimeoutError:
            return Waited(Left.EXPIRED, last[-1] if last else None)

    async def _admitted(
        self, tenant: str, asks: Sequence[Ask], turn: "asyncio.Future[None]", last: list[Verdict]
    ) -> Waited:
        while True:
            await self._my_turn(tenant, turn)
            verdict = await self._asked(asks)
            if verdict.admitted:
                return Waited(Left.ADMITTED, verdict)
            if verdict.retry_ms is None:
                self.leave()
                return Waited(Left.REFUSED, verdict)
            last[:] = [verdict]
            turn = self._defer(tenant, _wait_ms(verdict, verdict.retry_ms))

    async def _my_turn(self, tenant: str, turn: "asyncio.Future[None]") -> None:
        self._call()
        try:
            await turn
        except asyncio.CancelledError:
            if not self._turns.leave(tenant, turn) and not turn.cancelled():
                self.leave()  # its turn had come at that moment
            raise

    async def _asked(self, asks: Sequence[Ask]) -> Verdict:
        try:
            return await self._limiter.admit(asks)
        except BaseException:
            self.leave()
            raise

    def _defer(self, tenant: str, wait_ms: int) -> "asyncio.Future[None]":
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._turns.defer(tenant, turn, self._now() + wait_ms)
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

    def _call(self) -> None:
        """Call everyone whose turn it is."""
        while (turn := self._turns.take(self._now())) is not None:
            if turn.done():
                self._turns.done()
            else:
                turn.set_result(None)

    def _now(self) -> int:
        return int(self._clock() * 1000)
