"""Names over time: who is still found under an old name, who holds two keys for one provider, who breaks by a change.

Owns the walk over all tenants. Must not know how a name is chosen (keystore.resolve) or what a change means
(keystore.impact). Never shows a value.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime

from keystore.holdings import Holding, hosts_of
from keystore.impact import Change, compare
from keystore.keyring import Keyring, build_keyring
from keystore.providers import Registry, no_provider, setting_key_of
from keystore.resolve import Found, NameTable, Store, Via, provider_for_setting
from keystore.tenants import Tenant, TenantStore
from keystore.use import KeyUse

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class OldName:
    """A tenant whose key for a provider is found under another name than the canonical one."""

    tenant: str
    provider_id: str
    setting_key: str
    canonical: str
    via: Via
    store: Store
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class NameVerdict:
    """A former name of a provider, and the tenants that still need it; none: it is safe to retire."""

    provider_id: str
    setting_key: str
    tenants: tuple[str, ...]

    @property
    def safe(self) -> bool:
        return not self.tenants


@dataclass(frozen=True, slots=True)
class Report:
    """All old names that are in use, and the verdict on each former name that any row has."""

    uses: tuple[OldName, ...]
    verdicts: tuple[NameVerdict, ...]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two different usable values behind one provider; `winner` is the name that answers, and why."""

    tenant: str
    provider_id: str
    winner: str
    via: Via
    others: tuple[str, ...]


class Names:
    """Reads every tenant in turn. DatabaseUnavailable when the database fails."""

    def __init__(
        self,
        tenants: TenantStore,
        read: Callable[[Tenant], Awaitable[list[Holding]]],
        use: KeyUse,
        registry: Registry,
        table: NameTable,
    ) -> None:
        self._tenants = tenants
        self._read = read
        self._use = use
        self._registry = registry
        self._table = table

    async def keyring(self, tenant: Tenant) -> Keyring:
        """What the tenant can use, read at this moment."""
        return self._keyring(tenant, await self._read(tenant), self._registry, self._table)

    async def report(self, provider_id: str | None = None, progress: Progress = lambda done, total: None) -> Report:
        """Who is on an old name, for one provider (by its id or a former one) or all. RegistryError when there is no
        such provider."""
        if provider_id is not None:
            row = self._registry.successor(provider_id)
            if row is None:
                raise no_provider(provider_id, self._registry)
            provider_id = row.id
        uses: list[OldName] = []
        async for tenant, holdings in self._each(progress):
            keyring = self._keyring(tenant, holdings, self._registry, self._table)
            old = [found for found in _found(keyring) if found.via is not Via.CANONICAL]
            old = [found for found in old if provider_id in (None, found.provider_id)]
            used = await self._last_used(tenant) if old else {}
            uses += [_old_name(tenant, found, used) for found in old]
        return Report(tuple(uses), tuple(self._verdicts(uses, provider_id)))

    async def conflicts(self, progress: Progress = lambda done, total: None) -> list[Conflict]:
        """Every pair of a tenant and a provider with two different values."""
        return [
            Conflict(tenant.slug, found.provider_id, found.setting_key, found.via, found.conflicts)
            async for tenant, holdings in self._each(progress)
            for found in _found(self._keyring(tenant, holdings, self._registry, self._table))
            if found.conflicts
        ]

    async def impact(self, after: Registry, progress: Progress = lambda done, total: None) -> list[Change]:
        """What would change for whom if the rows were these."""
        table, changes = NameTable(after), list[Change]()
        async for tenant, holdings in self._each(progress):
            before = self._keyring(tenant, holdings, self._registry, self._table)
            then = [_owned_anew(holding, after) for holding in holdings]
            changes += compare(tenant.slug, before, self._keyring(tenant, then, after, table), after)
        return changes

    def _verdicts(self, uses: list[OldName], provider_id: str | None) -> list[NameVerdict]:
        needed: dict[tuple[str, str], list[str]] = {}
        for use in uses:
            needed.setdefault((use.provider_id, use.setting_key), []).append(use.tenant)
        return [
            NameVerdict(row.id, name, tuple(needed.get((row.id, name), ())))
            for row in self._registry.live()
            if provider_id in (None, row.id)
            for name in map(setting_key_of, row.former_ids)
        ]

    @staticmethod
    def _keyring(tenant: Tenant, holdings: list[Holding], registry: Registry, table: NameTable) -> Keyring:
        return build_keyring(tenant.id, holdings, registry, table)

    async def _each(self, progress: Progress) -> AsyncIterator[tuple[Tenant, list[Holding]]]:
        tenants = await self._tenants.list()
        for done, tenant in enumerate(tenants, start=1):
            yield tenant, await self._read(tenant)
            progress(done, len(tenants))

    async def _last_used(self, tenant: Tenant) -> dict[tuple[str, str], datetime]:
        return {(use.key.setting_key, use.key.provider_id): use.last_used_at for use in await self._use.of(tenant.id)}


def _owned_anew(holding: Holding, registry: Registry) -> Holding:
    """A legacy row has the hosts of whoever owns its name, so of the new rows; a sealed key keeps its own."""
    if holding.store is not Store.LEGACY:
        return holding
    return replace(holding, hosts=hosts_of(provider_for_setting(holding.setting_key, registry)))


def _found(keyring: Keyring) -> list[Found]:
    return [one for one in keyring.resolutions.values() if isinstance(one, Found)]


def _old_name(tenant: Tenant, found: Found, used: dict[tuple[str, str], datetime]) -> OldName:
    return OldName(
        tenant.slug,
        found.provider_id,
        found.setting_key,
        setting_key_of(found.provider_id),
        found.via,
        found.store,
        used.get((found.setting_key, found.provider_id)),
    )
