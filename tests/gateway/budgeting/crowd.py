"""One of several processes that spend the budgets of many tenants at the same time, until nothing is left of them.

`python -m tests.gateway.budgeting.crowd <database URL> <tenants> <callers> <amount> <most>` prints what it did as JSON.
Each caller reserves `most` for a call that costs some part of it; its rows go into the database every 50 ms.
"""

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field

from gateway.budgeting.holder import Holder, Refused, Why
from keystore.budget_spent import BudgetSpent
from keystore.budget_use import BudgetUse
from keystore.budgets import Budget, plan_budget
from keystore.clock import utc_now
from keystore.engine import Database
from keystore.errors import DatabaseUnavailable
from keystore.ledger_row import LedgerRow, State

SHIP_S = 0.05


@dataclass
class Shop:
    """A process: its holder, and the rows that are not written yet."""

    database: Database
    holder: Holder
    amount: int
    most: int
    rows: list[LedgerRow] = field(default_factory=list)
    calls: int = 0
    spent: int = 0
    unavailable: int = 0
    done: bool = False

    async def call(self, budget: Budget) -> bool:
        """One call; whether there was money for it."""
        began = utc_now()
        found = await self.holder.reserve([budget], self.most, began)
        if isinstance(found, Refused):
            if found.why is Why.UNAVAILABLE:
                self.unavailable += 1
                await asyncio.sleep(0.5)
            return found.why is Why.UNAVAILABLE
        await asyncio.sleep(random.random() * 0.005)
        cost = random.randint(self.most // 5, self.most)
        held = self.holder.settle(found, cost)
        self.rows.append(
            LedgerRow(
                request_id="crowd",
                began_at=began,
                tenant_id=budget.tenant_id,
                token_id="t",
                endpoint="chat_completions",
                state=State.SETTLED,
                outcome="ok",
                key_source="managed",
                cost_nano=cost,
                holds=held,
            )
        )
        self.calls += 1
        self.spent += cost
        return True

    async def caller(self, budget: Budget) -> None:
        """Calls until it is refused three times in a row."""
        refused = 0
        while refused < 3:
            refused = 0 if await self.call(budget) else refused + 1
            if refused:
                await asyncio.sleep(0.5)

    async def ship(self) -> None:
        while not self.done or self.rows:
            await asyncio.sleep(SHIP_S)
            rows, self.rows = self.rows, []
            try:
                async with self.database.write() as connection:
                    await BudgetSpent({}).settle(connection, rows)
            except DatabaseUnavailable:
                self.rows = rows + self.rows

    async def tend(self) -> None:
        while not self.done:
            await asyncio.sleep(1)
            try:
                await self.holder.tend()
            except DatabaseUnavailable:
                self.unavailable += 1


async def main(url: str, tenants: int, callers: int, amount: int, most: int) -> None:
    """Spend it all, then report."""
    database = Database(url)
    shop = Shop(database, Holder(BudgetUse(database, now=utc_now)), amount, most)
    background = [asyncio.ensure_future(shop.ship()), asyncio.ensure_future(shop.tend())]
    began, cpu = time.monotonic(), time.process_time()
    budgets = [plan_budget(f"t{number}", amount) for number in range(tenants)]
    await asyncio.gather(*(shop.caller(budget) for budget in budgets for _ in range(callers)))
    shop.done = True
    await asyncio.gather(*background)
    counts = shop.holder.counts
    await shop.holder.close()
    await database.close()
    told = {"calls": shop.calls, "spent": shop.spent, "leases": counts.leases, "unavailable": shop.unavailable}
    seconds = {"seconds": round(time.monotonic() - began, 2), "cpu_s": round(time.process_time() - cpu, 2)}
    sys.stdout.write(json.dumps(told | seconds | {"refused": counts.refused, "overruns": counts.overruns}) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *(int(each) for each in sys.argv[2:6])))
