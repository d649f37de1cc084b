"""Opening everything that is sealed, to see that it opens: tenant keys, service keys, webhooks, every envelope of every
state.

Owns the walk through the tables and the note of a clean run. Changes nothing else. Must not know how keys are changed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Row, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.clock import Clock
from keystore.engine import Database
from keystore.errors import EnvelopeDamaged, RingMissing
from keystore.money_tables import webhooks
from keystore.rings import LiveRing
from keystore.sealing import Place, WrappedKey, WrappedServiceKey, dek_id_of, open_envelope, unwrap, unwrap_service_key
from keystore.servicekeys import Purpose
from keystore.tables import credentials, facts, service_keys, tenant_keys
from keystore.webhook_seal import open_webhook

Progress = Callable[[int, int], None]  # done, of how many
BATCH: Final = 500
VERIFIED: Final = "sealing.verified"  # the fact that notes when everything was last found to open


def no_progress(done: int, total: int) -> None:
    """For whoever does not watch."""


@dataclass(slots=True)
class Tally:
    """What became of rows: processed = succeeded + skipped + failed. `faults` name the failed, never a value."""

    succeeded: int = 0
    skipped: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return len(self.faults)

    @property
    def processed(self) -> int:
        return self.succeeded + self.skipped + self.failed


class Verification:
    """One walk through everything sealed."""

    def __init__(self, database: Database, ring: LiveRing, *, now: Clock) -> None:
        self._database = database
        self._ring = ring
        self._now = now

    async def run(self, progress: Progress) -> Tally:
        """What opens and what does not; a clean run is noted."""
        tally, after = Tally(), ""
        async with self._database.read() as connection:
            total = (await connection.execute(select(func.count()).select_from(credentials))).scalar_one()
            total += (await connection.execute(select(func.count()).select_from(tenant_keys))).scalar_one()
            opened = await self._verify_service_keys(connection, tally)
            total += await self._verify_webhooks(connection, opened.get(Purpose.FINGERPRINT), tally)
        await self._verify_tenant_keys(tally, progress, total)
        while True:
            async with self._database.read() as connection:
                page = (await connection.execute(_credentials_after(after))).all()
            for row in page:
                self._verify_credential(row, tally)
            progress(tally.processed, total)
            if len(page) < BATCH:
                break
            after = page[-1].credential_id
        if not tally.faults:
            await self._note_verified()
        return tally

    async def _verify_service_keys(self, connection: AsyncConnection, tally: Tally) -> dict[str, bytes]:
        """Those that open, by purpose."""
        opened: dict[str, bytes] = {}
        for row in await connection.execute(select(service_keys)):
            try:
                opened[row.purpose] = unwrap_service_key(self._kek(row.kek_id), wrapped_service_key(row))
                tally.succeeded += 1
            except (EnvelopeDamaged, RingMissing):
                tally.faults.append(f"the {row.purpose} key {row.key_id} does not open with {row.kek_id}")
        return opened

    async def _verify_webhooks(self, connection: AsyncConnection, key: bytes | None, tally: Tally) -> int:
        """How many there are; `key` is the one that theirs are derived from."""
        rows = (await connection.execute(select(webhooks.c.webhook_id, webhooks.c.envelope))).all()
        for row in rows:
            try:
                if key is None:
                    raise EnvelopeDamaged
                open_webhook(key, bytes(row.envelope), row.webhook_id)
                tally.succeeded += 1
            except EnvelopeDamaged:
                tally.faults.append(f"the webhook {row.webhook_id} does not open")
        return len(rows)

    async def _verify_tenant_keys(self, tally: Tally, progress: Progress, total: int) -> None:
        after = ""
        while True:
            async with self._database.read() as connection:
                page = (await connection.execute(tenant_keys_after(after))).all()
            for row in page:
                try:
                    unwrap(self._kek(row.kek_id), wrapped_key(row))
                    tally.succeeded += 1
                except (EnvelopeDamaged, RingMissing):
                    tally.faults.append(f"the data key {row.dek_id} of tenant {row.tenant_id} does not open")
            progress(tally.processed, total)
            if len(page) < BATCH:
                return
            after = page[-1].dek_id

    def _verify_credential(self, row: Row[Any], tally: Tally) -> None:
        if row.envelope is None:
            tally.skipped += 1
            return
        try:
            if row.dek_id is None or dek_id_of(row.envelope) != row.dek_id:
                raise EnvelopeDamaged
            dek = unwrap(self._kek(row.kek_id), WrappedKey(row.dek_id, row.tenant_id, row.kek_id, bytes(row.wrapped)))
            open_envelope(dek, row.envelope, Place(row.tenant_id, row.credential_id, row.setting_key))
            tally.succeeded += 1
        except (EnvelopeDamaged, RingMissing):
            name = f"{row.setting_key} of tenant {row.tenant_id}"
            tally.faults.append(f"{name} (credential {row.credential_id}, {row.state}) does not open")

    async def _note_verified(self) -> None:
        async with self._database.write() as connection:
            await connection.execute(delete(facts).where(facts.c.name == VERIFIED))
            await connection.execute(insert(facts).values(name=VERIFIED, value=self._now().isoformat()))

    def _kek(self, kek_id: str) -> bytes:
        return self._ring.current.keys.get(kek_id)


def wrapped_key(row: Row[Any]) -> WrappedKey:
    return WrappedKey(row.dek_id, row.tenant_id, row.kek_id, bytes(row.wrapped))


def wrapped_service_key(row: Row[Any]) -> WrappedServiceKey:
    return WrappedServiceKey(row.key_id, row.purpose, row.kek_id, bytes(row.wrapped))


def tenant_keys_after(dek_id: str, *, other_than: str | None = None) -> Any:
    query = select(tenant_keys).where(tenant_keys.c.dek_id > dek_id).order_by(tenant_keys.c.dek_id).limit(BATCH)
    return query if other_than is None else query.where(tenant_keys.c.kek_id != other_than)


def _credentials_after(credential_id: str) -> Any:
    """Credentials beside the data key that their envelope names."""
    named = func.substr(credentials.c.envelope, 5, func.length(tenant_keys.c.dek_id) + 1) == tenant_keys.c.dek_id + "."
    same = (tenant_keys.c.tenant_id == credentials.c.tenant_id) & named
    columns = (tenant_keys.c.dek_id, tenant_keys.c.kek_id, tenant_keys.c.wrapped)
    query = select(credentials, *columns).select_from(credentials.outerjoin(tenant_keys, same))
    return query.where(credentials.c.credential_id > credential_id).order_by(credentials.c.credential_id).limit(BATCH)
