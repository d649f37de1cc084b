"""The `tenant_settings` table of another application in the same database, as a second source of keys. Only ever read.

Owns finding that table, understanding its columns, and choosing one row where there are several. The shape is
(tenant_id, setting_key, setting_value, created_at, updated_at), values in plain text, nothing unique. Must not know
sealing or which name wins.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    CHAR,
    BigInteger,
    ColumnElement,
    Connection,
    Date,
    DateTime,
    Double,
    Integer,
    LargeBinary,
    Numeric,
    Row,
    SmallInteger,
    String,
    Text,
    Uuid,
    and_,
    case,
    cast,
    column,
    exists,
    extract,
    func,
    inspect,
    literal_column,
    null,
    or_,
    select,
    table,
    text,
    true,
)
from sqlalchemy import types as sql_types
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.engine import Database
from keystore.resolve import MAX_VALUE_BYTES
from keystore.tenants import Tenant, as_uuid

TABLE: Final = "tenant_settings"
_NEEDED: Final = ("tenant_id", "setting_key", "setting_value")
_SAMPLE: Final = 10_000  # rows; one application spells its ids in one way
_CUT: Final = MAX_VALUE_BYTES + 1  # enough of a value to know that it is too long


@dataclass(frozen=True, slots=True)
class LegacyShape:
    """What one such table looks like. `id_type` compares with tenant_id, which may be `padded` with spaces; the times
    are as declared, if they are there; `order` is the row's place on disk, when the database tells it; `encoding` is
    that of SQLite's texts."""

    id_type: sql_types.TypeEngine[Any]
    padded: bool
    created_at: sql_types.TypeEngine[Any] | None
    updated_at: sql_types.TypeEngine[Any] | None
    order: str | None
    encoding: str
    mixed_case_ids: bool = False


@dataclass(frozen=True, slots=True)
class LegacyValue:
    """One row's value: `text` as stored (None for NULL), `damaged` when its bytes are no text."""

    setting_key: str
    text: str | None = field(repr=False)
    damaged: bool
    created_at: datetime | None
    updated_at: datetime | None


class LegacyStore:
    """The statements on tenant_settings: one SELECT."""

    def __init__(self, shape: LegacyShape, names: Collection[str], *, sqlite: bool) -> None:
        self._shape = shape
        self._names = sorted(names)
        self._sqlite = sqlite

    async def values(self, connection: AsyncConnection, tenant: Tenant) -> dict[str, LegacyValue]:
        """The tenant's rows under the names that were asked for, one for each name. What the column's collation or
        affinity takes for an id of the tenant is not enough: the id itself must be one of its spellings."""
        of_tenant = _of_tenant(tenant, self._shape)
        if of_tenant is None:
            return {}
        query = (
            select(
                column("tenant_id", self._shape.id_type),
                column("setting_key", String),
                *self._value(),
                time_of("created_at", self._shape.created_at, sqlite=self._sqlite),
                time_of("updated_at", self._shape.updated_at, sqlite=self._sqlite),
                (literal_column(self._shape.order) if self._shape.order else null()).label("place"),
            )
            .select_from(table(TABLE))
            .where(of_tenant, column("setting_key", String).in_(self._names))
        )
        rows = [row for row in await connection.execute(query) if _is_of(row.tenant_id, tenant, self._shape)]
        return newest_of(_Row.read(row, self._shape.encoding) for row in rows)

    def _value(self) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        """The value's first bytes, and whether they are a blob's. On SQLite as bytes, since a TEXT column there may
        hold anything; a text's are in the database's encoding, and UTF-16 has two of them for each of ASCII's."""
        stored: ColumnElement[Any] = column("setting_value")
        if not self._sqlite:
            return func.left(cast(stored, Text), _CUT, type_=Text).label("value"), null().label("is_blob")
        first = func.substr(cast(stored, LargeBinary), 1, 2 * _CUT, type_=LargeBinary)
        return first.label("value"), (func.typeof(stored) == "blob").label("is_blob")


def time_of(name: str, declared: sql_types.TypeEngine[Any] | None, *, sqlite: bool) -> ColumnElement[Any]:
    """A timestamp in a form that the driver can always read: PostgreSQL's, which reach from 4713 BC to infinity, as
    seconds, and SQLite's texts, which may be no text, as bytes."""
    stored: ColumnElement[Any] = column(name)
    if declared is None:
        return null().label(name)
    if sqlite:
        return case((func.typeof(stored) == "text", cast(stored, LargeBinary)), else_=stored).label(name)
    if isinstance(declared, DateTime | Date):
        return cast(extract("epoch", stored), Double).label(name)
    return (stored if isinstance(declared, Integer | Numeric) else cast(stored, Text)).label(name)


async def find_legacy(database: Database, names: Collection[str]) -> tuple[LegacyStore | None, str | None]:
    """The legacy source of this database, if it has one, and a sentence about a table that has the name but cannot be
    one."""
    async with database.read() as connection:
        shape, note = await connection.run_sync(inspect_legacy)
        if shape is not None and isinstance(shape.id_type, String):
            shape = await _look_at_ids(connection, shape)
    store = LegacyStore(shape, names, sqlite=database.is_sqlite) if shape is not None else None
    return store, note


async def _look_at_ids(connection: AsyncConnection, shape: LegacyShape) -> LegacyShape:
    """Whether ids mix upper and lower case, as a sample tells: if none does, each look-up can use an index."""
    sample = select(column("tenant_id", String)).select_from(table(TABLE)).limit(_SAMPLE).subquery()
    tenant_id = sample.c.tenant_id
    mixed = select(true()).where(tenant_id != func.lower(tenant_id), tenant_id != func.upper(tenant_id)).limit(1)
    return replace(shape, mixed_case_ids=(await connection.execute(mixed)).first() is not None)


def inspect_legacy(connection: Connection) -> tuple[LegacyShape | None, str | None]:
    """The table's shape, if it is there, and why it is not read, if it cannot be."""
    inspector = inspect(connection)
    if not inspector.has_table(TABLE):
        return None, None
    columns: dict[str, sql_types.TypeEngine[Any]] = {
        each["name"]: each["type"] for each in inspector.get_columns(TABLE)
    }
    lacking = [name for name in _NEEDED if name not in columns]
    if lacking:
        return None, f"the table {TABLE} has no column {', '.join(lacking)} and is not read"
    sqlite = connection.dialect.name == "sqlite"
    if not sqlite and not isinstance(columns["setting_value"], String):
        return None, f"the table {TABLE} keeps its values as {columns['setting_value']}, not as text, and is not read"
    shape = LegacyShape(
        id_type=_id_type(columns["tenant_id"], sqlite=sqlite),
        padded=not sqlite and isinstance(columns["tenant_id"], CHAR),
        created_at=columns.get("created_at"),
        updated_at=columns.get("updated_at"),
        order=_place(connection, "rowid" if sqlite else "ctid"),
        encoding=str(connection.execute(text("PRAGMA encoding")).scalar_one()) if sqlite else "UTF-8",
    )
    return shape, None


def _id_type(declared: sql_types.TypeEngine[Any], *, sqlite: bool) -> sql_types.TypeEngine[Any]:
    """What to compare with: an integer, a UUID, or text. SQLite's integers all have 64 bits."""
    if isinstance(declared, Integer):
        return BigInteger() if sqlite else declared
    return declared if isinstance(declared, Uuid) and not sqlite else String()


def _place(connection: Connection, name: str) -> str | None:
    """`rowid` or `ctid` when this table has it (a view or a WITHOUT ROWID table does not)."""
    try:
        with connection.begin_nested():
            connection.execute(select(literal_column(name)).select_from(table(TABLE)).limit(1))
    except DBAPIError:
        return None
    return name


# --- whose row -----------------------------------------------------------------------------------------------------


def _of_tenant(tenant: Tenant, shape: LegacyShape) -> ColumnElement[bool] | None:
    """The condition that a row may be this tenant's, or None when this column cannot hold such an id. The slug names
    rows only where none has the id."""
    tenant_id: ColumnElement[Any] = column("tenant_id", shape.id_type)
    if isinstance(shape.id_type, Uuid):
        found = as_uuid(tenant.id)
        return None if found is None else tenant_id == (found if shape.id_type.as_uuid else str(found))
    if isinstance(shape.id_type, Integer):
        return tenant_id == int(tenant.id) if _fits(tenant.id, shape.id_type) else None
    by_id = tenant_id.in_(id_spellings(tenant))
    if shape.mixed_case_ids and as_uuid(tenant.id) is not None:
        by_id = func.lower(tenant_id).in_(sorted({spelling.lower() for spelling in id_spellings(tenant)}))
    none_by_id = ~exists(select(true()).select_from(table(TABLE)).where(by_id))
    return or_(by_id, and_(tenant_id == tenant.slug, none_by_id))


def _is_of(stored: object, tenant: Tenant, shape: LegacyShape) -> bool:
    """Whether a row's id, as it is stored, is one of this tenant's spellings."""
    if isinstance(shape.id_type, Integer):
        return stored == int(tenant.id)
    spelled = str(stored).rstrip(" ") if shape.padded else str(stored)
    found = as_uuid(tenant.id)
    if found is not None and spelled.lower() in (str(found), found.hex):
        return True
    return spelled in (tenant.id, tenant.slug)


def id_spellings(tenant: Tenant) -> list[str]:
    """How a text column may spell this tenant's id: as it is, and a UUID in either case, with and without hyphens."""
    found = as_uuid(tenant.id)
    uuids = {str(found), found.hex, str(found).upper(), found.hex.upper()} if found else set()
    return sorted({tenant.id} | uuids)


def _fits(text: str, declared: Integer) -> bool:
    bits = 15 if isinstance(declared, SmallInteger) else 63 if isinstance(declared, BigInteger) else 31
    return text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < 2**bits


# --- which row -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    """A row and what orders it among rows of the same name."""

    value: LegacyValue
    order: tuple[float, float, Any]

    @classmethod
    def read(cls, row: Row[Any], encoding: str) -> "_Row":
        found, damaged = _text(row.value, "UTF-8" if row.is_blob else encoding)
        created_at, updated_at = (
            as_time(_text(time, encoding)[0] if isinstance(time, bytes) else time)
            for time in (row.created_at, row.updated_at)
        )
        value = LegacyValue(row.setting_key, found, damaged, created_at, updated_at)
        return cls(value, (seconds_of(updated_at), seconds_of(created_at), row.place or 0))


def newest_of(rows: Iterable[_Row]) -> dict[str, LegacyValue]:
    """For each name the row with the newest updated_at (none is oldest), then created_at, then the last on disk."""
    best: dict[str, _Row] = {}
    for row in rows:
        present = best.get(row.value.setting_key)
        if present is None or row.order > present.order:
            best[row.value.setting_key] = row
    return {name: row.value for name, row in best.items()}


def as_time(stored: object) -> datetime | None:
    """What a timestamp column gave: a datetime, ISO text or Unix seconds, without a zone taken for UTC. None when it is
    none of these."""
    try:
        if isinstance(stored, str):
            stored = datetime.fromisoformat(stored.strip())
        if isinstance(stored, int | float):
            stored = datetime.fromtimestamp(stored, UTC)
        if not isinstance(stored, datetime):
            return None
        return stored.astimezone(UTC) if stored.tzinfo else stored.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):  # the first and last days of the calendar have no UTC everywhere
        return None


def seconds_of(time: datetime | None) -> float:
    """For ordering; no time is before every other."""
    return float("-inf") if time is None else time.timestamp()


def _text(stored: object, encoding: str) -> tuple[str | None, bool]:
    """The value as text, and whether its bytes are none. A value that was cut is too long whatever it says."""
    if not isinstance(stored, bytes):
        return (None if stored is None else str(stored)), False
    try:
        return stored.decode(encoding, "replace" if len(stored) >= _CUT else "strict"), False
    except UnicodeDecodeError:
        return None, True
