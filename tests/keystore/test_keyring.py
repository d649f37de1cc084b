"""The keyring and unsealing: every live provider answered, keys bound to hosts, nothing without a secret."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event

from keystore.errors import CredentialUnusable
from keystore.keyring import Credential
from keystore.keystore import Keystore
from keystore.providers import load_registry
from keystore.resolve import Found, Missing, Store, Unusable, Via
from keystore.secret import Secret
from keystore.tenantkeys import Sealed
from keystore.tenants import Tenant
from tests.keystore.conftest import World

MOVED = {"minimax": {"base_url": "http://127.0.0.1:9200/v1", "hosts": ["127.0.0.1:9200"]}}
WIDER = {"minimax": {"hosts": ["api.minimax.io", "api2.minimax.io"]}}
GOOGLE, MINIMAX = (next(row for row in load_registry().providers if row.id == name) for name in ("google", "minimax"))
ACME: dict[str, Any] = {"wire": "openai", "api_key_env_var": "ACME_KEY"}
TWO_HOSTS = {
    "acme": {**ACME, "base_url": "https://api.acme.example/v1", "hosts": ["api.acme.example"]},
    "acme_eu": {**ACME, "base_url": "https://eu.acme.example/v1", "hosts": ["eu.acme.example"]},
}


@pytest.fixture
async def tenant(keystore: Keystore) -> Tenant:
    return await keystore.tenants.add("acme", "team")


async def with_rows(world: World, rows: dict[str, dict[str, Any]]) -> Keystore:
    return await world.open(registry=load_registry(rows))


# --- what a keyring has --------------------------------------------------------------------------------------------


async def test_keyring_answers_for_every_live_provider(keystore: Keystore, tenant: Tenant) -> None:
    ring = await keystore.keyring(tenant)
    assert list(ring.resolutions) == [provider.id for provider in keystore.registry.live()]
    assert all(isinstance(each, Missing) for each in ring.resolutions.values())
    assert ring.tenant_id == tenant.id


async def test_keyring_has_no_row_for_a_retired_provider(world: World) -> None:
    keystore = await with_rows(world, {"minimax": {"retired": True}})
    tenant = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-1")
    ring = await keystore.keyring(tenant)
    assert "minimax" not in ring.resolutions
    with pytest.raises(CredentialUnusable, match="'minimax'"):
        keystore.unseal(ring, "minimax")
    await keystore.close()


async def test_keyring_holds_no_key_of_another_tenant(keystore: Keystore, tenant: Tenant) -> None:
    other = await keystore.tenants.add("other", "team")
    await keystore.credentials.set(other, "MINIMAX_API_KEY", "mm-other")
    assert isinstance((await keystore.keyring(tenant)).resolutions["minimax"], Missing)


async def test_new_key_answers_at_once(keystore: Keystore, tenant: Tenant) -> None:
    await keystore.credentials.set(tenant, "MINIMAX_2_7_API_KEY", "mm-old")
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-new")
    ring = await keystore.keyring(tenant)
    credential = keystore.unseal(ring, "minimax")
    assert (credential.via, credential.secret.reveal()) == (Via.CANONICAL, "mm-new")
    found = ring.resolutions["minimax"]
    assert isinstance(found, Found)
    assert found.conflicts == ("MINIMAX_2_7_API_KEY",)


async def test_credential_says_how_it_was_found(keystore: Keystore, tenant: Tenant) -> None:
    await keystore.credentials.set(tenant, "GOOGLE_FLASH_API_KEY", "AIza-1")
    credential = keystore.unseal(await keystore.keyring(tenant), "google")
    assert credential == Credential(
        provider_id="google",
        secret=Secret("AIza-1"),
        hosts=frozenset({"generativelanguage.googleapis.com"}),
        setting_key="GOOGLE_FLASH_API_KEY",
        via=Via.FORMER,
        store=Store.CREDENTIALS,
        provider=GOOGLE,
    )
    assert "AIza-1" not in repr(credential)


async def test_key_for_https_is_none_for_http(world: World) -> None:
    keystore = await world.open()
    tenant = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-1")
    await keystore.close()
    clear = {"base_url": "http://api.minimax.io/v1", "hosts": ["http://api.minimax.io"]}
    keystore = await with_rows(world, {"minimax": clear})
    found = (await keystore.keyring(tenant)).resolutions["minimax"]
    assert [each.why for each in found.skipped] == [Unusable.WRONG_HOST]
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-2")
    credential = keystore.unseal(await keystore.keyring(tenant), "minimax")
    assert (credential.secret.reveal(), credential.hosts) == ("mm-2", frozenset({"http://api.minimax.io"}))
    await keystore.close()
    keystore = await world.open()
    found = (await keystore.keyring(tenant)).resolutions["minimax"]
    assert [each.why for each in found.skipped] == [Unusable.WRONG_HOST]
    await keystore.close()


# --- cost ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def statements(keystore: Keystore) -> AsyncIterator[list[str]]:
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    engine = keystore._database._engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


async def test_keyring_costs_five_selects_at_most_and_unsealing_none(world: World) -> None:
    await world.sql("CREATE TABLE tenant_settings (tenant_id TEXT, setting_key TEXT, setting_value TEXT)")
    keystore = await world.open()
    tenant = await keystore.tenants.add("acme", "team")
    for n, name in enumerate(("MINIMAX_API_KEY", "OPENAI_API_KEY", "GROQ_API_KEY", "MISTRAL_API_KEY")):
        await keystore.credentials.set(tenant, name, f"key-{n}")
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    event.listen(keystore._database._engine.sync_engine, "before_cursor_execute", note)
    ring = await keystore.keyring(tenant)
    assert len([each for each in seen if each.startswith("SELECT")]) == 5  # the last are its budgets and limits
    assert all("WHERE" in each for each in seen if each.startswith("SELECT"))
    seen.clear()
    for provider_id in ("minimax", "openai", "groq", "mistral"):
        keystore.unseal(ring, provider_id)
    assert seen == []
    await keystore.close()


async def test_keyring_costs_three_selects_when_the_tenant_holds_nothing(
    keystore: Keystore, tenant: Tenant, statements: list[str]
) -> None:
    await keystore.keyring(tenant)
    assert len([each for each in statements if each.startswith("SELECT")]) == 3


# --- hosts (T37) ---------------------------------------------------------------------------------------------------


async def test_key_is_not_used_when_the_provider_moved_to_another_host(world: World, keystore: Keystore) -> None:
    tenant = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-1")
    moved = await with_rows(world, MOVED)
    ring = await moved.keyring(tenant)
    found = ring.resolutions["minimax"]
    assert isinstance(found, Missing)
    assert [(each.setting_key, each.why) for each in found.skipped] == [("MINIMAX_API_KEY", Unusable.WRONG_HOST)]
    with pytest.raises(CredentialUnusable, match="sealed for other hosts"):
        moved.unseal(ring, "minimax")
    await moved.credentials.set(tenant, "MINIMAX_API_KEY", "mm-2")
    credential = moved.unseal(await moved.keyring(tenant), "minimax")
    assert (credential.secret.reveal(), credential.hosts) == ("mm-2", frozenset({"127.0.0.1:9200"}))
    await moved.close()


async def test_key_travels_to_no_host_that_came_later(world: World, keystore: Keystore) -> None:
    tenant = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-1")
    wider = await with_rows(world, WIDER)
    assert wider.unseal(await wider.keyring(tenant), "minimax").hosts == frozenset({"api.minimax.io"})
    await wider.close()


async def test_key_travels_to_no_host_that_was_taken_away(world: World, keystore: Keystore) -> None:
    wider = await with_rows(world, WIDER)
    tenant = await wider.tenants.add("acme", "team")
    await wider.credentials.set(tenant, "MINIMAX_API_KEY", "mm-1")
    assert wider.unseal(await wider.keyring(tenant), "minimax").hosts == frozenset(
        {"api.minimax.io", "api2.minimax.io"}
    )
    await wider.close()
    assert keystore.unseal(await keystore.keyring(tenant), "minimax").hosts == frozenset({"api.minimax.io"})


@pytest.mark.parametrize("legacy", [False, True])
async def test_key_of_a_shared_variable_stays_with_one_host(world: World, legacy: bool) -> None:
    """Two rows of one variable and two hosts: a key stored under the variable belongs to the first, never to both."""
    await world.sql("CREATE TABLE tenant_settings (tenant_id TEXT, setting_key TEXT, setting_value TEXT)")
    keystore = await with_rows(world, TWO_HOSTS)
    tenant = await keystore.tenants.add("customer", "team")
    if legacy:
        await world.sql("INSERT INTO tenant_settings VALUES ('customer', 'ACME_KEY', 'ac-1')")
    else:
        await keystore.credentials.set(tenant, "ACME_KEY", "ac-1")
    ring = await keystore.keyring(tenant)
    assert keystore.unseal(ring, "acme").hosts == frozenset({"api.acme.example"})
    elsewhere = ring.resolutions["acme_eu"]
    assert isinstance(elsewhere, Missing)
    assert [each.why for each in elsewhere.skipped] == [Unusable.WRONG_HOST]
    await keystore.close()


# --- nothing without a secret --------------------------------------------------------------------------------------


async def test_refusal_names_what_was_looked_for(keystore: Keystore, tenant: Tenant) -> None:
    ring = await keystore.keyring(tenant)
    with pytest.raises(CredentialUnusable) as refused:
        keystore.unseal(ring, "minimax")
    assert str(refused.value) == "minimax needs a key: looked for MINIMAX_API_KEY, MINIMAX_2_7_API_KEY"
    with pytest.raises(CredentialUnusable):
        keystore.unseal(ring, "nobody")


async def test_environment_is_never_asked(keystore: Keystore, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MINIMAX_API_KEY", "MINIMAX_2_7_API_KEY"):
        monkeypatch.setenv(name, "operators-own-key")
    ring = await keystore.keyring(tenant)
    assert isinstance(ring.resolutions["minimax"], Missing)
    with pytest.raises(CredentialUnusable):
        keystore.unseal(ring, "minimax")


async def test_unsealing_is_refused_when_what_the_keyring_carries_was_changed(
    keystore: Keystore, tenant: Tenant
) -> None:
    """A keyring may be kept a while; the envelope in it is opened again for each use."""
    await keystore.credentials.set(tenant, "MINIMAX_API_KEY", "mm-1")
    ring = await keystore.keyring(tenant)
    (holding,) = ring.choices["minimax"]
    assert isinstance(holding.value, Sealed)
    elsewhere = replace(holding.value, place=replace(holding.value.place, tenant_id="other"))
    for value in (elsewhere, None):
        changed = replace(ring, choices={"minimax": (replace(holding, value=value),)})
        with pytest.raises(CredentialUnusable, match="MINIMAX_API_KEY is not used"):
            keystore.unseal(changed, "minimax")
    assert keystore.unseal(ring, "minimax").secret == Secret("mm-1")


@pytest.mark.parametrize("secret", [None, "", "mm-1", b"mm-1"])
def test_credential_cannot_be_built_without_a_secret(secret: Any) -> None:
    with pytest.raises(TypeError):
        Credential(
            "minimax",
            secret,
            frozenset({"api.minimax.io"}),
            "MINIMAX_API_KEY",
            Via.CANONICAL,
            Store.CREDENTIALS,
            MINIMAX,
        )


def test_credential_cannot_be_built_without_hosts() -> None:
    with pytest.raises(ValueError, match="hosts"):
        Credential("minimax", Secret("mm-1"), frozenset(), "MINIMAX_API_KEY", Via.CANONICAL, Store.CREDENTIALS, MINIMAX)
