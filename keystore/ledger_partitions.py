"""The ledger's months on PostgreSQL: a partition for each, made when a row first needs it, dropped whole.

Owns their names and limits. A month's name and limits come from a year and a month, never from text of a request. On
SQLite the ledger is one table, and there is nothing to do here. Must not know what a row holds.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import DDL, MetaData, Table, text
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.engine import Database, Lock
from keystore.money_tables import ledger

_NAME: Final = re.compile(re.escape(ledger.name) + r"_([0-9]{4})_([0-9]{2})")
# The parent's schema, which is not the first of the search path in every database, and its partitions.
_PARENT: Final = text(
    "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.oid = CAST('wardgate_ledger' AS regclass)"
)
_PARTITIONS: Final = text(
    "SELECT c.relname, n.nspname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE i.inhparent = CAST('wardgate_ledger' AS regclass) ORDER BY c.relname"
)
_PATIENCE: Final = text("SET LOCAL lock_timeout = '2s'")  # others queue behind a DDL that waits for a long reader


class Month(NamedTuple):
    """A month in UTC."""

    year: int
    month: int

    @property
    def following(self) -> "Month":
        return Month(self.year + self.month // 12, self.month % 12 + 1)

    @property
    def begins(self) -> datetime:
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def table(self) -> str:
        """Its partition's name."""
        return f"{ledger.name}_{self.year:04}_{self.month:02}"


@dataclass(frozen=True, slots=True)
class Partition:
    """One that is attached, in the schema where it was found."""

    month: Month
    schema: str


class Partitions:
    """The months that are there, as far as this process knows; DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: frozenset[Month] = frozenset()

    async def ensure(self, times: Iterable[datetime]) -> None:
        """Have the months of these times in UTC. Several processes may ask for the same at once."""
        if self._database.is_sqlite:
            return
        missing = {Month(*each) for each in {(time.year, time.month) for time in times}} - self._known
        if missing:
            async with self._database.write(lock=Lock.LEDGER) as connection:
                there = {each.month for each in await attached(connection)}
                for month in sorted(missing - there):
                    await _make(connection, month)
            self._known = frozenset(there | missing)

    def forget(self) -> None:
        """Look again the next time: another process may have dropped one."""
        self._known = frozenset()

    async def drop_before(self, time: datetime) -> list[str]:
        """Drop the months that ended at `time` or earlier, one transaction each; their names."""
        async with self._database.read() as connection:
            old = [each for each in await attached(connection) if each.month.following.begins <= time]
        for each in old:
            async with self._database.write(lock=Lock.LEDGER) as connection:
                await connection.execute(_PATIENCE)
                await connection.execute(_ddl("DROP TABLE IF EXISTS %(fullname)s", each.month, each.schema))
        self.forget()
        return [each.month.table for each in old]


async def attached(connection: AsyncConnection) -> list[Partition]:
    """The partitions that are named as ours are, oldest first."""
    found = await connection.execute(_PARTITIONS)
    named = ((_NAME.fullmatch(name), schema) for name, schema in found)
    return [Partition(Month(int(name[1]), int(name[2])), schema) for name, schema in named if name]


async def _make(connection: AsyncConnection, month: Month) -> None:
    """Made by itself and then attached: readers and writers of the other months go on meanwhile."""
    schema = (await connection.execute(_PARENT)).scalar_one()
    await connection.execute(_PATIENCE)
    for statement in (
        "CREATE TABLE %(fullname)s (LIKE %(parent)s INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
        "ALTER TABLE %(parent)s ATTACH PARTITION %(fullname)s FOR VALUES FROM ('%(first)s') TO ('%(until)s')",
    ):
        await connection.execute(_ddl(statement, month, schema))


def _ddl(statement: str, month: Month, schema: str) -> Any:
    """The statement about a month's partition, names quoted."""
    limits = {"first": month.begins.isoformat(), "until": month.following.begins.isoformat()}
    named = DDL(statement, context={"parent": ledger.name, **limits})  # type: ignore[no-untyped-call]
    return named.against(Table(month.table, MetaData(), schema=schema))
