"""When each stored key last served, and when a provider last rejected it: gathered in memory, written behind.

Owns the statements on `key_use`. What was noted since the last flush is lost when the process is killed, so the times
in the table may be some seconds old, never wrong. Must not know HTTP or which name answers for a provider.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, case, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.engine import Database
from keystore.errors import DatabaseUnavailable
from keystore.tables import key_use

_MOST: Final = 50_000  # names that are remembered while the database is away
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class UsedKey:
    """Which stored key: `label` is "" for the one without."""

    tenant_id: str
    setting_key: str
    label: str
    provider_id: str


@dataclass(frozen=True, slots=True)
class KeyUseInfo:
    """What became of a key's calls. `last_rejected_status` is the provider's HTTP status of the newest rejection."""

    key: UsedKey
    last_used_at: datetime
    last_success_at: datetime | None = None
    last_rejected_at: datetime | None = None
    last_rejected_status: int | None = None


class KeyUse:
    """Notes in memory, flushed in one transaction for each batch. `dropped` counts what there was no room for."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[UsedKey, KeyUseInfo] = {}
        self.dropped = 0

    def note(self, key: UsedKey, at: datetime, *, ok: bool, rejected_status: int | None = None) -> None:
        """One call with this key ended: `ok`, rejected by the provider with a status, or neither. No I/O."""
        known = self._noted.get(key)
        if known is None and len(self._noted) >= _MOST:
            self.dropped += 1
            return
        success = at if ok else None if known is None else known.last_success_at
        rejected, status = (None, None) if known is None else (known.last_rejected_at, known.last_rejected_status)
        if rejected_status is not None:
            rejected, status = at, rejected_status
        self._noted[key] = KeyUseInfo(key, at, success, rejected, status)

    async def flush(self) -> int:
        """Write what was noted; how many keys. DatabaseUnavailable leaves it all noted for the next time."""
        noted, self._noted = self._noted, {}
        try:
            await self._write(sorted(noted.values(), key=_place))  # one order: two writers never wait for each other
        except DatabaseUnavailable:
            for key, info in noted.items():
                self._noted[key] = _newest(info, self._noted[key]) if key in self._noted else info
            raise
        return len(noted)

    async def _write(self, infos: list[KeyUseInfo]) -> None:
        for start in range(0, len(infos), _BATCH):
            async with self._database.write() as connection:
                await _upsert(connection, infos[start : start + _BATCH])

    async def of(self, tenant_id: str) -> list[KeyUseInfo]:
        """What is written of one tenant's keys."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(key_use).where(key_use.c.tenant_id == tenant_id))
            return [_info(row) for row in rows]


def _newest(known: KeyUseInfo | None, new: KeyUseInfo) -> KeyUseInfo:
    if known is None:
        return new
    return replace(
        new,
        last_success_at=new.last_success_at or known.last_success_at,
        last_rejected_at=new.last_rejected_at or known.last_rejected_at,
        last_rejected_status=known.last_rejected_status if new.last_rejected_at is None else new.last_rejected_status,
    )


def _place(info: KeyUseInfo) -> tuple[str, str, str, str]:
    key = info.key
    return (key.tenant_id, key.setting_key, key.label, key.provider_id)


async def _upsert(connection: AsyncConnection, infos: Iterable[KeyUseInfo]) -> None:
    """New rows, or the newer of each time; several processes write the same rows."""
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(key_use)
    new = insert.excluded
    statement = insert.on_conflict_do_update(
        index_elements=[column.name for column in key_use.primary_key],
        set_={
            "last_used_at": _later(new.last_used_at, key_use.c.last_used_at),
            "last_success_at": _later(new.last_success_at, key_use.c.last_success_at),
            "last_rejected_at": _later(new.last_rejected_at, key_use.c.last_rejected_at),
            "last_rejected_status": case(
                (_is_later(new.last_rejected_at, key_use.c.last_rejected_at), new.last_rejected_status),
                else_=key_use.c.last_rejected_status,
            ),
        },
    )
    await connection.execute(statement, [_row(info) for info in infos])


def _is_later(new: ColumnElement[Any], old: ColumnElement[Any]) -> ColumnElement[bool]:
    return new.is_not(None) & or_(old.is_(None), new >= old)


def _later(new: ColumnElement[Any], old: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((_is_later(new, old), new), else_=func.coalesce(old, new))


def _row(info: KeyUseInfo) -> Mapping[str, object]:
    tenant_id, setting_key, label, provider_id = _place(info)
    return {
        "tenant_id": tenant_id,
        "setting_key": setting_key,
        "label": label,
        "provider_id": provider_id,
        "last_used_at": info.last_used_at,
        "last_success_at": info.last_success_at,
        "last_rejected_at": info.last_rejected_at,
        "last_rejected_status": info.last_rejected_status,
    }


def _info(row: Row[Any]) -> KeyUseInfo:
    key = UsedKey(row.tenant_id, row.setting_key, row.label, row.provider_id)
    times = (row.last_used_at, row.last_success_at, row.last_rejected_at, row.last_rejected_status)
    return KeyUseInfo(key, *times)
