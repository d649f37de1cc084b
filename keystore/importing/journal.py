"""What became of each row: the statements on `imports`, `import_rows` and `imported_settings`.

Owns that a place has one entry and an import of one source has one journal. Must not know how anything is sealed.
"""

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.engine import Database
from keystore.importing.classify import Kind, Outcome
from keystore.importing.survey import Seen
from keystore.tables import import_rows, imported_settings, imports

_CHUNK: Final = 500  # names in one IN (...)


@dataclass(frozen=True, slots=True)
class ImportInfo:
    """One import. `state` is running, applied, verified or scrubbed."""

    import_id: str
    source: str
    in_place: bool
    state: str
    options: Mapping[str, Any]
    counts: Mapping[str, Any]
    started_at: datetime
    updated_at: datetime
    verified_at: datetime | None


@dataclass(frozen=True, slots=True)
class Noted:
    """What the journal says about one row."""

    row_mac: bytes
    content_mac: bytes
    place: str
    tenant_id: str | None
    name: str
    kind: Kind
    outcome: Outcome
    credential_id: str | None
    scrubbed: bool

    def settles(self, seen: Seen) -> bool:
        """Whether nothing is left to do for this row: what was only reported for want of a tenant may be had now."""
        return self.outcome is not Outcome.NO_TENANT or seen.outcome is Outcome.NO_TENANT


def new_import_id(random: bytes) -> str:
    return str(uuid.UUID(bytes=random, version=4))


async def list_imports(database: Database) -> list[ImportInfo]:
    """Every import, the oldest first."""
    async with database.read() as connection:
        rows = await connection.execute(select(imports).order_by(imports.c.started_at, imports.c.import_id))
        return [_info(row) for row in rows]


async def find_import(connection: AsyncConnection, source: str) -> ImportInfo | None:
    """The import of this source."""
    row = (await connection.execute(select(imports).where(imports.c.source == source))).first()
    return _info(row) if row is not None else None


async def begin(connection: AsyncConnection, import_id: str, source: str, *, in_place: bool, now: datetime) -> None:
    """Note a new import."""
    await connection.execute(
        insert(imports).values(
            import_id=import_id,
            source=source,
            in_place=int(in_place),
            state="running",
            options="{}",
            counts="{}",
            started_at=now,
            updated_at=now,
        )
    )


async def set_options(connection: AsyncConnection, import_id: str, options: Mapping[str, object]) -> None:
    """How the tenants are found, for the steps that follow."""
    of = imports.c.import_id == import_id
    await connection.execute(update(imports).where(of).values(options=json.dumps(options)))


async def set_state(
    connection: AsyncConnection, import_id: str, state: str, *, now: datetime, counts: object = None
) -> None:
    """The import's state, and its counts when they are new."""
    values: dict[str, object] = {"state": state, "updated_at": now}
    if counts is not None:
        values["counts"] = json.dumps(counts)
    if state == "verified":
        values["verified_at"] = now
    await connection.execute(update(imports).where(imports.c.import_id == import_id).values(**values))


async def read(connection: AsyncConnection, import_id: str) -> list[Noted]:
    """The whole journal."""
    rows = await connection.execute(select(import_rows).where(import_rows.c.import_id == import_id))
    return [_noted(row) for row in rows]


async def read_of(connection: AsyncConnection, import_id: str, rows: Collection[Seen]) -> list[Noted]:
    """The journal's entries about these rows, by content."""
    found: list[Noted] = []
    for some in _chunks([seen.content_mac for seen in rows]):
        result = await connection.execute(
            select(import_rows).where(import_rows.c.import_id == import_id, import_rows.c.content_mac.in_(some))
        )
        found += [_noted(row) for row in result]
    return found


async def write(connection: AsyncConnection, import_id: str, entries: Sequence[tuple[Seen, str | None]]) -> None:
    """Note these rows with their credentials, in place of what was noted of their places."""
    for some in _chunks([seen.place for seen, _ in entries]):
        old = (import_rows.c.import_id == import_id) & import_rows.c.place.in_(some)
        stale = select(import_rows.c.row_mac).where(old)
        await connection.execute(
            delete(imported_settings).where(
                imported_settings.c.import_id == import_id, imported_settings.c.row_mac.in_(stale)
            )
        )
        await connection.execute(delete(import_rows).where(old))
    rows = [
        {
            "import_id": import_id,
            "row_mac": seen.row_mac,
            "content_mac": seen.content_mac,
            "place": seen.place,
            "tenant_id": seen.tenant.id if seen.tenant else None,
            "setting_key": seen.name.replace("\0", "\\0"),
            "kind": seen.kind.value,
            "outcome": seen.outcome.value,
            "credential_id": credential_id,
        }
        for seen, credential_id in entries
    ]
    if rows:
        await connection.execute(insert(import_rows), rows)


async def note_scrubbed(connection: AsyncConnection, import_id: str, places: Sequence[str], now: datetime) -> None:
    """These rows hold no plain text any more."""
    for some in _chunks(places):
        of = (import_rows.c.import_id == import_id) & import_rows.c.place.in_(some)
        await connection.execute(update(import_rows).where(of).values(scrubbed_at=now))


def _chunks(values: Iterable[Any]) -> Iterable[list[Any]]:
    every = list(values)
    return [every[first : first + _CHUNK] for first in range(0, len(every), _CHUNK)]


def _info(row: Row[Any]) -> ImportInfo:
    return ImportInfo(
        row.import_id,
        row.source,
        bool(row.in_place),
        row.state,
        json.loads(row.options),
        json.loads(row.counts),
        row.started_at,
        row.updated_at,
        row.verified_at,
    )


def _noted(row: Row[Any]) -> Noted:
    return Noted(
        bytes(row.row_mac),
        bytes(row.content_mac),
        row.place,
        row.tenant_id,
        row.setting_key,
        Kind(row.kind),
        Outcome(row.outcome),
        row.credential_id,
        row.scrubbed_at is not None,
    )
