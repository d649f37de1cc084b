"""Budgets: what a tenant or a token may spend in a day or a month, and how each of them is called.

Owns the shape of a budget, its periods (UTC), and the statements on `budgets`. Money is whole nano-dollars, at the edge
dollars. Must not know what was spent of a budget (keystore.budget_use), nor requests.
"""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Row, case, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.changes import Changed, note_change
from keystore.clock import Clock, Random
from keystore.engine import Database, Lock
from keystore.errors import BudgetInvalid, BudgetUnknown
from keystore.money import NANO, usd_of
from keystore.money_tables import MOST, budget_use, budgets, usage
from keystore.tenants import Tenant, check_token, hold_tenant, successive_tokens

MOST_USD: Final = 1_000_000_000
# Told of a budget that was set in this transaction, with its tenant's slug, and when; what it returns is called after.
Reached = Callable[[AsyncConnection, str, "Budget", datetime], Awaitable[Callable[[], None] | None]]


class Period(StrEnum):
    """How long a budget lasts before it begins anew, in UTC."""

    DAY = "day"
    MONTH = "month"

    def starts(self, at: datetime) -> date:
        """The first day of the period that `at` (UTC) is in."""
        day = at.date()
        return day if self is Period.DAY else day.replace(day=1)

    def resets_at(self, starts: date) -> datetime:
        """When the period that began on `starts` is over."""
        after = starts + timedelta(days=1 if self is Period.DAY else 32)
        day = after if self is Period.DAY else after.replace(day=1)
        return datetime(day.year, day.month, day.day, tzinfo=UTC)


class Spend(StrEnum):
    """Whose keys are paid with."""

    MANAGED = "managed"  # the operator's
    BYOK = "byok"  # the tenant's own


class Whose(StrEnum):
    """Who set a budget, and whose spending it counts."""

    PLAN = "plan"  # the plan's, for all that one tenant spends
    TENANT = "tenant"
    TOKEN = "token"  # noqa: S105 - a name


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent. A hard budget refuses what could overrun it, a soft one only tells."""

    key: str  # names it in `budget_use`; that of the first where tokens took each other's place
    whose: Whose
    tenant_id: str
    token_id: str  # "": of all the tenant's tokens
    period: Period
    spend: Spend
    hard: bool
    amount_nano: int

    def starts(self, at: datetime) -> date:
        """The first day of its period at this time."""
        return self.period.starts(at)

    def resets_at(self, at: datetime) -> datetime:
        """When its period at this time is over."""
        return self.period.resets_at(self.period.starts(at))

    @property
    def amount_usd(self) -> Decimal:
        """The amount in dollars."""
        return usd_of(self.amount_nano)


def usd_text(nano: int) -> str:
    """Nano-dollars as dollars, exactly: "12.5"."""
    return format(usd_of(nano).normalize(), "f")


def in_nano(amount: Decimal) -> int:
    """Dollars as nano-dollars. BudgetInvalid when they are none, or finer than that."""
    try:
        nano = amount * NANO
        whole = int(nano)
    except (InvalidOperation, ValueError, OverflowError):
        raise BudgetInvalid(f'an amount is dollars, like "49.90", not {str(amount)!r}') from None
    if whole != nano:
        raise BudgetInvalid(f"{amount} dollars is finer than a nano-dollar: at most nine decimals")
    if not 0 <= amount <= MOST_USD:
        raise BudgetInvalid(f"an amount is from 0 to {MOST_USD:,} dollars, not {amount}; 0 lets nothing be spent")
    return whole


def plan_budget(tenant_id: str, amount_nano: int) -> Budget:
    """What a tenant's plan lets it spend on the operator's keys in a month."""
    key = plan_key(tenant_id)
    return Budget(key, Whose.PLAN, tenant_id, "", Period.MONTH, Spend.MANAGED, True, amount_nano)


def plan_key(tenant_id: str) -> str:
    """How the plan's budget of a tenant is called."""
    return f"plan:{tenant_id}:managed:month"


def period_of(budget_key: str) -> Period:
    """The period of the budget that is called so."""
    return Period(budget_key.rsplit(":", 1)[1])


def budget_from_row(row: Row[Any]) -> Budget:
    """A Budget from a row that has the columns of `budgets`."""
    whose = Whose.TOKEN if row.token_id else Whose.TENANT
    period, spend = Period(row.period), Spend(row.spend)
    counted_as = row.counted_as or row.token_id or row.tenant_id
    key = f"{whose.value}:{counted_as}:{spend.value}:{period.value}"
    return Budget(key, whose, row.tenant_id, row.token_id, period, spend, bool(row.hard), row.amount_nano)


@dataclass(frozen=True, slots=True)
class TenantBudgets:
    """All budgets that a tenant and its tokens have of their own."""

    of_tenant: tuple[Budget, ...] = ()
    of_tokens: Mapping[str, tuple[Budget, ...]] | None = None  # by the token's id; None: no token has any

    @classmethod
    def of(cls, found: Sequence[Budget]) -> "TenantBudgets":
        """The same, put in order."""
        by_token: dict[str, tuple[Budget, ...]] = {}
        for each in found:
            if each.token_id:
                by_token[each.token_id] = (*by_token.get(each.token_id, ()), each)
        return cls(tuple(each for each in found if not each.token_id), by_token or None)

    def matching(self, token_id: str, spend: Spend, plan: Budget | None) -> tuple[Budget, ...]:
        """The budgets that what this token spends with these keys is counted in; `plan` is its tenant's plan's."""
        mine = self.of_tokens.get(token_id, ()) if self.of_tokens else ()
        own = tuple(each for each in (*self.of_tenant, *mine) if each.spend is spend)
        return (plan, *own) if plan is not None and plan.spend is spend else own


NO_BUDGETS: Final = TenantBudgets()


class BudgetStore:
    """Every statement on budgets' definitions; each method is one transaction. DatabaseUnavailable when the database
    fails. `reached` tells which threshold a budget that was set has reached."""

    def __init__(self, database: Database, *, reached: Reached, now: Clock, random: Random) -> None:
        self._database = database
        self._reached = reached
        self._now = now
        self._random = random

    async def set(
        self,
        tenant: Tenant,
        period: str,
        spend: str,
        amount: Decimal,
        *,
        token_id: str = "",
        hard: bool | None = None,
    ) -> Budget:
        """A budget of the tenant, or of one of its tokens, in place of the one it has for the same, also for the tokens
        that share it. `amount` in dollars; without `hard` it stays as hard or soft as it was, and a new one is hard
        when it is managed, else soft. What was spent in the present period counts, and a threshold that it has reached
        is told. BudgetInvalid, or TenantUnknown."""
        which = {"period": _checked_period(period), "spend": _checked_spend(spend), "token_id": token_id}
        values = {"amount_nano": in_nano(amount), "updated_at": self._now()}
        if hard is not None:
            values["hard"] = int(hard)
        async with self._database.write(lock=Lock.BUDGETS) as connection:
            await hold_tenant(connection, tenant)
            await check_token(connection, tenant, token_id, BudgetInvalid)
            there = (await connection.execute(select(budgets).where(*_is(tenant, **which)))).first()
            if there is None:
                there = await self._make(connection, tenant, which, values)
            shared = func.coalesce(budgets.c.counted_as, budgets.c.token_id) == (there.counted_as or token_id)
            change = update(budgets).where(*_are(tenant, period=period, spend=spend), shared)
            await connection.execute(change.values(**values))
            found = (await connection.execute(select(budgets).where(*_is(tenant, **which)))).one()
            await note_change(connection, Changed.TENANT, tenant.id, now=self._now())
            budget = budget_from_row(found)
            tell = await self._reached(connection, tenant.slug, budget, self._now())
        if tell:
            tell()
        return budget

    async def _make(
        self, connection: AsyncConnection, tenant: Tenant, which: Mapping[str, str], values: Mapping[str, Any]
    ) -> Row[Any]:
        """The row of a budget that was not there; what its period has seen is counted."""
        succession = await successive_tokens(connection, tenant.id, which["token_id"])
        theirs = (*_are(tenant, period=which["period"], spend=which["spend"]), budgets.c.token_id.in_(succession))
        kin = (await connection.execute(select(budgets).where(*theirs))).first()
        first = (kin.counted_as or kin.token_id) if kin else succession[0]
        row = {"budget_id": _new_id(self._random), "tenant_id": tenant.id, "created_at": self._now()}
        row |= {"counted_as": first or None, "hard": kin.hard if kin else int(which["spend"] == Spend.MANAGED)}
        await connection.execute(insert(budgets).values(**{**row, **which, **values}))
        made = (await connection.execute(select(budgets).where(*_is(tenant, **which)))).one()
        await _count_the_past(connection, budget_from_row(made), succession, self._now(), shared=kin is not None)
        return made

    async def list(self, tenant: Tenant) -> Sequence[Budget]:
        """The tenant's own, then its tokens'."""
        return await self.read(tenant.id)

    async def read(self, tenant_id: str) -> Sequence[Budget]:
        """The same, by the tenant's id."""
        order = (budgets.c.token_id, budgets.c.spend, budgets.c.period)
        query = select(budgets).where(budgets.c.tenant_id == tenant_id).order_by(*order)
        async with self._database.read() as connection:
            return [budget_from_row(row) for row in await connection.execute(query)]

    async def get(self, tenant: Tenant, period: str, spend: str, *, token_id: str = "") -> Budget:
        """One budget. BudgetUnknown says which there are."""
        which = {"period": _checked_period(period), "spend": _checked_spend(spend), "token_id": token_id}
        async with self._database.read() as connection:
            row = (await connection.execute(select(budgets).where(*_is(tenant, **which)))).first()
        if row is None:
            raise await self._unknown(tenant, which)
        return budget_from_row(row)

    async def remove(self, tenant: Tenant, period: str, spend: str, *, token_id: str = "") -> Budget:
        """The budget that is no more. BudgetUnknown says which there are."""
        which = {"period": _checked_period(period), "spend": _checked_spend(spend), "token_id": token_id}
        mine = _is(tenant, **which)
        async with self._database.write(lock=Lock.BUDGETS) as connection:
            row = (await connection.execute(select(budgets).where(*mine))).first()
            if row is not None:
                await connection.execute(delete(budgets).where(*mine))
                await note_change(connection, Changed.TENANT, tenant.id, now=self._now())
        if row is None:
            raise await self._unknown(tenant, which)
        return budget_from_row(row)

    async def _unknown(self, tenant: Tenant, which: Mapping[str, str]) -> BudgetUnknown:
        """Which there are of the same: of the tenant, or of this token, which has to be there."""
        async with self._database.read() as connection:
            await check_token(connection, tenant, which["token_id"], BudgetUnknown)
        own = [each for each in await self.list(tenant) if each.token_id == which["token_id"]]
        there = ", ".join(f"{each.spend} for a {each.period}" for each in own) or "none"
        whose = f"token {which['token_id']!r} of tenant" if which["token_id"] else "tenant"
        wanted = f"the {whose} {tenant.slug!r} has no {which['spend']} budget for a {which['period']}"
        return BudgetUnknown(f"{wanted}; it has: {there}")


async def carry_budgets(
    connection: AsyncConnection, tenant_id: str, old: str, new: str, *, now: datetime, random: Random
) -> None:
    """The token that takes another's place shares its budgets: what either spends or holds is counted in one."""
    theirs = select(budgets).where(budgets.c.tenant_id == tenant_id, budgets.c.token_id == old)
    rows = [
        row._asdict()
        | {"budget_id": _new_id(random), "token_id": new, "counted_as": row.counted_as or old}
        | {"created_at": now, "updated_at": now}
        for row in await connection.execute(theirs)
    ]
    if rows:
        await connection.execute(insert(budgets), rows)
        await note_change(connection, Changed.TENANT, tenant_id, now=now)


def _new_id(random: Random) -> str:
    return str(uuid.UUID(bytes=random(16), version=4))


def _is(tenant: Tenant, *, period: str, spend: str, token_id: str) -> tuple[Any, ...]:
    return (*_are(tenant, period=period, spend=spend), budgets.c.token_id == token_id)


def _are(tenant: Tenant, *, period: str, spend: str) -> tuple[Any, ...]:
    return (budgets.c.tenant_id == tenant.id, budgets.c.period == period, budgets.c.spend == spend)


def _checked_period(period: str) -> str:
    if period not in set(Period):
        raise BudgetInvalid(f'a budget is for a "day" or a "month", not {period!r}')
    return Period(period).value


def _checked_spend(spend: str) -> str:
    if spend not in set(Spend):
        raise BudgetInvalid(
            f'a budget bounds what is spent with "managed" keys (the operator\'s) or "byok" keys (the tenant\'s own),'
            f" not {spend!r}"
        )
    return Spend(spend).value


async def _count_the_past(
    connection: AsyncConnection, budget: Budget, token_ids: Sequence[str], now: datetime, *, shared: bool
) -> None:
    """A new budget begins with what was spent in its period before it was there, by any of these where it is a token's.
    Where it is `shared` with one that is there, what that has counted is not made less: it may know of more. Rows are
    counted in a transaction that excludes this one (keystore.budget_spent), so none is missed and none counted twice.
    """
    starts = budget.starts(now)
    spent = select(func.coalesce(func.sum(usage.c.cost_nano), 0)).where(
        usage.c.tenant_id == budget.tenant_id,
        usage.c.period == budget.period.value,
        usage.c.starts == starts,
        usage.c.key_source == budget.spend.value,
    )
    if budget.token_id:
        spent = spent.where(usage.c.token_id.in_(token_ids))
    nano = min(int((await connection.execute(spent)).scalar_one()), MOST)
    row = {"budget_key": budget.key, "starts": starts, "spent_nano": nano, "held_nano": 0, "told": 0}
    new = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(budget_use).values(**row)
    keys = [budget_use.c.budget_key, budget_use.c.starts]
    more = case((budget_use.c.spent_nano > nano, budget_use.c.spent_nano), else_=nano)
    change = {"spent_nano": more} if shared else {"spent_nano": nano, "told": 0}
    await connection.execute(new.on_conflict_do_update(index_elements=keys, set_=change))
