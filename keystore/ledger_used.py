"""The ledger's rows that used something, read to the end of a time in small pieces, for whoever reckons them again.

Owns the statements: one range of the index after the other, so that no piece takes longer than the one before. Must not
know prices.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, and_, or_, select

from keystore.engine import Database
from keystore.ledger_check import tenants_of_rows
from keystore.ledger_row import State
from keystore.money_tables import ledger


@dataclass(frozen=True, slots=True)
class UsedRow:
    """Of a row what says what was used and what it cost; as in keystore.ledger_row.LedgerRow."""

    provider: str | None
    model: str | None
    cost_nano: int | None
    detail: str


async def used(
    database: Database, since: datetime, until: datetime, tenant_id: str | None, at_once: int
) -> AsyncIterator[list[UsedRow]]:
    """Tenant by tenant, oldest first. Each piece is a statement of its own: nothing is held between two."""
    for each in [tenant_id] if tenant_id is not None else await _tenants(database):
        after: Row[Any] | None = None
        while found := await _piece(database, _of(each, since, until, after).limit(at_once)):
            after = found[-1]
            yield [UsedRow(row.provider, row.model, row.cost_nano, row.detail) for row in found]


async def _tenants(database: Database) -> list[str]:
    every = tenants_of_rows()
    async with database.read() as connection:
        found = await connection.execute(select(every.c.id).where(every.c.id.is_not(None)))
        return list(found.scalars())


async def _piece(database: Database, asked: Select[Any]) -> list[Row[Any]]:
    async with database.read() as connection:
        return list(await connection.execute(asked))


def _of(tenant_id: str, since: datetime, until: datetime, after: Row[Any] | None) -> Select[Any]:
    began, request_id = ledger.c.began_at, ledger.c.request_id
    columns = (request_id, began, ledger.c.provider, ledger.c.model, ledger.c.cost_nano, ledger.c.detail)
    wanted = select(*columns).where(ledger.c.tenant_id == tenant_id, began < until)
    wanted = wanted.where(ledger.c.state != State.RELEASED.value).order_by(began, request_id)
    if after is None:
        return wanted.where(began >= since)
    later = and_(began == after.began_at, request_id > after.request_id)
    return wanted.where(began >= after.began_at, or_(began > after.began_at, later))
