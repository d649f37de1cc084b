"""Which rows of the ledger are too old to be kept, and removing them: usage stays.

Owns the time before which rows are gone, which is noted before the first of them goes. On PostgreSQL whole months go at
once; on SQLite whole days, in small transactions. Must not know how rows are written.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.engine import Database, Lock
from keystore.json_rows import ROWS, document, texts
from keystore.ledger_check import of_tenants, tenants_of_rows
from keystore.ledger_partitions import Partitions
from keystore.money_tables import ledger
from keystore.old_rows import delete_in_rounds
from keystore.tables import facts

GONE_BEFORE: Final = "ledger_gone_before"  # a fact: RFC 3339, UTC
_DELETED: Final = 1_000  # rows of one transaction
_EVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went: rows (SQLite) or months' tables (PostgreSQL), and whether there is more to do at once."""

    rows: int = 0
    months: tuple[str, ...] = ()
    more: bool = False


async def prune(database: Database, partitions: Partitions, before: datetime) -> Pruned:
    """Remove rows that began before `before`, as far as whole days or months go."""
    midnight = before.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    until = midnight if database.is_sqlite else midnight.replace(day=1)
    await _note(database, until)
    if not database.is_sqlite:
        return Pruned(months=tuple(await partitions.drop_before(until)))
    rows, more = await delete_in_rounds(database, lambda: _delete(database, until), _DELETED)
    return Pruned(rows, more=more)


async def gone_before(connection: AsyncConnection) -> datetime:
    """Rows that began earlier may have been removed."""
    noted: str | None = (await connection.execute(select(facts.c.value).where(facts.c.name == GONE_BEFORE))).scalar()
    return datetime.fromisoformat(noted) if noted else _EVER


async def _note(database: Database, until: datetime) -> None:
    async with database.read() as connection:
        if until <= await gone_before(connection):
            return
    async with database.write(lock=Lock.LEDGER) as connection:
        noted = await gone_before(connection)
        value = max(noted, until).isoformat()
        changed = update(facts).where(facts.c.name == GONE_BEFORE).values(value=value)
        made = insert(facts).values(name=GONE_BEFORE, value=value)
        await connection.execute(made if noted == _EVER else changed)


async def _delete(database: Database, until: datetime) -> int:
    """One transaction; none at all when nothing is old, since SQLite has one writer."""
    tenants = tenants_of_rows()
    joined = tenants.join(ledger, of_tenants(tenants, _EVER, until))
    async with database.read() as connection:
        found = await connection.execute(select(ledger.c.request_id).select_from(joined).limit(_DELETED))
        old = list(found.scalars())
    if not old:
        return 0
    async with database.write() as connection:
        deleting = delete(ledger).where(ledger.c.request_id.in_(texts()))
        return (await connection.execute(deleting, {ROWS: document(old)})).rowcount
