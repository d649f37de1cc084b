"""What becomes of budgets when a process dies, the database goes away, or a request leaves."""

import asyncio

import pytest

from gateway.budgeting.holder import Holder, Reservation, Why
from keystore.budgets import Budget
from keystore.errors import DatabaseUnavailable
from tests.gateway.budgeting.conftest import Process, ShakyUse, Town, managed


def shaky(town: Town) -> tuple[Process, ShakyUse]:
    """A process whose database fails when it is told to."""
    made = town.process()
    use = ShakyUse(made.database, now=town.world.clock)
    made.holder = Holder(use, clock=town.ticks, pause=town.ticks.pause)
    return made, use


async def live(town: Town, seconds: int, *living: Process) -> None:
    for _ in range(seconds):
        town.ticks.advance(1)
        for process in living:
            await process.holder.tend()
            await process.burying.tend()


async def all_held(town: Town, process: Process, budget: Budget, nano: int) -> list[Reservation]:
    """The process reserves all of a budget, call by call."""
    return [await town.reserved(process, 1, budget) for _ in range(nano)]


# --- who dies --------------------------------------------------------------------------------------------------------


async def test_what_a_dead_process_held_is_back_within_a_minute(town: Town) -> None:
    dead, other, budget = town.process(), town.process(), managed(100)
    await live(town, 1, other)
    await town.reserved(dead, 100, budget)
    assert (await town.refused(other, 100, budget)).why is Why.SPENT
    await live(town, 40, other)
    assert await town.book(budget) == (0, 100)
    await live(town, 19, other)
    assert await town.book(budget) == (0, 0)
    assert other.burying.buried == 1
    await town.reserved(other, 100, budget)


async def test_who_lives_is_never_buried(town: Town) -> None:
    one, other, budget = town.process(), town.process(), managed(100)
    await town.reserved(one, 60, budget)
    await live(town, 200, one, other)
    assert (one.burying.buried, other.burying.buried) == (0, 0)
    assert await town.book(budget) == (0, 60)


async def test_after_an_outage_everybody_may_speak_first(town: Town) -> None:
    one, other, budget = town.process(), town.process(), managed(100)
    await town.reserved(one, 100, budget)
    await live(town, 12, one, other)
    town.ticks.advance(600)  # nobody reached the database
    await live(town, 20, other)
    await live(town, 30, one, other)
    assert (other.burying.buried, await town.book(budget)) == (0, (0, 100))


async def test_who_was_taken_for_dead_holds_again_what_its_calls_reserved(town: Town) -> None:
    late, other, budget = town.process(), town.process(), managed(100)
    reservation = await town.reserved(late, 30, budget)
    name = late.holder.standing.name
    await live(town, 60, other)
    assert await town.book(budget) == (0, 0)
    assert late.holder.reserve_now([budget], 1, town.world.clock()) is None, "nobody holds that any more"
    await live(town, 1, late)
    assert late.holder.standing.name != name
    assert await town.book(budget) == (0, 30)
    town.settle(late, reservation, 20)
    await town.ship(late.journal)
    await late.holder.close()
    assert await town.book(budget) == (20, 0)


async def test_rows_of_a_buried_process_are_counted_when_they_are_found(town: Town) -> None:
    dead, other, budget = town.process(), town.process(), managed(100)
    town.settle(dead, await town.reserved(dead, 100, budget), 70)
    await live(town, 60, other)
    assert await town.book(budget) == (0, 0)
    await town.ship(dead.journal)
    assert await town.book(budget) == (70, 0)


# --- the database goes away ------------------------------------------------------------------------------------------


async def test_without_the_database_what_is_held_is_used_up(town: Town) -> None:
    (one, use), budget = shaky(town), managed(100_000)
    await town.reserved(one, 10, budget)
    use.away = True
    used = 0
    while isinstance(found := await town.reserve(one, 10, budget), Reservation):
        used += 10
    assert (used >= 500, found.why) == (True, Why.UNAVAILABLE)
    leases = one.holder.counts.leases
    assert (await town.refused(one, 10, budget)).why is Why.UNAVAILABLE
    assert one.holder.counts.leases == leases, "nor is it asked at once again"
    use.away = False
    for _ in range(2):  # those who ask in between do not put it off
        town.ticks.advance(0.6)
        again = await town.reserve(one, 10, budget)
    assert isinstance(again, Reservation)


async def test_what_is_held_is_used_for_as_long_as_nobody_can_bury_it(town: Town) -> None:
    (one, use), budget = shaky(town), managed(100_000)
    town.settle(one, await town.reserved(one, 10, budget), 0)
    use.away = True
    town.ticks.advance(34)
    assert isinstance(await town.reserve(one, 10, budget), Reservation)
    town.ticks.advance(2)
    assert (await town.refused(one, 10, budget)).why is Why.UNAVAILABLE


@pytest.mark.parametrize("failing", ["lost", "unheard"])
async def test_lease_that_never_answered(town: Town, failing: str) -> None:
    """Nobody knows whether it was done: what it may hold comes back, and what calls reserved stays held."""
    (one, use), other, budget = shaky(town), town.process(), managed(1_000)
    reservation, other_call = await town.reserved(one, 300, budget), await town.reserved(one, 50, budget)
    town.settle(one, other_call, 0)
    use.failing = failing
    assert (await town.refused(one, 600, budget)).why is Why.UNAVAILABLE
    await live(town, 2, one, other)
    assert one.holder.reserve_now([budget], 1, town.world.clock()) is None, "what was free is not certain any more"
    await live(town, 63, one, other)
    assert await town.book(budget) == (0, 300)
    town.settle(one, reservation, 300)
    await town.ship(one.journal)
    await live(town, 31, one, other)
    assert await town.book(budget) == (300, 0)


async def test_lease_for_a_name_that_was_given_up_meanwhile(town: Town) -> None:
    (one, use), other, budget = shaky(town), town.process(), managed(1_000)

    async def begin_anew() -> None:
        one.holder.standing.doubt()
        await live(town, 2, one)

    use.meanwhile = begin_anew
    await town.reserved(one, 100, budget)
    await live(town, 65, one, other)
    assert one.burying.buried + other.burying.buried == 1
    assert await town.book(budget) == (0, 100)


async def test_returning_that_never_answered(town: Town) -> None:
    (one, use), other, budget = shaky(town), town.process(), managed(1_000)
    town.settle(one, await town.reserved(one, 100, budget), 0)
    await live(town, 29, one, other)
    use.failing = "lost"
    with pytest.raises(DatabaseUnavailable):
        await live(town, 5, one, other)
    assert (await town.book(budget))[1] > 0
    await live(town, 65, one, other)
    assert await town.book(budget) == (0, 0)


# --- requests leave --------------------------------------------------------------------------------------------------


async def test_request_that_leaves_while_it_waits_holds_nothing(town: Town) -> None:
    one, budget = town.process(), managed(1_000)
    task = asyncio.ensure_future(town.reserve(one, 100, budget))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    await asyncio.wait(one.holder._running)
    await town.reserved(one, 1, budget)
    assert sum(one.holder.reserved().values()) == 1


# --- a database that was restored from an older copy -----------------------------------------------------------------

OLDER = (
    "UPDATE wardgate_budget_holds SET amount_nano = 5 WHERE holder = :holder",
    "UPDATE wardgate_budget_use SET held_nano = (SELECT SUM(amount_nano) FROM wardgate_budget_holds)",
)


async def restored(town: Town, process: Process) -> None:
    """The copy is of a time at which the process held little."""
    for statement in OLDER:
        holder = {"holder": process.holder.standing.name} if ":holder" in statement else {}
        await town.world.sql(statement, **holder)


async def test_older_copy_that_knows_less_of_what_is_held_is_told_all_of_it(town: Town) -> None:
    one, budget = town.process(), managed(1_000)
    running = await town.reserved(one, 30, budget)
    await restored(town, one)
    await live(town, 35, one)  # it gives back what it does not use
    await live(town, 35, one)
    assert await town.book(budget) == (0, 35), "what runs, and 5 under the name that is given up"
    await live(town, 60, one)
    assert await town.book(budget) == (0, 30)
    town.settle(one, running, 30)
    await town.ship(one.journal)
    assert await town.book(budget) == (30, 0)


async def test_older_copy_does_not_give_away_what_others_hold(town: Town) -> None:
    one, other, budget = town.process(), town.process(), managed(1_000)
    await town.reserved(other, 200, budget)
    await town.reserved(one, 30, budget)
    await restored(town, one)
    await live(town, 35, one, other)
    spent, held = await town.book(budget)
    assert spent == 0 and held >= 230, "what runs in both"
