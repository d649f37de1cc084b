"""Usage: rows of the ledger added up for each day and each month.

Owns what is summed under which key, and the statement that adds it to `usage`. Must not know journals, nor where the
rows of the ledger are kept.
"""

from collections.abc import Iterable
from datetime import date
from operator import add as add_numbers
from typing import Any, Final, NamedTuple

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.json_rows import ROWS, document, selected
from keystore.ledger_row import LedgerRow, State
from keystore.money_tables import MOST, added, usage


class Key(NamedTuple):
    """What is added up together, in the order of the primary key: that of the locks too."""

    tenant_id: str
    period: str
    starts: date
    token_id: str
    provider: str
    model: str
    key_source: str
    outcome: str


class Sums(NamedTuple):
    """Of requests, tokens and nano-dollars. Cached and stored tokens are inside input, reasoning inside output. Tokens
    that nobody counted are not in it; nor is a cost that nobody knows, which `unpriced` counts. Tokens of `estimated`
    requests were estimated."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nano: int = 0
    unpriced: int = 0
    estimated: int = 0

    def plus(self, other: "Sums") -> "Sums":
        """Both together."""
        return Sums._make(map(add_numbers, self, other))

    def capped(self) -> "Sums":
        """At most what a database holds."""
        return self if max(self) <= MOST else Sums._make(min(each, MOST) for each in self)


_NAMES: Final = (*Key._fields, *Sums._fields)


def key_of(row: LedgerRow) -> Key:
    """The day that the request began on, in UTC; what is not known is ""."""
    return Key(
        row.tenant_id,
        "day",
        row.began_at.date(),
        row.token_id,
        row.provider or "",
        row.model or "",
        row.key_source or "",
        row.outcome,
    )


def sums_of(row: LedgerRow) -> Sums:
    """One request's. Where nothing was used the cost is known: none."""
    return Sums(
        1,
        row.input_tokens or 0,
        row.output_tokens or 0,
        row.cached_input_tokens or 0,
        row.cache_write_tokens or 0,
        row.reasoning_tokens or 0,
        row.cost_nano or 0,
        int(row.cost_nano is None and row.state is not State.RELEASED),
        int(row.state is State.ESTIMATED),
    )


def added_up(rows: Iterable[LedgerRow]) -> list[tuple[Key, Sums]]:
    """Days and months, in the order of their keys: two writers never wait for each other in a circle."""
    days: dict[Key, Sums] = {}
    for row in rows:
        _add(days, key_of(row), sums_of(row))
    months: dict[Key, Sums] = {}
    for day, sums in days.items():
        _add(months, day._replace(period="month", starts=day.starts.replace(day=1)), sums)
    return [(key, sums.capped()) for key, sums in sorted((days | months).items())]


def _add(to: dict[Key, Sums], key: Key, sums: Sums) -> None:
    there = to.get(key)
    to[key] = sums if there is None else there.plus(sums)


async def add(connection: AsyncConnection, rows: Iterable[LedgerRow]) -> None:
    """Add these rows to what is there, in the caller's transaction."""
    if added := [dict(zip(_NAMES, (*key, *sums), strict=True)) for key, sums in added_up(rows)]:
        statement = _ADDING[connection.dialect.name == "sqlite"]
        await connection.execute(statement, {ROWS: document(added)})


def _adding(*, is_sqlite: bool) -> Any:
    new = (sqlite if is_sqlite else postgresql).insert(usage)
    together = {name: added(usage.c[name], new.excluded[name]) for name in Sums._fields}
    given = new.from_select(_NAMES, selected(usage, is_sqlite=is_sqlite))
    return given.on_conflict_do_update(index_elements=Key._fields, set_=together)


_ADDING: Final = {is_sqlite: _adding(is_sqlite=is_sqlite) for is_sqlite in (True, False)}
