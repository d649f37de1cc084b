"""Whose bulk requests the operator has paused, and since when.

Owns the statements on `bulk_pauses`, and what this process last saw of it: looked at every few seconds, so that a pause
reaches every process and outlives each. Must not know what bulk is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select

from keystore.clock import Clock
from keystore.engine import Database
from keystore.tables import bulk_pauses, tenants
from keystore.tenants import Tenant, hold_tenant


@dataclass(frozen=True, slots=True)
class Pause:
    """A tenant whose bulk is paused."""

    tenant: str  # its slug
    since: datetime


class BulkPauses:
    """Each method is one transaction; DatabaseUnavailable when the database fails. `paused` are the ids that `look` saw
    last; `tell` hears of them at each look that saw others."""

    def __init__(self, database: Database, *, now: Clock) -> None:
        self._database = database
        self._now = now
        self.paused: frozenset[str] = frozenset()
        self.tell: Callable[[frozenset[str]], None] = lambda _: None

    async def pause(self, tenant: Tenant) -> Pause:
        """Paused from now on; one that is paused already stays so since when it was."""
        mine = select(bulk_pauses.c.since).where(bulk_pauses.c.tenant_id == tenant.id)
        async with self._database.write() as connection:
            await hold_tenant(connection, tenant)
            since = (await connection.execute(mine)).scalar_one_or_none()
            if since is None:
                since = self._now()
                await connection.execute(insert(bulk_pauses).values(tenant_id=tenant.id, since=since))
        return Pause(tenant.slug, since)

    async def resume(self, tenant: Tenant) -> bool:
        """Not paused any more; False when it was not."""
        async with self._database.write() as connection:
            done = await connection.execute(delete(bulk_pauses).where(bulk_pauses.c.tenant_id == tenant.id))
        return bool(done.rowcount)

    async def list(self) -> list[Pause]:
        """Who is paused, by slug."""
        both = select(tenants.c.slug, bulk_pauses.c.since).join(tenants, tenants.c.id == bulk_pauses.c.tenant_id)
        async with self._database.read() as connection:
            return [Pause(row.slug, row.since) for row in await connection.execute(both.order_by(tenants.c.slug))]

    async def look(self) -> None:
        """See who is paused now."""
        async with self._database.read() as connection:
            found = frozenset((await connection.execute(select(bulk_pauses.c.tenant_id))).scalars())
        if found != self.paused:
            self.paused = found
            self.tell(found)
