"""Who runs on this database: one row for each process that serves, with the root keys that it holds.

Owns the statements on `replicas`, and when a process is taken for gone: it was not heard of for a while, and this
process looked all along. After an outage of the database everybody has time to speak first. Must not know ciphers.
"""

import os
import socket
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Final

from sqlalchemy import delete, insert, select, update

from keystore.clock import Clock
from keystore.engine import Database
from keystore.tables import replicas

LIVE: Final = timedelta(seconds=30)
_EVERY: Final = timedelta(seconds=10)
_GAP: Final = timedelta(seconds=10)  # after a longer pause between two looks, nothing is known of the time between
_KEPT: Final = timedelta(days=1)
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Replica:
    """A process that serves, or served lately."""

    replica_id: str
    name: str
    version: str
    kek_ids: tuple[str, ...]
    catalogue: str
    started_at: datetime
    seen_at: datetime


class Replicas:
    """This process's own row, and the look at the others'. DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database, *, now: Clock) -> None:
        self._database = database
        self._now = now
        self._id = str(uuid.uuid4())
        self._said: tuple[tuple[str, ...], str, datetime] | None = None
        self._looked_at = _NEVER
        self._steady_since = _NEVER  # from when on this process looked without a gap
        self.catalogue = ""  # the version of the prices that this process serves
        self.number = 1  # processes that serve, this one included, as last known

    async def beat(self, kek_ids: tuple[str, ...]) -> None:
        """Say that this process lives, holds these root keys and serves these prices, unless it was said just now; see
        how many there are. To be called every few seconds. `number` falls only when this has gone well for as long as
        a process is taken to live: before, those who could not speak are counted as well."""
        try:
            now, catalogue = self._now(), self.catalogue
            if self._said is None or self._said[:2] != (kek_ids, catalogue) or not _within(self._said[2], now, _EVERY):
                await self._say(kek_ids, catalogue, now)
                self._said = (kek_ids, catalogue, now)
            self._look(await self._others())
        except BaseException:
            self._looked_at = _NEVER
            raise

    def _look(self, others: Collection[datetime]) -> None:
        """When each other process was last heard of: how many live."""
        now = self._now()
        if not _within(self._looked_at, now, _GAP):
            self._steady_since = now
        self._looked_at = now
        if now - self._steady_since >= LIVE:
            self.number = 1 + _later_than(now - LIVE, others)
        else:  # who lived when anybody was last heard of
            self.number = max(self.number, 1 + _later_than(min(now, max(others, default=now)) - LIVE, others))

    async def _others(self) -> list[datetime]:
        query = select(replicas.c.seen_at).where(replicas.c.replica_id != self._id)
        async with self._database.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def _say(self, kek_ids: tuple[str, ...], catalogue: str, now: datetime) -> None:
        ours = {"kek_ids": " ".join(kek_ids), "catalogue": catalogue, "seen_at": now}
        seen = update(replicas).where(replicas.c.replica_id == self._id).values(**ours)
        async with self._database.write() as connection:
            if not (await connection.execute(seen)).rowcount:
                row = {"replica_id": self._id, "name": f"{socket.gethostname()}:{os.getpid()}", "started_at": now}
                row["version"] = version("wardgate")
                await connection.execute(delete(replicas).where(replicas.c.seen_at < now - _KEPT))
                await connection.execute(insert(replicas).values(**row, **ours))

    async def forget(self) -> None:
        """This process stops."""
        if self._said is not None:
            async with self._database.write() as connection:
                await connection.execute(delete(replicas).where(replicas.c.replica_id == self._id))

    async def live(self) -> list[Replica]:
        """The processes that were heard of lately, by name."""
        query = select(replicas).where(replicas.c.seen_at > self._now() - LIVE).order_by(replicas.c.name)
        async with self._database.read() as connection:
            return [
                Replica(
                    row.replica_id,
                    row.name,
                    row.version,
                    tuple(row.kek_ids.split()),
                    row.catalogue or "",
                    row.started_at,
                    row.seen_at,
                )
                for row in await connection.execute(query)
            ]

    async def lacking(self, kek_id: str) -> list[str]:
        """The names of live processes that do not hold this root key."""
        return [replica.name for replica in await self.live() if kek_id not in replica.kek_ids]


def _within(earlier: datetime, now: datetime, span: timedelta) -> bool:
    """Less than `span` ago; a clock that was set back makes it not so."""
    return timedelta(0) <= now - earlier < span


def _later_than(at: datetime, times: Iterable[datetime]) -> int:
    return sum(1 for each in times if each > at)
