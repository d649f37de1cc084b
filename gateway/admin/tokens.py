"""Tokens over HTTP: list, show, make, rotate, revoke. A token is shown once, when it is made.

Owns that nobody makes an admin token that may do more than their own.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Query

from gateway.admin.calls import Call, OfCall
from gateway.admin.models import TokenMade, TokenNew, TokenOut, TokenQuery, TokenRevoked, TokenRotation
from gateway.admin.pages import Page, bad_cursor, page_of, place_after
from gateway.admin.parts import TokenId
from gateway.control.gate import NotAllowed, Operation
from keystore.rights import rights_of
from keystore.token_format import TokenKind
from keystore.tokens import NewToken, TokenInfo, TokenState

_FACTS = ("id", "kind", "tenant", "name", "created_at", "expires_at")
_MORE = ("scopes", "revoked_at", "allowed_models", "allowed_addresses", "replaced_by", "last_used_at", "sealed")


def token_out(info: TokenInfo) -> TokenOut:
    return TokenOut.model_validate({name: getattr(info, name) for name in _FACTS + _MORE})


def _made(new: NewToken) -> TokenMade:
    return TokenMade.model_validate({name: getattr(new, name) for name in (*_FACTS, "token")})


async def _refuse_more(
    call: Call, at: Operation, kind: TokenKind, scopes: Iterable[str], expires_at: datetime | None
) -> None:
    """An admin token is made by one that may do all that the new one may, from anywhere and as long. NotAllowed."""
    if kind is not TokenKind.ADMIN:
        return
    own = await at.keystore.tokens.get(call.caller.token_id)
    longer = own.expires_at is not None and (expires_at is None or expires_at > own.expires_at)
    if longer or call.caller.allowed_addresses or not rights_of(kind, scopes) <= call.caller.scopes:
        raise NotAllowed("this token may not make an admin token that may do more than itself")


async def list_tokens(call: OfCall, query: Annotated[TokenQuery, Query()]) -> Page[TokenOut]:
    """Tokens by their public id, oldest first."""
    place = place_after(query, str, str)
    after = (_time(str(place[0])), str(place[1])) if place else None
    state = TokenState(query.state) if query.state else None
    kind = TokenKind(query.kind) if query.kind else None

    async def work(at: Operation) -> Sequence[TokenInfo]:
        return await at.keystore.tokens.page(at.found, kind=kind, state=state, after=after, limit=query.limit + 1)

    found = await call.run(work, tenant=query.tenant)
    return page_of(found, query, token_out, lambda one: (one.created_at.isoformat(), one.id))


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise bad_cursor() from None


async def show_token(call: OfCall, token_id: TokenId) -> TokenOut:
    """One token, without its secret."""

    async def work(at: Operation) -> TokenInfo:
        return await at.keystore.tokens.get(token_id)

    return token_out(await call.run(work, target=token_id))


async def create_token(call: OfCall, body: TokenNew) -> TokenMade:
    """Make a token and show it once. A tenant's token names its tenant, an admin token names none."""

    async def work(at: Operation) -> NewToken:
        await _refuse_more(call, at, TokenKind(body.kind), body.scopes, body.expires_at)
        return await at.keystore.tokens.create(
            at.found,
            kind=body.kind,
            name=body.name,
            expires_at=body.expires_at,
            scopes=body.scopes,
            allowed_models=body.allowed_models,
            allowed_addresses=body.allowed_addresses,
        )

    return _made(
        await call.run(work, tenant=body.tenant, describe=lambda one: {"token": one.id, "kind": one.kind.value})
    )


async def rotate_token(call: OfCall, token_id: TokenId, body: TokenRotation) -> TokenMade:
    """Make a token with the same rights; the old one ends after the overlap."""

    async def work(at: Operation) -> NewToken:
        old = await at.keystore.tokens.get(token_id)
        await _refuse_more(call, at, old.kind, old.scopes, old.expires_at)
        return await at.keystore.tokens.rotate(token_id, overlap=timedelta(hours=body.overlap_hours))

    return _made(await call.run(work, target=token_id, describe=lambda one: {"token": one.id}))


async def revoke_token(call: OfCall, token_id: TokenId) -> TokenRevoked:
    """The token is refused from its next request on. Revoking it again changes nothing."""

    async def work(at: Operation) -> None:
        await at.keystore.tokens.revoke(token_id)

    await call.run(work, target=token_id)
    return TokenRevoked(id=token_id)
