"""The table that is adopted: every row by its place, byte for byte, in one snapshot or again by place.

Owns every statement on the source but the scrub's. A row's place is its rowid (SQLite), its primary key when that is
one number, text or UUID, else its ctid. Another database is only ever read, and its connection says so. Must not know
what a row means.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    Row,
    Select,
    String,
    Text,
    Uuid,
    bindparam,
    cast,
    column,
    func,
    inspect,
    literal_column,
    null,
    select,
    table,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.engine import Database, make_room, parse_url
from keystore.errors import ImportRefused
from keystore.legacy import TABLE, LegacyShape, as_time, inspect_legacy, seconds_of, time_of

PAGE: Final = 500  # rows of one statement
_READ_ONLY: Final = "-c default_transaction_read_only=on"
_TIDS: Final = "CAST(CAST(:places AS text[]) AS tid[])"


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row. `key` finds it again; `tenant_id` and `name` are None when they are NULL or no text; `value` is what is
    stored (a text as UTF-8), None for NULL; `order` sorts rows of one name, oldest first."""

    key: Any
    tenant_id: str | None
    name: str | None
    value: bytes | None = field(repr=False)
    created_at: str | None
    updated_at: str | None
    order: tuple[float, float, Any]

    @property
    def place(self) -> str:
        return str(self.key)


@dataclass(frozen=True, slots=True)
class TenantTable:
    """Where the source keeps its tenants."""

    table: str
    id: str
    slug: str
    plan: str | None

    @property
    def told(self) -> str:
        return f"the table {self.table} ({self.id}, {self.slug})"


@dataclass(frozen=True, slots=True)
class TenantRow:
    """One tenant as the source has it."""

    id: str
    slug: str
    plan: str | None


@dataclass(frozen=True, slots=True)
class _Layout:
    shape: LegacyShape
    place: str
    by_tid: bool
    nullable: bool


class Source:
    """One tenant_settings table. `in_place`: it is in Wardgate's own database."""

    def __init__(self, database: Database, layout: _Layout, name: str, *, in_place: bool) -> None:
        self.database = database
        self.in_place = in_place
        self.name = "in place" if in_place else name
        self.numbered_tenants = isinstance(layout.shape.id_type, Integer)
        self.encoding = layout.shape.encoding
        self._layout = layout

    async def pages(self, size: int = PAGE) -> AsyncIterator[list[SourceRow]]:
        """Every row once, by place, as of one moment."""
        after: Any = None
        async with self._reading() as connection:
            while True:
                query = self._query().order_by(self._place).limit(size)
                if after is not None:
                    query = query.where(self._after())
                rows = [
                    self._row(row) for row in await connection.execute(query, {} if after is None else {"after": after})
                ]
                if rows:
                    yield rows
                if len(rows) < size:
                    return
                after = rows[-1].key

    async def count(self) -> int:
        """How many rows there are."""
        async with self._reading() as connection:
            return int((await connection.execute(select(func.count()).select_from(table(TABLE)))).scalar_one())

    async def at(
        self, keys: Sequence[Any], connection: AsyncConnection | None = None, *, lock: bool = False
    ) -> dict[Any, SourceRow]:
        """The rows that stand at these places now; on `connection` (in place), with `lock` held until it commits."""
        if connection is None:
            async with self._reading() as reading:
                return await self.at(keys, reading)
        query = self._query().where(self._among())
        if lock and not self.database.is_sqlite:
            query = query.with_for_update()
        rows = [self._row(row) for row in await connection.execute(query, {"places": list(keys)})]
        return {row.key: row for row in rows}

    async def blank(self, connection: AsyncConnection, keys: Sequence[Any]) -> None:
        """Take the values out of these rows, which the transaction holds: NULL, or "" where NULL is not allowed."""
        if self.database.is_sqlite:
            await connection.execute(text("PRAGMA secure_delete=ON"))
        values = table(TABLE, column("setting_value"))
        empty = null() if self._layout.nullable else ""
        await connection.execute(
            values.update().where(self._among()).values(setting_value=empty), {"places": list(keys)}
        )

    async def tenants(self, where: TenantTable) -> list[TenantRow]:
        """The source's tenants. ImportRefused when there is no such table or column."""
        names = [name for name in (where.id, where.slug, where.plan) if name]
        async with self._reading() as connection:
            present = await connection.run_sync(_columns_of, where.table)
            lacking = [name for name in names if name not in present]
            if lacking:
                raise ImportRefused(f"{self.name} has no table {where.table!r} with {', '.join(lacking)}")
            query = select(*(cast(column(name), Text) for name in names)).select_from(table(where.table))
            rows = (await connection.execute(query)).all()
        return [TenantRow(row[0], row[1], row[2] if where.plan else None) for row in rows if row[0] and row[1]]

    async def close(self) -> None:
        """Close another database; our own stays open."""
        if not self.in_place:
            await self.database.close()

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        async with self.database.read() as connection:
            if not self.database.is_sqlite:
                await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            elif not self.in_place:
                await connection.execute(text("PRAGMA query_only=ON"))
            yield connection

    @property
    def _place(self) -> ColumnElement[Any]:
        return literal_column(self._layout.place) if self._layout.by_tid else column(self._layout.place)

    def _after(self) -> ColumnElement[bool]:
        if self._layout.by_tid:
            return literal_column("ctid") > text("CAST(CAST(:after AS text) AS tid)")
        return self._place > bindparam("after")

    def _among(self) -> ColumnElement[bool]:
        if self._layout.by_tid:
            return literal_column("ctid") == func.any(text(_TIDS))
        return self._place.in_(bindparam("places", expanding=True))

    def _query(self) -> Select[Any]:
        """Tenant, name and value as bytes on SQLite, where a TEXT column may hold anything."""
        shape, sqlite = self._layout.shape, self.database.is_sqlite
        kind: Any = LargeBinary if sqlite else Text
        stored = [cast(column(name), kind).label(name) for name in ("tenant_id", "setting_key", "setting_value")]
        is_blob = func.typeof(column("setting_value")) == "blob" if sqlite else null()
        place = cast(self._place, Text) if self._layout.by_tid else self._place
        return select(
            place.label("place"),
            *stored,
            is_blob.label("is_blob"),
            time_of("created_at", shape.created_at, sqlite=sqlite),
            time_of("updated_at", shape.updated_at, sqlite=sqlite),
            (self._place if sqlite else cast(literal_column("ctid"), Text)).label("stands"),
        ).select_from(table(TABLE))

    def _row(self, row: Row[Any]) -> SourceRow:
        created, updated = (_text(time, self.encoding) for time in (row.created_at, row.updated_at))
        moments = [
            seconds_of(as_time(text if isinstance(stored, bytes) else stored))
            for stored, text in ((row.updated_at, updated), (row.created_at, created))
        ]
        stands = row.stands if self.database.is_sqlite else _tid(row.stands)
        return SourceRow(
            key=row.place,
            tenant_id=_text(row.tenant_id, self.encoding),
            name=_text(row.setting_key, self.encoding),
            value=_bytes(row.setting_value, "UTF-8" if row.is_blob else self.encoding),
            created_at=created,
            updated_at=updated,
            order=(moments[0], moments[1], stands),
        )


async def open_source(own: Database, url: str | None) -> Source:
    """The table of `url`, or of our own database. ImportRefused when it has none that can be read."""
    if url is not None:
        make_room(url, create=False, setting="--from")
    if url is None or own.is_at(url):
        return await _opened(own, own.name, in_place=True)
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        asked = " ".join(filter(None, (str(parsed.query.get("options", "")), _READ_ONLY)))
        parsed = parsed.update_query_dict({"options": asked})
    other = Database(parsed.render_as_string(hide_password=False))
    try:
        return await _opened(other, f"{other.name}, port {parsed.port}" if parsed.port else other.name, in_place=False)
    except BaseException:
        await other.close()
        raise


async def _opened(database: Database, name: str, *, in_place: bool) -> Source:
    async with database.read() as connection:
        layout = await connection.run_sync(_layout)
    if isinstance(layout, str):
        raise ImportRefused(f"{database.name}: {layout}")
    return Source(database, layout, name, in_place=in_place)


def _layout(connection: Connection) -> _Layout | str:
    shape, note = inspect_legacy(connection)
    if shape is None:
        return note or f"there is no table {TABLE}"
    inspector = inspect(connection)
    columns = {each["name"]: each for each in inspector.get_columns(TABLE)}
    key = inspector.get_pk_constraint(TABLE)["constrained_columns"]
    nullable = bool(columns["setting_value"].get("nullable", True))
    if shape.order == "rowid":
        return _Layout(shape, "rowid", by_tid=False, nullable=nullable)
    if len(key) == 1 and isinstance(columns[key[0]]["type"], Integer | String | Uuid):
        return _Layout(shape, key[0], by_tid=False, nullable=nullable)
    if shape.order == "ctid":
        return _Layout(shape, "ctid", by_tid=True, nullable=nullable)
    return f"{TABLE} has neither row ids nor a primary key of one column, and cannot be read row by row"


def _columns_of(connection: Connection, name: str) -> set[str]:
    inspector = inspect(connection)
    return {each["name"] for each in inspector.get_columns(name)} if inspector.has_table(name) else set()


def _text(stored: object, encoding: str) -> str | None:
    """A cell as text; None for NULL, and for bytes that are none."""
    if not isinstance(stored, bytes):
        return None if stored is None else str(stored)
    try:
        return stored.decode(encoding)
    except UnicodeDecodeError:
        return None


def _bytes(stored: object, encoding: str) -> bytes | None:
    """A value's bytes: of a text its UTF-8, of anything else what is there."""
    if stored is None or (isinstance(stored, bytes) and encoding == "UTF-8"):
        return stored if isinstance(stored, bytes) else None
    if not isinstance(stored, bytes):
        return str(stored).encode("utf-8", "surrogatepass")
    try:
        return stored.decode(encoding).encode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return stored


def _tid(stands: str) -> tuple[int, ...]:
    return tuple(int(part) for part in stands.strip("()").split(","))
