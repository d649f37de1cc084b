"""Several limiters over one real Valkey, with clocks that are wrong: together they admit the limit, whatever fails."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import redis

from gateway.limiting.asks import Ask, Verdict
from gateway.limiting.breaker import RETURNING_S, State
from gateway.limiting.limiter import Limiter
from gateway.limiting.shared import SharedLimits, redis_key, script
from tests.gateway.limiting.link import Link, link_to
from tests.gateway.limiting.test_limiter import Clock, conc, rpm, tpm
from tests.gateway.limiting.test_same_meaning import CLOCK_KEY, START, TEST_CLOCK

REPLICAS = 4
LIMIT = 200
PATIENT_S = 20.0  # a loaded machine is no Redis that is away


class World:
    """Four limiters, each with its own connections and a clock that is minutes off; time passes for all together."""

    def __init__(self, url: str, direct: redis.Redis, timeout_s: float) -> None:
        self.direct = direct
        self.now = START
        self.clocks = [Clock(START / 1000 + skew) for skew in (-300.0, -60.0, 60.0, 300.0)]
        self.limiters = [
            Limiter(
                lambda unheard: SharedLimits(url, unheard, timeout_s=timeout_s, script_text=script(TEST_CLOCK)),
                replicas=lambda: REPLICAS,
                clock=clock,
                chance=lambda: 0.0,
            )
            for clock in self.clocks
        ]
        direct.set(CLOCK_KEY, START)

    def let_pass(self, seconds: float) -> None:
        self.now += int(seconds * 1000)
        self.direct.set(CLOCK_KEY, self.now)
        for clock in self.clocks:
            clock.now += seconds

    async def tend(self) -> None:
        await asyncio.gather(*(each.tend() for each in self.limiters))

    async def burst(self, each: int, *asks: Ask, only: int | None = None) -> list[Verdict]:
        """Ask `each` times of every limiter at once; those that were admitted."""
        limiters = self.limiters if only is None else [self.limiters[only]]
        verdicts = await asyncio.gather(*(one.admit(asks) for _ in range(each) for one in limiters))
        return [verdict for verdict in verdicts if verdict.admitted]

    def states(self) -> set[State]:
        return {each.state for each in self.limiters}


@pytest.fixture
def direct(fresh_redis: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(fresh_redis) as client:
        yield client


@asynccontextmanager
async def worlds(url: str, direct: redis.Redis, timeout_s: float = PATIENT_S) -> AsyncIterator[tuple[World, Link]]:
    async with link_to(url) as link:
        world = World(link.url, direct, timeout_s)
        try:
            await world.tend()
            yield world, link
        finally:
            for each in world.limiters:
                await each.close()


async def test_replicas_admit_exactly_the_limit_when_ten_times_as_much_comes(
    fresh_redis: str, direct: redis.Redis
) -> None:
    async with worlds(fresh_redis, direct) as (world, _):
        assert len(await world.burst(10 * LIMIT // REPLICAS, rpm(LIMIT))) == LIMIT
        world.let_pass(30)
        assert len(await world.burst(LIMIT, rpm(LIMIT))) == LIMIT // 2
        assert world.states() == {State.CLOSED}


async def test_replicas_admit_the_limit_by_redis_time_when_their_own_clocks_are_minutes_off(fresh_redis: str) -> None:
    limiters = [
        Limiter(lambda unheard: SharedLimits(fresh_redis, unheard, timeout_s=PATIENT_S), clock=Clock(skew))
        for skew in (700.0, 1_000.0, 1_300.0, 9.0)
    ]
    with redis.Redis.from_url(fresh_redis) as client:
        began = client.time()
        verdicts = await asyncio.gather(*(each.admit([rpm(LIMIT)]) for _ in range(500) for each in limiters))
        ended = client.time()
    elapsed_ms = (ended[0] - began[0]) * 1000 + (ended[1] - began[1]) // 1000 + 1
    admitted = sum(each.admitted for each in verdicts)
    assert LIMIT <= admitted <= LIMIT + LIMIT * elapsed_ms // 60_000 + 1
    for each in limiters:
        await each.close()


@pytest.mark.parametrize(
    ("silent", "each", "by_one"),
    [(False, 20, 0), (False, 20, 50), (False, 0, 200), (True, 20, 0)],
    ids=["cut, used evenly", "cut, used mostly by one", "cut, used by one alone", "silent, used evenly"],
)
async def test_no_second_burst_is_admitted_when_redis_dies(
    fresh_redis: str, direct: redis.Redis, silent: bool, each: int, by_one: int
) -> None:
    async with worlds(fresh_redis, direct, 0.2 if silent else PATIENT_S) as (world, link):
        before = len(await world.burst(each, rpm(LIMIT))) + len(await world.burst(by_one, rpm(LIMIT), only=0))
        assert before == 4 * each + by_one
        world.let_pass(1)
        await world.tend()  # one tells
        world.let_pass(2)
        await world.tend()  # the others hear
        link.silent = silent
        if not silent:
            await link.down()
        after = 0
        for _ in range(6):
            after += len(await world.burst(10 * LIMIT // REPLICAS, rpm(LIMIT)))
            await world.tend()
        assert world.states() == {State.OPEN}
        leaked = LIMIT * 3 // 60
        if silent:
            assert after == 0, "what was asked and not heard may have been given to others"
        elif by_one == 0:
            assert LIMIT - before <= after + REPLICAS
        assert after <= LIMIT - before + leaked
        world.let_pass(60)
        minute = len(await world.burst(LIMIT, rpm(LIMIT)))
        assert (LIMIT - REPLICAS if silent else 0) <= minute <= LIMIT
        if silent:
            await link.down()
            await link.up()


@pytest.mark.parametrize("lost", [False, True], ids=["kept its data", "lost its data"])
async def test_no_second_burst_is_admitted_when_redis_comes_back(
    fresh_redis: str, direct: redis.Redis, lost: bool
) -> None:
    async with worlds(fresh_redis, direct) as (world, link):
        first = len(await world.burst(20, rpm(LIMIT)))
        await link.down()
        for _ in range(6):
            first += len(await world.burst(5, rpm(LIMIT)))
        assert world.states() == {State.OPEN}
        if lost:
            direct.flushdb()
            direct.set(CLOCK_KEY, world.now)
        await link.up()
        world.let_pass(6)
        leaked = LIMIT * 6 // 60
        await world.limiters[0].tend()  # one is back before the others
        assert world.limiters[0].state is State.RETURNING
        first += len(await world.burst(10 * LIMIT, rpm(LIMIT), only=0))
        await world.tend()
        assert world.states() == {State.RETURNING}
        first += len(await world.burst(10 * LIMIT // REPLICAS, rpm(LIMIT)))
        assert first <= LIMIT + leaked
        world.let_pass(RETURNING_S)
        assert world.states() == {State.CLOSED}
        total = first + len(await world.burst(10 * LIMIT // REPLICAS, rpm(LIMIT)))
        leaked += int(LIMIT * RETURNING_S / 60)
        assert 0.9 * LIMIT <= total <= LIMIT + leaked


async def test_truth_about_tokens_reaches_every_replica_when_it_is_settled(
    fresh_redis: str, direct: redis.Redis
) -> None:
    async with worlds(fresh_redis, direct) as (world, _):
        first, second = world.limiters[:2]
        verdict = await first.admit([tpm(1_000, 900)])
        assert verdict.ticket is not None
        assert not (await second.admit([tpm(1_000, 500)])).admitted
        first.settle(verdict.ticket, 100)
        await first.tend()
        assert (await second.admit([tpm(1_000, 500)])).standings[0].remaining == 400


async def test_what_ended_a_moment_ago_is_free_for_the_next_request(fresh_redis: str, direct: redis.Redis) -> None:
    async with worlds(fresh_redis, direct) as (world, link):
        limiter = world.limiters[0]
        for _ in range(20):
            sent = link.requests
            verdict = await limiter.admit([conc(1), tpm(1_000, 900), rpm(LIMIT)])
            assert verdict.ticket is not None
            assert link.requests == sent + 1
            limiter.settle(verdict.ticket, 1)
        assert (await limiter.admit([tpm(1_000, 900)])).standings[0].remaining == 80
        assert len(limiter._outbox) == 1  # the last lease, whose limit nobody asked since


async def test_lease_that_ends_while_it_is_kept_is_given_back(fresh_redis: str, direct: redis.Redis) -> None:
    async with worlds(fresh_redis, direct) as (world, link):
        limiter = world.limiters[0]
        verdict = await limiter.admit([conc(1)])
        assert verdict.ticket is not None
        world.let_pass(21)
        sent = link.requests
        keeping = asyncio.create_task(limiter.tend())
        while link.requests == sent:
            await asyncio.sleep(0)
        limiter.settle(verdict.ticket)
        await keeping
        await limiter.tend()
        assert direct.zcard(redis_key(conc(1))) == 0


async def test_lease_of_a_dead_replica_is_free_again_after_its_time(fresh_redis: str, direct: redis.Redis) -> None:
    async with worlds(fresh_redis, direct) as (world, _):
        dead, alive = world.limiters[:2]
        assert (await dead.admit([conc(2)])).admitted
        assert (await alive.admit([conc(2)])).admitted
        for _ in range(2):
            world.let_pass(25)
            await alive.tend()
            assert not (await alive.admit([conc(2)])).admitted
        world.let_pass(10)
        held = await alive.admit([conc(2)])
        assert held.ticket is not None
        assert not (await alive.admit([conc(2)])).admitted
        alive.settle(held.ticket)
        await alive.tend()
        assert (await world.limiters[2].admit([conc(2)])).admitted


async def test_nothing_is_held_for_a_caller_that_left_while_redis_answered(
    fresh_redis: str, direct: redis.Redis
) -> None:
    async with worlds(fresh_redis, direct) as (world, link):
        limiter = world.limiters[0]
        waiting = asyncio.create_task(limiter.admit([rpm(60), conc(1)]))
        sent = link.requests
        while link.requests == sent:
            await asyncio.sleep(0)
        waiting.cancel()
        assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
        while not len(limiter._outbox):
            await asyncio.sleep(0)
        await limiter.tend()
        assert direct.get(redis_key(rpm(60))) is None
        assert direct.zcard(redis_key(conc(1))) == 0


async def test_what_is_larger_than_a_share_is_told_when_redis_is_tried_again(
    fresh_redis: str, direct: redis.Redis
) -> None:
    async with worlds(fresh_redis, direct) as (world, link):
        await link.down()
        await world.burst(6, rpm(LIMIT), only=0)
        for _ in range(6):
            await world.limiters[0].tend()
        refused = await world.limiters[0].admit([tpm(1_000, 900)])
        assert (refused.degraded, refused.retry_ms) == (True, 5_000)
        assert (await world.limiters[0].admit([tpm(1_000, 1_001)])).retry_ms is None
        await link.up()


async def test_silent_redis_is_asked_five_times_and_then_left_alone(fresh_redis: str, direct: redis.Redis) -> None:
    async with link_to(fresh_redis) as link:
        limiter = Limiter(lambda unheard: SharedLimits(link.url, unheard))
        link.silent = True
        verdicts = [await limiter.admit([rpm(1_000)]) for _ in range(5)]
        assert limiter.state is State.OPEN
        asked = link.connections
        verdicts += [await limiter.admit([rpm(1_000)]) for _ in range(100)]
        assert all(each.admitted and each.degraded for each in verdicts)
        assert link.connections == asked
        await limiter.close()


async def test_share_decides_when_redis_has_no_room(fresh_redis: str, direct: redis.Redis) -> None:
    async with worlds(fresh_redis, direct) as (world, _):
        limiter = world.limiters[0]
        direct.config_set("maxmemory", 1)
        try:
            verdicts = [await limiter.admit([rpm(LIMIT)]) for _ in range(6)]
            assert all(each.admitted and each.degraded for each in verdicts)
        finally:
            direct.config_set("maxmemory", 0)
        world.let_pass(6)  # 5 of the 6 are refilled
        await limiter.tend()
        assert limiter.state is State.RETURNING
        assert (await limiter.admit([rpm(LIMIT)])).standings[0].remaining == LIMIT // REPLICAS - 2
        assert (await world.limiters[1].admit([rpm(LIMIT)])).standings[0].remaining == LIMIT - 3


async def test_answer_counts_when_only_this_process_was_late(fresh_redis: str) -> None:
    limiter = Limiter(lambda unheard: SharedLimits(fresh_redis, unheard, timeout_s=0.2))
    await limiter.tend()
    loop = asyncio.get_running_loop()
    waiting = asyncio.create_task(limiter.admit([rpm(9)]))
    await asyncio.sleep(0)
    loop.call_soon(loop.call_soon, time.sleep, 0.3)  # the loop is held up after the request was sent
    assert (await waiting).degraded is False
    await limiter.close()


async def test_round_trip_is_spared_when_nothing_is_limited(fresh_redis: str) -> None:
    async with link_to(fresh_redis) as link:
        limiter = Limiter(lambda unheard: SharedLimits(link.url, unheard))
        assert (await limiter.admit([])).admitted
        assert link.connections == 0
        for _ in range(3):
            before = link.requests
            assert (await limiter.admit([rpm(9), tpm(9, 1), conc(9)])).admitted
        assert link.requests == before + 1
        await limiter.close()


@pytest.mark.parametrize("forgot_script", [True, False], ids=["started anew", "emptied"])
async def test_data_that_were_lost_while_no_line_broke_are_no_second_burst(
    fresh_redis: str, direct: redis.Redis, forgot_script: bool
) -> None:
    """A server that was started anew has forgotten the script, too: the first request finds out. One that was only
    emptied is found out by the next round."""
    async with worlds(fresh_redis, direct) as (world, _):
        for _ in range(LIMIT):  # one by one: answers that overtake one another leave what this one used too low
            assert len(await world.burst(1, rpm(LIMIT), only=0)) == 1
        world.let_pass(1)
        await world.tend()  # one tells
        world.let_pass(2)
        await world.tend()  # the others hear
        direct.flushall()
        direct.set(CLOCK_KEY, world.now)
        if forgot_script:
            direct.script_flush()
        else:
            world.let_pass(1)
            await world.tend()
        refilled = LIMIT * (3 if forgot_script else 4) // 60 + 1
        again = len(await world.burst(2 * LIMIT, rpm(LIMIT), only=0))
        assert again <= refilled
        assert world.limiters[0].state is not State.OPEN, "it answers"
        await world.tend()
        assert world.limiters[0].state is State.RETURNING
        assert len(await world.burst(LIMIT, rpm(LIMIT))) <= refilled - again
