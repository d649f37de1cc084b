"""Whose row it is: the ids of the old table and the tenants of Wardgate, and which tenants are lacking.

Owns the rules of spelling (those of keystore.legacy) and of making tenants: a plan is stated or read, never guessed.
Pure. Must not know databases.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from keystore.importing.source import TenantRow
from keystore.tenants import Tenant, as_uuid, canonical

_NOT_IN_SLUG: Final = re.compile(r"[^a-z0-9]+")
_SLUG_LENGTH: Final = 63


@dataclass(frozen=True, slots=True)
class Owner:
    """A row's tenant; `by_slug` when the row spells its slug and not its id."""

    tenant: Tenant
    by_slug: bool


@dataclass(frozen=True, slots=True)
class NewTenant:
    """A tenant that is to be made: `id` is what the old table knows it by."""

    id: str
    slug: str
    plan: str


@dataclass(frozen=True, slots=True)
class Lacking:
    """Ids of rows that belong to no tenant yet: to be made, and why the others are not."""

    create: tuple[NewTenant, ...] = ()
    unknown_plans: Mapping[str, int] = field(default_factory=dict)
    ambiguous: tuple[str, ...] = ()
    unmapped: tuple[str, ...] = ()


class Owners:
    """The tenants by every spelling that a row may use."""

    def __init__(self, tenants: Iterable[Tenant], rows: Sequence[TenantRow] | None, *, numbered: bool) -> None:
        self._tenants = list(tenants)
        self._rows = rows
        self._by_id = {tenant.id: tenant for tenant in self._tenants}
        self._by_slug = {tenant.slug: tenant for tenant in self._tenants}
        self._by_number = {canonical(each.id): each for each in self._tenants if numbered and each.id.isdecimal()}
        self._by_uuid = {found.hex: each for each in self._tenants if (found := as_uuid(each.id)) is not None}
        self._mapped = {canonical(row.id): row for row in self._unambiguous()}

    def of(self, stored: str | None) -> Owner | None:
        """The owner of a row with this tenant_id."""
        if stored is None:
            return None
        tenant = self._by_id.get(stored) or self._of_uuid(stored) or self._by_number.get(canonical(stored))
        if tenant is not None:
            return Owner(tenant, by_slug=False)
        row = self._mapped.get(canonical(stored))
        if row is not None:
            found = self._by_slug.get(row.slug)
            return Owner(found, by_slug=False) if found else None
        named = self._by_slug.get(stored)
        return Owner(named, by_slug=True) if named else None

    def lacking(self, ids: Iterable[str], plans: Collection[str], *, create: bool, plan: str | None) -> Lacking:
        """What is to be done about these ids, which have no tenant."""
        wanted: dict[str, NewTenant] = {}
        unknown: Counter[str] = Counter()
        unmapped: list[str] = []
        twice = set(self._slugs_told_twice())
        ambiguous = sorted(row.id for row in self._rows or () if row.slug in twice)
        for stored in sorted(set(ids)):
            row = self._mapped.get(canonical(stored))
            of_plan = (row.plan if row is not None and row.plan is not None else plan) or ""
            if self._rows is not None and row is None:
                unmapped.append(stored)
            elif of_plan and of_plan not in plans:
                unknown[of_plan] += 1
            elif not create or not of_plan:
                unmapped.append(stored)
            else:
                slug = row.slug if row is not None else _slug_of(stored)
                wanted.setdefault(canonical(stored), NewTenant(stored, slug, of_plan))
        return Lacking(tuple(wanted.values()), dict(unknown), tuple(ambiguous), tuple(unmapped))

    def _of_uuid(self, stored: str) -> Tenant | None:
        found = as_uuid(stored)
        return self._by_uuid.get(found.hex) if found and stored.lower() in (str(found), found.hex) else None

    def _slugs_told_twice(self) -> list[str]:
        told = Counter(row.slug for row in {canonical(row.id): row for row in self._rows or ()}.values())
        return [slug for slug, count in told.items() if count > 1]

    def _unambiguous(self) -> list[TenantRow]:
        """Two tenants of one slug are not one tenant: neither is followed."""
        twice = set(self._slugs_told_twice())
        return [row for row in self._rows or () if row.slug not in twice]


def _slug_of(stored: str) -> str:
    return _NOT_IN_SLUG.sub("-", stored.lower()).strip("-")[:_SLUG_LENGTH].strip("-")
