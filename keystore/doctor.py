"""The key doctor: reads all that is stored of one tenant's keys and has it examined.

Owns the statement on credentials of every state, and the judgement of pending and quarantined versions, which nothing
else opens. Gives a secret out in one way only: as a Credential, for a look at what the provider says. Must not know
plans (a function says what they allow), HTTP or who asks.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Row, or_, select

from keystore.clock import Clock
from keystore.engine import Database
from keystore.errors import EnvelopeDamaged
from keystore.examining import examine
from keystore.health import KeyHealth, Reading, State, StoredKey, Yardstick
from keystore.holdings import Holding, HoldingReader
from keystore.keyring import Credential, build_keyring
from keystore.providers import Provider, Registry, filled
from keystore.resolve import NameTable, Store, Unusable, Via, inspect_value, provider_for_setting
from keystore.sealing import Opened, Place
from keystore.secret import Secret
from keystore.tables import credentials
from keystore.tenantkeys import Sealed, TenantKeys, sealed_with
from keystore.tenants import Tenant
from keystore.use import KeyUse
from keystore.ways import Commands, Ways

_NOTHING: Final = Opened(b"", frozenset())
_WAITING: Final = (State.PENDING.value, State.QUARANTINED.value)


@dataclass(frozen=True, slots=True)
class _Held:
    """A stored key beside its value, as far as it opens."""

    key: StoredKey
    secret: Secret | None = field(repr=False)


class Doctor:
    """Reads in two transactions for each tenant. DatabaseUnavailable when the database fails."""

    def __init__(
        self,
        database: Database,
        keys: TenantKeys,
        reader: HoldingReader,
        use: KeyUse,
        registry: Registry,
        names: NameTable,
        *,
        now: Clock,
    ) -> None:
        self._database = database
        self._keys = keys
        self._reader = reader
        self._use = use
        self._registry = registry
        self._names = names
        self._now = now

    async def examine(
        self,
        tenant: Tenant,
        plan_allows: Callable[[str], bool],
        plan_instead: Callable[[str], str | None] = lambda _: None,
        can_look: Callable[[str], bool] = lambda _: True,
        ways: Ways | None = None,
    ) -> list[KeyHealth]:
        """The health of every key that is stored for `tenant`: those in use by name, legacy rows, then versions that
        wait, stand in or are quarantined. The functions, by provider id, and `ways` are as in Yardstick."""
        holdings = await self._reader.read(tenant)
        keyring = build_keyring(tenant.id, holdings, self._registry, self._names)
        reading = Reading(
            tenant=tenant.slug,
            plan=tenant.plan,
            stored=[held.key for held in await self._held(tenant, holdings)],
            resolutions=keyring.resolutions,
            uses=await self._use.of(tenant.id),
        )
        said = ways or Commands()
        return examine(reading, Yardstick(self._registry, self._names, plan_allows, plan_instead, can_look, said))

    async def credentials(self, tenant: Tenant, wanted: Sequence[KeyHealth]) -> list[Credential | None]:
        """The keys themselves, each for the provider that it may be tried at; None where there is no such provider, or
        the key is not stored as it was when it was examined."""
        held = {_identity(each.key): each for each in await self._held(tenant, await self._reader.read(tenant))}
        return [self._credential(health, held.get(_identity(health.key))) for health in wanted]

    def _credential(self, health: KeyHealth, held: _Held | None) -> Credential | None:
        row = self._registry.get(health.may_ask) if health.may_ask else None
        if row is None or held is None or held.secret is None:
            return None
        try:
            provider = filled(row, held.key.fields)
        except (KeyError, ValueError):
            return None
        hosts = held.key.hosts & frozenset(provider.hosts)
        if not hosts:
            return None
        return Credential(
            provider_id=row.id,
            secret=held.secret,
            hosts=hosts,
            setting_key=held.key.setting_key,
            via=dict(self._names.names.get(row.id, ())).get(held.key.setting_key, Via.CANONICAL),
            store=held.key.store,
            provider=provider,
            label=held.key.label,
            former=held.key.version if held.key.state is State.GRACE else None,
        )

    async def _held(self, tenant: Tenant, holdings: Sequence[Holding]) -> list[_Held]:
        held = {_identity(each.key): each for each in map(self._of_holding, holdings)}
        for each in await self._waiting(tenant):
            held.setdefault(_identity(each.key), each)
        return list(held.values())

    def _of_holding(self, holding: Holding) -> _Held:
        secret = self._secret(holding.value)
        key = StoredKey(
            setting_key=holding.setting_key,
            store=holding.store,
            label=holding.label,
            version=holding.version,
            hint=holding.hint,
            unusable=holding.unusable,
            fits=self._fits(holding.setting_key, secret),
            hosts=holding.hosts,
            fields=holding.fields,
            fingerprint=holding.fingerprint,
            source=holding.source,
            created_at=holding.created_at,
            updated_at=holding.updated_at,
        )
        return _Held(key, secret)

    async def _waiting(self, tenant: Tenant) -> list[_Held]:
        """Versions that are not in use but may be, or may be looked for: pending, quarantined, in their grace."""
        stands_in = (credentials.c.state == State.GRACE.value) & (credentials.c.grace_until > self._now())
        query = (
            select(credentials)
            .where(credentials.c.tenant_id == tenant.id, or_(credentials.c.state.in_(_WAITING), stands_in))
            .order_by(credentials.c.setting_key, credentials.c.label, credentials.c.version)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
            keys = await self._keys.all_of(connection, tenant.id) if rows else {}
        return [self._of_row(row, sealed_with(row.envelope, _place(row), keys)) for row in rows]

    def _of_row(self, row: Row[Any], sealed: Sealed) -> _Held:
        """A version that is not in use, judged as if it were. A quarantined one was judged by the import."""
        state = State(row.state)
        opened, secret, unusable = self._judge(sealed, quarantined=state is State.QUARANTINED)
        key = StoredKey(
            setting_key=row.setting_key,
            store=Store.CREDENTIALS,
            label=row.label,
            version=row.version,
            state=state,
            hint=row.hint,
            unusable=unusable,
            fits=self._fits(row.setting_key, secret),
            hosts=opened.hosts,
            fields=opened.fields,
            fingerprint=row.fingerprint,
            source=row.source,
            quarantine=row.quarantine,
            grace_until=row.grace_until,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )
        return _Held(key, secret)

    def _judge(self, sealed: Sealed, *, quarantined: bool) -> tuple[Opened, Secret | None, Unusable | None]:
        try:
            opened = self._keys.open(sealed)
            if quarantined:
                return opened, None, None
            text = opened.secret.decode("utf-8")
        except (EnvelopeDamaged, UnicodeDecodeError):
            return _NOTHING, None, Unusable.DAMAGED
        unusable = inspect_value(text)
        return opened, (None if unusable else Secret(text.strip())), unusable

    def _secret(self, value: Sealed | Secret | None) -> Secret | None:
        """The value without the white space around it, which no header can carry."""
        if isinstance(value, Secret):
            return Secret(value.reveal().strip())
        return self._judge(value, quarantined=False)[1] if value is not None else None

    def _fits(self, setting_key: str, secret: Secret | None) -> bool | None:
        owner: Provider | None = provider_for_setting(setting_key, self._registry)
        if owner is None or owner.key_pattern is None or secret is None:
            return None
        return re.fullmatch(owner.key_pattern, secret.reveal()) is not None


def _identity(key: StoredKey) -> tuple[Store, str, str, int]:
    return key.store, key.setting_key, key.label, key.version


def _place(row: Row[Any]) -> Place:
    return Place(row.tenant_id, row.credential_id, row.setting_key)
