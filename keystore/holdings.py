"""What a tenant holds: the credentials table and the legacy table, read as one kind of record.

Owns the reading of both in at most three statements, and the judgement of each value (usable or why not). Must not know
which name wins for a provider; keystore.resolve decides that.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.engine import Database
from keystore.errors import EnvelopeDamaged
from keystore.legacy import LegacyStore, LegacyValue
from keystore.providers import Provider, Registry
from keystore.resolve import Store, Unusable, inspect_value, known_names, provider_for_setting
from keystore.sealing import Opened, Place
from keystore.secret import Secret
from keystore.tables import credentials
from keystore.tenantkeys import Sealed, TenantKeys, sealed_with
from keystore.tenants import Tenant

_HINT_FROM: Final = 20  # characters: of a shorter key, four would tell too much
_NOTHING: Final = Opened(b"", frozenset())
_ORDER: Final = (
    credentials.c.setting_key,
    credentials.c.state,  # "active" before "superseded"
    credentials.c.position,
    credentials.c.label,
    credentials.c.version.desc(),
)


@dataclass(frozen=True, slots=True)
class Holding:
    """One stored key, judged. `value` opens to the secret: an envelope, or the plain text of a legacy row; it is None
    exactly when `unusable` says why. `hosts` are those the secret may travel to."""

    setting_key: str
    provider_id: str | None
    store: Store
    unusable: Unusable | None
    fingerprint: bytes
    hosts: frozenset[str]
    hint: str
    version: int
    created_at: datetime | None
    updated_at: datetime | None
    value: Sealed | Secret | None = field(repr=False)
    credential_id: str | None = None  # None for a legacy row
    label: str = ""
    weight: int = 1
    position: int = 0
    grace_until: datetime | None = None  # of a superseded version: until when it stands in for its successor
    fields: Mapping[str, str] = field(default_factory=dict)  # no secrets
    source: str = "legacy"  # how it came


class HoldingReader:
    """Reads what a tenant holds. One transaction for each call."""

    def __init__(self, database: Database, keys: TenantKeys, registry: Registry, legacy: LegacyStore | None) -> None:
        self._database = database
        self._keys = keys
        self._legacy = legacy
        self._owners = {name: provider_for_setting(name, registry) for name in known_names(registry)}

    async def read(self, tenant: Tenant, *, grace_at: datetime | None = None) -> list[Holding]:
        """Everything `tenant` holds: active credentials by name and position, then legacy rows by name, shadowed ones
        too. With `grace_at` also superseded versions whose grace lasts beyond it, after the active ones of their
        name."""
        async with self._database.read() as connection:
            return await self.read_on(connection, tenant, grace_at=grace_at)

    async def read_on(
        self,
        connection: AsyncConnection,
        tenant: Tenant,
        *,
        grace_at: datetime | None = None,
        also: Collection[str] = (),
    ) -> list[Holding]:
        """`read` in a transaction that there is; `also` are ids of superseded rows to judge as if they were active."""
        wanted = credentials.c.state == "active"
        superseded = credentials.c.state == "superseded"
        if grace_at is not None:
            wanted |= superseded & (credentials.c.grace_until > grace_at)
        if also:
            wanted |= superseded & credentials.c.credential_id.in_(also)
        chosen = select(credentials).where(credentials.c.tenant_id == tenant.id, wanted)
        rows = (await connection.execute(chosen.order_by(*_ORDER))).all()
        keys = await self._keys.all_of(connection, tenant.id) if rows else {}
        legacy = await self._legacy.values(connection, tenant) if self._legacy else {}
        sealed = [self._judge_sealed(row, sealed_with(row.envelope, _place(row), keys)) for row in rows]
        return sealed + [self._judge_legacy(legacy[name]) for name in sorted(legacy)]

    def _judge_sealed(self, row: Row[Any], sealed: Sealed) -> Holding:
        owner = self._owners.get(row.setting_key)
        try:
            opened = self._keys.open(sealed)
            text = opened.secret.decode("utf-8")
            unusable, fingerprint = inspect_value(text), self._keys.fingerprint(text)
        except (EnvelopeDamaged, UnicodeDecodeError):
            opened, unusable, fingerprint = _NOTHING, Unusable.DAMAGED, b""
        return Holding(
            setting_key=row.setting_key,
            provider_id=owner.id if owner else row.provider_id,
            store=Store.CREDENTIALS,
            unusable=unusable,
            fingerprint=fingerprint,
            hosts=opened.hosts,
            hint=row.hint,
            version=row.version,
            created_at=row.created_at,
            updated_at=row.updated_at,
            value=None if unusable else sealed,
            credential_id=row.credential_id,
            label=row.label,
            weight=row.weight,
            position=row.position,
            grace_until=row.grace_until if row.state == "superseded" else None,
            fields=opened.fields,
            source=row.source,
        )

    def _judge_legacy(self, row: LegacyValue) -> Holding:
        """A plain value has no hosts of its own: it gets those of the provider whose name it is stored under."""
        owner = self._owners.get(row.setting_key)
        unusable = Unusable.DAMAGED if row.damaged else inspect_value(row.text)
        text = None if unusable else row.text
        return Holding(
            setting_key=row.setting_key,
            provider_id=owner.id if owner else None,
            store=Store.LEGACY,
            unusable=unusable,
            fingerprint=self._keys.fingerprint(text) if text else b"",
            hosts=hosts_of(owner),
            hint=hint_of(text or ""),
            version=0,
            created_at=row.created_at,
            updated_at=row.updated_at,
            value=Secret(text) if text else None,
        )


def by_name(holdings: Iterable[Holding]) -> Mapping[str, tuple[Holding, ...]]:
    """What is held under each name, in the order given: of the credentials table, or else of the legacy table."""
    chosen: dict[str, list[Holding]] = {}
    for holding in holdings:
        same_name = chosen.setdefault(holding.setting_key, [])
        if not same_name or same_name[0].store is holding.store:
            same_name.append(holding)
    return {name: tuple(same_name) for name, same_name in chosen.items()}


def hosts_of(provider: Provider | None) -> frozenset[str]:
    """Where keys of this provider may travel."""
    return frozenset(provider.hosts) if provider else frozenset()


def hint_of(value: str) -> str:
    """The last four characters of a key that is long enough to tell them; none of JSON, whose ends are alike."""
    text = value.strip()
    return text[-4:] if len(text) >= _HINT_FROM and not text.startswith("{") else ""


def _place(row: Row[Any]) -> Place:
    return Place(row.tenant_id, row.credential_id, row.setting_key)
