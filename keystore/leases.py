"""Leases: what one process at a time does for all of them, and until when it may.

Owns the statements on `leases`. A lease runs out by itself, so that a process that died holds nothing up; one that
comes late may overlap with the next, and what it does must bear that. Must not know what is done under a lease.
"""

import uuid
from datetime import timedelta

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from keystore.clock import Clock
from keystore.engine import Database
from keystore.price_tables import leases


class Leases:
    """Takes and gives back. DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database, *, now: Clock) -> None:
        self._database = database
        self._now = now
        self._me = str(uuid.uuid4())

    async def take(self, name: str, length: timedelta) -> bool:
        """Whether this process holds the lease from now on for `length`: nobody does, or it does already."""
        now = self._now()
        free = or_(leases.c.holder == self._me, leases.c.until <= now)
        mine = {"holder": self._me, "until": now + length}
        try:
            async with self._database.write() as connection:
                taken = await connection.execute(update(leases).where(leases.c.name == name, free).values(**mine))
                if taken.rowcount:
                    return True
                if (await connection.execute(select(leases.c.name).where(leases.c.name == name))).first():
                    return False
                await connection.execute(insert(leases).values(name=name, **mine))
                return True
        except IntegrityError:  # another process made the row just now
            return False

    async def give_back(self, name: str) -> None:
        """Hold it no longer, if this process does."""
        async with self._database.write() as connection:
            await connection.execute(delete(leases).where(leases.c.name == name, leases.c.holder == self._me))
