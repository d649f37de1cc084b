"""Limits of a tenant's own: what it, or one of its tokens, may ask at a time, where its plan does not decide alone.

Owns the shape of such a limit and the statements on `limits`. A tenant's takes the place of its plan's, a token's
stands beside the tenant's. Must not know how a limit is counted, plans, nor requests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Row, delete, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.carried import carried
from keystore.changes import Changed, note_change
from keystore.clock import Clock
from keystore.engine import Database
from keystore.errors import LimitInvalid, LimitUnknown
from keystore.money_tables import limits
from keystore.tables import UtcDateTime
from keystore.tenants import Tenant, check_token, hold_tenant

MOST: Final = 10_000_000_000  # beyond it Redis's numbers are no longer exact


class Limited(StrEnum):
    """What a limit bounds, as the plan's row calls it."""

    REQUESTS = "requests_per_minute"
    TOKENS = "tokens_per_minute"
    CONCURRENCY = "concurrency"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of a tenant's own, or of one of its tokens."""

    tenant_id: str
    token_id: str  # "": of all the tenant's tokens together
    limited: Limited
    amount: int  # a minute, or at the same time; 1 to MOST


_NONE: Final[Mapping[Limited, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """All limits that a tenant and its tokens have of their own, by what they bound."""

    of_tenant: Mapping[Limited, int]
    of_tokens: Mapping[str, Mapping[Limited, int]]  # by the token's id

    @classmethod
    def of(cls, found: Sequence[Limit]) -> "TenantLimits":
        """The same, put in order."""
        by_token: dict[str, dict[Limited, int]] = {}
        for each in found:
            by_token.setdefault(each.token_id, {})[each.limited] = each.amount
        return cls(by_token.pop("", _NONE), by_token)

    def of_token(self, token_id: str | None) -> Mapping[Limited, int]:
        """What this token has of its own."""
        return self.of_tokens.get(token_id or "", _NONE)


NO_LIMITS: Final = TenantLimits.of(())


class LimitStore:
    """Every statement on limits; each method is one transaction. DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database, *, now: Clock) -> None:
        self._database = database
        self._now = now

    async def set(self, tenant: Tenant, amounts: Mapping[str, int], *, token_id: str = "") -> Sequence[Limit]:
        """Limits of the tenant, or of one of its tokens, each in place of the one it has for the same; others stay.
        Those it has then. LimitInvalid, or TenantUnknown."""
        wanted = {_checked_name(name): _checked_amount(name, amount) for name, amount in amounts.items()}
        if not wanted:
            raise LimitInvalid(f"a limit bounds one of {_NAMES}; none is given")
        async with self._database.write() as connection:
            await hold_tenant(connection, tenant)  # writers of one tenant come one after another
            await check_token(connection, tenant, token_id, LimitInvalid)
            for limited, amount in wanted.items():
                values = {"amount": amount, "updated_at": self._now()}
                changed = update(limits).where(*_are(tenant, token_id), limits.c.limited == limited.value)
                if not (await connection.execute(changed.values(**values))).rowcount:
                    row = {"tenant_id": tenant.id, "token_id": token_id, "limited": limited.value}
                    await connection.execute(insert(limits).values(**row, **values, created_at=self._now()))
            rows = await connection.execute(select(limits).where(*_are(tenant, token_id)).order_by(limits.c.limited))
            found = [_from_row(row) for row in rows]
            await note_change(connection, Changed.TENANT, tenant.id, now=self._now())
        return found

    async def list(self, tenant: Tenant) -> Sequence[Limit]:
        """The tenant's own, then its tokens'."""
        query = select(limits).where(limits.c.tenant_id == tenant.id).order_by(limits.c.token_id, limits.c.limited)
        async with self._database.read() as connection:
            return [_from_row(row) for row in await connection.execute(query)]

    async def remove(self, tenant: Tenant, names: Sequence[str] = (), *, token_id: str = "") -> Sequence[Limit]:
        """The limits that are no more: these, or without names all that the tenant, or the token, has of its own.
        LimitUnknown says which there are, and nothing is removed."""
        wanted = [_checked_name(name) for name in names]
        async with self._database.write() as connection:
            await hold_tenant(connection, tenant)
            kept = [_from_row(row) for row in await connection.execute(select(limits).where(*_are(tenant, token_id)))]
            found = [each for each in kept if each.limited in wanted or not wanted]
            if not found or len(found) < len(set(wanted)):
                await check_token(connection, tenant, token_id, LimitUnknown)
                raise _unknown(tenant, token_id, wanted, kept)
            gone = limits.c.limited.in_([each.limited.value for each in found])
            await connection.execute(delete(limits).where(*_are(tenant, token_id), gone))
            await note_change(connection, Changed.TENANT, tenant.id, now=self._now())
        return sorted(found, key=lambda each: each.limited)


async def carry_limits(connection: AsyncConnection, tenant_id: str, old: str, new: str, now: datetime) -> None:
    """The token that takes another's place has its limits, each counted anew."""
    at = literal(now, UtcDateTime)
    if (await connection.execute(carried(limits, tenant_id, old, new, created_at=at, updated_at=at))).rowcount:
        await note_change(connection, Changed.TENANT, tenant_id, now=now)


_NAMES: Final = ", ".join(each.value for each in Limited)


def _are(tenant: Tenant, token_id: str) -> tuple[Any, ...]:
    return (limits.c.tenant_id == tenant.id, limits.c.token_id == token_id)


def _from_row(row: Row[Any]) -> Limit:
    return Limit(row.tenant_id, row.token_id, Limited(row.limited), row.amount)


def _unknown(tenant: Tenant, token_id: str, wanted: Sequence[Limited], kept: Sequence[Limit]) -> LimitUnknown:
    whose = f"the token {token_id!r} of tenant" if token_id else "the tenant"
    missing = ", ".join(each for each in wanted if each not in {one.limited for one in kept}) or "limit"
    there = f"; it has: {', '.join(each.limited for each in kept)}" if kept else ""
    return LimitUnknown(f"{whose} {tenant.slug!r} has no {missing} of its own{there}")


def _checked_name(name: str) -> Limited:
    if name not in set(Limited):
        raise LimitInvalid(f"a limit bounds one of {_NAMES}, not {name!r}")
    return Limited(name)


def _checked_amount(name: str, amount: int) -> int:
    if not 1 <= amount <= MOST:
        raise LimitInvalid(f"{name} is a whole number from 1 to {MOST:,}, not {amount}")
    return amount
