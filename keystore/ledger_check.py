"""Whether usage is the sum of the ledger's rows, and the sums themselves.

Owns the statements that add rows up. Each comparison is one statement, so that what is written meanwhile is in both
sides or in neither. Must not know how rows are written or removed.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from sqlalchemy import CTE, BigInteger, ColumnElement, Select, and_, case, cast, func, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.ledger_row import State
from keystore.ledger_usage import Key, Sums
from keystore.money_tables import ledger, usage

NOTHING: Final = Sums()
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Difference:
    """One key whose usage is not the sum of its parts: of a day its rows, of a month its days."""

    key: Key
    parts: Sums
    usage: Sums


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What became of comparing one day and its month. `rows_kept`: False when rows of that day may have been removed,
    for then its usage is compared with nothing."""

    day: date
    rows_kept: bool
    differences: tuple[Difference, ...]


def tenants_of_rows() -> CTE:
    """Each tenant that has rows, as `id`: one step of the index for each, however many rows it has."""
    first = select(func.min(ledger.c.tenant_id).label("id")).cte("tenant", recursive=True)
    following = select(func.min(ledger.c.tenant_id)).where(ledger.c.tenant_id > first.c.id).scalar_subquery()
    return first.union_all(select(following).where(first.c.id.is_not(None)))


def of_tenants(tenants: CTE, since: datetime, until: datetime) -> ColumnElement[bool]:
    """What joins these tenants with their rows of a time."""
    began = ledger.c.began_at
    return and_(ledger.c.tenant_id == tenants.c.id, began >= since, began < until)


async def totals(connection: AsyncConnection, since: datetime, until: datetime, tenant_id: str | None) -> Sums:
    """The sums of the rows that began at `since` or later and before `until`."""
    if tenant_id is None:
        tenants = tenants_of_rows()
        asked = select(*_ROW_SUMS).select_from(tenants.join(ledger, of_tenants(tenants, since, until)))
    else:
        began = ledger.c.began_at
        asked = select(*_ROW_SUMS).where(ledger.c.tenant_id == tenant_id, began >= since, began < until)
    return Sums._make((await connection.execute(asked)).one())


async def differences(connection: AsyncConnection, day: date) -> list[Difference]:
    """Of the day with its rows, and of its month with its days; by key."""
    of_month = await _compared(connection, _days_of(day), _usage("month", day.replace(day=1)))
    of_day = await _compared(connection, _rows_of(day), _usage("day", day))
    return sorted(of_day + of_month, key=lambda each: each.key)


async def _compared(connection: AsyncConnection, parts: Select[Any], whole: Select[Any]) -> list[Difference]:
    asked = union_all(parts.add_columns(literal(0)), whole.add_columns(literal(1)))
    sides: dict[Key, list[Sums]] = {}
    for row in await connection.execute(asked):
        key, sums = Key(*row[: len(Key._fields)]), Sums(*row[len(Key._fields) : -1])
        sides.setdefault(key, [NOTHING, NOTHING])[row[-1]] = sums
    return [Difference(key, *both) for key, both in sides.items() if both[0] != both[1]]


def _rows_of(day: date) -> Select[Any]:
    since = datetime(day.year, day.month, day.day, tzinfo=UTC)
    key = (
        ledger.c.tenant_id,
        literal("day").label("period"),
        literal(day, usage.c.starts.type).label("starts"),
        ledger.c.token_id,
        func.coalesce(ledger.c.provider, ""),
        func.coalesce(ledger.c.model, ""),
        func.coalesce(ledger.c.key_source, ""),
        ledger.c.outcome,
    )
    tenants = tenants_of_rows()
    joined = tenants.join(ledger, of_tenants(tenants, since, since + _DAY))
    columns = (ledger.c[name] for name in ("tenant_id", "token_id", "provider", "model", "key_source", "outcome"))
    return select(*key, *_ROW_SUMS).select_from(joined).group_by(*columns)


def _days_of(day: date) -> Select[Any]:
    """A month's usage by its days, under the month's key."""
    first = day.replace(day=1)
    until = (first + 31 * _DAY).replace(day=1)
    period, starts = usage.c.period, usage.c.starts
    others = [usage.c[name] for name in Key._fields[3:]]
    key = (usage.c.tenant_id, literal("month").label("period"), literal(first, starts.type).label("starts"), *others)
    summed = (cast(func.sum(usage.c[name]), BigInteger) for name in Sums._fields)
    asked = select(*key, *summed).where(period == "day", starts >= first, starts < until)
    return asked.group_by(usage.c.tenant_id, *others)


def _usage(period: str, starts: date) -> Select[Any]:
    columns = (usage.c[name] for name in (*Key._fields, *Sums._fields))
    return select(*columns).where(usage.c.period == period, usage.c.starts == starts)


def _counted(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def _row_sum(name: str) -> ColumnElement[int]:
    """As `ledger_usage.sums_of` counts one row."""
    match name:
        case "requests":
            return func.count()
        case "unpriced":
            return _counted(and_(ledger.c.cost_nano.is_(None), ledger.c.state != State.RELEASED.value))
        case "estimated":
            return _counted(ledger.c.state == State.ESTIMATED.value)
    return cast(func.coalesce(func.sum(ledger.c[name]), 0), BigInteger)


_ROW_SUMS: Final = tuple(_row_sum(name) for name in Sums._fields)
