"""Where prices come from: the last good content of each source, and when it is to be asked again.

Owns the statements on `price_sources`. A source is known by the hash of its URL, since a URL may hold what is not for
everybody; its name is the URL without that. Must not know formats or HTTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update

from keystore.clock import Clock
from keystore.engine import Database
from keystore.errors import PriceReleaseError
from keystore.price_releases import MOST_BYTES
from keystore.price_tables import price_sources

_TOLD = [column for column in price_sources.c if column.name != "content"]


@dataclass(frozen=True, slots=True)
class SourceState:
    """What is known of a source. `error` is the sentence of the last attempt, "" when it went well."""

    source_id: str
    name: str
    etag: str | None
    last_modified: str | None
    digest: str | None  # of the last good content; None: there was none
    fetched_at: datetime | None
    asked_at: datetime | None
    due_at: datetime
    error: str


@dataclass(frozen=True, slots=True)
class GoodContent:
    """Content that was read and found usable, compressed."""

    content: bytes
    digest: str
    etag: str | None
    last_modified: str | None


class PriceSources:
    """Reads and notes. DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database, *, now: Clock) -> None:
        self._database = database
        self._now = now

    async def of(self, source_ids: Sequence[str]) -> dict[str, SourceState]:
        """What is known of these, by id; one that was never asked is absent."""
        query = select(*_TOLD).where(price_sources.c.source_id.in_(source_ids))
        async with self._database.read() as connection:
            return {row.source_id: SourceState(**row._mapping) for row in await connection.execute(query)}

    async def content(self, source_id: str) -> bytes | None:
        """The last good content."""
        query = select(price_sources.c.content).where(price_sources.c.source_id == source_id)
        async with self._database.read() as connection:
            found = (await connection.execute(query)).scalar()
        return bytes(found) if found is not None else None

    async def note(
        self, source_id: str, name: str, due_at: datetime, *, error: str = "", good: GoodContent | None = None
    ) -> None:
        """A source was asked: its new content, or nothing new, or why not; and when to ask again. What was good stays
        until something good comes."""
        now = self._now()
        told: dict[str, Any] = {"name": name, "asked_at": now, "due_at": due_at, "error": error}
        if good is not None:
            if len(good.content) > MOST_BYTES:
                raise PriceReleaseError(f"a price list may have {MOST_BYTES} bytes compressed")
            told |= {"content": good.content, "digest": good.digest, "fetched_at": now}
            told |= {"etag": good.etag, "last_modified": good.last_modified}
        async with self._database.write() as connection:
            mine = price_sources.c.source_id == source_id
            if not (await connection.execute(update(price_sources).where(mine).values(**told))).rowcount:
                await connection.execute(insert(price_sources).values(source_id=source_id, **told))
