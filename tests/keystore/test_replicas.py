"""How many processes there are, as each of them knows it, through outages of the database, deaths and odd clocks."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from keystore.engine import Database
from keystore.errors import DatabaseUnavailable
from keystore.replicas import LIVE, Replicas
from tests.keystore.conftest import FakeClock, World

EVERY_S = 2
KEYS = ("k1",)


class Crowd:
    """Processes on one database that beat in turn; each has a clock of its own over the common one."""

    def __init__(self, database: Database, clock: FakeClock) -> None:
        self.database = database
        self.clock = clock
        self.live: list[Replicas] = []

    def begin(self, *, ahead_s: float = 0) -> Replicas:
        def now() -> datetime:
            return self.clock() + timedelta(seconds=ahead_s)

        self.live.append(Replicas(self.database, now=now))
        return self.live[-1]

    async def beat(self) -> list[int]:
        for each in self.live:
            await each.beat(KEYS)
        return [each.number for each in self.live]

    async def go_on(self, seconds: float) -> list[int]:
        """Every two seconds, for so long."""
        numbers = await self.beat()
        for _ in range(int(seconds / EVERY_S)):
            self.clock.advance(seconds=EVERY_S)
            numbers = await self.beat()
        return numbers


@pytest.fixture
async def crowd(world: World) -> AsyncIterator[Crowd]:
    """Four that know each other, and have served for a while."""
    database = Database(world.url)
    made = Crowd(database, world.clock)
    for _ in range(4):
        made.begin()
    assert await made.go_on(60) == [4] * 4
    yield made
    await database.close()


@pytest.mark.parametrize("away_s", [11, 31, 45, 3_600, 100_000])
async def test_first_one_back_after_an_outage_knows_of_the_others(crowd: Crowd, away_s: float) -> None:
    crowd.clock.advance(seconds=away_s)  # nobody could reach the database
    first = crowd.live[0]
    await first.beat(KEYS)
    assert first.number == 4
    crowd.clock.advance(seconds=20)  # the others speak later than it
    assert await crowd.go_on(60) == [4] * 4


async def test_outage_that_is_told_by_errors_counts_however_short(crowd: Crowd, world: World) -> None:
    await world.sql("ALTER TABLE wardgate_replicas RENAME TO away")
    for each in crowd.live:
        with pytest.raises(DatabaseUnavailable):
            await each.beat(KEYS)
    await world.sql("ALTER TABLE away RENAME TO wardgate_replicas")
    crowd.clock.advance(seconds=8)
    first, *others = crowd.live
    crowd.live = [first]
    assert await crowd.go_on(28) == [4]
    crowd.live += others
    assert await crowd.go_on(60) == [4] * 4


async def test_one_that_starts_after_an_outage_counts_those_who_lived_before_it(crowd: Crowd) -> None:
    crowd.clock.advance(seconds=600)
    new = crowd.begin()
    await new.beat(KEYS)
    assert new.number == 5
    assert await crowd.go_on(60) == [5] * 5


async def test_only_one_left_learns_it_in_its_time(crowd: Crowd) -> None:
    del crowd.live[1:]  # killed
    assert await crowd.go_on(LIVE.total_seconds() - EVERY_S) == [4]
    assert await crowd.go_on(4 * EVERY_S) == [1]


async def test_only_one_left_after_an_outage_learns_it_in_its_time(crowd: Crowd) -> None:
    crowd.clock.advance(seconds=300)
    del crowd.live[1:]
    assert await crowd.go_on(LIVE.total_seconds() - EVERY_S) == [4]
    assert await crowd.go_on(2 * EVERY_S) == [1]


async def test_one_that_stops_in_order_is_gone_at_once(crowd: Crowd) -> None:
    await crowd.live.pop().forget()
    assert await crowd.beat() == [3] * 3


async def test_newcomer_is_counted_at_once(crowd: Crowd) -> None:
    await crowd.begin().beat(KEYS)
    assert await crowd.beat() == [5] * 5


async def test_clock_that_is_set_back_neither_silences_nor_blinds(crowd: Crowd) -> None:
    crowd.clock.advance(hours=-1)
    assert await crowd.go_on(60) == [4] * 4
    assert await crowd.live[0].lacking(KEYS[0]) == []
    seen = [one.seen_at for one in await crowd.live[0].live()]
    assert max(seen) <= crowd.clock()


async def test_clocks_may_differ_a_little(crowd: Crowd) -> None:
    crowd.begin(ahead_s=8)
    assert await crowd.go_on(90) == [5] * 5
