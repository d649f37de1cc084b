"""The ledger: one row for each request that ended, written from the processes' journals exactly once.

Owns the statements on `ledger` and `journals`. A batch is one transaction: how far its journal was written, the rows,
what they add to usage, and what others settle with them. Must not know how a journal is kept, nor HTTP.
"""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, and_, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore import ledger_check, ledger_pruning, ledger_usage, ledger_used
from keystore.clock import Clock
from keystore.engine import Database
from keystore.errors import DatabaseUnavailable, LedgerGap, LedgerUnknown
from keystore.json_rows import ROWS, document, selected, texts
from keystore.ledger_check import Reconciliation
from keystore.ledger_partitions import Partitions
from keystore.ledger_pruning import Pruned
from keystore.ledger_row import LedgerRow, State
from keystore.ledger_usage import Sums
from keystore.ledger_used import UsedRow
from keystore.money_tables import journals, ledger
from keystore.seldom import Seldom

Settle = Callable[[AsyncConnection, Sequence[LedgerRow]], Awaitable[Callable[[], None] | None]]
"""What is done with new rows in the transaction that writes them. It may be called again for the same rows when that
transaction did not end well, so it leaves nothing behind outside the database: what it returns is called once the
transaction is committed."""


def in_turn(*settles: Settle) -> Settle:
    """All of them, one after the other."""

    async def settle(connection: AsyncConnection, rows: Sequence[LedgerRow]) -> Callable[[], None] | None:
        found = [await each(connection, rows) for each in settles]
        told = [each for each in found if each]

        def tell() -> None:
            for each in told:
                each()

        return tell if told else None

    return settle


_EVERY: Final = timedelta(hours=1)
_Inserted = Callable[[AsyncConnection, list[LedgerRow]], Awaitable[list[LedgerRow]]]
_ID: Final = re.compile(r"req_[0-9a-f]{32}\Z")
_NAMES: Final = tuple(each.name for each in ledger.columns)
_UNKNOWN: Final = (
    "the ledger has no row of this request id (x-wardgate-request-id of the answer). One is written for each request"
    " when it has ended, and is here about a second later; old ones are removed after the time that they are kept"
)


class LedgerStore:
    """DatabaseUnavailable when the database fails."""

    def __init__(
        self, database: Database, *, now: Clock, settle: Settle | None = None, kept: timedelta | None = None
    ) -> None:
        """`kept`: how long rows stay; None: for ever."""
        self._database = database
        self._partitions = Partitions(database)
        self._now = now
        self._settle = settle
        self._kept = kept
        self._expiring = Seldom(_EVERY)

    # --- writing -------------------------------------------------------------------------------------------------

    async def write(self, journal_id: str, first_position: int, rows: Sequence[LedgerRow | None]) -> None:
        """Write a journal's lines from `first_position` on, as `write_at`; None is a line without a row."""
        there = {position: row for position, row in enumerate(rows, first_position) if row is not None}
        await self.write_at(journal_id, range(first_position, first_position + len(rows)), there)

    async def write_at(self, journal_id: str, lines: range, rows: Mapping[int, LedgerRow]) -> None:
        """Write the lines of these positions of a journal, all or nothing; `rows` has, in order, those that make one,
        so that lines which are gone take no room however many they are. What was written before is skipped, so that any
        piece may come again, and a request id that is there stays as it is. LedgerGap when lines before these have not
        been written. ValueError for a row that has not ended, or whose time has no zone."""
        checked = {position: _checked(row) for position, row in rows.items()}
        try:
            await self._write(journal_id, lines, checked, _inserted)
        except IntegrityError:  # a request is there already, or another process dropped a month that is needed
            self._partitions.forget()
            await self._write(journal_id, lines, checked, _inserted_beside)

    async def _write(self, journal_id: str, lines: range, rows: Mapping[int, LedgerRow], inserted: _Inserted) -> None:
        await self._partitions.ensure(row.began_at for row in rows.values())
        settled = None
        async with self._database.write(told=False) as connection:
            written = await self._moved(connection, journal_id, lines.start, lines.stop)
            if new := _in_order(row for position, row in rows.items() if position >= written):
                new = await inserted(connection, new)
            if new:
                await ledger_usage.add(connection, new)
                settled = await self._settle(connection, new) if self._settle else None
        if settled:
            settled()

    async def _moved(self, connection: AsyncConnection, journal_id: str, first: int, end: int) -> int:
        """Note that the journal is written up to `end`, and how far it was; its row is ours until the transaction
        ends. Nearly always it was written up to `first`."""
        own = journals.c.journal_id == journal_id
        to = update(journals).where(own).values(position=end, updated_at=self._now())
        if first < end and (await connection.execute(to.where(journals.c.position == first))).rowcount:
            return first
        position = await self._locked(connection, journal_id)
        if first > position:
            raise LedgerGap(f"journal {journal_id} is written up to line {position}; these begin at {first}")
        if position < end:
            await connection.execute(to)
        return position

    async def _locked(self, connection: AsyncConnection, journal_id: str) -> int:
        """How far the journal is written, its row locked, and made where there is none."""
        own = select(journals.c.position).where(journals.c.journal_id == journal_id).with_for_update()
        position: int | None = (await connection.execute(own)).scalar()
        if position is None:
            first = {"journal_id": journal_id, "position": 0, "updated_at": self._now()}
            made = (sqlite if self._database.is_sqlite else postgresql).insert(journals).on_conflict_do_nothing()
            await connection.execute(made, first)
            position = (await connection.execute(own)).scalar_one()
        return position

    async def position(self, journal_id: str) -> int:
        """How many lines of the journal are written; 0 of one that is not known."""
        own = select(journals.c.position).where(journals.c.journal_id == journal_id)
        async with self._database.read() as connection:
            return (await connection.execute(own)).scalar() or 0

    async def secured(self) -> bool:
        """Have what was written survive a power cut, so that its journal may go; False when that is not sure now: ask
        again later. PostgreSQL's commits do by themselves; SQLite's do once its log was carried over."""
        return not self._database.is_sqlite or await asyncio.to_thread(_carried_over, self._database)

    # --- reading -------------------------------------------------------------------------------------------------

    async def get(self, request_id: str, *, tenant_id: str | None = None) -> LedgerRow:
        """A request's row, of this tenant alone when one is given. LedgerUnknown when there is none."""
        row = None
        if _ID.match(request_id):
            wanted = select(ledger).where(ledger.c.request_id == request_id)
            if tenant_id is not None:
                wanted = wanted.where(ledger.c.tenant_id == tenant_id)
            async with self._database.read() as connection:
                row = (await connection.execute(wanted.limit(1))).first()
        if row is None:
            raise LedgerUnknown(_UNKNOWN)
        return _read(row)

    async def rows(
        self, *, tenant_id: str, since: datetime, until: datetime, after: LedgerRow | None = None, limit: int = 1_000
    ) -> list[LedgerRow]:
        """A tenant's requests that began at `since` or later and before `until`, oldest first, at most `limit`; the
        next ones come `after` the last of these."""
        began = ledger.c.began_at
        wanted = select(ledger).where(ledger.c.tenant_id == tenant_id, began >= since, began < until)
        if after is not None:
            later = and_(began == after.began_at, ledger.c.request_id > after.request_id)
            wanted = wanted.where(began >= after.began_at, or_(began > after.began_at, later))
        async with self._database.read() as connection:
            found = await connection.execute(wanted.order_by(began, ledger.c.request_id).limit(limit))
            return [_read(row) for row in found]

    def used(
        self, since: datetime, until: datetime, *, tenant_id: str | None = None, at_once: int = 1_000
    ) -> AsyncIterator[list[UsedRow]]:
        """The requests that used something and began at `since` or later and before `until`, so many at once: of one
        tenant, or all. Rows that are written meanwhile may be in it or not."""
        return ledger_used.used(self._database, since, until, tenant_id, at_once)

    async def totals(self, since: datetime, until: datetime, *, tenant_id: str | None = None) -> Sums:
        """The sums of the rows themselves that began at `since` or later and before `until`: of one tenant, or all."""
        async with self._database.read() as connection:
            return await ledger_check.totals(connection, since, until, tenant_id)

    # --- keeping -------------------------------------------------------------------------------------------------

    async def reconcile(self, day: date) -> Reconciliation:
        """Compare the usage of a day (UTC) with its rows, and that of its month with its days."""
        begins = datetime(day.year, day.month, day.day, tzinfo=UTC)
        async with self._database.read() as connection:
            found = await ledger_check.differences(connection, day)
            rows_kept = await ledger_pruning.gone_before(connection) <= begins  # noted before the first of them goes
        told = (each for each in found if rows_kept or each.key.period == "month")
        return Reconciliation(day, rows_kept, tuple(told))

    async def expire(self) -> None:
        """Remove what is older than rows are kept; looks once an hour."""
        now = self._now()
        if self._kept is None or not self._expiring.is_due(now):
            return
        done = await self.prune(self._kept)
        self._expiring.done(now, more=done.more)

    async def prune(self, kept: timedelta) -> Pruned:
        """Remove rows that are older, some thousands at a time; usage stays."""
        return await ledger_pruning.prune(self._database, self._partitions, self._now() - kept)


def _checked(row: LedgerRow) -> LedgerRow:
    if row.state is State.RESERVED or row.began_at.tzinfo is None:
        raise ValueError(f"request {row.request_id} has not ended, or began at a time without a zone")
    return row if row.began_at.tzinfo is UTC else replace(row, began_at=row.began_at.astimezone(UTC))


def _carried_over(database: Database) -> bool:
    """Whether the whole log of an SQLite database is in its file, both synced. A reader may hold a part of it up."""
    try:
        with closing(database.plain_connection()) as connection:
            busy, logged, carried = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.Error as error:
        raise DatabaseUnavailable(f"{database.name} could not carry its log over") from error
    return not busy and bool(logged == carried)


def _in_order(rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    """By id, of two of one id the first: two writers with the same requests never wait for each other in a circle."""
    unique: dict[str, LedgerRow] = {}
    for row in rows:
        unique.setdefault(row.request_id, row)
    return [unique[request_id] for request_id in sorted(unique)]


async def _inserted(connection: AsyncConnection, rows: list[LedgerRow]) -> list[LedgerRow]:
    """Insert them; IntegrityError when one of them is there."""
    await connection.execute(_INSERT[connection.dialect.name == "sqlite"], {ROWS: document(rows)})
    return rows


async def _inserted_beside(connection: AsyncConnection, rows: list[LedgerRow]) -> list[LedgerRow]:
    """Insert those that are not there; which."""
    if connection.dialect.name == "sqlite":  # it has one writer: what is not there will not be in the next statement
        found = await connection.execute(_THERE, {ROWS: document([row.request_id for row in rows])})
        there = {tuple(row) for row in found}
        new = [row for row in rows if (row.request_id, row.began_at) not in there]
        return await _inserted(connection, new) if new else []
    told: Any = (await connection.execute(_INSERT_TELLING, {ROWS: document(rows)})).scalar()
    made = frozenset(told or ())  # NULL: none
    return [row for row in rows if row.request_id in made]


def _read(row: Row[Any]) -> LedgerRow:
    values = dict(row._mapping)
    return LedgerRow(**values | {"state": State(values["state"]), "stream": bool(values["stream"])})


_FLAGS: Final = frozenset({"stream"})
_INSERT: Final = {
    is_sqlite: insert(ledger).from_select(_NAMES, selected(ledger, is_sqlite=is_sqlite, flags=_FLAGS))
    for is_sqlite in (True, False)
}
_MADE: Final = (
    postgresql.insert(ledger)
    .from_select(_NAMES, selected(ledger, is_sqlite=False, flags=_FLAGS))
    .on_conflict_do_nothing()
    .returning(ledger.c.request_id)
    .cte("made")
)
_INSERT_TELLING: Final = select(func.json_agg(_MADE.c.request_id, type_=postgresql.JSON()))
_THERE: Final = select(ledger.c.request_id, ledger.c.began_at).where(ledger.c.request_id.in_(texts()))
