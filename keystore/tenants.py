"""Tenants: who the customers are, and which plan each is on.

Owns the statements on `tenants` and the rules of slugs and ids. Must not know keys, tokens or what a plan allows.
"""

import re
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.changes import Changed, note_change
from keystore.clock import Clock, Random
from keystore.engine import Database, Lock
from keystore.errors import KeystoreError, TenantExists, TenantInvalid, TenantUnknown, UnknownPlan, did_you_mean
from keystore.tables import tenant_names, tenants, tokens

_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_HEX: Final = re.compile(r"[0-9A-Fa-f]{32}")
_LOOKED_THROUGH: Final = 500  # slugs that are searched for a near one


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer. `id` is also what a tenant_settings table of the same database knows it by."""

    id: str
    slug: str
    name: str
    plan: str
    default_model: str | None
    created_at: datetime
    aliases: str | None = None  # its own names for models, as JSON text


class TenantStore:
    """Every statement on tenants; each method is one transaction. DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database, known_plans: Collection[str], *, now: Clock, random: Random) -> None:
        self._database = database
        self._known_plans = frozenset(known_plans)
        self._now = now
        self._random = random

    async def add(
        self,
        slug: str,
        plan: str,
        *,
        name: str | None = None,
        id: str | None = None,
        default_model: str | None = None,
    ) -> Tenant:
        """A new tenant; `id` defaults to a random UUID. Raises TenantInvalid, UnknownPlan or TenantExists."""
        self._check_plan(plan)
        tenant = Tenant(
            id=self._new_id() if id is None else _checked_id(id),
            slug=_checked_slug(slug),
            name=name or slug,
            plan=plan,
            default_model=default_model,
            created_at=self._now(),
        )
        try:
            await self._insert(tenant)
        except IntegrityError:
            raise _exists(slug, id) from None
        return tenant

    async def _insert(self, tenant: Tenant) -> None:
        """A row of tenant_settings is found by id or slug, so neither may be, in any spelling, another's id or slug:
        the database keeps the canonical names apart. Raises IntegrityError."""
        names = sorted({canonical(tenant.id), canonical(tenant.slug)})
        async with self._database.write(lock=Lock.TENANTS) as connection:
            await connection.execute(
                insert(tenants).values(
                    id=tenant.id,
                    slug=tenant.slug,
                    name=tenant.name,
                    plan=tenant.plan,
                    default_model=tenant.default_model,
                    created_at=tenant.created_at,
                    updated_at=tenant.created_at,
                )
            )
            await connection.execute(insert(tenant_names), [{"name": name, "tenant_id": tenant.id} for name in names])

    async def list(self) -> list[Tenant]:
        """Every tenant, by slug."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(tenants).order_by(tenants.c.slug))
            return [tenant_from_row(row) for row in rows]

    async def page(self, *, plan: str | None = None, after: str = "", limit: int = 100) -> Sequence[Tenant]:
        """At most `limit` tenants whose slug comes after `after`, by slug; of one plan if it is given."""
        query = select(tenants).where(tenants.c.slug > after).order_by(tenants.c.slug).limit(limit)
        if plan is not None:
            query = query.where(tenants.c.plan == plan)
        async with self._database.read() as connection:
            return [tenant_from_row(row) for row in await connection.execute(query)]

    async def count(self) -> int:
        """How many tenants there are."""
        async with self._database.read() as connection:
            return (await connection.execute(select(func.count()).select_from(tenants))).scalar_one()

    async def get(self, slug_or_id: str) -> Tenant:
        """The tenant of this slug or id. TenantUnknown names the nearest slug."""
        if _ID.fullmatch(slug_or_id):
            either = or_(tenants.c.slug == slug_or_id, tenants.c.id == _normal_id(slug_or_id))
            async with self._database.read() as connection:
                row = (await connection.execute(select(tenants).where(either))).first()
            if row is not None:
                return tenant_from_row(row)
        near = did_you_mean(slug_or_id, await self._slugs_like(slug_or_id))
        raise TenantUnknown(f"there is no tenant {slug_or_id!r}{near}")

    async def set_plan(self, slug: str, plan: str) -> Tenant:
        """The tenant, on another plan from now on. Raises UnknownPlan or TenantUnknown."""
        self._check_plan(plan)
        tenant = await self.get(slug)
        change = update(tenants).where(tenants.c.id == tenant.id).values(plan=plan, updated_at=self._now())
        async with self._database.write() as connection:
            await connection.execute(change)
            await note_change(connection, Changed.TENANT, tenant.id, now=self._now())
        return await self.get(tenant.id)

    async def edit_aliases(self, tenant: Tenant, edit: Callable[[str | None], str | None]) -> Tenant:
        """The tenant with the aliases that `edit` makes of those it has; what `edit` raises changes nothing."""
        async with self._database.write() as connection:
            await hold_tenant(connection, tenant)
            mine = tenants.c.id == tenant.id
            had = (await connection.execute(select(tenants.c.aliases).where(mine))).scalar_one()
            change = update(tenants).where(mine).values(aliases=edit(had), updated_at=self._now())
            await connection.execute(change)
            await note_change(connection, Changed.TENANT, tenant.id, now=self._now())
        return await self.get(tenant.id)

    async def plans_in_use(self) -> dict[str, int]:
        """How many tenants are on each plan that any tenant is on."""
        count = select(tenants.c.plan, func.count().label("tenants")).group_by(tenants.c.plan).order_by(tenants.c.plan)
        async with self._database.read() as connection:
            return {row.plan: row.tenants for row in await connection.execute(count)}

    def _check_plan(self, plan: str) -> None:
        if plan not in self._known_plans:
            known = ", ".join(sorted(self._known_plans)) or "none"
            raise UnknownPlan(f"there is no plan {plan!r}{did_you_mean(plan, self._known_plans)} (plans: {known})")

    async def _slugs_like(self, text: str) -> tuple[str, ...]:
        first = text[:1].lower()
        if not _SLUG.fullmatch(first):
            return ()
        begins = select(tenants.c.slug).where(tenants.c.slug.startswith(first, autoescape=True))
        async with self._database.read() as connection:
            return tuple((await connection.execute(begins.limit(_LOOKED_THROUGH))).scalars())

    def _new_id(self) -> str:
        return str(uuid.UUID(bytes=self._random(16), version=4))


async def hold_tenant(connection: AsyncConnection, tenant: Tenant) -> None:
    """Hold the tenant's row until the transaction ends: its keys change one after another, and no versions collide."""
    row = select(tenants.c.id).where(tenants.c.id == tenant.id).with_for_update(key_share=True)
    if (await connection.execute(row)).first() is None:
        raise TenantUnknown(f"there is no tenant {tenant.slug!r}")


async def check_token(connection: AsyncConnection, tenant: Tenant, token_id: str, error: type[KeystoreError]) -> None:
    """That the tenant has a token of this id, where one is given; else such an error, with a sentence."""
    mine = select(tokens.c.id).where(tokens.c.id == token_id, tokens.c.tenant_id == tenant.id)
    if token_id and (await connection.execute(mine)).first() is None:
        raise error(f"the tenant {tenant.slug!r} has no token {token_id!r}; `wardgate token list` shows them")


async def successive_tokens(connection: AsyncConnection, tenant_id: str, token_id: str) -> list[str]:
    """The token, and those that took each other's place before and after it: the first one first."""
    mine = (tokens.c.tenant_id == tenant_id, tokens.c.replaced_by.is_not(None))
    rows = await connection.execute(select(tokens.c.id, tokens.c.replaced_by).where(*mine))
    after = {row.id: row.replaced_by for row in rows}
    before = {new: old for old, new in after.items()}
    return [*_walked(before, token_id)[:0:-1], *_walked(after, token_id)]


def _walked(to: Mapping[str, str], first: str) -> list[str]:
    """Where it leads from here; a row that somebody spoiled may lead round."""
    found = {first: None}
    while (following := to.get(next(reversed(found)))) is not None and following not in found:
        found[following] = None
    return list(found)


def tenant_from_row(row: Row[Any]) -> Tenant:
    """A Tenant from a row that has the columns of `tenants`."""
    return Tenant(row.id, row.slug, row.name, row.plan, row.default_model, row.created_at, row.aliases)


def _checked_slug(slug: str) -> str:
    if not _SLUG.fullmatch(slug):
        raise TenantInvalid(f'{slug!r} is no slug: 1 to 63 of a-z, 0-9 and "-", beginning with a letter or digit')
    return slug


def _checked_id(tenant_id: str) -> str:
    if not _ID.fullmatch(tenant_id):
        raise TenantInvalid(f'{tenant_id!r} is no tenant id: 1 to 64 of letters, digits, "_" and "-"')
    return _normal_id(tenant_id)


def _normal_id(tenant_id: str) -> str:
    """A UUID in its usual spelling, any other id as it is."""
    found = as_uuid(tenant_id)
    return tenant_id if found is None else str(found)


def as_uuid(text: str) -> uuid.UUID | None:
    """The UUID that this spells, in either case and wherever its hyphens stand, or None."""
    digits = text.replace("-", "")
    return uuid.UUID(digits) if _HEX.fullmatch(digits) else None


def canonical(name: str) -> str:
    """One form for all the spellings of an id or slug that could be taken for each other: a UUID's 32 digits, a number
    without leading zeros, else lower case."""
    found = as_uuid(name)
    if found is not None:
        return found.hex
    return (name.lstrip("0") or "0") if name.isascii() and name.isdecimal() else name.casefold()


def _exists(slug: str, id: str | None) -> TenantExists:
    given = f'"{slug}" or "{id}"' if id else f'"{slug}"'
    return TenantExists(f"a tenant with the slug or id {given}, or a spelling of one, exists")
