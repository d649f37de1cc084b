"""Who runs on this database: one row for each process that serves, with the root keys that it holds.

Owns the statements on `replicas`. A process that was not heard of for a while is taken for gone. Must not know ciphers.
"""

import os
import socket
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Final

from sqlalchemy import delete, insert, select, update

from keystore.clock import Clock
from keystore.engine import Database
from keystore.tables import replicas

LIVE: Final = timedelta(seconds=30)
_EVERY: Final = timedelta(seconds=10)
_KEPT: Final = timedelta(days=1)


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
        self.catalogue = ""  # the version of the prices that this process serves
        self.number = 1  # processes that serve, this one included, as last seen

    async def beat(self, kek_ids: tuple[str, ...]) -> None:
        """Say that this process lives, holds these root keys and serves these prices, unless it was said just now; see
        how many there are."""
        now, catalogue = self._now(), self.catalogue
        if self._said is None or self._said[:2] != (kek_ids, catalogue) or now - self._said[2] >= _EVERY:
            await self._say(kek_ids, catalogue, now)
            self._said = (kek_ids, catalogue, now)
        self.number = max(1, len(await self.live()))

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
