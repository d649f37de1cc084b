"""Processes on one real database: each with its own door to it, a journal, and clocks that are moved by hand."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.budgeting.burying import Burying
from gateway.budgeting.holder import Held, Holder, Refused, Reservation
from keystore.budget_spent import BudgetSpent, Crossed
from keystore.budget_use import Ask, BudgetUse, Short, Slot
from keystore.budgets import Budget, BudgetStore, plan_budget
from keystore.engine import Database
from keystore.errors import DatabaseUnavailable
from keystore.ledger_row import LedgerRow, State
from keystore.money import NANO, usd_of
from keystore.providers import Registry
from keystore.tenants import Tenant, TenantStore
from tests.keystore.conftest import FakeClock, World

PLANS = {"free": 5 * NANO, "solo": 25 * NANO, "team": 1_000 * NANO}
TENANT = "acme"


@dataclass
class Ticks:
    """Monotonic seconds, moved by hand; a pause is over at once, and takes its time."""

    wall: FakeClock
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.wall.advance(seconds=seconds)

    async def pause(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)


def row(number: int, at: datetime, cost: int, holds: tuple[Held, ...] = (), **other: object) -> LedgerRow:
    """A row of the ledger, of TENANT with the operator's keys unless said otherwise."""
    known: dict[str, object] = {
        "request_id": f"req-{number}",
        "began_at": at,
        "tenant_id": TENANT,
        "token_id": "tok",
        "endpoint": "chat_completions",
        "state": State.SETTLED,
        "outcome": "ok",
        "key_source": "managed",
        "cost_nano": cost,
        "holds": holds,
    }
    return LedgerRow(**(known | other))  # type: ignore[arg-type]


class ShakyUse(BudgetUse):
    """Fails once, before its transaction (`lost`) or after it was committed (`unheard`), or while it is `away`."""

    failing = ""
    away = False
    meanwhile: Callable[[], Awaitable[None]] | None = None  # what happens once while a lease is on its way

    def _once(self, when: str) -> None:
        if self.away or self.failing == when:
            self.failing = ""
            raise DatabaseUnavailable

    async def ping(self) -> None:
        self._once("away")
        await super().ping()

    async def renew(self, holder: str) -> bool:
        self._once("away")
        return await super().renew(holder)

    async def lease(self, holder: str, asks: Sequence[Ask]) -> dict[Slot, int] | Short:
        self._once("lost")
        found = await super().lease(holder, asks)
        self._once("unheard")
        if self.meanwhile is not None:
            first, self.meanwhile = self.meanwhile, None
            await first()
        return found

    async def give_back(self, holder: str, amounts: Mapping[Slot, int]) -> None:
        self._once("lost")
        await super().give_back(holder, amounts)
        self._once("unheard")

    async def join(self, holder: str, holds: Mapping[Slot, int]) -> None:
        self._once("lost")
        await super().join(holder, holds)
        self._once("unheard")


@dataclass
class Process:
    """One of the processes; `journal` holds what it has not written into the database yet."""

    database: Database
    holder: Holder
    burying: Burying
    journal: list[LedgerRow] = field(default_factory=list)


@dataclass
class Town:
    """Makes processes, writes their journals, and looks at the books."""

    world: World
    ticks: Ticks
    tenant: Tenant = field(init=False)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    databases: list[Database] = field(default_factory=list)

    def process(self, door: int | None = None) -> Process:
        """A new process, by a door of its own to the database, or by one that there is if it is numbered."""
        if door is None or door + 1 >= len(self.databases):
            self.databases.append(Database(self.world.url))
        database = self.databases[-1 if door is None else door + 1]
        use = BudgetUse(database, now=self.world.clock)
        return Process(database, Holder(use, clock=self.ticks, pause=self.ticks.pause), Burying(use, self.ticks))

    async def reserve(self, process: Process, nano: int, *budgets: Budget) -> Reservation | Refused:
        return await process.holder.reserve(budgets, nano, self.world.clock())

    async def reserved(self, process: Process, nano: int, *budgets: Budget) -> Reservation:
        found = await self.reserve(process, nano, *budgets)
        assert isinstance(found, Reservation), found
        return found

    async def refused(self, process: Process, nano: int, *budgets: Budget) -> Refused:
        found = await self.reserve(process, nano, *budgets)
        assert isinstance(found, Refused)
        return found

    def settle(self, process: Process, reservation: Reservation, cost: int, **other: object) -> None:
        held = process.holder.settle(reservation, cost)
        process.journal.append(row(next(self.numbers), self.world.clock(), cost, held, **other))

    async def ship(self, journal: list[LedgerRow]) -> list[Crossed]:
        rows = list(journal)
        journal.clear()
        async with self.databases[0].write() as connection:
            return await BudgetSpent(PLANS).settle(connection, rows)

    async def spend(self, process: Process, cost: int, *budgets: Budget) -> list[Crossed]:
        self.settle(process, await self.reserved(process, cost, *budgets), cost)
        return await self.ship(process.journal)

    async def book(self, budget: Budget) -> tuple[int, int]:
        """What is spent and what is held; what is held is what the holders hold."""
        slot = {"key": budget.key, "since": budget.starts(self.world.clock()).isoformat()}
        async with self.databases[0].read() as connection:
            known = "SELECT {} FROM {} WHERE budget_key = :key AND CAST(starts AS VARCHAR) = :since"
            use = text(known.format("spent_nano, held_nano", "wardgate_budget_use"))
            found = (await connection.execute(use, slot)).first()
            holds = text(known.format("coalesce(sum(amount_nano), 0)", "wardgate_budget_holds"))
            held = int((await connection.execute(holds, slot)).scalar_one())
        spent, in_all = found or (0, 0)
        assert held == in_all
        return spent, in_all

    async def move_in(self, tenant_id: str) -> Tenant:
        tenants = TenantStore(self.databases[0], PLANS, now=self.world.clock, random=os.urandom)
        return await tenants.add(tenant_id, "solo", id=tenant_id)

    async def own(self, nano: int, *, hard: bool = True, period: str = "day", of: Tenant | None = None) -> Budget:
        """A managed budget of a tenant's own, as the store knows it."""
        reached = BudgetSpent(PLANS, now=self.world.clock).reached
        store = BudgetStore(self.databases[0], reached=reached, now=self.world.clock, random=os.urandom)
        return await store.set(of or self.tenant, period, "managed", usd_of(nano), hard=hard)

    async def close(self) -> None:
        for database in self.databases:
            await database.close()


def managed(amount: int, tenant: str = TENANT) -> Budget:
    """A plan's budget."""
    return plan_budget(tenant, amount)


@pytest.fixture
def ticks(clock: FakeClock) -> Ticks:
    return Ticks(clock)


@pytest.fixture
async def town(world: World, ticks: Ticks) -> AsyncIterator[Town]:
    database = Database(world.url)
    await database.use_wal()
    made = Town(world, ticks, databases=[database])
    made.tenant = await made.move_in(TENANT)
    yield made
    await made.close()


@pytest.fixture
def postgres_world(postgres_url: str, tmp_path: Path, clock: FakeClock, registry: Registry) -> World:
    """PostgreSQL alone."""
    return World(postgres_url, tmp_path / "sealing.keys", clock, registry)
