"""Tenants' provider keys: stored sealed, replaced by new versions, listed without their values.

Owns the writing statements on `credentials`. A name may hold several keys, told apart by their labels; each has its
versions, of which one is active. Must not know which key answers for a provider, and never gives a value back.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, func, insert, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.acceptance import accepted, check_grace, check_label, check_turn
from keystore.changes import Changed, note_change
from keystore.clock import Clock, Random
from keystore.credential_info import CredentialInfo, info_of, info_of_row
from keystore.engine import Database
from keystore.errors import (
    CredentialConflict,
    CredentialRefused,
    CredentialUnknown,
    EnvelopeDamaged,
    SettingUnknown,
    did_you_mean,
)
from keystore.holdings import HoldingReader, hint_of
from keystore.move_journal import moved_from
from keystore.providers import Provider, Registry
from keystore.resolve import Store, known_names, provider_for_setting
from keystore.sealing import Opened, Place
from keystore.tables import credentials, tenants
from keystore.tenantkeys import TenantKeys, sealed_with
from keystore.tenants import Tenant, hold_tenant, tenant_from_row

_NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})
_AT_ONCE: Final = timedelta(0)
# What is left of a row whose value was destroyed.
_GONE: Final = MappingProxyType(
    {
        "state": "removed",
        "envelope": null(),
        "hint": "",
        "fingerprint": b"",
        "quarantine": null(),
        "grace_until": null(),
    }
)


class CredentialStore:
    """Every write to credentials; each method is one transaction. DatabaseUnavailable when the database fails."""

    def __init__(
        self,
        database: Database,
        keys: TenantKeys,
        reader: HoldingReader,
        registry: Registry,
        *,
        now: Clock,
        random: Random,
    ) -> None:
        self._database = database
        self._keys = keys
        self._reader = reader
        self._registry = registry
        self._now = now
        self._random = random

    async def set(
        self,
        tenant: Tenant,
        setting_key: str,
        value: str,
        *,
        label: str = "",
        weight: int | None = None,
        position: int | None = None,
        activate: bool = True,
        grace: timedelta = _AT_ONCE,
        fields: Mapping[str, str] = _NO_FIELDS,
        expected_version: int | None = None,
    ) -> CredentialInfo:
        """Seal `value`, byte for byte, as a new version of the key with this name and label. It becomes the active one,
        and the one before stands in for it during `grace`; without grace, none before it does. Without `activate` it
        waits. The value that is active already makes no new version. Weight and position are kept when not given.

        Raises SettingUnknown, CredentialRefused, or CredentialConflict when `expected_version` is given and is not the
        newest version there (0: none)."""
        provider = self._owner(setting_key)
        check_label(label)
        check_turn(weight, position)
        check_grace(grace)
        if grace and not activate:
            raise CredentialRefused("a version that waits has no grace time yet: say it when you make it active")
        content = accepted(setting_key, value, fields, provider)
        named = _named(tenant, setting_key, label)
        async with self._database.write() as connection:
            await hold_tenant(connection, tenant)
            last, active = await self._newest(connection, named)
            _check_expected(setting_key, expected_version, last)
            turn = _turn(active, weight, position)
            if activate and active is not None and await self._holds(connection, active, content):
                credential_id = active.credential_id
                if turn != _Turn(active.weight, active.position):
                    await self._write(connection, tenant, credentials.c.credential_id == credential_id, asdict(turn))
            else:
                if activate:
                    await self._supersede(connection, named, grace)
                row = await self._new_row(connection, tenant, setting_key, label, provider, content)
                row |= {"version": last + 1, "state": "active" if activate else "pending", **asdict(turn)}
                await connection.execute(insert(credentials).values(**row))
                await note_change(connection, Changed.TENANT, tenant.id, now=self._now())
                credential_id = row["credential_id"]
        return await self._one(tenant, credential_id)

    async def activate(
        self, tenant: Tenant, setting_key: str, version: int, *, label: str = "", grace: timedelta = _AT_ONCE
    ) -> CredentialInfo:
        """Make a waiting version the active one, or again one that was superseded and is not destroyed yet; the one
        that was active stands in during `grace`. CredentialUnknown when there is no such version, CredentialConflict
        when its state does not allow it."""
        check_grace(grace)
        named = _named(tenant, setting_key, label)
        async with self._database.write() as connection:
            await hold_tenant(connection, tenant)
            chosen = select(credentials).where(named, credentials.c.version == version)
            row = (await connection.execute(chosen)).first() if _can_be_asked(setting_key, label, version) else None
            if row is not None and row.state in ("pending", "superseded"):
                await self._supersede(connection, named, grace)
                mine = credentials.c.credential_id == row.credential_id
                await self._write(connection, tenant, mine, {"state": "active", "grace_until": null()})
        if row is None:
            raise await self._unknown(tenant, setting_key, f" in version {version}")
        if row.state not in ("pending", "superseded"):
            raise CredentialConflict(f"version {version} of {setting_key} is {row.state}, so it cannot be made active")
        return await self._one(tenant, row.credential_id)

    async def change(
        self,
        tenant: Tenant,
        setting_key: str,
        *,
        label: str = "",
        weight: int | None = None,
        position: int | None = None,
    ) -> CredentialInfo:
        """Set the weight or position of the active key with this name and label. CredentialUnknown when there is none,
        CredentialRefused."""
        check_turn(weight, position)
        active = _named(tenant, setting_key, label) & (credentials.c.state == "active")
        turn = {name: given for name, given in (("weight", weight), ("position", position)) if given is not None}
        async with self._database.write() as connection:
            await hold_tenant(connection, tenant)
            found = select(credentials.c.credential_id).where(active)
            row = (await connection.execute(found)).first() if _can_be_asked(setting_key, label) else None
            if row is not None and turn:
                await self._write(connection, tenant, active, turn)
        if row is None:
            raise await self._unknown(tenant, setting_key)
        return await self._one(tenant, row.credential_id)

    async def remove(self, tenant: Tenant, setting_key: str, label: str | None = None) -> None:
        """Destroy every version of the key with this name and label, or of every label, and what it was under the old
        name that it was moved from. A legacy row of the same name is not touched, and answers again. CredentialUnknown
        when the credentials table holds no such key."""
        held = _named(tenant, setting_key, label) & (credentials.c.state != "removed")
        if _can_be_asked(setting_key, label or ""):
            async with self._database.write() as connection:
                await hold_tenant(connection, tenant)
                found = (await connection.execute(select(credentials.c.credential_id).where(held))).scalars().all()
                if found:
                    before = await moved_from(connection, tenant.id, found)
                    await self._write(connection, tenant, held | credentials.c.credential_id.in_(before), _GONE)
                    return
        raise await self._unknown(tenant, setting_key)

    async def destroy_expired(self) -> int:
        """Destroy the values of superseded versions whose grace is over, and what they were under the old names that
        they were moved from; how many. No process uses them any more."""
        now = self._now()
        whose = select(credentials.c.tenant_id).where(_SUPERSEDED, credentials.c.grace_until <= now)
        async with self._database.read() as connection:
            rows = await connection.execute(select(tenants).where(tenants.c.id.in_(whose)).order_by(tenants.c.id))
            found = [tenant_from_row(row) for row in rows]
        return sum([await self._destroy_expired_of(tenant, now) for tenant in found])

    async def _destroy_expired_of(self, tenant: Tenant, now: datetime) -> int:
        over = (credentials.c.tenant_id == tenant.id) & _SUPERSEDED & (credentials.c.grace_until <= now)
        async with self._database.write() as connection:
            await hold_tenant(connection, tenant)
            ids = (await connection.execute(select(credentials.c.credential_id).where(over))).scalars().all()
            before = await moved_from(connection, tenant.id, ids)
            gone = credentials.c.credential_id.in_([*ids, *before])
            done = await connection.execute(update(credentials).where(gone).values(**_GONE, updated_at=now))
            return done.rowcount

    # --- reading

    async def list(self, tenant: Tenant) -> list[CredentialInfo]:
        """What the tenant holds: active keys by name, those that wait or are set aside, and legacy rows."""
        holdings = await self._reader.read(tenant)
        own = {holding.setting_key for holding in holdings if holding.store is Store.CREDENTIALS}
        aside = [row for row in await self._rows(tenant, _WAITING) if row.state != "active"]
        live = [info_of(holding, shadowed=holding.setting_key in own) for holding in holdings]
        stored = [one for one in live if one.store is Store.CREDENTIALS]
        legacy = [one for one in live if one.store is Store.LEGACY]
        return [*stored, *map(info_of_row, aside), *legacy]

    async def versions(self, tenant: Tenant, setting_key: str, label: str | None = None) -> Sequence[CredentialInfo]:
        """Every version that there ever was under this name, by label, newest first. CredentialUnknown without any."""
        if _can_be_asked(setting_key, label or ""):
            rows = await self._rows(tenant, _named(tenant, setting_key, label))
            if rows:
                return [info_of_row(row) for row in rows]
        raise await self._unknown(tenant, setting_key)

    async def _rows(self, tenant: Tenant, where: ColumnElement[bool]) -> Sequence[Row[Any]]:
        order = (credentials.c.setting_key, credentials.c.label, credentials.c.version.desc())
        async with self._database.read() as connection:
            chosen = select(credentials).where(credentials.c.tenant_id == tenant.id, where).order_by(*order)
            return (await connection.execute(chosen)).all()

    async def _one(self, tenant: Tenant, credential_id: str) -> CredentialInfo:
        held = [one for one in await self.list(tenant) if one.credential_id == credential_id]
        if held:
            return held[0]
        return info_of_row((await self._rows(tenant, credentials.c.credential_id == credential_id))[0])

    # --- parts of one transaction

    async def _newest(self, connection: AsyncConnection, named: ColumnElement[bool]) -> tuple[int, Row[Any] | None]:
        """The number of the newest version, and the active one."""
        last = await connection.execute(select(func.max(credentials.c.version)).where(named))
        active = await connection.execute(select(credentials).where(named, credentials.c.state == "active"))
        return last.scalar_one() or 0, active.first()

    async def _holds(self, connection: AsyncConnection, row: Row[Any], content: Opened) -> bool:
        """Whether this row is a seal over the very same."""
        place = Place(row.tenant_id, row.credential_id, row.setting_key)
        try:
            keys = await self._keys.all_of(connection, row.tenant_id)
            return self._keys.open(sealed_with(row.envelope, place, keys)) == content
        except EnvelopeDamaged:
            return False

    async def _supersede(self, connection: AsyncConnection, named: ColumnElement[bool], grace: timedelta) -> None:
        """The active version is one no more. Without grace for it, none before it stands in any more either."""
        now = self._now()
        if not grace:
            waiting = named & _SUPERSEDED & (credentials.c.grace_until > now)
            await connection.execute(update(credentials).where(waiting).values(grace_until=now, updated_at=now))
        ended = {"state": "superseded", "grace_until": now + grace, "updated_at": now}
        await connection.execute(update(credentials).where(named, credentials.c.state == "active").values(**ended))

    async def _new_row(
        self,
        connection: AsyncConnection,
        tenant: Tenant,
        setting_key: str,
        label: str,
        provider: Provider,
        content: Opened,
    ) -> dict[str, Any]:
        place = Place(tenant.id, str(uuid.UUID(bytes=self._random(16), version=4)), setting_key)
        value, now = content.secret.decode("utf-8"), self._now()
        return {
            "credential_id": place.credential_id,
            "tenant_id": tenant.id,
            "setting_key": setting_key,
            "provider_id": provider.id,
            "label": label,
            "envelope": await self._keys.seal(connection, content, place),
            "hint": hint_of(value),
            "fingerprint": self._keys.fingerprint(value),
            "source": "set",
            "created_at": now,
            "updated_at": now,
        }

    async def _write(
        self, connection: AsyncConnection, tenant: Tenant, where: ColumnElement[bool], values: Mapping[str, Any]
    ) -> None:
        changed = update(credentials).where(credentials.c.tenant_id == tenant.id, where)
        await connection.execute(changed.values(**values, updated_at=self._now()))
        await note_change(connection, Changed.TENANT, tenant.id, now=self._now())

    async def _unknown(self, tenant: Tenant, setting_key: str, of: str = "") -> CredentialUnknown:
        held = await self.list(tenant)
        if any(info.setting_key == setting_key and info.store is Store.CREDENTIALS for info in held):
            return CredentialUnknown(f"tenant {tenant.slug!r} has no key {setting_key!r}{of or ' with this label'}")
        if any(info.setting_key == setting_key for info in held):
            return CredentialUnknown(
                f"tenant {tenant.slug!r} has {setting_key!r} in tenant_settings, which Wardgate only reads;"
                " remove it with the application that wrote it"
            )
        near = did_you_mean(setting_key, {info.setting_key for info in held if info.store is Store.CREDENTIALS})
        return CredentialUnknown(f"tenant {tenant.slug!r} has no key {setting_key!r}{near}")

    def _owner(self, setting_key: str) -> Provider:
        provider = provider_for_setting(setting_key, self._registry)
        if provider is None:
            near = did_you_mean(setting_key, known_names(self._registry))
            raise SettingUnknown(f"no provider has a key of the name {setting_key!r}{near}")
        return provider


_SUPERSEDED: Final = credentials.c.state == "superseded"
_WAITING: Final = credentials.c.state.in_(("pending", "quarantined"))


def _named(tenant: Tenant, setting_key: str, label: str | None) -> ColumnElement[bool]:
    named = (credentials.c.tenant_id == tenant.id) & (credentials.c.setting_key == setting_key)
    return named if label is None else named & (credentials.c.label == label)


def _can_be_asked(setting_key: str, label: str = "", version: int = 1) -> bool:
    """Nothing else was ever stored, and PostgreSQL refuses to be asked."""
    return setting_key.isprintable() and label.isprintable() and 0 < version < 2**31


@dataclass(frozen=True, slots=True)
class _Turn:
    weight: int
    position: int


def _turn(active: Row[Any] | None, weight: int | None, position: int | None) -> _Turn:
    kept = _Turn(active.weight, active.position) if active is not None else _Turn(1, 0)
    return _Turn(kept.weight if weight is None else weight, kept.position if position is None else position)


def _check_expected(setting_key: str, expected: int | None, last: int) -> None:
    if expected is not None and expected != last:
        raise CredentialConflict(
            f"{setting_key} is at version {last}, not {expected}: somebody else changed it; look, then try again"
        )
