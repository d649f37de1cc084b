"""However Redis comes and goes, and whoever is asked, the replicas together admit what one limiter would.

Here Redis is the counts in process behind a switch, which `test_same_meaning.py` shows to be the same as the script's;
so many histories can be played. One tank of the whole limit is debited by every request that was admitted: it never
overflows. Before Redis goes, processes have told each other what they used beyond their shares, and it is away for long
enough for every process to notice.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.limiting.asks import Ask, AwayError
from gateway.limiting.breaker import TRIALS
from gateway.limiting.gcra import PERIOD_MS, leaked
from gateway.limiting.limiter import Limiter
from gateway.limiting.local import LocalLimits
from gateway.limiting.outbox import Change, Verb
from gateway.limiting.shared import Answer
from tests.gateway.limiting.test_limiter import Clock, rpm

REPLICAS = 4
LIMIT = 120


class Redis:
    """What all processes share, with a switch."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.is_up = True
        self.life = 0
        self.lose()

    def lose(self) -> None:
        """Start again with nothing."""
        self.life += 1
        self.counts = LocalLimits()
        self.mark = ""
        self.told: dict[str, str] = {}


class Line:
    """One process's connection: it fails while Redis is down, and once more when Redis was started anew."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.life = redis.life
        self.is_late = False

    def now(self) -> int:
        lives, self.life = (self.life, self.redis.life), self.redis.life
        if not self.redis.is_up or lives[0] != lives[1]:
            raise AwayError("down")
        return int(self.redis.clock.now * 1000)

    async def admit(self, asks: Sequence[Ask], holder: str, changes: Sequence[Change]) -> Answer:
        await self.apply(changes)
        answer = self.redis.counts.admit(asks, holder, self.now())
        if self.is_late:
            raise AwayError("late", late=True)
        return answer

    async def apply(self, changes: Sequence[Change]) -> None:
        now = self.now()
        for change in changes:
            if change.verb is Verb.FORCE:
                self.redis.counts.force(change.ask, int(change.what), now)

    async def epoch(self, fresh: str) -> str:
        self.now()
        self.redis.mark = self.redis.mark or fresh
        return self.redis.mark

    async def exchange(self, name: str, text: str) -> list[str]:
        self.now()
        self.redis.told[name] = text
        return [each for other, each in self.redis.told.items() if other != name]

    async def warm(self) -> None: ...

    async def close(self) -> None: ...


class Step(NamedTuple):
    """What happens: so many requests at one replica, heard or not (late); `ms` that go by; or Redis goes, comes, comes
    back empty; or it is emptied, of which no line tells, a second before anybody asks again."""

    what: str
    who: int = 0
    much: int = 0


STEPS = st.one_of(
    st.builds(Step, st.just("ask"), st.integers(0, REPLICAS - 1), st.integers(1, 2 * LIMIT)),
    st.builds(Step, st.just("late"), st.integers(0, REPLICAS - 1), st.integers(1, 2 * LIMIT)),
    st.builds(Step, st.just("pass"), st.just(0), st.sampled_from([1, 500, 3_000, 6_000, 16_000, 40_000])),
    st.sampled_from([Step("down"), Step("up"), Step("up empty"), Step("emptied")]),
)


class World:
    """Four replicas, one Redis, and the tank."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.redis = Redis(self.clock)
        self.lines = [Line(self.redis) for _ in range(REPLICAS)]
        self.limiters = [
            Limiter(lambda unheard, line=line: line, replicas=lambda: REPLICAS, clock=self.clock, chance=lambda: 0.5)  # type: ignore[misc]
            for line in self.lines
        ]
        self.at, self.level = int(self.clock.now * 1000), 0

    async def pass_by(self, ms: int) -> None:
        self.clock.now += ms / 1000
        for _ in range(2):  # one tells, the other hears
            for limiter in self.limiters:
                limiter._tell_at = 0
                await limiter.tend()

    async def ask(self, who: int, times: int) -> int:
        """How many were admitted."""
        admitted = 0
        for _ in range(times):
            if (await self.limiters[who].admit([rpm(LIMIT)])).admitted:
                now = int(self.clock.now * 1000)
                self.level = leaked(self.at, self.level, LIMIT, now) + PERIOD_MS
                self.at = now
                admitted += 1
        return admitted

    async def seconds(self, count: int, asking: Sequence[int]) -> int:
        """So many go by, in each of which these are asked for more than there is; how many were admitted."""
        admitted = 0
        for _ in range(count):
            for who in asking:
                admitted += await self.ask(who, LIMIT // 4)
            await self.pass_by(1_000)
            self.look()
        return admitted

    def look(self) -> None:
        assert self.level <= PERIOD_MS * (LIMIT + REPLICAS), self.level / PERIOD_MS - LIMIT

    async def play(self, step: Step) -> None:
        if step.what == "ask":
            await self.ask(step.who, step.much)
        elif step.what == "pass":
            await self.pass_by(step.much)
        elif step.what == "late":
            self.lines[step.who].is_late = True
            await self.ask(step.who, step.much)
            self.lines[step.who].is_late = False
        elif step.what == "down":
            await self.pass_by(0)
            self.redis.is_up = False
        elif step.what == "emptied":
            if self.redis.is_up:
                self.redis.lose()
                for line in self.lines:
                    line.life = self.redis.life
                await self.pass_by(1_000)
        elif not self.redis.is_up:
            for _ in range(TRIALS):
                await self.pass_by(500)
            if step.what == "up empty":
                self.redis.lose()
            self.redis.is_up = True
        self.look()


@settings(max_examples=60, deadline=None)
@example([Step("ask", 0, LIMIT), Step("emptied"), Step("ask", 0, LIMIT)])
@given(st.lists(STEPS, max_size=15))
def test_replicas_together_are_one_limiter_however_redis_comes_and_goes(steps: list[Step]) -> None:
    async def story() -> None:
        world = World()
        await world.pass_by(0)
        for step in steps:
            await world.play(step)

    asyncio.run(story())


@pytest.mark.parametrize("asking", [(0, 1, 2, 3), (3, 0), (0,)], ids=str)
def test_who_is_at_the_limit_goes_on_with_the_shares_at_once_and_each_time(asking: tuple[int, ...]) -> None:
    """A tenant whose replicas have used a whole minute's limit, however unevenly, has of each that it asks a share's
    refill from the first second without Redis, in the first outage and in those that follow soon. A share gives one
    request in 2 s: each process may be one short, and the one whose last use not all have heard of another."""

    async def story() -> None:
        world = World()
        await world.pass_by(0)
        await world.seconds(60, asking)
        for _ in range(3):
            await world.play(Step("down"))
            refill = LIMIT * len(asking) // REPLICAS // 6
            for _ in range(2):
                assert await world.seconds(10, asking) >= refill - len(asking) - 1
            world.redis.is_up = True
            await world.seconds(25, asking)

    asyncio.run(story())


def test_redis_that_lost_its_data_is_told_what_one_replica_used_alone() -> None:
    """What others would leave alone it owes no longer, but they were never asked: Redis is told all of it."""

    async def story() -> None:
        world = World()
        await world.pass_by(0)
        await world.seconds(60, (0,))
        await world.play(Step("down"))
        assert await world.seconds(4, (0,))
        world.redis.lose()
        world.redis.is_up = True
        await world.seconds(40, (0,))

    asyncio.run(story())
