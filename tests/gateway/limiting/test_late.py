"""Valkey answers, but later than anybody waits: whoever else it answers, the limit is admitted once.

Redis's clock stands still here, so that nothing is refilled and every sum is exact.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import redis

from gateway.limiting.breaker import State
from gateway.limiting.limiter import Limiter
from gateway.limiting.shared import FLIGHTS, SharedLimits, redis_key, script
from tests.gateway.limiting.link import Link, link_to
from tests.gateway.limiting.test_limiter import Clock, conc, rpm
from tests.gateway.limiting.test_same_meaning import CLOCK_KEY, START, TEST_CLOCK

LIMIT = 40
LATE_S = 0.2  # four times as long as anybody waits


class Replica:
    """A limiter behind a line of its own; `alone` is what it was told without Redis having been heard."""

    def __init__(self, link: Link, replicas: int) -> None:
        self.link = link
        self.clock = Clock(START / 1000)
        self.alone: list[bool] = []
        self.limiter = Limiter(
            lambda unheard: SharedLimits(link.url, unheard, script_text=script(TEST_CLOCK)),
            replicas=lambda: replicas,
            clock=self.clock,
            chance=lambda: 0.0,
            decided_alone=self.alone.append,
        )

    async def burst(self, times: int) -> int:
        verdicts = await asyncio.gather(*(self.limiter.admit([rpm(LIMIT)]) for _ in range(times)))
        return sum(each.admitted for each in verdicts)


@pytest.fixture
def direct(fresh_redis: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(fresh_redis) as client:
        client.set(CLOCK_KEY, START)
        yield client


@asynccontextmanager
async def replicas(url: str, count: int) -> AsyncIterator[list[Replica]]:
    async with AsyncExitStack() as stack:
        made = [Replica(await stack.enter_async_context(link_to(url)), count) for _ in range(count)]
        for each in made:
            stack.push_async_callback(each.limiter.close)
        yield made
        for each in made:
            each.link.late_s = 0


async def landed(replica: Replica) -> None:
    """Every answer that came too late has been read, and Redis was told what follows from it."""
    replica.link.late_s = 0
    shared = replica.limiter._shared
    assert isinstance(shared, SharedLimits)
    while shared._late:
        await asyncio.wait(shared._late)
    await replica.limiter.tend()


def used(direct: redis.Redis, limit: int = LIMIT) -> int:
    """Requests, as Redis counts them."""
    return int((direct.get(redis_key(rpm(limit))) or b"0 0").split()[1]) // 60_000


@pytest.mark.parametrize("late", [(1,), (0, 1), (1, 2, 3), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
async def test_limit_is_admitted_once_whoever_hears_of_it(
    fresh_redis: str, direct: redis.Redis, late: tuple[int, ...], cold: bool
) -> None:
    async with replicas(fresh_redis, 4) as world:
        if not cold:
            for each in world:
                await each.limiter.tend()
        for number in late:
            world[number].link.late_s = LATE_S
        admitted = sum(await asyncio.gather(*(each.burst(2 * LIMIT) for each in world)))
        assert admitted <= LIMIT
        assert all(each.alone for number, each in enumerate(world) if number in late)
        for _ in range(6):
            await asyncio.gather(*(each.limiter.tend() for each in world))
            admitted += sum(await asyncio.gather(*(each.burst(LIMIT) for each in world)))
            assert admitted <= LIMIT


async def test_what_was_admitted_too_late_is_given_back(fresh_redis: str, direct: redis.Redis) -> None:
    async with replicas(fresh_redis, 2) as (one, other):
        await one.limiter.tend()
        one.link.late_s = LATE_S
        assert (await one.burst(LIMIT), one.alone) == (0, [False] * LIMIT)
        assert one.limiter.state is State.CLOSED, "who travelled together failed once"
        await landed(one)
        assert used(direct) == 0
        await other.limiter.tend()
        assert await other.burst(LIMIT) == LIMIT


async def test_alone_its_share_is_all_there_is_and_counts_once(fresh_redis: str, direct: redis.Redis) -> None:
    async with replicas(fresh_redis, 1) as (one,):
        await one.limiter.tend()
        one.link.late_s = LATE_S
        verdict = await one.limiter.admit([rpm(LIMIT), conc(3)])
        assert verdict.ticket is not None and verdict.degraded and one.alone == [True]
        await landed(one)
        assert used(direct) == 1
        assert direct.zcard(redis_key(conc(3))) == 1, "it runs"
        one.limiter.settle(verdict.ticket)
        await one.limiter.tend()
        assert direct.zcard(redis_key(conc(3))) == 0


async def test_own_lateness_is_not_redis_late(fresh_redis: str) -> None:
    """Everybody comes at once, to a process with one connection, which is held up all the time."""
    alone: list[bool] = []
    limiter = Limiter(
        lambda unheard: SharedLimits(fresh_redis, unheard, timeout_s=0.2),
        replicas=lambda: 4,
        decided_alone=alone.append,
    )

    async def one() -> bool:
        time.sleep(0.003)  # reading a request, and all that
        return (await limiter.admit([rpm(LIMIT)])).admitted

    await limiter.tend()
    began = time.monotonic()
    admitted = sum(await asyncio.gather(*(one() for _ in range(300))))
    assert (alone, limiter.state) == ([], State.CLOSED)
    assert LIMIT <= admitted <= LIMIT + LIMIT * (time.monotonic() - began) / 60 + 1
    await limiter.close()


async def test_connections_are_there_before_the_first_request(fresh_redis: str) -> None:
    async with link_to(fresh_redis) as link:
        limiter = Limiter(lambda unheard: SharedLimits(link.url, unheard))
        running = asyncio.create_task(limiter.run())
        async with asyncio.timeout(10):
            while limiter._in_doubt:
                await asyncio.sleep(0.001)
        connected, sent = link.connections, link.requests
        assert connected == FLIGHTS
        assert all(each.admitted for each in await asyncio.gather(*(limiter.admit([rpm(LIMIT)]) for _ in range(LIMIT))))
        assert (link.connections, link.requests) == (connected, sent + 1), "the script was known"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await limiter.close()


@pytest.mark.parametrize(
    "text", ["return 'OK'", "return 1", "return false", "return {1, 2}", "return ''", "return '1 x'"]
)
async def test_answer_that_is_not_the_scripts_is_none(fresh_redis: str, text: str) -> None:
    """As of a proxy, or of what is no Redis: nobody waits for ever, and each process admits its share."""
    limiter = Limiter(lambda unheard: SharedLimits(fresh_redis, unheard, script_text=text))
    async with asyncio.timeout(5):
        verdicts = [await limiter.admit([rpm(2)]) for _ in range(8)]
    assert [each.admitted for each in verdicts] == [True, True] + [False] * 6
    await limiter.close()


async def test_lease_of_who_was_admitted_in_the_dark_is_not_given_back(fresh_redis: str, direct: redis.Redis) -> None:
    """Of thousands a minute the share has some even then; what it admits is told, and runs."""
    async with replicas(fresh_redis, 2) as (one, _):
        await one.limiter.tend()
        one.link.late_s = LATE_S
        verdict = await one.limiter.admit([rpm(60_000), conc(8)])
        assert verdict.ticket is not None and one.alone == [True]
        await landed(one)
        assert (used(direct, 60_000), direct.zcard(redis_key(conc(8)))) == (1, 1)
        one.limiter.settle(verdict.ticket)
        await one.limiter.tend()
        assert direct.zcard(redis_key(conc(8))) == 0
