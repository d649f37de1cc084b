"""What was used and what it cost, added up: the questions to the table `usage`.

Owns which sums answer a question (of days, of whole months, or of both) and the one statement that asks for them. Money
is whole nano-dollars. Must not know HTTP, nor how a row is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Text, cast, func, literal, null, select, tuple_, union_all

from keystore.engine import Database
from keystore.ledger_usage import Sums
from keystore.money_tables import usage
from keystore.tables import tenants

_IS_ROW: Final = "is_row"
_BYTES: Final = "C"  # PostgreSQL's collation by bytes: the order that SQLite has anyway


class Group(StrEnum):
    """What sums can be told apart by."""

    DAY = "day"
    MONTH = "month"
    TENANT = "tenant"
    MODEL = "model"
    PROVIDER = "provider"
    TOKEN = "token"  # noqa: S105 - a word
    OUTCOME = "outcome"
    KEY_SOURCE = "key_source"


_COLUMNS: Final[Mapping[Group, Any]] = {
    Group.DAY: usage.c.starts,
    Group.TENANT: usage.c.tenant_id,
    Group.MODEL: usage.c.model,
    Group.PROVIDER: usage.c.provider,
    Group.TOKEN: usage.c.token_id,
    Group.OUTCOME: usage.c.outcome,
    Group.KEY_SOURCE: usage.c.key_source,
}


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """What was used from `since` until the day before `until`, UTC, told apart `by` these, at least one. `where` takes
    what has these values alone; `after` are the keys of the last row of the page before."""

    since: date
    until: date
    by: tuple[Group, ...]
    where: tuple[tuple[Group, str], ...] = ()
    after: tuple[str, ...] | None = None
    limit: int = 1_000


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The sums of what has these values, in the order of the question's `by`: days as 2026-11-21, months as 2026-11, a
    tenant's slug; "" where there is none: nobody was asked."""

    keys: tuple[str, ...]
    sums: Sums


@dataclass(frozen=True, slots=True)
class UsagePage:
    """One page of rows, by their keys; the total is that of all pages."""

    total: Sums
    rows: tuple[UsageRow, ...]
    has_more: bool


class UsageStore:
    """Reads. DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, question: UsageQuestion, *, tenant_id: str | None) -> UsagePage:
        """What one tenant used, or with None all of them."""
        statement = _statement(question, tenant_id, is_sqlite=self._database.is_sqlite)
        async with self._database.read() as connection:
            found = list(await connection.execute(statement))
        total = next(_sums(row) for row in found if not row.is_row)
        rows = sorted((_row(row, question.by) for row in found if row.is_row), key=lambda row: row.keys)
        return UsagePage(total, tuple(rows[: question.limit]), len(rows) > question.limit)


def segments(since: date, until: date, *, days: bool) -> list[tuple[str, date, date]]:
    """Period, first day, and the day behind the last, of the sums that make up a time: those of months where a month is
    in it whole, unless `days` are to be told apart."""
    first = since if since.day == 1 else (since.replace(day=1) + timedelta(days=31)).replace(day=1)
    last = until.replace(day=1)
    if days or first >= last:
        return [("day", since, until)]
    parts = [("day", since, first), ("month", first, last), ("day", last, until)]
    return [(period, begin, end) for period, begin, end in parts if begin < end]


def _statement(question: UsageQuestion, tenant_id: str | None, *, is_sqlite: bool) -> Any:
    """One row with the total, and the rows of the page with one more."""
    grouped = _grouped(question, tenant_id, is_sqlite=is_sqlite)
    groups = _named(grouped, question.by, is_sqlite=is_sqlite).cte("found")
    keys: list[Any] = [groups.c[group.value] for group in question.by]
    order = keys if is_sqlite else [key.collate(_BYTES) for key in keys]
    sums = [groups.c[name] for name in Sums._fields]
    page = select(literal(1).label(_IS_ROW), *keys, *sums).order_by(*order).limit(question.limit + 1)
    if question.after is not None:
        page = page.where(tuple_(*order) > tuple_(*map(literal, question.after)))
    added = [func.coalesce(func.sum(each), 0).label(each.name) for each in sums]
    total = select(literal(0).label(_IS_ROW), *[cast(null(), Text).label(key.name) for key in keys], *added)
    return union_all(total, select(page.subquery()))


def _grouped(question: UsageQuestion, tenant_id: str | None, *, is_sqlite: bool) -> Select[Any]:
    parts = [
        _part(question, tenant_id, segment, is_sqlite=is_sqlite)
        for segment in segments(question.since, question.until, days=Group.DAY in question.by)
    ]
    found = parts[0].subquery() if len(parts) == 1 else union_all(*parts).subquery()
    keys = [found.c[group.value] for group in question.by]
    return select(*keys, *[func.sum(found.c[name]).label(name) for name in Sums._fields]).group_by(*keys)


def _part(
    question: UsageQuestion, tenant_id: str | None, segment: tuple[str, date, date], *, is_sqlite: bool
) -> Select[Any]:
    """The rows of one segment: a range of the primary key for a tenant, of the index of periods for all."""
    period, begin, end = segment
    keys = [_key(group, is_sqlite=is_sqlite).label(group.value) for group in question.by]
    part = select(*keys, *[usage.c[name] for name in Sums._fields])
    part = part.where(usage.c.period == period, usage.c.starts >= begin, usage.c.starts < end)
    if tenant_id is not None:
        part = part.where(usage.c.tenant_id == tenant_id)
    return part.where(*(_COLUMNS[group] == value for group, value in question.where))


def _key(group: Group, *, is_sqlite: bool) -> ColumnElement[Any]:
    """What is grouped by. A day is not written out before: its rows stand together in the index."""
    if group is Group.MONTH:
        return _written(usage.c.starts, "%Y-%m", "YYYY-MM", is_sqlite=is_sqlite)
    column: ColumnElement[Any] = _COLUMNS[group]
    return column


def _written(day: ColumnElement[Any], for_sqlite: str, for_postgres: str, *, is_sqlite: bool) -> ColumnElement[Any]:
    return func.strftime(for_sqlite, day) if is_sqlite else func.to_char(day, for_postgres)


def _named(grouped: Select[Any], by: Sequence[Group], *, is_sqlite: bool) -> Select[Any]:
    """With days written out, and tenants' slugs in the place of their ids; a tenant that is not there any more keeps
    its id."""
    found = grouped.subquery()
    columns: dict[str, Any] = dict(found.c)
    if Group.DAY in by:
        columns["day"] = _written(found.c.day, "%Y-%m-%d", "YYYY-MM-DD", is_sqlite=is_sqlite)
    if Group.TENANT not in by:
        return select(*[each.label(name) for name, each in columns.items()])
    columns["tenant"] = func.coalesce(tenants.c.slug, found.c.tenant)
    joined = found.outerjoin(tenants, tenants.c.id == found.c.tenant)
    return select(*[each.label(name) for name, each in columns.items()]).select_from(joined)


def _sums(row: Any) -> Sums:
    """PostgreSQL adds whole numbers up to decimal ones."""
    return Sums(**{name: int(getattr(row, name)) for name in Sums._fields})


def _row(row: Any, by: Sequence[Group]) -> UsageRow:
    return UsageRow(tuple(getattr(row, group.value) for group in by), _sums(row))
