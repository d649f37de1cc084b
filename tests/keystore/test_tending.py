"""What is done in turn: what fails keeps nothing back, what is told to end ends, and a silent database is left soon."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from keystore.decisions import Keeping
from keystore.errors import DatabaseUnavailable, RingMissing, ValueRefused
from keystore.keystore import Keystore
from keystore.providers import Registry
from keystore.tending import Step, each_in_turn
from tests import services
from tests.gateway.limiting.link import Link, link_to
from tests.keystore.conftest import FakeClock, World
from tests.keystore.ledgers import a_row, all_rows


class Steps:
    """Some that raise these, with a database that is there or away."""

    def __init__(self, *errors: Exception | None, away: bool = False) -> None:
        self._errors = dict(enumerate(errors))
        self._away = away
        self.done: list[int] = []

    async def run(self) -> dict[str, Exception]:
        return await each_in_turn({str(number): self._step(number) for number in self._errors}, self._ping)

    def _step(self, number: int) -> Step:
        async def step() -> None:
            self.done.append(number)
            if error := self._errors[number]:
                raise error

        return step

    async def _ping(self) -> None:
        if self._away:
            raise DatabaseUnavailable


async def test_what_fails_is_told_by_name_and_keeps_nothing_back() -> None:
    errors = RingMissing(), None, ValueRefused(), RuntimeError("odd"), None
    steps = Steps(*errors)
    assert await steps.run() == {"0": errors[0], "2": errors[2], "3": errors[3]}
    assert steps.done == [0, 1, 2, 3, 4]


async def test_database_that_is_away_is_not_waited_for_by_each() -> None:
    steps = Steps(None, RingMissing(), DatabaseUnavailable(), None, away=True)
    assert list(await steps.run()) == ["1", "2"]
    assert steps.done == [0, 1, 2]


async def test_error_of_a_driver_in_the_place_of_a_cancellation_ends_it_all_the_same() -> None:
    waiting = asyncio.Event()

    async def waits() -> None:
        try:
            waiting.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise DatabaseUnavailable from None

    async def never() -> None:
        pytest.fail("it was told to end")

    task = asyncio.create_task(each_in_turn({"waits": waits, "never": never}, never))
    await waiting.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


# --- a PostgreSQL that falls silent ----------------------------------------------------------------------------------


@asynccontextmanager
async def serving(tmp_path: Path, registry: Registry) -> AsyncIterator[tuple[Keystore, Link]]:
    """A keystore that serves, behind a line."""
    with services.stoppable_postgres() as server:
        path = server.dsn.partition("host=")[2] + "/.s.PGSQL.5432"
        async with link_to(path) as line:
            url = f"postgresql://postgres@127.0.0.1:{line.port}/postgres"
            keystore = await World(url, tmp_path / "ring", FakeClock(), registry).open()
            await keystore.begin_serving()
            await keystore.beat()
            assert await keystore.tend() == {}
            yield keystore, line


async def ended(task: "asyncio.Task[object]", within_s: float) -> float:
    began = time.monotonic()
    await asyncio.wait({task}, timeout=within_s)
    assert task.done(), f"it was still there after {within_s} s"
    return time.monotonic() - began


@pytest.mark.services
async def test_tending_ends_when_told_while_postgres_is_silent_and_so_does_closing(
    tmp_path: Path, registry: Registry
) -> None:
    async with serving(tmp_path, registry) as (keystore, line):
        line.silent, asked = True, line.requests
        tending: asyncio.Task[object] = asyncio.create_task(keystore.tend())
        async with asyncio.timeout(20):
            while line.requests == asked:
                await asyncio.sleep(0.01)
        tending.cancel()
        await ended(tending, 5)
        assert tending.cancelled()
        keystore.tokens.note_used("a", FakeClock()())
        closing = asyncio.create_task(keystore.close())
        await ended(closing, 7)
        assert {type(error) for error in closing.result().values()} == {DatabaseUnavailable}
        with pytest.raises(DatabaseUnavailable, match="was closed"):
            await keystore.ping()


async def test_step_of_a_keystore_that_fails_keeps_none_behind_it_from_being_done(world: World) -> None:
    keystore = await world.open(keeping=Keeping(timedelta(hours=1)), ledger_kept=timedelta(days=30))
    await keystore.tenants.add("acme", "solo", id="t1")
    await keystore.ledger.write("j", 0, [a_row(1)])
    world.clock.advance(days=70)
    await world.sql(*(f"ALTER TABLE wardgate_{table} RENAME TO {table}_away" for table in ("decisions", "answers")))
    assert [*await keystore.tend()] == ["decisions", "answers"]
    assert await all_rows(world) == [], "what is behind them was done"
    await world.sql(*(f"ALTER TABLE {table}_away RENAME TO wardgate_{table}" for table in ("decisions", "answers")))
    assert await keystore.tend() == {}
    await keystore.close()
