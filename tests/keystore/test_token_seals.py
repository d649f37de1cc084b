"""The seal of a token's row: who can write SQL can neither make a token nor give one more rights (RELIABILITY 4.5)."""

import hashlib
from datetime import timedelta

import pytest

from keystore.errors import Refusal, TokenInvalid, TokenRefused
from keystore.keystore import Keystore, NewToken
from keystore.tenants import Tenant
from keystore.token_format import TokenKind, new_token
from tests.keystore.conftest import START, FakeClock, World

HOUR = timedelta(hours=1)


@pytest.fixture
async def tenant(keystore: Keystore) -> Tenant:
    return await keystore.tenants.add("acme", "team")


async def why_refused(keystore: Keystore, text: str) -> Refusal:
    with pytest.raises(TokenRefused) as refused:
        await keystore.tokens.authenticate(text, START)
    return refused.value.why


EDITS = [
    "scopes = 'inference keys:read keys:write'",
    "scopes = ''",
    "scopes = scopes || ' '",
    "tenant_id = 'other-tenant'",
    "name = 'another'",
    "kind = 'test'",
    "expires_at = NULL",
    "expires_at = created_at",
    "created_at = expires_at",
    "allowed_models = NULL",
    "allowed_models = '*'",
    "allowed_models = allowed_models || ' gpt-4o'",
    "allowed_addresses = NULL",
    "allowed_addresses = '0.0.0.0/0'",
    "replaced_by = 'abcdefghijkl'",
    "mac = NULL",
    "mac = hash",
    "mac_key_id = NULL",
    "mac_key_id = 'another'",
    "revoked_at = created_at",
]


@pytest.mark.parametrize("edit", EDITS)
async def test_edited_row_is_refused(world: World, keystore: Keystore, tenant: Tenant, edit: str) -> None:
    made = await keystore.tokens.create(
        tenant,
        expires_at=START + HOUR,
        scopes=["inference"],
        allowed_models=["gpt-4o-mini"],
        allowed_addresses=["10.0.0.0/8"],
    )
    await world.sql(
        "INSERT INTO wardgate_tenants VALUES ('other-tenant', 'other', '', 'team', NULL, :now, :now, NULL)",
        now="2026-11-20 12:00:00.000000" if world.is_sqlite else START,
    )
    await keystore.tokens.authenticate(made.token, START)
    await world.sql(f"UPDATE wardgate_tokens SET {edit}")
    of_another_kind = edit == "kind = 'test'"  # the token's own text says its kind
    assert await why_refused(keystore, made.token) is (Refusal.UNKNOWN if of_another_kind else Refusal.TAMPERED)
    assert [info.sealed for info in await keystore.tokens.list()] == [False]


async def test_revoked_token_cannot_be_brought_back(world: World, keystore: Keystore, tenant: Tenant) -> None:
    made = await keystore.tokens.create(tenant)
    await keystore.tokens.revoke(made.id)
    assert await why_refused(keystore, made.token) is Refusal.REVOKED
    await world.sql("UPDATE wardgate_tokens SET revoked_at = NULL")
    assert await why_refused(keystore, made.token) is Refusal.TAMPERED


async def test_minted_row_is_refused(world: World, keystore: Keystore, tenant: Tenant) -> None:
    """A thief who writes SQL knows the format, and has a good row to copy from."""
    good = await keystore.tokens.create(tenant)
    own = new_token(TokenKind.LIVE, lambda count: b"\x07" * count)
    columns = "kind, tenant_id, name, scopes, created_at, expires_at, revoked_at, mac, mac_key_id"
    await world.sql(
        f"INSERT INTO wardgate_tokens (id, hash, {columns}) SELECT :id, :hash, {columns} FROM wardgate_tokens",
        id=own.id,
        hash=own.hash,
    )
    assert await why_refused(keystore, own.text.reveal()) is Refusal.TAMPERED
    await world.sql("DELETE FROM wardgate_tokens WHERE id = :good", good=good.id)
    await world.sql("UPDATE wardgate_tokens SET mac = NULL, mac_key_id = NULL")
    assert await why_refused(keystore, own.text.reveal()) is Refusal.TAMPERED


async def test_hash_of_another_token_is_refused(world: World, keystore: Keystore, tenant: Tenant) -> None:
    victim, thief = await keystore.tokens.create(tenant), await keystore.tokens.create(tenant)
    secret = thief.token[len("wg_live_") + 13 : -6]
    await world.sql(
        "UPDATE wardgate_tokens SET hash = :hash WHERE id = :id",
        hash=hashlib.sha256(secret.encode()).digest(),
        id=victim.id,
    )
    assert await why_refused(keystore, victim.token) is Refusal.UNKNOWN
    await keystore.tokens.authenticate(thief.token, START)


async def test_revoking_a_spoiled_row_never_seals_it(world: World, keystore: Keystore, tenant: Tenant) -> None:
    made = await keystore.tokens.create(tenant)
    await world.sql("UPDATE wardgate_tokens SET scopes = 'keys:write'")
    await keystore.tokens.revoke(made.id)
    assert await why_refused(keystore, made.token) is Refusal.TAMPERED
    with pytest.raises(TokenInvalid, match="not as Wardgate wrote it"):
        await keystore.tokens.rotate(made.id, overlap=HOUR)


async def test_rows_of_before_there_were_seals_are_sealed_on_request(
    world: World, keystore: Keystore, tenant: Tenant
) -> None:
    old, spoiled = await keystore.tokens.create(tenant), await keystore.tokens.create(tenant, name="spoiled")
    await world.sql("UPDATE wardgate_tokens SET mac = NULL, mac_key_id = NULL WHERE name = ''")
    await world.sql("UPDATE wardgate_tokens SET scopes = 'keys:write' WHERE name = 'spoiled'")
    assert await why_refused(keystore, old.token) is Refusal.TAMPERED
    assert await keystore.tokens.seal_unsealed() == [old.id]
    await keystore.tokens.authenticate(old.token, START)
    assert await why_refused(keystore, spoiled.token) is Refusal.TAMPERED


async def rotated(keystore: Keystore, tenant: Tenant) -> tuple[NewToken, NewToken]:
    old = await keystore.tokens.create(
        tenant, name="ci", scopes=["keys:read"], allowed_models=["gpt-4o"], allowed_addresses=["10.1.2.3"]
    )
    return old, await keystore.tokens.rotate(old.id, overlap=HOUR)


async def test_rotated_token_has_the_same_rights_and_both_work_for_a_time(keystore: Keystore, tenant: Tenant) -> None:
    old, new = await rotated(keystore, tenant)
    before = await keystore.tokens.authenticate(old.token, START)
    after = await keystore.tokens.authenticate(new.token, START)
    assert after.scopes == before.scopes == frozenset({"keys:read"})
    assert after.allowed_models == before.allowed_models == ("gpt-4o",)
    assert after.allowed_addresses == ("10.1.2.3/32",)
    with pytest.raises(TokenRefused) as refused:
        await keystore.tokens.authenticate(old.token, START + HOUR)
    assert refused.value.why is Refusal.EXPIRED
    await keystore.tokens.authenticate(new.token, START + 2 * HOUR)
    assert [info.replaced_by for info in await keystore.tokens.list() if info.id == old.id] == [new.id]


async def test_token_is_rotated_once(keystore: Keystore, tenant: Tenant, clock: FakeClock) -> None:
    old, new = await rotated(keystore, tenant)
    with pytest.raises(TokenInvalid, match=f"was replaced by '{new.id}'"):
        await keystore.tokens.rotate(old.id, overlap=HOUR)
    await keystore.tokens.revoke(new.id)
    with pytest.raises(TokenInvalid, match="revoked or expired"):
        await keystore.tokens.rotate(new.id, overlap=HOUR)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"scopes": ["keys:raed"]}, 'did you mean "keys:read"'),
        ({"scopes": ["admin:write"]}, "has no scope 'admin:write'"),
        ({"allowed_addresses": ["10.0.0.1/8"]}, "no address or network"),
        ({"allowed_addresses": ["example.com"]}, "no address or network"),
        ({"allowed_models": ["gpt 4o"]}, "no model's name"),
    ],
)
async def test_rights_that_do_not_fit_are_refused(
    keystore: Keystore, tenant: Tenant, wrong: dict[str, list[str]], says: str
) -> None:
    with pytest.raises(TokenInvalid, match=says):
        await keystore.tokens.create(tenant, **wrong)  # type: ignore[arg-type]
