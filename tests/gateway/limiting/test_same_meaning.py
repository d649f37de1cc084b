"""The model, the counts in process and the real Valkey are told the same steps and never differ.

The script's body is the product's. Its clock is one line before it; here that line reads a key which the story sets, so
that answers can be compared to the millisecond. `script()` without an argument, which is all that the product calls,
has Redis's own time, and `test_redis_time_is_the_clock` holds it to that.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.limiting.asks import Ask, Kind
from gateway.limiting.local import LocalLimits
from gateway.limiting.outbox import Change, Verb
from gateway.limiting.shared import SharedLimits, redis_key, script
from tests.gateway.limiting.model import Model

CLOCK_KEY = "test:clock"
TEST_CLOCK = f"local now = tonumber(redis.call('GET', '{CLOCK_KEY}'))\n"
START = 1_795_000_000_123  # ms

RATES = (
    Ask(Kind.REQUESTS, "t", "rpm:tenant:t", 7),
    Ask(Kind.REQUESTS, "t", "rpm:token:k", 3),
    Ask(Kind.TOKENS, "t", "tpm:tenant:t", 1_001),
    Ask(Kind.TOKENS, "t", "tpm:token:k", 9_999_999_967),  # near the largest there is
)
LEASES = (Ask(Kind.CONCURRENCY, "t", "conc:tenant:t", 2), Ask(Kind.CONCURRENCY, "t", "conc:token:k", 1))
NONE = Ask(Kind.REQUESTS, "t", "rpm:none:t", 0)


class Admit(NamedTuple):
    """A request with a new holder."""

    asks: tuple[Ask, ...]


class Force(NamedTuple):
    """A change of a rate that is not asked."""

    ask: Ask
    amount: int


class End(NamedTuple):
    """The leases of the holder before the last `back` ones are dropped, or kept."""

    back: int
    kept: bool


class Pass(NamedTuple):
    """Time goes by."""

    ms: int


Step = Admit | Force | End | Pass


def amounts(ask: Ask) -> st.SearchStrategy[Ask]:
    if ask.kind is not Kind.TOKENS:
        return st.just(ask)
    wide = st.integers(0, ask.limit + 1)
    return st.one_of(wide, st.integers(1, ask.limit // 3)).map(lambda amount: ask._replace(amount=amount))


def forces(ask: Ask) -> st.SearchStrategy[Force]:
    return st.integers(-ask.limit * 2, ask.limit * 12).map(lambda amount: Force(ask, amount))


def some_asks() -> st.SearchStrategy[Admit]:
    whole = st.lists(st.sampled_from([*RATES, *LEASES]), min_size=1, max_size=4, unique_by=lambda ask: ask.key)
    chosen = whole.flatmap(lambda asks: st.tuples(*map(amounts, asks)))
    return chosen.map(lambda asks: Admit(tuple(asks)))


STEPS = st.one_of(
    some_asks(),
    some_asks(),
    st.just(Admit((NONE,))),
    st.sampled_from(RATES).flatmap(forces),
    st.builds(End, st.integers(1, 4), st.booleans()),
    st.builds(
        Pass,
        st.one_of(
            st.integers(0, 5),
            st.sampled_from([999, 1_000, 59_000, 60_000]),
            st.integers(0, 20_000),
            st.integers(0, 700_000),
        ),
    ),
)


class Worlds:
    """The three, told the same."""

    def __init__(self, url: str, clock: redis.Redis) -> None:
        self.model = Model()
        self.local = LocalLimits()
        self.shared = SharedLimits(url, unheard, timeout_s=10, script_text=script(TEST_CLOCK))
        self.clock = clock
        self.now = START
        self.holders = 0
        self.clock.set(CLOCK_KEY, self.now)

    async def tell(self, step: Step) -> None:
        match step:
            case Pass(ms):
                self.now += ms
                self.clock.set(CLOCK_KEY, self.now)
                self.local.forget(self.now)
            case Admit(asks):
                await self.admit(asks)
            case Force(ask, amount):
                self.model.force(ask, amount, self.now)
                self.local.force(ask, amount, self.now)
                await self.shared.apply([Change(Verb.FORCE, ask, amount)])
            case End(back, kept):
                await self.end(f"h{self.holders - back}", kept)

    async def admit(self, asks: tuple[Ask, ...]) -> None:
        self.holders += 1
        holder = f"h{self.holders}"
        told = self.model.admit(asks, holder, self.now)
        assert self.local.admit(asks, holder, self.now) == told
        assert await self.shared.admit(asks, holder) == told
        waits = [each.retry_ms for each in told[1]]
        if told[0] or None in waits or any(ask.kind is Kind.CONCURRENCY for ask in asks):
            return
        longest = max(wait or 0 for wait in waits)
        assert self.model.admit(asks, "-", self.now + longest - 1)[0] is False
        later = LocalLimits()
        later._rates = dict(self.local._rates)
        assert later.admit(asks, "-", self.now + longest)[0] is True  # the wait that was told is true

    async def end(self, holder: str, kept: bool) -> None:
        for ask in LEASES:
            if kept:
                self.model.keep(ask, holder, self.now)
                self.local.keep(ask.key, holder, self.now)
            else:
                self.model.drop(ask, holder)
                self.local.drop(ask.key, holder)
        verb = Verb.KEEP if kept else Verb.DROP
        await self.shared.apply([Change(verb, ask, holder) for ask in LEASES])


def unheard(asks: Sequence[Ask], holder: str) -> None:
    raise AssertionError("nobody leaves")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEPS, max_size=30))
def test_three_ways_of_counting_never_differ(redis_url: str, steps: list[Step]) -> None:
    async def story() -> None:
        worlds = Worlds(redis_url, clock)
        try:
            for step in steps:
                await worlds.tell(step)
        finally:
            await worlds.shared.close()

    with redis.Redis.from_url(redis_url) as clock:
        clock.flushdb()
        asyncio.run(story())


async def test_redis_time_is_the_clock(fresh_redis: str) -> None:
    shared = SharedLimits(fresh_redis, unheard, timeout_s=10)
    with redis.Redis.from_url(fresh_redis) as client:
        seconds, micros = client.time()
        await shared.admit([RATES[0]], "h")
        at, level = map(int, bytes(client.get(redis_key(RATES[0]))).split())
        assert 0 <= at - (seconds * 1000 + micros // 1000) < 10_000
        assert level == 60_000
        assert 60_000 < client.pttl(redis_key(RATES[0])) <= 60_000 + 8_572
    await shared.close()


async def test_clock_of_redis_that_goes_back_neither_frees_nor_blocks(fresh_redis: str) -> None:
    shared = SharedLimits(fresh_redis, unheard, timeout_s=10, script_text=script(TEST_CLOCK))
    ask = RATES[0]
    with redis.Redis.from_url(fresh_redis) as client:
        client.set(CLOCK_KEY, START)
        assert [(await shared.admit([ask], str(n)))[0] for n in range(8)] == [True] * 7 + [False]
        client.set(CLOCK_KEY, START - 3_600_000)
        assert (await shared.admit([ask], "9"))[1][0].retry_ms == 8_572
        client.set(CLOCK_KEY, START - 3_600_000 + 8_572)
        assert (await shared.admit([ask], "10"))[0] is True
    await shared.close()


async def test_limit_that_changes_keeps_what_was_used(fresh_redis: str) -> None:
    shared = SharedLimits(fresh_redis, unheard, timeout_s=10, script_text=script(TEST_CLOCK))
    local = LocalLimits()
    small, large = RATES[0]._replace(limit=60), RATES[0]._replace(limit=100)
    with redis.Redis.from_url(fresh_redis) as client:
        client.set(CLOCK_KEY, START)
        for number in range(60):
            assert (await shared.admit([small], str(number)))[0]
            assert local.admit([small], str(number), START)[0]
        told = local.admit([large], "x", START)
        assert told[1][0].remaining == 39
        assert await shared.admit([large], "x") == told
        assert await shared.admit([small], "y") == local.admit([small], "y", START)
    await shared.close()


async def test_script_is_sent_again_when_redis_forgot_it(fresh_redis: str) -> None:
    shared = SharedLimits(fresh_redis, unheard, timeout_s=10)
    with redis.Redis.from_url(fresh_redis) as client:
        for number in range(2):
            client.script_flush()
            both = await asyncio.gather(*(shared.admit([RATES[0]], f"{number}{n}") for n in range(2)))
            assert [answer[0] for answer in both] == [True, True]
        assert (await shared.admit([RATES[0]], "last"))[1][0].remaining == 2
    await shared.close()


async def test_all_keys_of_a_tenant_are_in_one_slot_and_expire() -> None:
    assert {redis_key(ask).split("{")[1].split("}")[0] for ask in (*RATES, *LEASES)} == {"t"}


@pytest.mark.parametrize("used", [6_000, 600, 61, 59])
async def test_limit_that_is_lowered_tells_a_true_wait(fresh_redis: str, used: int) -> None:
    """What was used under the higher limit is a minute of the lower at most; it is refilled evenly from then on."""
    shared = SharedLimits(fresh_redis, unheard, timeout_s=10, script_text=script(TEST_CLOCK))
    local = LocalLimits()
    high, low = RATES[0]._replace(limit=6_000), RATES[0]._replace(limit=60)
    with redis.Redis.from_url(fresh_redis) as client:
        client.set(CLOCK_KEY, START)
        await shared.apply([Change(Verb.FORCE, high, used)])
        local.force(high, used, START)
        waits = [1_000] if used > 59 else [0, 1_000]
        waits += [1, 0, 1_000, 1, 0]
        moments = [0] * (len(waits) - 5) + [999, 1_000, 1_000, 1_999, 2_000]
        for number, (ms, wait) in enumerate(zip(moments, waits, strict=True)):
            client.set(CLOCK_KEY, START + ms)
            local.forget(START + ms)
            told = local.admit([low], str(number), START + ms)
            assert await shared.admit([low], str(number)) == told
            assert (told[0], told[1][0].retry_ms) == (wait == 0, wait)
    await shared.close()


@pytest.mark.parametrize("parts", [1, 4])
def test_debt_keeps_its_minutes_when_the_limit_is_lowered(parts: int) -> None:
    local = LocalLimits()
    high, low = RATES[0]._replace(limit=6_000), RATES[0]._replace(limit=60)
    local.force(high, 3 * 6_000 // parts, START, parts)
    told = local.admit([low], "h", START + 30_000, parts)
    assert told[1][0].reset_ms == 150_000
    assert local.admit([low], "h", START + 90_000, parts)[1][0].reset_ms == 90_000
