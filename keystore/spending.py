"""What is spent in each hour by each token and tenant, and whether that is unusual (keystore.unusual): counted and
judged in the transaction that writes the rows.

Owns the statements on `spending`. An hour of a token or a tenant is told once, by whichever process wrote the row that
made it unusual, and the alert is written with it (keystore.outbox). Must not know how rows are written.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import and_, bindparam, delete, func, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.budgets import usd_text
from keystore.clock import Clock
from keystore.engine import Database
from keystore.json_rows import ROWS, document, selected
from keystore.ledger_row import LedgerRow
from keystore.money_tables import spending
from keystore.old_rows import delete_in_rounds
from keystore.outbox import Message, enqueue
from keystore.tables import tenants
from keystore.unusual import A_RULE, Busy, Rule, hour_of, is_unusual

TYPE: Final = "spend.unusual"
_EVERY: Final = timedelta(hours=1)
_DELETED: Final = 2_000  # rows of one transaction


class Hour(NamedTuple):
    """An hour of a token, or of a tenant where there is none; in the order in which rows are locked."""

    tenant_id: str
    token_id: str
    starts: datetime


@dataclass(frozen=True, slots=True)
class Unusual:
    """So much was spent in this hour so far, and so much is usual."""

    tenant: str  # slug
    token_id: str  # "": of all the tenant's tokens
    hour: datetime
    spent_nano: int
    usual_nano: int
    rule: Rule


class Spending:
    """`tell` hears of what is unusual, once the transaction is committed. DatabaseUnavailable when the database
    fails."""

    def __init__(self, database: Database, *, now: Clock, rule: Rule = A_RULE) -> None:
        self._database = database
        self._now = now
        self._rule = rule
        self._looked_at: datetime | None = None
        self.tell: Callable[[Sequence[Unusual]], None] = lambda _: None

    async def counted(self, connection: AsyncConnection, rows: Sequence[LedgerRow]) -> Callable[[], None] | None:
        """Count rows that were written in this transaction, each once; what is unusual is told when the result is
        called, after the transaction."""
        spent = hours_of(rows) if self._rule.on else {}
        if not spent:
            return None
        now_spent = await _add(connection, spent)
        large = {hour: nano for hour, nano in now_spent.items() if nano >= self._rule.least_nano}
        found = await self._judged(connection, large) if large else []
        return partial(self.tell, found) if found else None

    async def _judged(self, connection: AsyncConnection, large: dict[Hour, int]) -> list[Unusual]:
        busy = {hour: await _busy(connection, hour, self._rule) for hour in sorted(large)}
        told = [hour for hour, before in busy.items() if is_unusual(large[hour], before, self._rule)]
        if not told:
            return []
        await _note(connection, told)
        slugs = await _slugs(connection, {hour.tenant_id for hour in told})
        found = [
            Unusual(
                slugs.get(hour.tenant_id, hour.tenant_id),
                hour.token_id,
                hour.starts,
                large[hour],
                busy[hour].usual_nano,
                self._rule,
            )
            for hour in told
        ]
        await enqueue(connection, [message_of(each) for each in found], now=self._now())
        return found

    async def expire(self) -> None:
        """Remove hours that nothing is compared with any more; looks once an hour."""
        now = self._now()
        if self._looked_at is not None and now - self._looked_at < _EVERY:
            return
        before = self._rule.since(hour_of(now)) - timedelta(days=1)  # rows may come late
        _, more = await delete_in_rounds(self._database, lambda: self._delete(before), _DELETED)
        self._looked_at = None if more else now

    async def _delete(self, before: datetime) -> int:
        """One transaction; none at all when nothing is old, since SQLite has one writer."""
        key = tuple_(spending.c.tenant_id, spending.c.token_id, spending.c.starts)
        old = select(spending.c.tenant_id, spending.c.token_id, spending.c.starts).where(spending.c.starts < before)
        async with self._database.read() as connection:
            if (await connection.execute(old.limit(1))).first() is None:
                return 0
        async with self._database.write() as connection:
            first = old.order_by(spending.c.starts).limit(_DELETED).with_for_update(skip_locked=True)
            return (await connection.execute(delete(spending).where(key.in_(first)))).rowcount


def hours_of(rows: Sequence[LedgerRow]) -> dict[Hour, int]:
    """What rows cost, by the hours in which they began: of their tokens, and of their tenants."""
    spent: dict[Hour, int] = defaultdict(int)
    for row in rows:
        if row.cost_nano:
            starts = hour_of(row.began_at)
            spent[Hour(row.tenant_id, row.token_id, starts)] += row.cost_nano
            spent[Hour(row.tenant_id, "", starts)] += row.cost_nano
    return spent


def message_of(unusual: Unusual) -> Message:
    """What a webhook is sent."""
    facts: dict[str, object] = {
        "tenant": unusual.tenant,
        "token": unusual.token_id or None,
        "hour": unusual.hour.isoformat(),
        "spent_usd": usd_text(unusual.spent_nano),
        "usual_usd": usd_text(unusual.usual_nano),
        "factor": unusual.rule.factor,
    }
    return Message(TYPE, facts)


# --- statements ------------------------------------------------------------------------------------------------------


async def _add(connection: AsyncConnection, spent: dict[Hour, int]) -> dict[Hour, int]:
    """Add it, in the order in which everybody takes the rows; what the hours that were not told have cost now."""
    rows = [hour._asdict() | {"spent_nano": spent[hour], "told": 0} for hour in sorted(spent)]
    made = await connection.execute(_ADDING[connection.dialect.name == "sqlite"], {ROWS: document(rows)})
    return {Hour(*row[:3]): row.spent_nano for row in made if not row.told}


async def _busy(connection: AsyncConnection, hour: Hour, rule: Rule) -> Busy:
    mine = and_(spending.c.tenant_id == hour.tenant_id, spending.c.token_id == hour.token_id)
    before = and_(spending.c.starts >= rule.since(hour.starts), spending.c.starts < hour.starts)
    total = func.coalesce(func.sum(spending.c.spent_nano), 0)
    hours, nano = (await connection.execute(select(func.count(), total).where(mine, before))).one()
    return Busy(hours, int(nano))


async def _note(connection: AsyncConnection, hours: Sequence[Hour]) -> None:
    key = (spending.c.tenant_id == bindparam("tenant"), spending.c.token_id == bindparam("token"))
    change = update(spending).where(*key, spending.c.starts == bindparam("since")).values(told=1)
    rows = [{"tenant": hour.tenant_id, "token": hour.token_id, "since": hour.starts} for hour in hours]
    await connection.execute(change, rows)


async def _slugs(connection: AsyncConnection, tenant_ids: set[str]) -> dict[str, str]:
    found = await connection.execute(select(tenants.c.id, tenants.c.slug).where(tenants.c.id.in_(sorted(tenant_ids))))
    return {row.id: row.slug for row in found}


def _adding(*, is_sqlite: bool) -> Any:
    new = (sqlite if is_sqlite else postgresql).insert(spending)
    names = [column.name for column in spending.columns]
    given = new.from_select(names, selected(spending, is_sqlite=is_sqlite))
    together = {"spent_nano": spending.c.spent_nano + new.excluded.spent_nano}
    added = given.on_conflict_do_update(index_elements=Hour._fields, set_=together)
    return added.returning(*(spending.c[name] for name in (*Hour._fields, "spent_nano", "told")))


_ADDING: Final = {is_sqlite: _adding(is_sqlite=is_sqlite) for is_sqlite in (True, False)}
