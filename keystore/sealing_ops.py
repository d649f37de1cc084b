"""The life of root keys: add, activate, rewrap, verify, retire; and of one tenant's key: rotate, shred.

Owns the order that keeps a running fleet whole. A new root key is pending until every replica has it, then active; the
one before opens what it wrapped until nothing refers to it. Every step can be run again: what is done stays done. Must
not know how a key reaches a replica (keystore.rings, keystore.replicas).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, delete, func, insert, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.changes import Changed, note_change
from keystore.clock import Clock, Random
from keystore.engine import Database, Lock
from keystore.errors import EnvelopeDamaged, RingMissing, SealingRefused
from keystore.replicas import Replicas
from keystore.rings import LiveRing, active_root_key
from keystore.rootkeys import KeyState, add_to_file
from keystore.sealing import (
    KEY_BYTES,
    NONCE_BYTES,
    Place,
    WrappedKey,
    check_value,
    dek_id_of,
    open_envelope,
    seal,
    unwrap,
    unwrap_service_key,
    wrap,
    wrap_service_key,
)
from keystore.sealing_check import (
    BATCH,
    VERIFIED,
    Progress,
    Tally,
    Verification,
    no_progress,
    tenant_keys_after,
    wrapped_key,
    wrapped_service_key,
)
from keystore.tables import credentials, facts, root_keys, service_keys, tenant_keys
from keystore.tenants import Tenant, hold_tenant

_FRESH: Final = timedelta(hours=1)  # how old the verification may be on which a key is retired


@dataclass(frozen=True, slots=True)
class RootKeyStatus:
    """One root key, and how much it wraps. `lacking` are the live replicas that do not have it."""

    kek_id: str
    state: KeyState
    present: bool
    created_at: datetime
    tenant_keys: int
    service_keys: int
    lacking: tuple[str, ...]


class SealingOps:
    """Every operation; DatabaseUnavailable when the database fails, SealingRefused when it is not time for a step."""

    def __init__(self, database: Database, ring: LiveRing, replicas: Replicas, *, now: Clock, random: Random) -> None:
        self._database = database
        self._ring = ring
        self._replicas = replicas
        self._now = now
        self._random = random

    # --- looking -----------------------------------------------------------------------------------------------------

    async def status(self) -> list[RootKeyStatus]:
        """Every root key that this database knows, oldest first."""
        async with self._database.read() as connection:
            rows = (
                await connection.execute(select(root_keys).order_by(root_keys.c.created_at, root_keys.c.kek_id))
            ).all()
            wrapped = await _count_by_kek(connection, tenant_keys.c.kek_id)
            services = await _count_by_kek(connection, service_keys.c.kek_id)
        live = await self._replicas.live()
        held = self._ring.current.keys.ids
        return [
            RootKeyStatus(
                row.kek_id,
                KeyState(row.state),
                row.kek_id in held,
                row.created_at,
                wrapped.get(row.kek_id, 0),
                services.get(row.kek_id, 0),
                tuple(replica.name for replica in live if row.kek_id not in replica.kek_ids),
            )
            for row in rows
        ]

    async def verify(self, progress: Progress = no_progress) -> Tally:
        """Open every tenant key, service key and envelope. A clean run is noted, for `retire` to rely on."""
        return await Verification(self._database, self._ring, now=self._now).run(progress)

    # --- root keys ---------------------------------------------------------------------------------------------------

    async def add(self) -> str:
        """A new root key, pending: made in the ring's file, or taken from a ring that was given as text and holds one
        that is not known yet. Its id."""
        now = self._now()
        async with self._database.write(lock=Lock.ROOT_KEYS) as connection:
            known = {row.kek_id: row.state for row in await connection.execute(select(root_keys))}
            waiting = [kek_id for kek_id, state in known.items() if state == KeyState.PENDING.value]
            if waiting:
                raise SealingRefused(f"the root key {waiting[0]!r} is pending already; activate it first")
            ring = self._ring.read()
            unknown = [kek_id for kek_id in ring.ids if kek_id not in known]
            if not unknown:
                kek_id = _next_id(now, {*known, *ring.ids})
                ring = add_to_file(self._ring.source, kek_id, self._random(KEY_BYTES))
                unknown = [kek_id]
            row = {"kek_id": unknown[0], "state": KeyState.PENDING.value, "created_at": now}
            await connection.execute(insert(root_keys).values(**row, kcv=check_value(ring.get(unknown[0]))))
            await note_change(connection, Changed.RING, now=now)
        await self._ring.refresh()
        return unknown[0]

    async def activate(self, kek_id: str, *, force: bool = False) -> None:
        """New tenant keys are wrapped by this root key from now on. Refused while a live replica lacks it."""
        async with self._database.read() as connection:
            await _state_of(connection, kek_id)
        lacking = await self._replicas.lacking(kek_id)
        if lacking and not force:
            raise SealingRefused(
                f"not every live replica has the root key {kek_id!r} yet: {', '.join(lacking[:5])};"
                " give it to those, see `wardgate sealing status`"
            )
        async with self._database.write(lock=Lock.ROOT_KEYS) as connection:
            state = await _state_of(connection, kek_id)
            if state is KeyState.ACTIVE:
                return
            if state is KeyState.RETIRED:
                raise SealingRefused(f"the root key {kek_id!r} is retired; add a new one")
            self._ring.read().get(kek_id)
            active = root_keys.c.state == KeyState.ACTIVE.value
            await connection.execute(update(root_keys).where(active).values(state=KeyState.DECRYPT.value))
            change = update(root_keys).where(root_keys.c.kek_id == kek_id).values(state=KeyState.ACTIVE.value)
            await connection.execute(change)
            await note_change(connection, Changed.RING, now=self._now())
        await self._ring.refresh()

    async def rewrap(self, progress: Progress = no_progress) -> Tally:
        """Wrap with the active root key what others wrap. Secrets are not sealed again: one small write for each
        tenant. Rows that somebody else changes meanwhile are left to the next run."""
        await self._ring.refresh()
        active, tally, after = self._ring.current.active, Tally(), ""
        async with self._database.read() as connection:
            stale = select(func.count()).select_from(tenant_keys).where(tenant_keys.c.kek_id != active)
            total = (await connection.execute(stale)).scalar_one()
        await self._rewrap_service_keys(active, tally)
        while True:
            async with self._database.write() as connection:
                page = (await connection.execute(tenant_keys_after(after, other_than=active))).all()
                for row in page:
                    await self._rewrap_one(connection, row, active, tally)
                if page:
                    await note_change(connection, Changed.TENANT, *{row.tenant_id for row in page}, now=self._now())
            progress(tally.processed, total)
            if len(page) < BATCH:
                return tally
            after = page[-1].dek_id

    async def _rewrap_one(self, connection: AsyncConnection, row: Row[Any], active: str, tally: Tally) -> None:
        try:
            dek = unwrap(self._kek(row.kek_id), wrapped_key(row))
        except (EnvelopeDamaged, RingMissing):
            tally.faults.append(f"the data key {row.dek_id} of tenant {row.tenant_id} does not open")
            return
        again = wrap(
            self._kek(active),
            dek,
            kek_id=active,
            tenant_id=row.tenant_id,
            dek_id=row.dek_id,
            nonce=self._random(NONCE_BYTES),
        )
        unchanged = (tenant_keys.c.dek_id == row.dek_id) & (tenant_keys.c.wrapped == row.wrapped)
        change = update(tenant_keys).where(unchanged, tenant_keys.c.kek_id == row.kek_id)
        done = await connection.execute(change.values(kek_id=active, wrapped=again.wrapped))
        tally.succeeded += done.rowcount
        tally.skipped += 1 - done.rowcount

    async def _rewrap_service_keys(self, active: str, tally: Tally) -> None:
        async with self._database.write() as connection:
            for row in (await connection.execute(select(service_keys).where(service_keys.c.kek_id != active))).all():
                try:
                    key = unwrap_service_key(self._kek(row.kek_id), wrapped_service_key(row))
                except (EnvelopeDamaged, RingMissing):
                    tally.faults.append(f"the {row.purpose} key {row.key_id} does not open with {row.kek_id}")
                    continue
                nonce, kek = self._random(NONCE_BYTES), self._kek(active)
                again = wrap_service_key(kek, key, kek_id=active, purpose=row.purpose, key_id=row.key_id, nonce=nonce)
                same = (service_keys.c.key_id == row.key_id) & (service_keys.c.kek_id == row.kek_id)
                change = update(service_keys).where(same).values(kek_id=active, wrapped=again.wrapped)
                tally.succeeded += (await connection.execute(change)).rowcount

    async def retire(self, kek_id: str) -> bool:
        """Nothing needs this root key any more; its line may be taken out of the ring. False when it is retired
        already. Refused while a row refers to it, while it is active, or without a clean verification of the last
        hour."""
        async with self._database.write(lock=Lock.ROOT_KEYS) as connection:
            state = await _state_of(connection, kek_id)
            if state is KeyState.RETIRED:
                return False
            if state is KeyState.ACTIVE:
                raise SealingRefused(f"the root key {kek_id!r} is the active one; activate another first")
            for column in (tenant_keys.c.kek_id, service_keys.c.kek_id):
                used = (await _count_by_kek(connection, column)).get(kek_id, 0)
                if used:
                    raise SealingRefused(
                        f"{used} rows of {column.table.name} need the root key {kek_id!r}; run `sealing rewrap` first"
                    )
            await self._refuse_unverified(connection)
            change = update(root_keys).where(root_keys.c.kek_id == kek_id).values(state=KeyState.RETIRED.value)
            await connection.execute(change)
            await note_change(connection, Changed.RING, now=self._now())
        await self._ring.refresh()
        return True

    async def _refuse_unverified(self, connection: AsyncConnection) -> None:
        noted = (await connection.execute(select(facts.c.value).where(facts.c.name == VERIFIED))).scalar()
        try:
            fresh = noted is not None and self._now() - datetime.fromisoformat(noted) <= _FRESH
        except (ValueError, TypeError):
            fresh = False
        if not fresh:
            raise SealingRefused("there was no clean verification in the last hour; run `wardgate sealing verify`")

    # --- one tenant --------------------------------------------------------------------------------------------------

    async def rotate_tenant(self, tenant: Tenant) -> int:
        """A new data key for the tenant, and everything of its sealed again with it; how many values. One transaction;
        EnvelopeDamaged (nothing changed) when one of them does not open."""
        async with self._database.write() as connection:
            await hold_tenant(connection, tenant)
            keys = await _keys_of(connection, tenant.id)
            fresh, dek = await self._new_key(connection, tenant.id)
            mine = select(credentials).where(credentials.c.tenant_id == tenant.id, credentials.c.envelope.is_not(None))
            rows = (await connection.execute(mine)).all()
            for row in rows:
                await self._seal_again(connection, row, keys, fresh, dek)
            used = update(tenant_keys).where(tenant_keys.c.dek_id == fresh.dek_id)
            await connection.execute(used.values(seals=max(1, len(rows))))
            await connection.execute(delete(tenant_keys).where(tenant_keys.c.dek_id.in_(sorted(keys))))
            await note_change(connection, Changed.TENANT, tenant.id, now=self._now())
        return len(rows)

    async def _new_key(self, connection: AsyncConnection, tenant_id: str) -> tuple[WrappedKey, bytes]:
        dek, active = self._random(KEY_BYTES), await active_root_key(connection)
        dek_id, nonce = self._random(10).hex(), self._random(NONCE_BYTES)
        key = wrap(self._ring.find(active), dek, kek_id=active, tenant_id=tenant_id, dek_id=dek_id, nonce=nonce)
        row = {"dek_id": dek_id, "tenant_id": tenant_id, "kek_id": active, "wrapped": key.wrapped, "seals": 1}
        await connection.execute(
            update(tenant_keys).where(tenant_keys.c.tenant_id == tenant_id).values(state=KeyState.DECRYPT.value)
        )
        await connection.execute(insert(tenant_keys).values(**row, state="active", created_at=self._now()))
        return key, dek

    async def _seal_again(
        self, connection: AsyncConnection, row: Row[Any], keys: dict[str, WrappedKey], fresh: WrappedKey, dek: bytes
    ) -> None:
        place = Place(row.tenant_id, row.credential_id, row.setting_key)
        old = keys.get(dek_id_of(row.envelope))
        if old is None:
            raise EnvelopeDamaged(f"{row.setting_key} of tenant {row.tenant_id} was sealed with a key that is gone")
        content = open_envelope(unwrap(self._kek(old.kek_id), old), row.envelope, place)
        envelope = seal(dek, content, place, dek_id=fresh.dek_id, nonce=self._random(NONCE_BYTES))
        change = update(credentials).where(credentials.c.credential_id == row.credential_id)
        await connection.execute(change.values(envelope=envelope))

    async def shred(self, tenant: Tenant) -> int:
        """Destroy the tenant's data keys and envelopes; how many values. A backup of before holds the data keys too,
        wrapped: its copies are noise once the root keys that wrapped them are gone, retired and out of the ring."""
        gone = {"state": "removed", "envelope": null(), "hint": "", "fingerprint": b"", "quarantine": null()}
        async with self._database.write() as connection:
            await hold_tenant(connection, tenant)
            mine = (credentials.c.tenant_id == tenant.id) & credentials.c.envelope.is_not(None)
            done = await connection.execute(update(credentials).where(mine).values(**gone, updated_at=self._now()))
            await connection.execute(delete(tenant_keys).where(tenant_keys.c.tenant_id == tenant.id))
            await note_change(connection, Changed.TENANT, tenant.id, now=self._now())
        return done.rowcount

    def _kek(self, kek_id: str) -> bytes:
        return self._ring.current.keys.get(kek_id)


async def _state_of(connection: AsyncConnection, kek_id: str) -> KeyState:
    state = (await connection.execute(select(root_keys.c.state).where(root_keys.c.kek_id == kek_id))).scalar()
    if state is None:
        raise SealingRefused(f"there is no root key {kek_id!r}; `wardgate sealing status` lists them")
    return KeyState(state)


async def _count_by_kek(connection: AsyncConnection, column: Any) -> dict[str, int]:
    counted = await connection.execute(select(column, func.count()).group_by(column))
    return {row[0]: row[1] for row in counted}


async def _keys_of(connection: AsyncConnection, tenant_id: str) -> dict[str, WrappedKey]:
    rows = await connection.execute(select(tenant_keys).where(tenant_keys.c.tenant_id == tenant_id))
    return {row.dek_id: wrapped_key(row) for row in rows}


def _next_id(now: datetime, taken: set[str]) -> str:
    """k<year><month><letter>, the first that is free."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = [f"k{now:%Y%m}{letter}" for letter in letters]
    names += [f"k{now:%Y%m}{one}{two}" for one in letters for two in letters]
    return next(name for name in names if name not in taken)
