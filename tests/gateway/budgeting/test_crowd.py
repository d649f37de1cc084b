"""G8: several real processes and many callers spend the same budgets at once: nothing over, and nearly all of it.

WARDGATE_BUDGET_CROWD="100x500" makes it full size: tenants, and callers of each tenant in each of the four processes.
"""

import asyncio
import json
import os
from typing import Any

import pytest

from gateway.budgeting.burying import Burying
from keystore.budget_use import BudgetUse
from keystore.budgets import plan_budget
from keystore.clock import utc_now
from keystore.engine import Database
from tests.forks import program
from tests.keystore.conftest import World

PROCESSES = 4
TENANTS, CALLERS = (int(each) for each in os.environ.get("WARDGATE_BUDGET_CROWD", "10x5").split("x"))
MOST = 2_000_000  # 0.002 dollars
AMOUNT = MOST * max(100, PROCESSES * CALLERS)


async def one(url: str, callers: int = CALLERS) -> dict[str, Any]:
    """A process of tests.gateway.budgeting.crowd, and what it told."""
    given = (url, *(str(each) for each in (TENANTS, callers, AMOUNT, MOST)))
    process = await program("-m", "tests.gateway.budgeting.crowd", *given)
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:  # the test ended before it
            process.kill()
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.timeout(120 + TENANTS * CALLERS // 40)
async def test_crowd_of_processes(postgres_world: World) -> None:
    world, database = postgres_world, Database(postgres_world.url)
    await database.use_wal()
    told = await asyncio.gather(*(one(world.url) for _ in range(PROCESSES)))
    budgets = [plan_budget(f"t{number}", AMOUNT) for number in range(TENANTS)]
    use, seconds = BudgetUse(database, now=utc_now), iter(range(0, 70, 5))
    burying = Burying(use, lambda: next(seconds))
    for _ in range(12):  # a minute: a process that gave up a name, because SQLite was too busy, left its holds behind
        await burying.tend()
    told.append(await one(world.url, callers=1))  # what the others left, call by call
    states = await use.states(budgets, utc_now())
    await database.close()
    assert [state.budget.key for state in states if state.spent_nano > AMOUNT] == [], "overspent"
    assert [state.held_nano for state in states] == [0] * TENANTS
    assert sum(state.spent_nano for state in states) == sum(each["spent"] for each in told)
    used = sum(state.spent_nano for state in states) / (AMOUNT * TENANTS)
    least = min(state.spent_nano for state in states) / AMOUNT
    calls, leases = sum(each["calls"] for each in told), sum(each["leases"] for each in told)
    print(f"used {used:.2%}, least {least:.2%}; {leases / calls * 1000:.0f} leases in 1000 calls", told)
    assert least >= 0.95
    assert sum(each["overruns"] for each in told) == 0
