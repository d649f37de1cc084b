"""Tenant keys (DEKs): one for each tenant, made when its first secret is sealed.

Owns the statements on `tenant_keys`, and sealing and opening with the right one. Must not know what the secrets are
for.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.clock import Clock, Random
from keystore.errors import EnvelopeDamaged, SealingError
from keystore.rings import LiveRing, active_root_key
from keystore.sealing import (
    KEY_BYTES,
    MAX_SEALS,
    NONCE_BYTES,
    Opened,
    Place,
    WrappedKey,
    dek_id_of,
    fingerprint,
    open_envelope,
    seal,
    unwrap,
    wrap,
)
from keystore.servicekeys import Purpose, ServiceKeys
from keystore.tables import tenant_keys
from keystore.tenants import Tenant, hold_tenant

_COLUMNS: Final = (
    tenant_keys.c.dek_id,
    tenant_keys.c.tenant_id,
    tenant_keys.c.kek_id,
    tenant_keys.c.wrapped,
)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An envelope with all that opens it except the root key."""

    envelope: str
    place: Place
    key: WrappedKey | None


@dataclass(frozen=True, slots=True)
class DataKey:
    """A tenant key, open."""

    dek_id: str
    dek: bytes = field(repr=False)


class TenantKeys:
    """Seals and opens for every tenant, with the ring that this database was opened with."""

    def __init__(self, ring: LiveRing, service: ServiceKeys, *, now: Clock, random: Random) -> None:
        self._ring = ring
        self._now = now
        self._random = random
        lacks = Purpose.FINGERPRINT in service.lacking  # then values are told apart within this process alone
        self._fingerprint_key = random(KEY_BYTES) if lacks else service.get(Purpose.FINGERPRINT).key

    def fingerprint(self, secret: str) -> bytes:
        """8 bytes that are equal for equal secrets in either store."""
        return fingerprint(self._fingerprint_key, secret)

    def import_key(self, import_id: str) -> bytes:
        """The key of one import's marks: nothing but this keystore can make or check them."""
        return hmac.digest(self._fingerprint_key, b"wg/import/1" + import_id.encode(), hashlib.sha256)

    def open(self, sealed: Sealed) -> Opened:
        """The secret and its hosts, without I/O. EnvelopeDamaged when envelope, place or key is not the very same."""
        if sealed.key is None:
            raise EnvelopeDamaged
        try:
            kek = self._ring.find(sealed.key.kek_id)
        except SealingError:
            raise EnvelopeDamaged from None
        return open_envelope(unwrap(kek, sealed.key), sealed.envelope, sealed.place)

    def open_key(self, key: WrappedKey) -> bytes:
        """The tenant key, open. EnvelopeDamaged or a SealingError when it does not open."""
        return unwrap(self._ring.find(key.kek_id), key)

    async def data_key(self, connection: AsyncConnection, tenant: Tenant) -> DataKey:
        """The tenant's active key, made when there is none, for who derives from it a key for each value: those are not
        counted. The connection is in a transaction that writes."""
        key = await self._found(connection, tenant.id)
        if key is None:
            await hold_tenant(connection, tenant)
            key = await self._found(connection, tenant.id) or await self._make(connection, tenant.id)
        return DataKey(key.dek_id, self.open_key(key))

    async def _found(self, connection: AsyncConnection, tenant_id: str) -> WrappedKey | None:
        active = (tenant_keys.c.tenant_id == tenant_id) & (tenant_keys.c.state == "active")
        row = (await connection.execute(select(*_COLUMNS).where(active))).first()
        return None if row is None else WrappedKey(row.dek_id, row.tenant_id, row.kek_id, bytes(row.wrapped))

    async def seal(self, connection: AsyncConnection, content: Opened, place: Place) -> str:
        """The envelope of `content`. The connection is in a transaction that holds the tenant's row."""
        key = await self._active(connection, place.tenant_id)
        dek = unwrap(self._ring.find(key.kek_id), key)
        return seal(dek, content, place, dek_id=key.dek_id, nonce=self._random(NONCE_BYTES))

    async def _active(self, connection: AsyncConnection, tenant_id: str) -> WrappedKey:
        """The tenant's active key, counted as used once more; a new one when there is none or it is used up."""
        active = (tenant_keys.c.tenant_id == tenant_id) & (tenant_keys.c.state == "active")
        row = (await connection.execute(select(*_COLUMNS, tenant_keys.c.seals).where(active))).first()
        if row is not None and row.seals < MAX_SEALS:
            await connection.execute(update(tenant_keys).where(active).values(seals=tenant_keys.c.seals + 1))
            return WrappedKey(row.dek_id, row.tenant_id, row.kek_id, bytes(row.wrapped))
        await connection.execute(update(tenant_keys).where(active).values(state="decrypt"))
        return await self._make(connection, tenant_id)

    async def _make(self, connection: AsyncConnection, tenant_id: str) -> WrappedKey:
        kek_id = await active_root_key(connection)
        key = wrap(
            self._ring.find(kek_id),
            self._random(KEY_BYTES),
            kek_id=kek_id,
            tenant_id=tenant_id,
            dek_id=self._random(10).hex(),
            nonce=self._random(NONCE_BYTES),
        )
        row = {"dek_id": key.dek_id, "tenant_id": tenant_id, "kek_id": kek_id, "wrapped": key.wrapped}
        await connection.execute(insert(tenant_keys).values(**row, seals=1, state="active", created_at=self._now()))
        return key

    async def all_of(self, connection: AsyncConnection, tenant_id: str) -> dict[str, WrappedKey]:
        """The tenant's keys by id, wrapped."""
        rows = await connection.execute(select(*_COLUMNS).where(tenant_keys.c.tenant_id == tenant_id))
        return {row.dek_id: WrappedKey(row.dek_id, row.tenant_id, row.kek_id, bytes(row.wrapped)) for row in rows}


def sealed_with(envelope: str, place: Place, keys: dict[str, WrappedKey]) -> Sealed:
    """The envelope beside the one of `keys` that it names, if it names one."""
    try:
        return Sealed(envelope, place, keys.get(dek_id_of(envelope)))
    except EnvelopeDamaged:
        return Sealed(envelope, place, None)
