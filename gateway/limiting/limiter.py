"""Admits a request under all of its limits at once, or says which one refuses and for how long.

With Redis it decides there, in one round trip. This process's own share (limit / replicas) is kept beside it: it is
debited by all that this process admits, whoever decided, and where Redis refuses it is as full as the whole, so it can
take over at any moment without a second burst. What was asked and not heard in time is refused where there are other
processes: Redis may be answering them, and they may have all that there is. When Redis is back it is first told what
was admitted without it, and for as long as other processes may not have done so, both must agree. Without Redis the
share is all there is.
Owns the order of these steps. Must not know HTTP, nor how anything is counted.
"""

import asyncio
import contextlib
import json
import random
import secrets
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from gateway.limiting.asks import CONCURRENCY, NOTHING_ASKED, TOKENS, Ask, AwayError, Standing, Ticket, Verdict, refusal
from gateway.limiting.beyond import Beyond, most_of
from gateway.limiting.breaker import Breaker, State
from gateway.limiting.gcra import LEASE_MS
from gateway.limiting.local import LocalLimits
from gateway.limiting.outbox import Change, Outbox, Verb
from gateway.limiting.together import Shared
from keystore.cancelled import is_cancelled

if TYPE_CHECKING:
    from gateway.limiting.shared import Answer

TICK_S: Final = 1.0
GATHER_S: Final = 0.005  # what is settled within so long is told in one batch
KEPT_MS: Final = LEASE_MS // 3  # a lease is held anew so often
LONGEST_MS: Final = 6 * 3_600_000  # no request holds a lease for longer: whoever forgot to settle it
TIDY_MS: Final = 1_000
TELL_MS: Final = 1_000  # what was used beyond the share is told so often
BATCH: Final = 500  # changes in one round trip


def alone() -> int:
    """One process."""
    return 1


def silent(state: State, why: str) -> None:
    """Tell nobody."""


def unheeded(said: object) -> None:
    """Tell nobody."""


class Limiter:
    """The limits of one process. `shared` opens the counts in Redis, given who hears of requests that left too early;
    `replicas` tells how many processes there are, as last known while Redis was there: it must not fall because Redis
    is away. `tell` hears when Redis goes and comes back, `decided_alone` of each request that Redis was asked about and
    that this process decided by its share (whether it was admitted), since no answer came in time; `round_failed` of an
    error of ours that ended a round of `run`, once for each kind in a row."""

    def __init__(
        self,
        shared: Callable[[Callable[[Sequence[Ask], str], None]], Shared] | None = None,
        *,
        replicas: Callable[[], int] = alone,
        tell: Callable[[State, str], None] = silent,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        decided_alone: Callable[[bool], None] = unheeded,
        round_failed: Callable[[Exception], None] = unheeded,
    ) -> None:
        self._shared = shared(self._unheard) if shared is not None else None
        self._replicas = replicas
        self._clock = clock
        self._decided_alone = decided_alone
        self._round_failed = round_failed
        self._local = LocalLimits()
        self._outbox = Outbox()
        self._beyond = Beyond()
        self._tell_at = 0
        self._tidy_at = 0
        self._breaker = Breaker(clock, chance, tell)
        self._held: dict[str, Ticket] = {}  # who holds a lease
        self._name = secrets.token_hex(6)
        self._count = 0
        self._keep_at = 0
        self._epoch = ""
        self._trip: object = None  # the last that failed
        self._failures = 0
        self._in_doubt = True  # whether Redis still has its data; until it is known, both must agree
        self._wake = asyncio.Event()

    @property
    def state(self) -> State:
        """Whether Redis decides; closed as well where there is none."""
        return self._breaker.state

    async def admit(self, asks: Sequence[Ask]) -> Verdict:
        """Take all that is asked, or nothing. An admitted request's ticket must be settled at its end."""
        if not asks:
            return NOTHING_ASKED
        self._count += 1
        holder = f"{self._name}{self._count:x}"
        if self._shared is None:
            return self._by_share(asks, holder)
        match self._breaker.state:
            case State.OPEN:
                return self._without_redis(asks, holder)
            case State.CLOSED if not self._in_doubt:
                return await self._by_redis(self._shared, asks, holder)
            case State.CLOSED | State.RETURNING:
                return await self._by_both(self._shared, asks, holder)

    async def _by_redis(self, shared: Shared, asks: Sequence[Ask], holder: str) -> Verdict:
        try:
            admitted, standings = await self._ask(shared, asks, holder)
        except AwayError as error:
            return self._redis_failed(error, asks, holder)
        self._breaker.answered()
        if admitted:
            now = self._now()
            self._local.note(standings, holder, now, self._parts())
            return self._admitted(asks, holder, standings, now)
        self._local.learn(standings, self._now())
        return refusal(standings)

    async def _ask(self, shared: Shared, asks: Sequence[Ask], holder: str) -> "Answer":
        """Ask, telling in the same round trip what waits for these limits: who ended a moment ago holds nothing now."""
        changes = self._outbox.take_of(asks)
        try:
            return await shared.admit(asks, holder, changes)
        except BaseException:
            self._outbox.put_back(changes, sent=not changes.unsent)
            raise

    async def _by_both(self, shared: Shared, asks: Sequence[Ask], holder: str) -> Verdict:
        if self._breaker.state is State.CLOSED:
            self._take_over(asks)
        ours = self._by_share(asks, holder, degraded=True)
        if ours.ticket is None:
            return self._unless_whole(ours, asks)
        try:
            admitted, standings = await self._ask(shared, asks, holder)
        except AwayError as error:
            self._failed(error)
            if self._in_the_dark(error):
                self._give_back(ours.ticket)
                return self._decided(self._in_vain(asks, holder), asks, holder)
            self._outbox.owe_all(asks)
            self._decided_alone(True)
            return ours
        except BaseException:
            self._give_back(ours.ticket)
            raise
        if not admitted:
            self._give_back(ours.ticket)
            return refusal(standings)
        tighter = [min(pair, key=lambda each: each.remaining) for pair in zip(ours.standings, standings, strict=True)]
        return ours._replace(standings=tuple(tighter))

    def _redis_failed(self, error: AwayError, asks: Sequence[Ask], holder: str) -> Verdict:
        self._failed(error)
        decide = self._in_vain if self._in_the_dark(error) else self._without_redis
        return self._decided(decide(asks, holder), asks, holder)

    def _decided(self, verdict: Verdict, asks: Sequence[Ask], holder: str) -> Verdict:
        """The share decided what Redis was asked: the script may have run, and its answer been lost."""
        if verdict.ticket is None:
            self._outbox.end(asks, holder)
        self._decided_alone(verdict.admitted)
        return verdict

    def _in_the_dark(self, error: AwayError) -> bool:
        """Whether Redis may be answering others, who may have all that a limit has. Alone, this process knows."""
        return error.late and self._parts() > 1

    def _in_vain(self, asks: Sequence[Ask], holder: str) -> Verdict:
        """Nothing was heard of a request in time: refused, and of these limits this process's share has from now on
        what is refilled, until Redis is heard again."""
        self._local.fill(asks, self._now(), self._parts())
        return self._by_share_alone(asks, holder)

    def _without_redis(self, asks: Sequence[Ask], holder: str) -> Verdict:
        self._take_over(asks)
        return self._by_share_alone(asks, holder)

    def _by_share_alone(self, asks: Sequence[Ask], holder: str) -> Verdict:
        """What it admits is owed to Redis."""
        verdict = self._by_share(asks, holder, degraded=True)
        if verdict.ticket is not None:
            self._outbox.owe_all(asks)
        return self._unless_whole(verdict, asks)

    def _take_over(self, asks: Sequence[Ask]) -> None:
        """Before the share decides alone: what others used beyond theirs is not there any more."""
        now, parts = self._now(), self._parts()
        for ask in asks:
            others, heard = self._beyond.take(ask, now, parts)
            if others or heard:
                self._local.take_over(ask, others, heard, now, parts)

    def _unless_whole(self, verdict: Verdict, asks: Sequence[Ask]) -> Verdict:
        """What is more than a share, and not more than the limit, is to come again when Redis may decide."""
        if verdict.retry_ms is None and all(ask.amount <= ask.limit for ask in asks):
            return verdict._replace(retry_ms=max(TIDY_MS, self._breaker.next_trial_ms))
        return verdict

    def _by_share(self, asks: Sequence[Ask], holder: str, *, degraded: bool = False) -> Verdict:
        now, parts = self._now(), self._parts()
        admitted, standings = self._local.admit(asks, holder, now, parts)
        if admitted:
            return self._admitted(asks, holder, standings, now, degraded=degraded)
        return refusal(standings, degraded=degraded, parts=parts)

    def _admitted(
        self, asks: Sequence[Ask], holder: str, standings: tuple[Standing, ...], now: int, *, degraded: bool = False
    ) -> Verdict:
        ticket = Ticket(asks, holder, now + LONGEST_MS)
        for ask in asks:
            if ask.kind is CONCURRENCY:
                self._held[holder] = ticket
                break
        return Verdict(ticket, standings, None, 0, degraded)

    def settle(self, ticket: Ticket, tokens: int | None = None) -> None:
        """The request has ended, having used `tokens` (None: as estimated). Never waits, never fails, counts once."""
        if ticket.settled or not ticket.asks:
            return
        ticket.settled = True
        self._held.pop(ticket.holder, None)
        now, parts = self._now(), self._parts()
        for ask in ticket.asks:
            if ask.kind is CONCURRENCY:
                self._local.drop(ask.key, ticket.holder)
            elif ask.kind is TOKENS and tokens is not None and tokens != ask.amount:
                self._local.force(ask, tokens - ask.amount, now, parts)
                if self._shared is not None:
                    self._outbox.owe(ask, tokens - ask.amount)
        if self._shared is not None:
            self._outbox.end(ticket.asks, ticket.holder)
            self._wake.set()

    def _give_back(self, ticket: Ticket) -> None:
        """This process's share was taken in vain."""
        ticket.settled = True
        self._held.pop(ticket.holder, None)
        for ask in ticket.asks:
            if ask.kind is CONCURRENCY:
                self._local.drop(ask.key, ticket.holder)
            else:
                self._local.force(ask, -ask.amount, self._now(), self._parts())

    def _unheard(self, asks: Sequence[Ask], holder: str) -> None:
        """Redis admitted a request whose caller had left, or had been answered without it."""
        self._outbox.owe_all(asks, -1)
        if holder not in self._held:
            self._outbox.end(asks, holder)
        self._wake.set()

    async def run(self) -> None:
        """Tell Redis what waits, keep leases, and try a Redis that is away, until cancelled."""
        if self._shared is not None:
            with contextlib.suppress(AwayError):  # it is told by the first round
                await self._shared.warm()
        failed: type[Exception] | None = None
        while not is_cancelled():
            try:
                await self.tend()
                failed = None
            except Exception as error:  # noqa: BLE001 - said, and the next round goes on: nobody else keeps leases
                if type(error) is not failed:
                    failed = type(error)
                    self._round_failed(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            await asyncio.sleep(GATHER_S)

    async def tend(self) -> None:
        """One round of `run`."""
        self._wake.clear()
        self._tidy()
        kept = self._keep_leases()
        if self._shared is None:
            return
        try:
            if self._breaker.state is State.OPEN:
                if self._breaker.is_due:
                    await self._come_back(self._shared)
            else:
                await self._catch_up(self._shared, kept)
        except AwayError as error:
            self._failed(error)

    def _tidy(self) -> None:
        now = self._now()
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_MS
            self._local.forget(now)
            if self._breaker.state is State.OPEN:
                self._outbox.bound(self._used)

    async def _catch_up(self, shared: Shared, kept: list[Change]) -> None:
        now, parts, failures = self._now(), self._parts(), self._failures
        due = now >= self._tell_at
        if self._in_doubt or due:  # a server may be started anew, or emptied, and no round trip fail
            if await self._look(shared):
                self._breaker.returned()
            self._in_doubt = self._failures > failures
        await self._keep(shared, kept)
        await self._send(shared, self._outbox.take())
        if due:
            self._tell_at = now + TELL_MS
        if due and parts > 1:
            beyond = most_of(self._local.beyond(now, parts))
            texts = await shared.exchange(self._name, json.dumps(beyond))
            self._beyond.exchanged(beyond, texts, now, everybody=len(texts) >= parts - 1)

    async def _come_back(self, shared: Shared) -> None:
        self._outbox.bound(self._used)
        await self._look(shared)
        await self._keep(shared, [Change(Verb.KEEP, ask, ticket.holder) for ticket, ask in self._leases()])
        await self._send(shared, self._outbox.take())
        self._in_doubt = False
        self._breaker.returned()

    async def _look(self, shared: Shared) -> bool:
        """Whether Redis lost its data: then all that this process's share has used is owed, not what Redis missed."""
        epoch = await shared.epoch(secrets.token_hex(8))
        lost = self._epoch not in ("", epoch)
        if lost:
            now, parts = self._now(), self._parts()
            self._outbox.owe_instead([(ask, self._local.admitted(ask, now, parts)) for ask in self._local.rates()])
        self._epoch = epoch
        return lost

    async def _keep(self, shared: Shared, kept: list[Change]) -> None:
        await self._send(shared, kept)
        for change in kept:
            if str(change.what) not in self._held:  # it ended meanwhile, and may have been told before it was kept
                self._outbox.end([change.ask], str(change.what))

    async def _send(self, shared: Shared, changes: list[Change]) -> None:
        for start in range(0, len(changes), BATCH):
            try:
                await shared.apply(changes[start : start + BATCH])
            except BaseException:
                self._outbox.put_back(changes[start : start + BATCH])
                self._outbox.put_back(changes[start + BATCH :], sent=False)
                raise
            self._breaker.answered()

    def _keep_leases(self) -> list[Change]:
        """Hold what is held for longer, when it is time."""
        now = self._now()
        if now < self._keep_at:
            return []
        self._keep_at = now + KEPT_MS
        for ticket in [each for each in self._held.values() if each.expires_ms <= now]:
            self.settle(ticket)
        held = self._leases()
        for ticket, ask in held:
            self._local.keep(ask.key, ticket.holder, now)
        return [Change(Verb.KEEP, ask, ticket.holder) for ticket, ask in held]

    def _leases(self) -> list[tuple[Ticket, Ask]]:
        tickets = self._held.values()
        return [(ticket, ask) for ticket in tickets for ask in ticket.asks if ask.kind is CONCURRENCY]

    async def close(self) -> None:
        """Tell Redis what waits, once, and leave."""
        if self._shared is not None:
            await self.tend()
            await self._shared.close()

    def _failed(self, error: AwayError) -> None:
        self._in_doubt = True
        self._failures += 1
        if error.trip is None or error.trip is not self._trip:  # those who travelled together failed once
            self._trip = error.trip
            self._breaker.failed(str(error))
        self._wake.set()

    def _used(self, ask: Ask) -> int:
        return self._local.used(ask, self._now(), self._parts())

    def _parts(self) -> int:
        return max(1, self._replicas())

    def _now(self) -> int:
        return int(self._clock() * 1000)
