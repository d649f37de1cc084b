"""The keystore, opened: the one record through which the gateway reaches tenants, keys and tokens.

Owns the order of opening (file, schema, sealing keys, legacy table) and unsealing. Must not know HTTP, plans' content
or models.
"""

import asyncio
import functools
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from keystore.answer_room import MOST_KEPT
from keystore.answers import AnswerStore
from keystore.audit import AuditLog
from keystore.budget_spent import BudgetSpent
from keystore.budget_use import BudgetUse
from keystore.budgets import BudgetStore, TenantBudgets
from keystore.bulk_pauses import BulkPauses
from keystore.canonical import Proposer
from keystore.changes import clear_old_changes
from keystore.clock import Clock, Random, utc_now
from keystore.credential_info import CredentialInfo
from keystore.credentials import CredentialStore
from keystore.decisions import A_DAY, DecisionStore, Keeping
from keystore.doctor import Doctor
from keystore.engine import Database, make_room
from keystore.errors import CredentialUnusable, EnvelopeDamaged
from keystore.feed import ChangeFeed
from keystore.holdings import Holding, HoldingReader
from keystore.idempotency import IdempotencyStore
from keystore.importing.importer import Importer
from keystore.journal import Journal
from keystore.keyring import Credential, Keyring, build_keyring, order_of_trial
from keystore.leases import Leases
from keystore.ledger import LedgerStore, in_turn
from keystore.legacy import find_legacy
from keystore.limits import LimitStore, TenantLimits
from keystore.migrate import ensure_schema
from keystore.money_pruning import OldMoney
from keystore.moves import Moves
from keystore.names import Names
from keystore.outbox import Outbox
from keystore.price_releases import PriceReleases
from keystore.price_sources import PriceSources
from keystore.providers import Provider, Registry, filled
from keystore.remembered import Remembered
from keystore.replicas import Replicas
from keystore.resolve import UNUSABLE_BECAUSE, Found, Missing, NameTable, Unusable, known_names
from keystore.rings import LiveRing, open_ring
from keystore.rootkeys import SealingSource
from keystore.sealing_ops import SealingOps
from keystore.secret import Secret
from keystore.servicekeys import open_service_keys
from keystore.spending import Spending
from keystore.tenantkeys import Sealed, TenantKeys
from keystore.tenants import Tenant, TenantStore
from keystore.tending import each_in_turn
from keystore.tokens import Caller, NewToken, TokenInfo, TokenStore
from keystore.unsealed import Unsealed
from keystore.unusual import A_RULE, Rule
from keystore.usage import UsageStore
from keystore.use import KeyUse
from keystore.webhooks import WebhookStore

__all__ = [
    "Caller",
    "Credential",
    "CredentialInfo",
    "Keyring",
    "Keystore",
    "NewToken",
    "SealingSource",
    "Tenant",
    "TokenInfo",
]


LEAVING_S: Final = 2.0  # for what is said and written last
STOPPING_S: Final = 1.0  # for whoever listens to changes
NO_PLAN_BUDGETS: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Keystore:
    """What `open` gives. `legacy_note` is a sentence about a tenant_settings table that is there but cannot be read."""

    tenants: TenantStore
    credentials: CredentialStore
    tokens: TokenStore
    use: KeyUse
    audit: AuditLog
    sealing: SealingOps
    replicas: Replicas
    importing: Importer
    names: Names
    doctor: Doctor
    idempotency: IdempotencyStore
    decisions: DecisionStore
    ledger: LedgerStore
    old_money: OldMoney
    budgets: BudgetStore
    limits: LimitStore
    budget_use: BudgetUse
    budget_spent: BudgetSpent
    spending: Spending
    webhooks: WebhookStore
    outbox: Outbox
    answers: AnswerStore
    bulk_pauses: BulkPauses
    moves: Moves
    prices: PriceReleases
    price_sources: PriceSources
    leases: Leases
    usage: UsageStore
    registry: Registry
    lacking: tuple[str, ...]
    reads_legacy: bool
    legacy_note: str | None
    _database: Database
    _reader: HoldingReader
    _keys: TenantKeys
    _ring: LiveRing
    _remembered: Remembered
    _unsealed: Unsealed
    _now: Clock
    _random: Random

    @classmethod
    async def open(
        cls,
        *,
        database_url: str,
        sealing: SealingSource,
        registry: Registry,
        known_plans: Collection[str],
        create: bool,
        partial: bool = False,
        keeping: Keeping = A_DAY,
        ledger_kept: timedelta | None = None,
        answers_kept_bytes: int = MOST_KEPT,
        plan_budgets: Mapping[str, int] = NO_PLAN_BUDGETS,
        unusual: Rule = A_RULE,
        now: Clock = utc_now,
        random: Random = os.urandom,
    ) -> Self:
        """Open the database and check schema and sealing keys; with `create`, make what a first start lacks. Raises
        DatabaseUnavailable, SchemaBehind, SchemaNewer or a SealingError, each a sentence that helps. `partial` is for
        looking only: root keys that are in use may be missing (`lacking`), and what they wrap does not open.
        `ledger_kept` is how long rows of the ledger stay, `answers_kept_bytes` what each tenant's kept answers may
        take, `plan_budgets` are the plans' monthly budgets for the operator's keys, in nano-dollars, `unusual` says
        which spending is."""
        make_room(database_url, create=create)
        database = Database(database_url)
        try:
            await ensure_schema(database, create=create)
            opened = await open_ring(database, sealing, create=create, now=now, random=random, partial=partial)
            service = await open_service_keys(database, opened, now=now, random=random)
            legacy, legacy_note = await find_legacy(database, known_names(registry))
        except BaseException:
            await database.close()
            raise
        ring, replicas = LiveRing(database, sealing, opened), Replicas(database, now=now)
        keys = TenantKeys(ring, service, now=now, random=random)
        reader = HoldingReader(database, keys, registry, legacy)
        tenants = TenantStore(database, known_plans, now=now, random=random)
        token_store, names = TokenStore(database, service, now=now, random=random), NameTable(registry)

        spent, spending = BudgetSpent(plan_budgets, now=now), Spending(database, now=now, rule=unusual)
        use, budgets = KeyUse(database), BudgetStore(database, reached=spent.reached, now=now, random=random)
        limits = LimitStore(database, now=now)

        async def read_keyring(tenant: Tenant) -> Keyring:
            found = build_keyring(tenant.id, await reader.read(tenant, grace_at=now()), registry, names)
            spend, asked = await budgets.read(tenant.id), await limits.list(tenant)
            if spend or asked:
                return replace(found, budgets=TenantBudgets.of(spend), limits=TenantLimits.of(asked))
            return found

        remembered = Remembered(
            token_store,
            read_keyring,
            functools.partial(ChangeFeed, database),
            untold=legacy is not None,
            is_sqlite=database.is_sqlite,
        )
        return cls(
            tenants=tenants,
            credentials=CredentialStore(database, keys, reader, registry, now=now, random=random),
            tokens=token_store,
            use=use,
            names=Names(tenants, reader.read, use, registry, names),
            doctor=Doctor(database, keys, reader, use, registry, names, now=now),
            moves=Moves(database, keys, reader, tenants, Proposer(registry, names), now=now, random=random),
            audit=AuditLog(database, service, now=now),
            sealing=SealingOps(database, ring, replicas, now=now, random=random),
            replicas=replicas,
            importing=Importer(database, keys, reader, registry, tenants, known_plans, now=now, random=random),
            idempotency=IdempotencyStore(database, service, now=now),
            decisions=DecisionStore(database, keeping, now=now),
            ledger=LedgerStore(database, now=now, settle=in_turn(spending.counted, spent.counted), kept=ledger_kept),
            old_money=OldMoney(database, now=now, ledger_kept=ledger_kept),
            budgets=budgets,
            limits=limits,
            budget_use=BudgetUse(database, now=now),
            budget_spent=spent,
            spending=spending,
            webhooks=WebhookStore(database, service, now=now, random=random),
            outbox=Outbox(database, now=now),
            answers=AnswerStore(database, keys, service, now=now, random=random, most_bytes=answers_kept_bytes),
            bulk_pauses=BulkPauses(database, now=now),
            prices=PriceReleases(database, now=now),
            price_sources=PriceSources(database, now=now),
            leases=Leases(database, now=now),
            usage=UsageStore(database),
            registry=registry,
            lacking=opened.lacking,
            reads_legacy=legacy is not None,
            legacy_note=legacy_note,
            _database=database,
            _reader=reader,
            _keys=keys,
            _ring=ring,
            _remembered=remembered,
            _unsealed=Unsealed(time.monotonic),
            _now=now,
            _random=random,
        )

    async def keyring(self, tenant: Tenant) -> Keyring:
        """What `tenant` can use now, from both stores in at most five statements, or as it is remembered; every
        envelope was opened once."""
        return await self._remembered.keyring(tenant)

    async def authenticate(self, text: str, now: datetime) -> Caller:
        """Whose token this is at the time `now`, as TokenStore.authenticate, or as it is remembered."""
        return await self._remembered.authenticate(text, now)

    async def begin_serving(self) -> None:
        """Remember tokens and keyrings from here on, and hear of what changes."""
        await self.bulk_pauses.look()
        await clear_old_changes(self._database, utc_now())
        await self._remembered.feed.start()

    def watch_prices(self, moved: Callable[[], None]) -> None:
        """Have `moved` called when another price release may be live, on any process's word."""
        self._remembered.prices_moved = moved

    def hear(self) -> None:
        """Hear now of what other processes wrote; on PostgreSQL it is heard anyway."""
        self._remembered.feed.catch_up()

    def keys_in_turn(self, keyring: Keyring, provider_id: str) -> list[Holding]:
        """The tenant's keys for a provider in the order in which a request tries them, drawn anew each time. No I/O.
        CredentialUnusable when the keyring has none, naming what was looked for."""
        _, found = self._found(keyring, provider_id)
        return order_of_trial(keyring.choices[found.provider_id], self._now(), self._draw)

    def unseal(self, keyring: Keyring, provider_id: str, holding: Holding | None = None) -> Credential:
        """The tenant's key for a provider, ready to travel to hosts of that provider only; `holding` is one of
        `keys_in_turn`, by default the first by position. No I/O. CredentialUnusable as there."""
        row, found = self._found(keyring, provider_id)
        chosen = holding or keyring.choices[provider_id][0]
        provider = filled(row, chosen.fields)
        return Credential(
            provider_id=provider_id,
            secret=self._unsealed.of(chosen, self._secret),
            hosts=chosen.hosts & frozenset(provider.hosts),
            setting_key=chosen.setting_key,
            via=found.via,
            store=chosen.store,
            provider=provider,
            label=chosen.label,
            former=chosen.version if chosen.grace_until is not None else None,
        )

    def _found(self, keyring: Keyring, provider_id: str) -> tuple[Provider, Found]:
        resolution, provider = keyring.resolutions.get(provider_id), self.registry.get(provider_id)
        if resolution is None or provider is None:
            raise CredentialUnusable(f"there is no provider {provider_id!r} that may have traffic")
        if isinstance(resolution, Missing):
            raise CredentialUnusable(_nothing_found(resolution))
        return provider, resolution

    def _draw(self) -> float:
        return int.from_bytes(self._random(6)) / 2**48

    def _secret(self, holding: Holding) -> Secret:
        """The secret without the white space around it, which no header can carry."""
        if isinstance(holding.value, Sealed):
            try:
                return Secret(self._keys.open(holding.value).secret.decode("utf-8").strip())
            except EnvelopeDamaged:
                raise CredentialUnusable(_because(holding.setting_key, Unusable.DAMAGED)) from None
        if holding.value is None:
            raise CredentialUnusable(_because(holding.setting_key, holding.unusable or Unusable.EMPTY))
        return Secret(holding.value.reveal().strip())

    def journal(self, folder: Path | None, *, sync: bool = True) -> Journal:
        """This process's journal for the ledger, in `folder`, else beside SQLite's file, else in `var`. Raises
        JournalUnwritable when it cannot be there. `sync` as in Journal."""
        return Journal(self.journal_folder(folder), database=self._database.name, sync=sync)

    def journal_folder(self, folder: Path | None) -> Path:
        """Where the journals of this database are."""
        beside = self._database.path.parent if self._database.path else Path("var")
        return folder or beside / "journal"

    async def beat(self) -> None:
        """What a process that serves says every few seconds: that it lives, and which root keys it holds.
        DatabaseUnavailable."""
        await self.replicas.beat(self._ring.current.keys.ids)

    async def tend(self) -> dict[str, Exception]:
        """What a process that serves does every few seconds: read the ring again; see whose bulk is paused; write down
        what was used, and destroy what is over. What failed, by name: the ring is as it was then, and what was used is
        not forgotten. One that fails keeps none of the others back, unless the database is away."""
        self._unsealed.forget_old()
        return await each_in_turn(
            {
                "root keys": self._ring.refresh,
                "bulk pauses": self.bulk_pauses.look,
                "use of keys": self.use.flush,
                "use of tokens": self.tokens.flush_used,
                "credentials": self.credentials.destroy_expired,
                "decisions": self.decisions.expire,
                "answers": self.answers.expire,
                "ledger": self.ledger.expire,
                "spending": self.spending.expire,
                "money": self.old_money.expire,
            },
            self.ping,
        )

    async def ping(self) -> None:
        """One round trip to the database. DatabaseUnavailable when it does not answer."""
        await self._database.ping()

    @property
    def away(self) -> bool:
        """Whether the database did not answer when this process last listened for changes."""
        return self._remembered.feed.away

    async def close(self) -> dict[str, Exception]:
        """Say that this process stops, where it said that it lives, and close every connection. A database that does
        not answer is waited for a few seconds; what failed then, by name, is lost."""
        last = {"use of keys": self.use.flush, "use of tokens": self.tokens.flush_used, "replica": self.replicas.forget}
        leaving = asyncio.ensure_future(each_in_turn(last, self.ping))
        await asyncio.wait({leaving}, timeout=LEAVING_S)
        stopping = asyncio.ensure_future(self._remembered.feed.stop())
        await asyncio.wait({stopping}, timeout=STOPPING_S)
        if not (leaving.done() and stopping.done()):
            self._database.cut()
        failed, _ = await asyncio.gather(leaving, stopping)
        await self._database.close()
        return failed


def _nothing_found(missing: Missing) -> str:
    looked = f"{missing.provider_id} needs a key: looked for {', '.join(missing.tried)}"
    skipped = "; ".join(_because(each.setting_key, each.why) for each in missing.skipped)
    return f"{looked}; {skipped}" if skipped else looked


def _because(setting_key: str, why: Unusable) -> str:
    return f"{setting_key} is not used: {UNUSABLE_BECAUSE[why]}"
