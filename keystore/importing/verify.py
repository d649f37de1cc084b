"""The gates between taking over and scrubbing: everything is accounted for, opens to the same bytes, and answers alike.

Owns the comparison of table, journal and store. Must not know how anything was taken over.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.engine import Database
from keystore.errors import EnvelopeDamaged
from keystore.holdings import HoldingReader
from keystore.importing.apply import SOURCE
from keystore.importing.classify import KEPT, Outcome
from keystore.importing.journal import Noted
from keystore.importing.survey import Marks, Seen, Survey
from keystore.providers import Registry
from keystore.resolve import Found, HeldName, Missing, Store, Unusable, resolve
from keystore.sealing import Place
from keystore.tables import credentials
from keystore.tenantkeys import TenantKeys, sealed_with
from keystore.tenants import Tenant


@dataclass(frozen=True, slots=True)
class Rotate:
    """A key that lay in plain text and is to be made anew at its provider."""

    tenant: str
    provider: str
    setting_key: str
    hint: str
    state: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What the gates found. `passed` when nothing is in `failures`; `changed_since` are rows (tenant, name, place) that
    another application wrote since they were taken over."""

    rows: int
    outcomes: Mapping[str, int]
    credentials_opened: int
    per_tenant: Mapping[str, int]
    lookups: int
    removed_since: int
    gone: int
    scrubbed: int
    changed_since: tuple[tuple[str, str, str], ...]
    set_here: tuple[tuple[str, str], ...]
    failures: tuple[str, ...]
    rotate: tuple[Rotate, ...]

    @property
    def passed(self) -> bool:
        return not self.failures and not self.changed_since


@dataclass(frozen=True, slots=True)
class Verifier:
    """What the gates need."""

    database: Database
    keys: TenantKeys
    reader: HoldingReader
    registry: Registry
    marks: Marks
    in_place: bool

    async def run(self, seen: Survey, noted: Sequence[Noted], tenants: Sequence[Tenant]) -> Verified:
        """All gates, over the table as it is now."""
        found = _Findings(Accounts.of(seen, noted, in_place=self.in_place))
        by_id = {tenant.id: tenant for tenant in tenants}
        kept = defaultdict(list)
        for each in noted:
            if each.outcome in KEPT and each.tenant_id is not None:
                kept[each.tenant_id].append(each)
        for tenant_id in sorted(kept):
            await self._tenant(by_id[tenant_id], kept[tenant_id], found)
        return found.result()

    async def _tenant(self, tenant: Tenant, noted: Sequence[Noted], found: "_Findings") -> None:
        """One tenant: every credential opens to what was taken over, and look-ups answer as before."""
        async with self.database.read() as connection:
            stored = await self._stored(connection, tenant)
            keys = await self.keys.all_of(connection, tenant.id)
        for each in noted:
            row = stored.get(each.credential_id or "")
            if row is None:
                found.failures.append(f"{tenant.slug}: {each.name!r} at {each.place} has lost its credential")
            elif row.state == "removed":
                found.removed += 1
            elif not self._same(row, keys, each):
                found.failures.append(f"{tenant.slug}: {each.name!r} at {each.place} does not open to the same bytes")
            else:
                found.opened.add(row.credential_id)
        for row in stored.values():  # also what the table held before it was edited, which the journal forgets
            if row.source == SOURCE and row.fingerprint:
                found.rotate.add(Rotate(tenant.slug, row.provider_id, row.setting_key, row.hint, row.state))
        found.per_tenant[tenant.slug] = len(noted)
        if not any(each.scrubbed for each in noted):
            own = {row.setting_key for row in stored.values() if row.state == "active" and row.source != SOURCE}
            await self._lookups(tenant, own, found)

    async def _stored(self, connection: AsyncConnection, tenant: Tenant) -> dict[str, Row[Any]]:
        of_tenant = select(credentials).where(credentials.c.tenant_id == tenant.id)
        return {row.credential_id: row for row in await connection.execute(of_tenant)}

    def _same(self, row: Row[Any], keys: Mapping[str, Any], noted: Noted) -> bool:
        place = Place(row.tenant_id, row.credential_id, row.setting_key)
        try:
            opened = self.keys.open(sealed_with(row.envelope, place, dict(keys)))
        except EnvelopeDamaged:
            return False
        return self.marks.of_content(row.tenant_id, row.setting_key, opened.secret) == noted.content_mac

    async def _lookups(self, tenant: Tenant, own: set[str], found: "_Findings") -> None:
        """Every provider's look-up from the old table alone, and from the store alone; `own` are names set here, which
        answer before what was taken over."""
        old = found.accounts.held.get(tenant.id, {})
        holdings = [each for each in await self.reader.read(tenant) if each.store is Store.CREDENTIALS]
        found.set_here.update((tenant.slug, name) for name in own)
        new = {
            each.setting_key: HeldName(each.setting_key, Store.CREDENTIALS, each.unusable, each.fingerprint)
            for each in reversed(holdings)  # of several labels the first
        }
        for provider in self.registry.live():
            before, after = resolve(old, provider, self.registry), resolve(new, provider, self.registry)
            found.lookups += 1
            if _answer(before, old) != _answer(after, new) and not own & _names(before, after):
                found.failures.append(
                    f"{tenant.slug}: {provider.id} is answered otherwise than from the old table; run apply again, or"
                    " remove the key here if its old row was deleted"
                )


@dataclass(frozen=True, slots=True)
class Accounts:
    """Table against journal. `held` is what the old table answers with, by tenant and name; `uneven` tells when a
    tenant has not as many rows in one as in the other."""

    rows: int
    outcomes: Counter[str]
    unaccounted: list[Seen]
    changed: list[Seen]
    gone: int
    scrubbed: int
    held: Mapping[str, Mapping[str, HeldName]]
    uneven: bool

    @classmethod
    def of(cls, survey: Survey, noted: Sequence[Noted], *, in_place: bool) -> "Accounts":
        """Each row of the table is found in the journal by its mark, by its content if it moved, or as scrubbed."""
        by_row = {each.row_mac: each for each in noted}
        by_content = {each.content_mac: each for each in noted}
        places = {each.place for each in noted}
        blanked: set[object] = {(each.tenant_id, each.name) for each in noted if each.scrubbed}
        blanked |= {each.place for each in noted if each.scrubbed}
        outcomes: Counter[str] = Counter()
        gone = len(places - {seen.place for seen in survey.rows})
        changed: list[Seen] = []
        unaccounted: list[Seen] = []
        scrubbed = 0
        for seen in survey.rows:
            entry = by_row.get(seen.row_mac) or by_content.get(seen.content_mac)
            if entry is not None and entry.settles(seen):
                outcomes[entry.outcome.value] += 1
            elif seen.is_blank and (seen.group in blanked or (seen.tenant is None and seen.place in blanked)):
                scrubbed += 1
            elif in_place and seen.outcome is Outcome.SETTING:
                outcomes[seen.outcome.value] += 1
            else:
                (changed if seen.place in places else unaccounted).append(seen)
        return cls(
            rows=len(survey.rows),
            outcomes=outcomes,
            unaccounted=unaccounted,
            changed=changed,
            gone=gone,
            scrubbed=scrubbed,
            held=_held(survey),
            uneven=not (gone or changed or unaccounted or scrubbed) and _by_tenant(survey.groups) != _of_tenants(noted),
        )


@dataclass(slots=True)
class _Findings:
    accounts: Accounts
    failures: list[str] = field(default_factory=list)
    rotate: set[Rotate] = field(default_factory=set)
    opened: set[str] = field(default_factory=set)
    per_tenant: dict[str, int] = field(default_factory=dict)
    set_here: set[tuple[str, str]] = field(default_factory=set)
    removed: int = 0
    lookups: int = 0

    def result(self) -> Verified:
        accounts = self.accounts
        failures = list(self.failures)
        if accounts.unaccounted:
            failures.append(f"{len(accounts.unaccounted)} rows were never taken over; `wardgate import apply` does it")
        if accounts.uneven:
            failures.append("a tenant has not as many rows in the table as were taken over")
        total = sum(accounts.outcomes.values()) + accounts.scrubbed
        if total + len(accounts.unaccounted) + len(accounts.changed) != accounts.rows:
            failures.append(f"of {accounts.rows} rows, {total} are accounted for")
        return Verified(
            rows=accounts.rows,
            outcomes=dict(sorted(accounts.outcomes.items())),
            credentials_opened=len(self.opened),
            per_tenant=self.per_tenant,
            lookups=self.lookups,
            removed_since=self.removed,
            gone=accounts.gone,
            scrubbed=accounts.scrubbed,
            changed_since=tuple(_told(seen) for seen in accounts.changed),
            set_here=tuple(sorted(self.set_here)),
            failures=tuple(failures),
            rotate=tuple(sorted(self.rotate, key=lambda one: (one.tenant, one.setting_key, one.state, one.hint))),
        )


def _told(seen: Seen) -> tuple[str, str, str]:
    return (seen.tenant.slug if seen.tenant else seen.stored_id or "", seen.name, seen.place)


def _held(survey: Survey) -> dict[str, dict[str, HeldName]]:
    held: dict[str, dict[str, HeldName]] = defaultdict(dict)
    for group in survey.groups:
        tenant_id, name = group[-1].group
        why = group[-1].why
        unusable = None if why is None else Unusable(why) if why in set(Unusable) else Unusable.DAMAGED
        held[tenant_id][name] = HeldName(name, Store.LEGACY, unusable, group[-1].fingerprint)
    return held


def _by_tenant(groups: Sequence[Sequence[Seen]]) -> Counter[str]:
    return Counter(seen.tenant.id for group in groups for seen in group if seen.tenant)


def _of_tenants(noted: Sequence[Noted]) -> Counter[str]:
    return Counter(each.tenant_id for each in noted if each.tenant_id and each.outcome in KEPT)


def _answer(found: Found | Missing, held: Mapping[str, HeldName]) -> tuple[str, bytes] | None:
    return (found.setting_key, held[found.setting_key].fingerprint) if isinstance(found, Found) else None


def _names(*found: Found | Missing) -> set[str]:
    return {each.setting_key for each in found if isinstance(each, Found)}
