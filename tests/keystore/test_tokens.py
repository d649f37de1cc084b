"""Tokens in the database: who is let in, who is not and why, and at what cost."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from keystore.errors import Refusal, TokenInvalid, TokenRefused, TokenUnknown
from keystore.keystore import Caller, Keystore
from keystore.rights import checked_scopes, rights_of
from keystore.tenants import Tenant
from keystore.token_format import TokenKind, new_token
from tests.keystore.conftest import START, World

LATER = START + timedelta(hours=1)


@pytest.fixture
async def tenant(keystore: Keystore) -> Tenant:
    return await keystore.tenants.add("acme", "team")


async def refusal(keystore: Keystore, text: str, now: datetime = START) -> Refusal:
    with pytest.raises(TokenRefused) as refused:
        await keystore.tokens.authenticate(text, now)
    return refused.value.why


@pytest.fixture
async def statements(keystore: Keystore) -> AsyncIterator[list[str]]:
    """The SQL that is run from here on."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    engine = keystore._database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("kind", ["live", "test"])
async def test_caller_is_the_tenant_when_the_token_is_good(keystore: Keystore, tenant: Tenant, kind: str) -> None:
    made = await keystore.tokens.create(tenant, kind=kind, name="ci")
    assert made.token.startswith(f"wg_{kind}_{made.id}_")
    assert (made.tenant, made.name, made.created_at, made.expires_at) == ("acme", "ci", START, None)
    caller = await keystore.tokens.authenticate(made.token, START)
    assert caller == Caller(made.id, TokenKind(kind), tenant, frozenset({"inference"}))


async def test_caller_has_no_tenant_when_the_token_is_admin(keystore: Keystore) -> None:
    made = await keystore.tokens.create(None, kind="admin")
    rights = frozenset({"admin:read", "admin:write"})
    assert await keystore.tokens.authenticate(made.token, START) == Caller(made.id, TokenKind.ADMIN, None, rights)


async def test_caller_has_the_tenants_present_plan(keystore: Keystore, tenant: Tenant) -> None:
    made = await keystore.tokens.create(tenant)
    await keystore.tenants.set_plan("acme", "solo")
    caller = await keystore.tokens.authenticate(made.token, START)
    assert caller.tenant is not None
    assert caller.tenant.plan == "solo"


async def test_good_token_costs_one_select(keystore: Keystore, tenant: Tenant, statements: list[str]) -> None:
    made = await keystore.tokens.create(tenant)
    statements.clear()
    await keystore.tokens.authenticate(made.token, START)
    assert len([each for each in statements if each.startswith("SELECT")]) == 1


MALFORMED = [
    "",
    "x",
    "Bearer abc",
    "sk-123",
    "' OR '1'='1",
    "wg_live_",
    "wg_live_' UNION SELECT 1--",
    "\x00" * 70,
    "é" * 70,
]


async def test_malformed_token_costs_no_sql(keystore: Keystore, tenant: Tenant, statements: list[str]) -> None:
    made = await keystore.tokens.create(tenant)
    statements.clear()
    mistyped = [made.token[:-1] + "!", made.token[:-1], made.token.swapcase(), made.token + " "]
    for text in MALFORMED + mistyped + [f"wg_live_{'A' * 12}_{n:049d}" for n in range(500)]:
        assert await refusal(keystore, text) is Refusal.MALFORMED
    assert statements == []


async def test_token_is_unknown_when_never_made(keystore: Keystore) -> None:
    stranger = new_token(TokenKind.LIVE, lambda size: b"\x07" * size)
    assert await refusal(keystore, stranger.text.reveal()) is Refusal.UNKNOWN


async def test_token_is_unknown_when_only_its_id_is_right(keystore: Keystore, tenant: Tenant) -> None:
    """Also when it is revoked or expired: that is told only to who holds the secret."""
    made = await keystore.tokens.create(tenant, expires_at=LATER)
    draws = iter([b"\x00"])
    forged = new_token(TokenKind.LIVE, lambda size: next(draws, b"\x01") * size)
    text = forged.text.reveal().replace(forged.id, made.id)
    text = _with_checksum(text)
    assert await refusal(keystore, text) is Refusal.UNKNOWN
    await keystore.tokens.revoke(made.id)
    assert await refusal(keystore, text) is Refusal.UNKNOWN
    assert await refusal(keystore, text, LATER) is Refusal.UNKNOWN


async def test_token_is_unknown_when_it_claims_another_kind(keystore: Keystore, tenant: Tenant) -> None:
    made = await keystore.tokens.create(tenant)
    assert await refusal(keystore, _with_checksum(made.token.replace("wg_live_", "wg_admin_"))) is Refusal.UNKNOWN


async def test_token_is_refused_from_the_moment_it_expires(keystore: Keystore, tenant: Tenant) -> None:
    made = await keystore.tokens.create(tenant, expires_at=LATER)
    await keystore.tokens.authenticate(made.token, LATER - timedelta(microseconds=1))
    assert await refusal(keystore, made.token, LATER) is Refusal.EXPIRED
    assert await refusal(keystore, made.token, LATER + timedelta(days=365)) is Refusal.EXPIRED


async def test_token_is_refused_once_revoked(world: World, keystore: Keystore, tenant: Tenant) -> None:
    made = await keystore.tokens.create(tenant, expires_at=LATER)
    world.clock.advance(minutes=1)
    await keystore.tokens.revoke(made.id)
    assert await refusal(keystore, made.token) is Refusal.REVOKED
    assert await refusal(keystore, made.token, LATER) is Refusal.REVOKED
    world.clock.advance(minutes=1)
    await keystore.tokens.revoke(made.id)
    (listed,) = await keystore.tokens.list()
    assert listed.revoked_at == START + timedelta(minutes=1)


@pytest.mark.parametrize("token_id", ["A" * 12, "", "A" * 13, "a\x00" * 6, "' OR 1=1 --"])
async def test_revoking_is_refused_when_there_is_no_such_token(keystore: Keystore, token_id: str) -> None:
    with pytest.raises(TokenUnknown):
        await keystore.tokens.revoke(token_id)


async def test_list_shows_what_is_not_secret(world: World, keystore: Keystore, tenant: Tenant) -> None:
    other = await keystore.tenants.add("other", "solo")
    first = await keystore.tokens.create(tenant, name="first", scopes=["inference", "keys:read"])
    world.clock.advance(seconds=1)
    second = await keystore.tokens.create(other, kind="test")
    world.clock.advance(seconds=1)
    admin = await keystore.tokens.create(None, kind="admin", expires_at=LATER)
    assert [info.id for info in await keystore.tokens.list()] == [first.id, second.id, admin.id]
    (mine,) = await keystore.tokens.list(tenant)
    assert (mine.tenant, mine.name, mine.kind, mine.scopes) == (
        "acme",
        "first",
        TokenKind.LIVE,
        ("inference", "keys:read"),
    )
    shown = repr(await keystore.tokens.list())
    assert not any(made.token in shown or made.token[-49:-6] in shown for made in (first, second, admin))


async def test_database_holds_no_token(world: World, keystore: Keystore, tenant: Tenant) -> None:
    made = await keystore.tokens.create(tenant)
    rows = repr(await world.sql("SELECT * FROM wardgate_tokens"))
    assert made.id in rows
    assert made.token[-49:-6] not in rows
    assert made.token not in repr(made)


@pytest.mark.parametrize(
    ("kind", "with_tenant", "expires_at", "word"),
    [
        ("live", False, None, "needs a tenant"),
        ("test", False, None, "needs a tenant"),
        ("admin", True, None, "belongs to no tenant"),
        ("root", True, None, "live, test, admin"),
        ("live", True, START, "is past"),
        ("live", True, START.replace(tzinfo=None) + timedelta(days=1), "needs a zone"),
    ],
)
async def test_token_is_not_made_when_its_terms_do_not_fit(
    keystore: Keystore, tenant: Tenant, kind: str, with_tenant: bool, expires_at: datetime | None, word: str
) -> None:
    with pytest.raises(TokenInvalid, match=word):
        await keystore.tokens.create(tenant if with_tenant else None, kind=kind, expires_at=expires_at)
    assert await keystore.tokens.list() == []


async def test_expiry_is_kept_in_utc_when_given_in_another_zone(keystore: Keystore, tenant: Tenant) -> None:
    elsewhere = LATER.astimezone(datetime.fromisoformat("2026-01-01T00:00:00+05:30").tzinfo)
    made = await keystore.tokens.create(tenant, expires_at=elsewhere)
    await keystore.tokens.authenticate(made.token, LATER - timedelta(seconds=1))
    assert await refusal(keystore, made.token, LATER) is Refusal.EXPIRED
    (listed,) = await keystore.tokens.list()
    assert listed.expires_at == LATER


def _with_checksum(text: str) -> str:
    """The token with the checksum that its other characters ask for."""
    from keystore.token_format import _checksum

    body = text[:-6]
    return body + _checksum(body)


def test_scope_for_bulk_holds_the_data_plane_and_is_no_administrators() -> None:
    assert rights_of(TokenKind.LIVE, ["inference:bulk"]) == {"inference", "inference:bulk"}
    assert rights_of(TokenKind.LIVE, []) == rights_of(TokenKind.LIVE, ["inference"]) == {"inference"}
    assert rights_of(TokenKind.ADMIN, ["inference:bulk"]) == set()
    with pytest.raises(TokenInvalid):
        checked_scopes(TokenKind.ADMIN, ["inference:bulk"])
