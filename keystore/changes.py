"""What changed, told to every process: one row for each change, in the order in which transactions commit.

Owns the writing side. Whoever remembers a tenant, a token or the ring reads these rows (keystore.feed) and forgets what
they name. Must not know who remembers what.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.engine import Database, Lock
from keystore.tables import changes

CHANNEL: Final = "wardgate_changes"
_KEPT: Final = timedelta(days=1)  # no process that serves is that far behind


class Changed(StrEnum):
    """What a row of `changes` is about; its subject is an id, or "" for all."""

    TENANT = "tenant"  # its row or its keys: subject is the tenant's id
    TOKEN = "token"  # noqa: S105 - a name; subject is the token's id
    RING = "ring"  # root keys or who wraps what
    PRICES = "prices"  # which price release is live
    ALL = "all"


async def note_change(connection: AsyncConnection, kind: Changed, *subjects: str, now: datetime) -> None:
    """Tell that these changed, when the transaction commits. The last statements of a transaction: numbers are given in
    the order of commits, so this waits for every other transaction that has told of a change."""
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_advisory_xact_lock(Lock.CHANGES.value)))
    rows = [{"kind": kind.value, "subject": subject, "at": now} for subject in subjects or ("",)]
    await connection.execute(insert(changes), rows)
    if connection.dialect.name == "postgresql":
        await connection.execute(select(func.pg_notify(CHANNEL, kind.value)))


async def clear_old_changes(database: Database, now: datetime) -> None:
    """Forget what every process has heard long ago."""
    async with database.write() as connection:
        await connection.execute(delete(changes).where(changes.c.at < now - _KEPT))
