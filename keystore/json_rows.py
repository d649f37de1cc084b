"""Many rows in one statement: a JSON array that the database itself takes apart.

Owns the SELECT that turns such an array into a table's columns, on both databases. It costs this process a quarter of
what binding each value does (docs/ledger.md), and SQLite's thread takes the interpreter once instead of once for each
row. Must not know what the tables hold.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

import orjson
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    Select,
    String,
    Table,
    Text,
    bindparam,
    case,
    cast,
    column,
    func,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSON

from keystore.tables import UtcDateTime

ROWS: Final = "rows"  # the name of the parameter
_NUL: Final = b"\\u0000"


def document(rows: Sequence[Any]) -> str:
    """The rows as the parameter. PostgreSQL's text holds no NUL: U+FFFD takes its place."""
    dumped = orjson.dumps(rows)
    if _NUL in dumped:  # or a backslash before "u0000", which stays what it is
        dumped = orjson.dumps(_without_nul(orjson.loads(dumped)))
    return dumped.decode()


def _without_nul(value: Any) -> Any:
    match value:
        case str():
            return value.replace("\0", "\ufffd")
        case list():
            return [_without_nul(each) for each in value]
        case dict():
            return {name: _without_nul(each) for name, each in value.items()}
    return value


def selected(table: Table, *, is_sqlite: bool, flags: Collection[str] = ()) -> Select[Any]:
    """The parameter's rows as the table's columns, in the array's order. Of `flags`, integers in the table, the JSON
    has true or false."""
    return _by_path(table) if is_sqlite else _by_record(table, flags)


def texts() -> Select[Any]:
    """On SQLite: the parameter as an array of texts, one a row."""
    return select(func.json_each(bindparam(ROWS, type_=Text())).table_valued("value", name="each_text").c.value)


def _by_record(table: Table, flags: Collection[str]) -> Select[Any]:
    """PostgreSQL reads each row once, field by field."""
    typed = [column(each.name, Boolean() if each.name in flags else each.type) for each in table.columns]
    array = cast(bindparam(ROWS, type_=Text()), JSON)
    given = func.json_to_recordset(array).table_valued(*typed).render_derived(name="given", with_types=True)
    return select(*(cast(each, Integer) if each.name in flags else each for each in given.c))


def _by_path(table: Table) -> Select[Any]:
    """SQLite makes the text of a row each time it is asked for: once, when the rows are materialised."""
    rows = func.json_each(bindparam(ROWS, type_=Text())).table_valued("value", name="each_row")
    given = select(rows.c.value).cte("given").prefix_with("MATERIALIZED")
    values = (_value(given.c.value, each.name, isinstance(each.type, UtcDateTime)) for each in table.columns)
    return select(*values).where(true())  # without WHERE, SQLite takes ON CONFLICT for a join's ON


def _value(row: ColumnElement[Any], name: str, is_time: bool) -> ColumnElement[Any]:
    value = func.json_extract(row, f"$.{name}", type_=String())
    return _as_stored(value) if is_time else value


def _as_stored(time: ColumnElement[str]) -> ColumnElement[str]:
    """RFC 3339 in UTC, with or without microseconds, as SQLAlchemy keeps a time in SQLite."""
    fraction = case((func.substr(time, 20, 1) == ".", func.substr(time, 20, 7)), else_=".000000")
    return func.substr(time, 1, 10, type_=String()) + " " + func.substr(time, 12, 8, type_=String()) + fraction
