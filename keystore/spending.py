"""What is spent in each hour by each token and tenant, and whether that is unusual (keystore.unusual): counted and
judged in the transaction that writes the rows.

Owns the statements on `spending`. An hour of a token or a tenant is told once, by whichever process wrote the row that
made it unusual, and the alert is written with it (keystore.outbox). Must not know how rows are written.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import and_, bindparam, func, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.budgets import usd_text
from keystore.carried import carried
from keystore.clock import Clock
from keystore.engine import Database
from keystore.json_rows import ROWS, document, selected
from keystore.ledger_row import LedgerRow
from keystore.money import NANO
from keystore.money_tables import MOST, added, spending
from keystore.old_rows import delete_old
from keystore.outbox import Message, enqueue
from keystore.seldom import Seldom
from keystore.tables import tenants
from keystore.unusual import A_RULE, Busy, Rule, hour_of, is_unusual

TYPE: Final = "spend.unusual"
_EVERY: Final = timedelta(hours=1)
_DELETED: Final = 2_000  # rows of one transaction
_KNOWN: Final = 20_000  # hours whose usual is remembered
_AT_ONCE: Final = 1_000  # tokens in one statement


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
        self._expiring = Seldom(_EVERY)
        self._known: dict[Hour, Busy] = {}
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
        busy = await self._before(connection, sorted(large))
        told = [hour for hour in busy if is_unusual(large[hour], busy[hour], self._rule)]
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

    async def _before(self, connection: AsyncConnection, hours: Sequence[Hour]) -> dict[Hour, Busy]:
        """The busy hours before each, as they were when this process first asked: only rows that came late change
        them."""
        unknown = [hour for hour in hours if hour not in self._known]
        if unknown:
            if len(self._known) > _KNOWN:
                self._known.clear()
                unknown = list(hours)
            self._known |= await _busy(connection, unknown, self._rule)
        return {hour: self._known[hour] for hour in hours}

    async def expire(self) -> None:
        """Remove hours that nothing is compared with any more; looks once an hour."""
        now = self._now()
        if not self._expiring.is_due(now):
            return
        before = self._rule.since(hour_of(now)) - timedelta(days=1)  # rows may come late
        _, more = await delete_old(self._database, spending, spending.c.starts < before, _DELETED, by=spending.c.starts)
        self._expiring.done(now, more=more)


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


async def carry_hours(connection: AsyncConnection, tenant_id: str, old: str, new: str) -> None:
    """The token that takes another's place has its hours, the present one too: the same is usual for it."""
    await connection.execute(carried(spending, tenant_id, old, new))


# --- statements ------------------------------------------------------------------------------------------------------


async def _add(connection: AsyncConnection, spent: dict[Hour, int]) -> dict[Hour, int]:
    """Add it, in the order in which everybody takes the rows; what the hours that were not told have cost now."""
    rows = [hour._asdict() | {"spent_nano": min(spent[hour], MOST), "told": 0} for hour in sorted(spent)]
    made = await connection.execute(_ADDING[connection.dialect.name == "sqlite"], {ROWS: document(rows)})
    return {Hour(*row[:3]): row.spent_nano for row in made if not row.told}


# In two parts: SQLite's sum fails beyond what a column holds.
_SUM: Final = (
    func.sum(spending.c.spent_nano // NANO).label("dollars"),
    func.sum(spending.c.spent_nano % NANO).label("rest"),
)


async def _busy(connection: AsyncConnection, wanted: Iterable[Hour], rule: Rule) -> dict[Hour, Busy]:
    """The hours before each: one statement for all that begin at the same time, which nearly always are all."""
    found = {hour: Busy() for hour in wanted}
    whose = (spending.c.tenant_id, spending.c.token_id)
    for starts in {hour.starts for hour in found}:
        before = and_(spending.c.starts >= rule.since(starts), spending.c.starts < starts)
        those = [hour[:2] for hour in found if hour.starts == starts]
        for part in range(0, len(those), _AT_ONCE):
            mine = tuple_(*whose).in_(those[part : part + _AT_ONCE])
            sums = select(*whose, func.count().label("hours"), *_SUM)
            for row in await connection.execute(sums.where(mine, before).group_by(*whose)):
                nano = int(row.dollars) * NANO + int(row.rest)
                found[Hour(row.tenant_id, row.token_id, starts)] = Busy(row.hours, nano)
    return found


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
    together = {"spent_nano": added(spending.c.spent_nano, new.excluded.spent_nano)}
    adding = given.on_conflict_do_update(index_elements=Hour._fields, set_=together)
    return adding.returning(*(spending.c[name] for name in (*Hour._fields, "spent_nano", "told")))


_ADDING: Final = {is_sqlite: _adding(is_sqlite=is_sqlite) for is_sqlite in (True, False)}
