"""What a process reserves, settles and gives back, on real databases."""

import asyncio
from datetime import UTC, datetime

from gateway.budgeting.holder import Reservation, Why
from keystore.budgets import NANO
from tests.gateway.budgeting.conftest import Town, managed


async def test_what_is_used_is_held_until_its_row_is_written(town: Town) -> None:
    one, budget = town.process(), managed(10 * NANO)
    reservation = await town.reserved(one, 1_000, budget)
    _, leased = await town.book(budget)
    assert leased >= 1_000
    town.settle(one, reservation, 400)
    assert await town.book(budget) == (0, leased)
    await town.ship(one.journal)
    assert await town.book(budget) == (400, leased - 400)
    await one.holder.close()
    assert await town.book(budget) == (400, 0)


async def test_no_transaction_while_the_slice_suffices(town: Town) -> None:
    one, budget = town.process(), managed(1_000_000)
    for _ in range(50):
        town.settle(one, await town.reserved(one, 100, budget), 100)
    assert one.holder.counts.leases == 1


async def test_refusal_names_the_budget_that_lacks(town: Town) -> None:
    one, plan, mine = town.process(), managed(10_000), await town.own(500)
    await town.spend(one, 300, plan, mine)
    refused = await town.refused(one, 300, plan, mine)
    assert (refused.budget, refused.why, refused.spent_nano) == (mine, Why.SPENT, 300)
    assert refused.resets_at == datetime(2026, 11, 21, tzinfo=UTC)
    await one.holder.close()
    assert await town.book(plan) == (300, 0), "nothing is kept of a budget that had enough"


async def test_soft_budget_never_refuses(town: Town) -> None:
    one, soft = town.process(), await town.own(10, hard=False)
    assert isinstance(await town.reserve(one, 1_000_000, soft), Reservation)
    assert one.holder.counts.leases == 0


async def test_last_cent_of_a_budget_is_for_whoever_comes(town: Town) -> None:
    one, two, budget = town.process(), town.process(), managed(1_000)
    await town.spend(one, 600, budget)
    await town.spend(two, 400, budget)
    assert await town.book(budget) == (1_000, 0)
    assert (await town.refused(one, 1, budget)).why is Why.SPENT


async def test_calls_at_the_same_time_share_leases(town: Town) -> None:
    one, budget = town.process(), managed(1_000_000)
    found = await asyncio.gather(*(town.reserve(one, 1_000, budget) for _ in range(100)))
    assert all(isinstance(each, Reservation) for each in found)
    assert one.holder.counts.leases <= 3
