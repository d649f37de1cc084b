"""API tokens: made once, shown once, checked on every request.

Owns the statements on `tokens` and the order of the checks: checksum, look-up, secret, then revoked and expired. Must
not know HTTP, provider keys or plans.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, Select, insert, select, update

from keystore.clock import Clock, Random
from keystore.engine import Database
from keystore.errors import Refusal, TokenInvalid, TokenRefused, TokenUnknown
from keystore.tables import tenants, tokens
from keystore.tenants import Tenant
from keystore.token_format import TokenKind, is_token_id, new_token, parse_token

_TENANT_COLUMNS: Final = ("slug", "name", "plan", "default_model", "created_at")


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A token without its secret. `tenant` is the slug; admin tokens have none."""

    id: str
    kind: TokenKind
    tenant: str | None
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made: the one time that its text is known."""

    token: str = field(repr=False)
    id: str
    kind: TokenKind
    tenant: str | None
    name: str
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling. `tenant` is None for an admin token, and only for one."""

    token_id: str
    kind: TokenKind
    tenant: Tenant | None


class TokenStore:
    """Every statement on tokens; each method is one transaction. DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database, *, now: Clock, random: Random) -> None:
        self._database = database
        self._now = now
        self._random = random

    async def create(
        self,
        tenant: Tenant | None,
        *,
        kind: str = TokenKind.LIVE,
        name: str = "",
        expires_at: datetime | None = None,
        scopes: Sequence[str] = (),
    ) -> NewToken:
        """A new token of `tenant`, or of the operator when the kind is admin. TokenInvalid when these do not fit."""
        checked = _checked_kind(kind, tenant)
        now = self._now()
        _check_expiry(expires_at, now)
        made = new_token(checked, self._random)
        row = insert(tokens).values(
            id=made.id,
            kind=checked.value,
            tenant_id=tenant.id if tenant else None,
            name=name,
            scopes=" ".join(scopes),
            hash=made.hash,
            created_at=now,
            expires_at=expires_at,
        )
        async with self._database.write() as connection:
            await connection.execute(row)
        slug = tenant.slug if tenant else None
        return NewToken(made.text.reveal(), made.id, checked, slug, name, now, expires_at)

    async def list(self, tenant: Tenant | None = None) -> list[TokenInfo]:
        """The tokens of `tenant`, or all, oldest first."""
        query = _with_tenant().order_by(tokens.c.created_at, tokens.c.id)
        if tenant is not None:
            query = query.where(tokens.c.tenant_id == tenant.id)
        async with self._database.read() as connection:
            return [_info(row) for row in await connection.execute(query)]

    async def revoke(self, token_id: str) -> None:
        """The token is refused from now on; revoking it again changes nothing. TokenUnknown when there is none."""
        if not is_token_id(token_id):
            raise TokenUnknown(f"{token_id!r} is no token id; `wardgate token list` shows the ids")
        revoked = update(tokens).where(tokens.c.id == token_id, tokens.c.revoked_at.is_(None))
        async with self._database.write() as connection:
            present = await connection.execute(select(tokens.c.id).where(tokens.c.id == token_id))
            if present.first() is None:
                raise TokenUnknown(f"there is no token with the id {token_id!r}; `wardgate token list` shows the ids")
            await connection.execute(revoked.values(revoked_at=self._now()))

    async def authenticate(self, text: str, now: datetime) -> Caller:
        """Whose token this is at the time `now`. Raises TokenRefused with the reason; a malformed one costs no SQL, and
        revoked or expired is told only to who holds the secret."""
        token = parse_token(text)
        if token is None:
            raise TokenRefused(Refusal.MALFORMED)
        async with self._database.read() as connection:
            row = (await connection.execute(_with_tenant().where(tokens.c.id == token.id))).first()
        if row is None or row.kind != token.kind or not hmac.compare_digest(bytes(row.hash), token.hash):
            raise TokenRefused(Refusal.UNKNOWN)
        if row.revoked_at is not None:
            raise TokenRefused(Refusal.REVOKED)
        if row.expires_at is not None and row.expires_at <= now:
            raise TokenRefused(Refusal.EXPIRED)
        return Caller(row.id, token.kind, _tenant(row))


def _with_tenant() -> Select[Any]:
    labelled = [tenants.c[name].label(f"tenant_{name}") for name in _TENANT_COLUMNS]
    return select(tokens, *labelled).select_from(tokens.outerjoin(tenants, tokens.c.tenant_id == tenants.c.id))


def _tenant(row: Row[Any]) -> Tenant | None:
    if row.tenant_id is None:
        return None
    return Tenant(
        id=row.tenant_id,
        slug=row.tenant_slug,
        name=row.tenant_name,
        plan=row.tenant_plan,
        default_model=row.tenant_default_model,
        created_at=row.tenant_created_at,
    )


def _info(row: Row[Any]) -> TokenInfo:
    return TokenInfo(
        id=row.id,
        kind=TokenKind(row.kind),
        tenant=row.tenant_slug,
        name=row.name,
        scopes=tuple(row.scopes.split()),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


def _checked_kind(kind: str, tenant: Tenant | None) -> TokenKind:
    try:
        checked = TokenKind(kind)
    except ValueError:
        kinds = ", ".join(known.value for known in TokenKind)
        raise TokenInvalid(f"there is no kind of token {kind!r}; there are {kinds}") from None
    if checked is TokenKind.ADMIN and tenant is not None:
        raise TokenInvalid("an admin token belongs to no tenant")
    if checked is not TokenKind.ADMIN and tenant is None:
        raise TokenInvalid(f"a {checked.value} token needs a tenant")
    return checked


def _check_expiry(expires_at: datetime | None, now: datetime) -> None:
    if expires_at is None:
        return
    if expires_at.tzinfo is None:
        raise TokenInvalid("the time at which a token expires needs a zone")
    if expires_at <= now:
        raise TokenInvalid("the time at which the token expires is past")
