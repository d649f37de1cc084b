"""API tokens: made once, shown once, checked on every request.

Owns the statements on `tokens` and the order of the checks: checksum, look-up, secret, seal of the row, then revoked
and expired. Must not know HTTP, provider keys or plans.
"""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import ip_network
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, insert, not_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.budgets import carry_budgets
from keystore.changes import Changed, note_change
from keystore.clock import Clock, Random
from keystore.engine import Database
from keystore.errors import Refusal, TokenInvalid, TokenRefused, TokenUnknown
from keystore.limits import carry_limits
from keystore.rights import checked_scopes, rights_of
from keystore.servicekeys import Purpose, ServiceKey, ServiceKeys
from keystore.spending import carry_hours
from keystore.tables import tenants, tokens
from keystore.tenants import Tenant, hold_tenant
from keystore.token_format import TokenKind, TokenText, is_token_id, new_token, parse_token
from keystore.token_seal import seal_token, token_seal_holds

_RIGHTS: Final = ("kind", "tenant_id", "name", "scopes", "expires_at", "allowed_models", "allowed_addresses")
_TENANT_COLUMNS: Final = ("slug", "name", "plan", "default_model", "created_at", "aliases")


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
    allowed_models: tuple[str, ...]
    allowed_addresses: tuple[str, ...]
    replaced_by: str | None
    last_used_at: datetime | None
    sealed: bool  # False: its row is not as Wardgate wrote it, so it is refused


class TokenState(StrEnum):
    """Whether a token is good at some time."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


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
    """Who is calling. `tenant` is None for an admin token, and only for one. `scopes` are its rights in force; empty
    lists of models or addresses forbid nothing."""

    token_id: str
    kind: TokenKind
    tenant: Tenant | None
    scopes: frozenset[str] = frozenset()
    allowed_models: tuple[str, ...] = ()
    allowed_addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """A token that was found good, whatever the time."""

    caller: Caller
    expires_at: datetime | None

    def caller_at(self, now: datetime) -> Caller:
        """Who is calling. TokenRefused when the token has expired by then."""
        if self.expires_at is not None and self.expires_at <= now:
            raise TokenRefused(Refusal.EXPIRED)
        return self.caller


class TokenStore:
    """Every statement on tokens; each method is one transaction. DatabaseUnavailable when the database fails."""

    def __init__(self, database: Database, service: ServiceKeys, *, now: Clock, random: Random) -> None:
        self._database = database
        self._service = service
        self._now = now
        self._random = random
        self._used: dict[str, datetime] = {}

    @property
    def _key(self) -> ServiceKey:
        return self._service.get(Purpose.TOKEN)

    def note_used(self, token_id: str, at: datetime) -> None:
        """A request came with this token. No I/O: `flush_used` writes it."""
        self._used[token_id] = at

    async def flush_used(self) -> None:
        """Write when tokens were last used; one that was used later elsewhere stays as it is. While the database is
        away nothing is forgotten."""
        used = dict(self._used)
        if not used:
            return
        async with self._database.write() as connection:
            for token_id, at in sorted(used.items()):
                earlier = tokens.c.last_used_at.is_(None) | (tokens.c.last_used_at < at)
                change = update(tokens).where(tokens.c.id == token_id, earlier).values(last_used_at=at)
                await connection.execute(change)
        self._used = {token_id: at for token_id, at in self._used.items() if used.get(token_id) != at}

    async def create(
        self,
        tenant: Tenant | None,
        *,
        kind: str = TokenKind.LIVE,
        name: str = "",
        expires_at: datetime | None = None,
        scopes: Sequence[str] = (),
        allowed_models: Sequence[str] = (),
        allowed_addresses: Sequence[str] = (),
    ) -> NewToken:
        """A new token of `tenant`, or of the operator when the kind is admin; without scopes it has what its kind
        usually has. `allowed_addresses` are networks or addresses. TokenInvalid when these do not fit."""
        checked = _checked_kind(kind, tenant)
        now = self._now()
        _check_expiry(expires_at, now)
        rights = {
            "kind": checked.value,
            "tenant_id": tenant.id if tenant else None,
            "name": name,
            "scopes": " ".join(checked_scopes(checked, scopes)),
            "expires_at": expires_at,
            "allowed_models": " ".join(_checked_models(allowed_models)) or None,
            "allowed_addresses": " ".join(_checked_addresses(allowed_addresses)) or None,
        }
        made = new_token(checked, self._random)
        async with self._database.write() as connection:
            await self._insert(connection, made, rights, now)
        slug = tenant.slug if tenant else None
        return NewToken(made.text.reveal(), made.id, checked, slug, name, now, expires_at)

    async def _insert(
        self, connection: AsyncConnection, made: TokenText, rights: Mapping[str, Any], now: datetime
    ) -> None:
        row = {**rights, "id": made.id, "hash": made.hash, "created_at": now, "revoked_at": None, "replaced_by": None}
        await connection.execute(insert(tokens).values(**row, **self._seal(row)))

    def _seal(self, row: Mapping[str, Any]) -> dict[str, object]:
        return {"mac": seal_token(self._key.key, row), "mac_key_id": self._key.key_id}

    def _holds(self, row: Row[Any]) -> bool:
        return token_seal_holds(self._key.key, self._key.key_id, row._asdict())

    async def _change(self, connection: AsyncConnection, row: Row[Any], now: datetime, **changes: Any) -> None:
        """Change a row and seal it again; the seal of a row that somebody else changed stays broken."""
        after = {**row._mapping, **changes}
        sealed = self._seal(after) if self._holds(row) else {}
        await connection.execute(update(tokens).where(tokens.c.id == row.id).values(**changes, **sealed))
        await note_change(connection, Changed.TOKEN, row.id, now=now)

    async def rotate(self, token_id: str, *, overlap: timedelta) -> NewToken:
        """A new token with the same rights and limits, and budgets that both share; the old one ends after `overlap`.
        TokenUnknown, or TokenInvalid for one that is revoked, expired, replaced already, or not as Wardgate wrote it.
        """
        if overlap < timedelta(0):
            raise TokenInvalid("the overlap of two tokens is zero or more")
        now = self._now()
        async with self._database.write() as connection:
            row = await self._locked(connection, token_id)
            self._refuse_spent(row, now)
            made = new_token(TokenKind(row.kind), self._random)
            rights = {name: row._mapping[name] for name in _RIGHTS}
            await self._insert(connection, made, rights, now)
            if (tenant := _tenant(row)) is not None:
                await hold_tenant(connection, tenant)  # none of it is set meanwhile
                await carry_hours(connection, tenant.id, row.id, made.id)
                await carry_limits(connection, tenant.id, row.id, made.id, now)
                await carry_budgets(connection, tenant.id, row.id, made.id, now=now, random=self._random)
            ends = now + overlap if row.expires_at is None else min(row.expires_at, now + overlap)
            await self._change(connection, row, now, expires_at=ends, replaced_by=made.id)
        return NewToken(made.text.reveal(), made.id, made.kind, row.tenant_slug, row.name, now, row.expires_at)

    def _refuse_spent(self, row: Row[Any], now: datetime) -> None:
        if not self._holds(row):
            raise TokenInvalid(f"the row of the token {row.id!r} is not as Wardgate wrote it; make a new token instead")
        if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
            raise TokenInvalid(f"the token {row.id!r} is revoked or expired; make a new one")
        if row.replaced_by is not None:
            raise TokenInvalid(f"the token {row.id!r} was replaced by {row.replaced_by!r} already")

    async def seal_unsealed(self) -> list[str]:
        """Seal the rows that have no seal at all, as those of before seals existed; their ids. An operator's act: who
        could write the database may have made them."""
        async with self._database.write() as connection:
            rows = (await connection.execute(_with_tenant().where(tokens.c.mac.is_(None)))).all()
            for row in rows:
                seal = self._seal(row._mapping)
                await connection.execute(update(tokens).where(tokens.c.id == row.id).values(**seal))
            if rows:
                await note_change(connection, Changed.TOKEN, *(row.id for row in rows), now=self._now())
        return [row.id for row in rows]

    async def _locked(self, connection: AsyncConnection, token_id: str) -> Row[Any]:
        """The row, held until the transaction ends."""
        if is_token_id(token_id):
            query = _with_tenant().where(tokens.c.id == token_id).with_for_update(of=tokens)
            row: Row[Any] | None = (await connection.execute(query)).first()
            if row is not None:
                return row
            raise TokenUnknown(f"there is no token with the id {token_id!r}; `wardgate token list` shows the ids")
        raise TokenUnknown(f"{token_id!r} is no token id; `wardgate token list` shows the ids")

    async def list(self, tenant: Tenant | None = None) -> list[TokenInfo]:
        """The tokens of `tenant`, or all, oldest first."""
        query = _with_tenant().order_by(tokens.c.created_at, tokens.c.id)
        if tenant is not None:
            query = query.where(tokens.c.tenant_id == tenant.id)
        async with self._database.read() as connection:
            return [_info(row, sealed=self._holds(row)) for row in await connection.execute(query)]

    async def page(
        self,
        tenant: Tenant | None = None,
        *,
        kind: TokenKind | None = None,
        state: TokenState | None = None,
        after: tuple[datetime, str] | None = None,
        limit: int = 100,
    ) -> Sequence[TokenInfo]:
        """At most `limit` tokens that were made after the one made at `after` with that id, oldest first."""
        query = _with_tenant().order_by(tokens.c.created_at, tokens.c.id).limit(limit)
        if tenant is not None:
            query = query.where(tokens.c.tenant_id == tenant.id)
        if kind is not None:
            query = query.where(tokens.c.kind == kind.value)
        if state is not None:
            query = query.where(_in_state(state, self._now()))
        if after is not None:
            same_time = (tokens.c.created_at == after[0]) & (tokens.c.id > after[1])
            query = query.where((tokens.c.created_at > after[0]) | same_time)
        async with self._database.read() as connection:
            return [_info(row, sealed=self._holds(row)) for row in await connection.execute(query)]

    async def get(self, token_id: str) -> TokenInfo:
        """One token. TokenUnknown when there is none."""
        query = _with_tenant().where(tokens.c.id == token_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first() if is_token_id(token_id) else None
        if row is None:
            raise TokenUnknown
        return _info(row, sealed=self._holds(row))

    async def revoke(self, token_id: str) -> bool:
        """The token is refused from now on. False when it was revoked already, which changes nothing. TokenUnknown when
        there is none."""
        now = self._now()
        async with self._database.write() as connection:
            row = await self._locked(connection, token_id)
            if row.revoked_at is None:
                await self._change(connection, row, now, revoked_at=now)
            return row.revoked_at is None

    async def authenticate(self, text: str, now: datetime) -> Caller:
        """Whose token this is at the time `now`. Raises TokenRefused with the reason; a malformed one costs no SQL, and
        revoked or expired is told only to who holds the secret."""
        token = parse_token(text)
        if token is None:
            raise TokenRefused(Refusal.MALFORMED)
        return (await self.look_up(token)).caller_at(now)

    async def look_up(self, token: TokenText) -> Grant:
        """What the database says of a well-formed token. Raises TokenRefused with the reason."""
        async with self._database.read() as connection:
            row = (await connection.execute(_with_tenant().where(tokens.c.id == token.id))).first()
        if row is None or row.kind != token.kind or not hmac.compare_digest(bytes(row.hash), token.hash):
            raise TokenRefused(Refusal.UNKNOWN)
        if not self._holds(row):
            raise TokenRefused(Refusal.TAMPERED)
        if row.revoked_at is not None:
            raise TokenRefused(Refusal.REVOKED)
        caller = Caller(
            token_id=row.id,
            kind=token.kind,
            tenant=_tenant(row),
            scopes=rights_of(token.kind, row.scopes.split()),
            allowed_models=_words(row.allowed_models),
            allowed_addresses=_words(row.allowed_addresses),
        )
        return Grant(caller, row.expires_at)


def _with_tenant() -> Select[Any]:
    labelled = [tenants.c[name].label(f"tenant_{name}") for name in _TENANT_COLUMNS]
    return select(tokens, *labelled).select_from(tokens.outerjoin(tenants, tokens.c.tenant_id == tenants.c.id))


def _in_state(state: TokenState, now: datetime) -> ColumnElement[bool]:
    over = tokens.c.expires_at.is_not(None) & (tokens.c.expires_at <= now)
    conditions = {
        TokenState.REVOKED: tokens.c.revoked_at.is_not(None),
        TokenState.EXPIRED: tokens.c.revoked_at.is_(None) & over,
        TokenState.ACTIVE: tokens.c.revoked_at.is_(None) & not_(over),
    }
    return conditions[state]


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
        aliases=row.tenant_aliases,
    )


def _words(text: str | None) -> tuple[str, ...]:
    return tuple((text or "").split())


def _info(row: Row[Any], *, sealed: bool) -> TokenInfo:
    return TokenInfo(
        id=row.id,
        kind=TokenKind(row.kind),
        tenant=row.tenant_slug,
        name=row.name,
        scopes=tuple(row.scopes.split()),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        allowed_models=_words(row.allowed_models),
        allowed_addresses=_words(row.allowed_addresses),
        replaced_by=row.replaced_by,
        last_used_at=row.last_used_at,
        sealed=sealed,
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


def _checked_models(models: Iterable[str]) -> list[str]:
    for model in models:
        if not model or not model.isprintable() or " " in model:
            raise TokenInvalid(f"{model!r} is no model's name")
    return list(dict.fromkeys(models))


def _checked_addresses(addresses: Iterable[str]) -> list[str]:
    """Networks in their usual spelling: one address is a network of its own."""
    try:
        return list(dict.fromkeys(str(ip_network(address.strip())) for address in addresses))
    except ValueError as error:
        raise TokenInvalid(f"that is no address or network: {error}") from None


def _check_expiry(expires_at: datetime | None, now: datetime) -> None:
    if expires_at is None:
        return
    if expires_at.tzinfo is None:
        raise TokenInvalid("the time at which a token expires needs a zone")
    if expires_at <= now:
        raise TokenInvalid("the time at which the token expires is past")
