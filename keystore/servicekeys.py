"""Keys of the keystore's own: for fingerprints, for the seals of tokens, for the chain of the audit.

Owns the statements on `service_keys` and the rule when they may be made: on a database where nothing was ever sealed
with them, never because somebody deleted them. Each is 32 bytes, wrapped by a root key like a tenant's. Must not know
what is sealed with them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import exists, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.clock import Clock, Random
from keystore.engine import Database, Lock
from keystore.errors import EnvelopeDamaged, RingMismatch, RingMissing
from keystore.rings import OpenRing
from keystore.sealing import KEY_BYTES, NONCE_BYTES, WrappedServiceKey, unwrap_service_key, wrap_service_key
from keystore.tables import audit, credentials, service_keys, tokens


class Purpose(StrEnum):
    """What a service key is for; sealed with it, so that none stands in for another."""

    FINGERPRINT = "fingerprint"
    TOKEN = "token"  # noqa: S105 - a name
    AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """One key, open."""

    key_id: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServiceKeys:
    """The keys by purpose; every purpose has one, except that those of a `lacking` root key are not open: by purpose,
    what would help."""

    keys: Mapping[Purpose, ServiceKey] = field(repr=False)
    lacking: Mapping[Purpose, str] = field(default_factory=dict)

    def get(self, purpose: Purpose) -> ServiceKey:
        """The key. RingMissing when its root key is not here."""
        if purpose in self.lacking:
            raise RingMissing(self.lacking[purpose])
        return self.keys[purpose]


async def open_service_keys(database: Database, ring: OpenRing, *, now: Clock, random: Random) -> ServiceKeys:
    """The database's service keys, made when nothing was ever sealed with any. RingMismatch when they were changed or
    are gone; a fingerprint of before they existed was made with a key derived from the oldest root key, which is kept.
    """
    async with database.read() as connection:
        wrapped = await read_service_keys(connection)
    if not wrapped:
        async with database.write(lock=Lock.ROOT_KEYS) as connection:
            wrapped = await read_service_keys(connection)
            if not wrapped:
                await _refuse_lost(connection)
                wrapped = await _make(connection, ring, now(), random)
    opened: dict[Purpose, ServiceKey] = {}
    lacking: dict[Purpose, str] = {}
    for purpose in Purpose:
        try:
            opened[purpose] = _open(wrapped, purpose, ring)
        except RingMissing as error:  # its root key is not here, and the ring was opened as it is
            lacking[purpose] = str(error)
    return ServiceKeys(opened, lacking)


async def read_service_keys(connection: AsyncConnection) -> dict[str, WrappedServiceKey]:
    """The wrapped keys by purpose."""
    rows = await connection.execute(select(service_keys))
    return {row.purpose: WrappedServiceKey(row.key_id, row.purpose, row.kek_id, bytes(row.wrapped)) for row in rows}


async def _refuse_lost(connection: AsyncConnection) -> None:
    used = select(or_(exists(select(tokens.c.id).where(tokens.c.mac.is_not(None))), exists(select(audit.c.seq))))
    if (await connection.execute(used)).scalar_one():
        raise RingMismatch("the database has lost the keys that seal its tokens and audit; restore it from a backup")


async def _make(
    connection: AsyncConnection, ring: OpenRing, now: datetime, random: Random
) -> dict[str, WrappedServiceKey]:
    kek_id, kek = ring.active, ring.keys.get(ring.active)
    fingerprints_exist = (await connection.execute(select(credentials.c.credential_id).limit(1))).first() is not None
    made = {}
    for purpose in Purpose:
        derived = purpose is Purpose.FINGERPRINT and fingerprints_exist
        key = ring.keys.fingerprint_key() if derived else random(KEY_BYTES)
        made[purpose.value] = wrap_service_key(
            kek,
            key,
            kek_id=kek_id,
            purpose=purpose.value,
            key_id=f"{purpose.value}-{random(6).hex()}",
            nonce=random(NONCE_BYTES),
        )
    await connection.execute(
        insert(service_keys),
        [
            {
                "key_id": one.key_id,
                "purpose": one.purpose,
                "kek_id": one.kek_id,
                "wrapped": one.wrapped,
                "created_at": now,
            }
            for one in made.values()
        ],
    )
    return made


def _open(wrapped: Mapping[str, WrappedServiceKey], purpose: Purpose, ring: OpenRing) -> ServiceKey:
    one = wrapped.get(purpose.value)
    if one is None:
        raise RingMismatch(f"the database has lost its {purpose.value} key; restore it from a backup")
    try:
        return ServiceKey(one.key_id, unwrap_service_key(ring.keys.get(one.kek_id), one))
    except EnvelopeDamaged:
        raise RingMismatch(
            f"the database's {purpose.value} key does not open: it was changed or moved; restore it from a backup"
        ) from None
