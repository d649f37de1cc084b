"""Tenants' provider keys: stored sealed, replaced by new versions, listed without their values.

Owns the writing statements on `credentials` and what may be stored. Must not know which key answers for a provider, and
never gives a value back.
"""

import re
import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, insert, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.changes import Changed, note_change
from keystore.clock import Clock, Random
from keystore.engine import Database
from keystore.errors import CredentialRefused, CredentialUnknown, SettingUnknown, did_you_mean
from keystore.holdings import Holding, HoldingReader, hint_of, hosts_of
from keystore.providers import Provider, Registry
from keystore.resolve import UNUSABLE_BECAUSE, Store, Unusable, inspect_value, known_names, provider_for_setting
from keystore.sealing import Opened, Place
from keystore.tables import credentials
from keystore.tenantkeys import TenantKeys
from keystore.tenants import Tenant, hold_tenant


@dataclass(frozen=True, slots=True)
class CredentialInfo:
    """A stored key without its value. `hint` is its end, or "". Legacy rows have version 0; `state` is "shadowed" for a
    legacy row whose name the credentials table holds too. `unusable` says why the value is never used, if it is not."""

    setting_key: str
    provider_id: str | None
    version: int
    state: str
    hint: str
    created_at: datetime | None
    updated_at: datetime | None
    store: Store
    unusable: Unusable | None


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

    async def set(self, tenant: Tenant, setting_key: str, value: str) -> CredentialInfo:
        """Seal `value`, byte for byte, as the new active version under this name; the one before is superseded. It may
        travel to the hosts that the name's provider has today. Raises SettingUnknown or CredentialRefused."""
        provider = self._owner(setting_key)
        _refuse_unusable(setting_key, value)
        _refuse_unlike(setting_key, value, provider)
        place = Place(tenant.id, str(uuid.UUID(bytes=self._random(16), version=4)), setting_key)
        content = Opened(value.encode("utf-8"), hosts_of(provider))
        now = self._now()
        async with self._database.write() as connection:
            await hold_tenant(connection, tenant)
            version = await self._supersede(connection, place, now)
            envelope = await self._keys.seal(connection, content, place)
            await connection.execute(
                insert(credentials).values(
                    credential_id=place.credential_id,
                    tenant_id=tenant.id,
                    setting_key=setting_key,
                    provider_id=provider.id,
                    version=version,
                    state="active",
                    label="",
                    envelope=envelope,
                    hint=hint_of(value),
                    fingerprint=self._keys.fingerprint(value),
                    source="set",
                    created_at=now,
                    updated_at=now,
                )
            )
            await note_change(connection, Changed.TENANT, tenant.id, now=now)
        return CredentialInfo(
            setting_key, provider.id, version, "active", hint_of(value), now, now, Store.CREDENTIALS, None
        )

    async def _supersede(self, connection: AsyncConnection, place: Place, now: datetime) -> int:
        """End the active version; the number of the next."""
        same_name = (credentials.c.tenant_id == place.tenant_id) & (credentials.c.setting_key == place.setting_key)
        last = await connection.execute(select(func.max(credentials.c.version)).where(same_name))
        await connection.execute(
            update(credentials)
            .where(same_name, credentials.c.state == "active")
            .values(state="superseded", updated_at=now)
        )
        return (last.scalar_one() or 0) + 1

    async def list(self, tenant: Tenant) -> list[CredentialInfo]:
        """What the tenant holds, legacy rows after its own."""
        holdings = await self._reader.read(tenant)
        own = {holding.setting_key for holding in holdings if holding.store is Store.CREDENTIALS}
        return [_info(holding, shadowed=holding.setting_key in own) for holding in holdings]

    async def remove(self, tenant: Tenant, setting_key: str) -> None:
        """Forget the active value under this name and destroy every version's envelope. A legacy row of the same name
        is not touched, and answers again. CredentialUnknown when the credentials table holds no such name."""
        named = (credentials.c.tenant_id == tenant.id) & (credentials.c.setting_key == setting_key)
        gone = {
            "state": "removed",
            "envelope": null(),
            "hint": "",
            "fingerprint": b"",
            "quarantine": null(),
            "updated_at": self._now(),
        }
        if setting_key.isprintable():  # nothing else was ever stored, and PostgreSQL refuses to be asked
            async with self._database.write() as connection:
                await hold_tenant(connection, tenant)
                active = await connection.execute(
                    select(credentials.c.version).where(named, credentials.c.state == "active")
                )
                if active.first() is not None:
                    await connection.execute(update(credentials).where(named).values(**gone))
                    await note_change(connection, Changed.TENANT, tenant.id, now=self._now())
                    return
        raise await self._unknown(tenant, setting_key)

    async def _unknown(self, tenant: Tenant, setting_key: str) -> CredentialUnknown:
        held = await self.list(tenant)
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


def _refuse_unusable(setting_key: str, value: str) -> None:
    why = inspect_value(value)
    if why is not None:
        raise CredentialRefused(f"the value for {setting_key} is not stored: {UNUSABLE_BECAUSE[why]}")


def _refuse_unlike(setting_key: str, value: str, provider: Provider) -> None:
    pattern = provider.key_pattern
    if pattern is not None and not re.fullmatch(pattern, value.strip()):
        raise CredentialRefused(
            f"the value for {setting_key} is not stored: it does not look like a key of {provider.name}"
        )


def _info(holding: Holding, *, shadowed: bool) -> CredentialInfo:
    return CredentialInfo(
        setting_key=holding.setting_key,
        provider_id=holding.provider_id,
        version=holding.version,
        state="shadowed" if shadowed and holding.store is Store.LEGACY else "active",
        hint=holding.hint,
        created_at=holding.created_at,
        updated_at=holding.updated_at,
        store=holding.store,
        unusable=holding.unusable,
    )
