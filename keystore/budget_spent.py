"""What rows of the ledger spend of budgets: counted in the transaction that writes the rows, which is when a budget's
threshold is crossed.

Owns `spent_nano` and `told` of `budget_use`. A row counts in its tenant's, its token's and its plan's budgets of that
moment, in the periods that it began in, whoever reserved for it; what was held for it is then held no more. A budget
that is set is looked at too. Money is whole nano-dollars. Must not know processes, nor how rows are written.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Any, Final

from sqlalchemy import Row, bindparam, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.budget_use import Slot, insert_into, rows_of
from keystore.budgets import (
    Budget,
    Period,
    Spend,
    TenantBudgets,
    budget_from_row,
    period_of,
    plan_budget,
    plan_key,
    usd_text,
)
from keystore.clock import Clock, utc_now
from keystore.engine import Lock
from keystore.ledger_row import LedgerRow
from keystore.money_tables import MOST, added, budget_holds, budget_use, budgets
from keystore.outbox import Message, enqueue
from keystore.tables import tenants

THRESHOLDS: Final = (50, 80, 100)  # per cent
TYPE: Final = "budget.threshold"
_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Crossed:
    """So much of a budget is spent: told once for each threshold and period, by whichever process wrote the rows."""

    tenant: str  # slug
    budget: Budget
    per_cent: int
    starts: date
    spent_nano: int
    resets_at: datetime


class BudgetSpent:
    """`plans` are the amounts of the plans' monthly managed budgets, by the plan's name. `tell` hears of the thresholds
    that rows crossed."""

    def __init__(
        self, plans: Mapping[str, int], thresholds: Sequence[int] = THRESHOLDS, *, now: Clock = utc_now
    ) -> None:
        self._plans = plans
        self._now = now
        self._thresholds = sorted(thresholds)
        self.tell: Callable[[Sequence[Crossed]], None] = lambda _: None

    async def counted(self, connection: AsyncConnection, rows: Sequence[LedgerRow]) -> Callable[[], None] | None:
        """As `settle`; what was crossed is told when the result is called, after the transaction."""
        crossed = await self.settle(connection, rows)
        return partial(self.tell, crossed) if crossed else None

    async def settle(self, connection: AsyncConnection, rows: Sequence[LedgerRow]) -> list[Crossed]:
        """Count rows that were written in this transaction, each once, and write what webhooks are to be sent; what was
        crossed, to be told when the transaction is committed. To be called last: it holds budgets that other processes
        want to lease from."""
        if not rows:
            return []
        if connection.dialect.name == "postgresql":  # a budget is not set meanwhile (keystore.budgets)
            await connection.execute(select(func.pg_advisory_xact_lock_shared(Lock.BUDGETS.value)))
        known = await self._budgets(connection, {row.tenant_id for row in rows})
        spent, counted = _spent(rows, known)
        holds = _holds(rows)
        used = await _add(connection, spent, {slot for _, slot in holds})
        await _return(connection, holds)
        crossed = await self._tell(connection, spent, _Counted(counted, known), used)
        if crossed:
            await enqueue(connection, [message_of(each) for each in crossed], now=self._now())
        return crossed

    async def reached(
        self, connection: AsyncConnection, slug: str, budget: Budget, at: datetime
    ) -> Callable[[], None] | None:
        """Look at what is spent of a budget whose amount was set in this transaction: a tenant that it stops at once
        spends no more, so that no row would tell. Webhooks' messages are written; the rest is told when the result is
        called, after the transaction. A threshold that is reached no more may be told again."""
        slot = Slot(budget.key, budget.starts(at))
        row = (await rows_of(connection, [slot])).get(slot)
        level = self._level(row.spent_nano, budget.amount_nano) if row else 0
        if row is None or level == row.told:
            return None
        await connection.execute(
            _update().values(told=bindparam("to")), {"key": slot.budget_key, "since": slot.starts, "to": level}
        )
        if level < row.told:
            return None
        crossed = Crossed(slug, budget, level, slot.starts, row.spent_nano, budget.resets_at(at))
        await enqueue(connection, [message_of(crossed)], now=self._now())
        return partial(self.tell, [crossed])

    async def _budgets(self, connection: AsyncConnection, tenant_ids: Iterable[str]) -> dict[str, "_Known"]:
        """The budgets of these tenants, as they are now."""
        known: dict[str, _Known] = {}
        for part in _parts(sorted(tenant_ids)):
            own: dict[str, list[Budget]] = defaultdict(list)
            for row in await connection.execute(select(budgets).where(budgets.c.tenant_id.in_(part))):
                own[row.tenant_id].append(budget_from_row(row))
            wanted = select(tenants.c.id, tenants.c.slug, tenants.c.plan).where(tenants.c.id.in_(part))
            found = {row.id: row for row in await connection.execute(wanted)}
            for tenant_id in part:
                tenant = found.get(tenant_id)
                amount = self._plans.get(tenant.plan) if tenant else None
                plan = None if amount is None else plan_budget(tenant_id, amount)
                known[tenant_id] = _Known(tenant.slug if tenant else tenant_id, TenantBudgets.of(own[tenant_id]), plan)
        return known

    async def _tell(
        self,
        connection: AsyncConnection,
        spent: Mapping[Slot, int],
        counted: "_Counted",
        used: Mapping[Slot, Row[Any]],
    ) -> list[Crossed]:
        crossed, told = [], []
        for slot, budget in counted.budgets.items():
            row = used[slot]
            before = self._level(row.spent_nano - spent[slot], budget.amount_nano)
            after = self._level(row.spent_nano, budget.amount_nano)
            known = min(row.told, before)  # a larger amount makes a threshold worth telling again
            if after > known:
                resets_at = budget.period.resets_at(slot.starts)
                slug = counted.known[budget.tenant_id].slug
                crossed.append(Crossed(slug, budget, after, slot.starts, row.spent_nano, resets_at))
            if max(after, known) != row.told:
                told.append({"key": slot.budget_key, "since": slot.starts, "to": max(after, known)})
        if told:
            await connection.execute(_update().values(told=bindparam("to")), told)
        return crossed

    def _level(self, spent: int, amount: int) -> int:
        """The highest threshold that is reached, in per cent; 0 for none."""
        return max((each for each in self._thresholds if spent and spent * 100 >= amount * each), default=0)


@dataclass(frozen=True, slots=True)
class _Known:
    slug: str
    own: TenantBudgets
    plan: Budget | None  # None: a plan that this process does not know; what is spent is counted all the same


@dataclass(frozen=True, slots=True)
class _Counted:
    budgets: Mapping[Slot, Budget]
    known: Mapping[str, _Known]


def message_of(crossed: Crossed) -> Message:
    """What a webhook is sent."""
    budget = crossed.budget
    facts: dict[str, object] = {
        "tenant": crossed.tenant,
        "token": budget.token_id or None,
        "whose": budget.whose.value,
        "spend": budget.spend.value,
        "period": budget.period.value,
        "hard": budget.hard,
        "per_cent": crossed.per_cent,
        "spent_usd": usd_text(crossed.spent_nano),
        "amount_usd": usd_text(budget.amount_nano),
        "starts": crossed.starts.isoformat(),
        "resets_at": crossed.resets_at.isoformat(),
    }
    return Message(TYPE, facts)


def _spent(rows: Sequence[LedgerRow], known: Mapping[str, _Known]) -> tuple[dict[Slot, int], dict[Slot, Budget]]:
    """What is added to which budgets, and those whose amounts are known."""
    spent: dict[Slot, int] = defaultdict(int)
    counted: dict[Slot, Budget] = {}
    for row in rows:
        of_tenant = known[row.tenant_id]
        for spend, nano in spending(row):
            for budget in of_tenant.own.matching(row.token_id, spend, of_tenant.plan):
                slot = Slot(budget.key, budget.starts(row.began_at))
                spent[slot] += nano
                counted[slot] = budget
            if spend is Spend.MANAGED and of_tenant.plan is None:
                spent[Slot(plan_key(row.tenant_id), Period.MONTH.starts(row.began_at))] += nano
    return spent, counted


def spending(row: LedgerRow) -> list[tuple[Spend, int]]:
    """What a row cost, by whose keys; of what nobody can price what was held for it, and nothing where nothing was."""
    cost, managed = row.cost_nano, row.managed_nano
    if cost is None:
        both = ((Spend.MANAGED, managed or 0), (Spend.BYOK, row.byok_nano or 0))
        return [(spend, nano) for spend, nano in both if nano > 0]
    if managed is None:
        managed = cost if row.key_source == Spend.MANAGED else 0
    both = ((Spend.MANAGED, managed), (Spend.BYOK, cost - managed))
    return [(spend, nano) for spend, nano in both if nano > 0]


def _holds(rows: Sequence[LedgerRow]) -> dict[tuple[str, Slot], int]:
    """What was held for the rows, by holder."""
    holds: dict[tuple[str, Slot], int] = defaultdict(int)
    for row in rows:
        for holder, key, nano in row.holds:
            holds[holder, Slot(key, period_of(key).starts(row.began_at))] += nano
    return holds


# --- statements ------------------------------------------------------------------------------------------------------


async def _add(connection: AsyncConnection, spent: Mapping[Slot, int], also: Iterable[Slot]) -> dict[Slot, Row[Any]]:
    """Add what is spent, in the order in which everybody takes the budgets' rows; the rows, those of `also` too."""
    slots = sorted({*spent, *also})
    for part in _parts(slots):
        new = [
            {
                "budget_key": key,
                "starts": starts,
                "spent_nano": min(spent.get(Slot(key, starts), 0), MOST),
                "held_nano": 0,
                "told": 0,
            }
            for key, starts in part
        ]
        made = insert_into(connection, budget_use)
        more = {"spent_nano": added(budget_use.c.spent_nano, made.excluded.spent_nano)}
        keys = [budget_use.c.budget_key, budget_use.c.starts]
        await connection.execute(made.on_conflict_do_update(index_elements=keys, set_=more), new)
    return await rows_of(connection, slots)


async def _return(connection: AsyncConnection, holds: Mapping[tuple[str, Slot], int]) -> None:
    """Hold it no more: as far as it still is held, for the holder may have been buried."""
    less = []
    for part in _parts(sorted(holds)):
        key = tuple_(budget_holds.c.holder, budget_holds.c.budget_key, budget_holds.c.starts)
        those = select(budget_holds).where(key.in_([(holder, *slot) for holder, slot in part]))
        for row in await connection.execute(those):
            slot = Slot(row.budget_key, row.starts)
            nano = min(holds[row.holder, slot], row.amount_nano)
            less.append({"who": row.holder, "key": slot.budget_key, "since": slot.starts, "less": nano})
    if not less:
        return
    mine = (budget_holds.c.holder == bindparam("who"), budget_holds.c.budget_key == bindparam("key"))
    change = update(budget_holds).where(*mine, budget_holds.c.starts == bindparam("since"))
    await connection.execute(change.values(amount_nano=budget_holds.c.amount_nano - bindparam("less")), less)
    await connection.execute(_update().values(held_nano=budget_use.c.held_nano - bindparam("less")), less)


def _update() -> Any:
    """A change of one budget's row: `key`, `since`."""
    mine = (budget_use.c.budget_key == bindparam("key"), budget_use.c.starts == bindparam("since"))
    return update(budget_use).where(*mine)


def _parts(listed: Sequence[Any]) -> Iterable[Sequence[Any]]:
    for start in range(0, len(listed), _AT_ONCE):
        yield listed[start : start + _AT_ONCE]
