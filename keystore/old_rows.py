"""Deleting old rows of a table in small transactions, so that a call ends soon and other writers get their turn.

Must not know which rows are old.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, delete, select, tuple_

from keystore.engine import Database

_ROUNDS: Final = 20  # transactions of one call


async def delete_in_rounds(database: Database, once: Callable[[], Awaitable[int]], most: int) -> tuple[int, bool]:
    """How many rows went, and whether there is more to do at once. `once` is one transaction of at most so many."""
    deleted = 0
    for _ in range(_ROUNDS):
        done = await once()
        deleted += done
        if done < most:
            return deleted, False
        await database.let_others_write()
    return deleted, True


async def delete_old(
    database: Database, table: Table, old: ColumnElement[bool], most: int, *, by: ColumnElement[Any] | None = None
) -> tuple[int, bool]:
    """As `delete_in_rounds`, of the rows that are `old`, those that come first `by` this before others."""
    return await delete_in_rounds(database, lambda: _once(database, table, old, most, by), most)


async def _once(
    database: Database, table: Table, old: ColumnElement[bool], most: int, by: ColumnElement[Any] | None
) -> int:
    """One transaction; none at all when nothing is old, since SQLite has one writer. Rows that another process is at
    are left to it."""
    key = list(table.primary_key)
    rows = select(*key).where(old)
    async with database.read() as connection:
        if (await connection.execute(rows.limit(1))).first() is None:
            return 0
    first = (rows if by is None else rows.order_by(by)).limit(most).with_for_update(skip_locked=True, of=table)
    async with database.write() as connection:
        found: list[Any] = [tuple(row) for row in await connection.execute(first)]
        if not found:
            return 0
        return (await connection.execute(delete(table).where(tuple_(*key).in_(found), old))).rowcount
