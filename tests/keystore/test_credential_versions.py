"""Versions, labels and fields of provider keys: put, activate, grace, order of trial, and who is told of a conflict."""

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Event
from typing import Any

import pytest

from keystore.errors import CredentialConflict, CredentialRefused, CredentialUnknown
from keystore.keyring import order_of_trial
from keystore.keystore import Keystore
from keystore.providers import load_registry
from keystore.resolve import Found, Missing, Unusable
from keystore.tenants import Tenant
from tests.keystore.conftest import START, World

NAME = "MINIMAX_API_KEY"
HOUR = timedelta(hours=1)
AZURE: dict[str, Any] = {
    "wire": "openai",
    "base_url": "https://{resource}.openai.example/v1",
    "hosts": ["{resource}.openai.example", "{resource}.services.example"],
    "fields": {"resource": "the resource's name"},
    "tenant_base_url": True,
}


@pytest.fixture
async def tenant(keystore: Keystore) -> Tenant:
    return await keystore.tenants.add("acme", "team")


async def in_turn(keystore: Keystore, tenant: Tenant, provider_id: str = "minimax") -> list[str]:
    ring = await keystore.keyring(tenant)
    keys = keystore.keys_in_turn(ring, provider_id)
    return [keystore.unseal(ring, provider_id, key).secret.reveal() for key in keys]


async def states(world: World) -> list[tuple[Any, ...]]:
    return await world.sql(
        "SELECT version, state, envelope IS NULL FROM wardgate_credentials ORDER BY setting_key, label, version"
    )


# --- versions ------------------------------------------------------------------------------------------------------


async def test_same_value_again_makes_no_version(world: World, keystore: Keystore, tenant: Tenant) -> None:
    first = await keystore.credentials.set(tenant, NAME, "mm-1")
    assert await keystore.credentials.set(tenant, NAME, "mm-1") == first
    assert len(await states(world)) == 1
    assert (await keystore.credentials.set(tenant, NAME, "mm-1 ")).version == 2  # byte for byte
    assert (await keystore.credentials.set(tenant, NAME, "mm-1 ", weight=5)).weight == 5
    assert len(await states(world)) == 2


async def test_same_value_is_bound_anew_when_the_providers_hosts_have_changed(world: World) -> None:
    keystore = await world.open()
    tenant = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(tenant, NAME, "mm-1")
    await keystore.close()
    moved = await world.open(
        registry=load_registry({"minimax": {"base_url": "https://new.example/v1", "hosts": ["new.example"]}})
    )
    assert isinstance((await moved.keyring(tenant)).resolutions["minimax"], Missing)
    assert (await moved.credentials.set(tenant, NAME, "mm-1")).version == 2
    assert await in_turn(moved, tenant) == ["mm-1"]
    await moved.close()


async def test_version_waits_until_it_is_activated(world: World, keystore: Keystore, tenant: Tenant) -> None:
    await keystore.credentials.set(tenant, NAME, "mm-1")
    pending = await keystore.credentials.set(tenant, NAME, "mm-2", activate=False)
    assert (pending.version, pending.state) == (2, "pending")
    assert await in_turn(keystore, tenant) == ["mm-1"]
    assert [(info.version, info.state) for info in await keystore.credentials.list(tenant)] == [
        (1, "active"),
        (2, "pending"),
    ]
    active = await keystore.credentials.activate(tenant, NAME, 2, grace=HOUR)
    assert (active.version, active.state) == (2, "active")
    assert await in_turn(keystore, tenant) == ["mm-2", "mm-1"]


async def test_former_version_ends_with_its_grace_and_is_destroyed(
    world: World, keystore: Keystore, tenant: Tenant
) -> None:
    await keystore.credentials.set(tenant, NAME, "mm-1")
    await keystore.credentials.set(tenant, NAME, "mm-2", grace=HOUR)
    ring = await keystore.keyring(tenant)
    assert len(keystore.keys_in_turn(ring, "minimax")) == 2
    assert await keystore.credentials.destroy_expired() == 0
    world.clock.advance(hours=1)
    assert len(keystore.keys_in_turn(ring, "minimax")) == 1  # a keyring that is remembered obeys the clock too
    assert await in_turn(keystore, tenant) == ["mm-2"]
    await keystore.tend()
    assert await states(world) == [(1, "removed", 1), (2, "active", 0)]
    with pytest.raises(CredentialConflict, match="version 1 of MINIMAX_API_KEY is removed"):
        await keystore.credentials.activate(tenant, NAME, 1)


async def test_version_without_grace_is_not_used_and_is_destroyed_at_once(
    world: World, keystore: Keystore, tenant: Tenant
) -> None:
    await keystore.credentials.set(tenant, NAME, "mm-1")
    await keystore.credentials.set(tenant, NAME, "mm-2")
    assert await in_turn(keystore, tenant) == ["mm-2"]
    assert await keystore.credentials.destroy_expired() == 1
    assert await states(world) == [(1, "removed", 1), (2, "active", 0)]


@pytest.mark.parametrize("way", ["set", "activate"])
async def test_change_without_grace_ends_every_grace(keystore: Keystore, tenant: Tenant, way: str) -> None:
    await keystore.credentials.set(tenant, NAME, "other", label="b")
    await keystore.credentials.set(tenant, NAME, "another", label="b", grace=HOUR)
    await keystore.credentials.set(tenant, NAME, "mm-1")
    await keystore.credentials.set(tenant, NAME, "mm-2", grace=HOUR)
    if way == "set":
        await keystore.credentials.set(tenant, NAME, "mm-3")
    else:
        await keystore.credentials.set(tenant, NAME, "mm-3", activate=False)
        await keystore.credentials.activate(tenant, NAME, 3)
    assert sorted(await in_turn(keystore, tenant)) == ["another", "mm-3", "other"]
    assert await keystore.credentials.destroy_expired() == 2


async def test_former_version_comes_back_when_it_is_activated(keystore: Keystore, tenant: Tenant) -> None:
    await keystore.credentials.set(tenant, NAME, "mm-1")
    await keystore.credentials.set(tenant, NAME, "mm-2", grace=HOUR)
    assert (await keystore.credentials.activate(tenant, NAME, 1)).state == "active"
    assert await in_turn(keystore, tenant) == ["mm-1"]
    with pytest.raises(CredentialConflict, match="is active"):
        await keystore.credentials.activate(tenant, NAME, 1)


@pytest.mark.services
async def test_version_is_not_destroyed_while_it_is_activated(pg_world: World) -> None:
    """Its grace is over, and another process destroys it between the look at it and the change."""
    other, sooner = await pg_world.open(), Event()
    began = Event()

    def now() -> datetime:
        if began.is_set():  # the row was looked at
            sooner.set()
            done.wait(0.5)
        return pg_world.clock()

    done = Event()
    keystore = await pg_world.open(now=now)
    tenant = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(tenant, NAME, "mm-1")
    await keystore.credentials.set(tenant, NAME, "mm-2")

    async def destroy() -> None:
        third = await pg_world.open()
        sooner.wait(10)
        await third.credentials.destroy_expired()
        done.set()
        await third.close()

    with ThreadPoolExecutor(1) as pool:
        destroying = pool.submit(lambda: asyncio.run(destroy()))
        began.set()
        assert (await keystore.credentials.activate(tenant, NAME, 1)).state == "active"
        began.clear()
        destroying.result(10)
    assert await in_turn(other, tenant) == ["mm-1"]
    await other.close()
    await keystore.close()


@pytest.mark.parametrize(("name", "version"), [(NAME, 9), (NAME, 0), (NAME, 2**40), ("NO_SUCH", 1), ("\x00", 1)])
async def test_unknown_version_is_told(keystore: Keystore, tenant: Tenant, name: str, version: int) -> None:
    await keystore.credentials.set(tenant, NAME, "mm-1")
    with pytest.raises(CredentialUnknown):
        await keystore.credentials.activate(tenant, name, version)
    assert await in_turn(keystore, tenant) == ["mm-1"]


async def test_of_two_operators_one_wins_and_the_other_is_told(
    world: World, keystore: Keystore, tenant: Tenant
) -> None:
    await keystore.credentials.set(tenant, NAME, "mm-1")
    other = await world.open()
    results = await asyncio.gather(
        *(
            each.credentials.set(tenant, NAME, f"mm-by-{at}", expected_version=1)
            for at, each in enumerate((keystore, other))
        ),
        return_exceptions=True,
    )
    await other.close()
    (told,) = [one for one in results if isinstance(one, BaseException)]
    assert isinstance(told, CredentialConflict)
    assert "MINIMAX_API_KEY is at version 2, not 1" in str(told)
    winner = next(at for at, one in enumerate(results) if not isinstance(one, BaseException))
    assert await in_turn(keystore, tenant) == [f"mm-by-{winner}"]


async def test_first_version_is_expected_as_none(keystore: Keystore, tenant: Tenant) -> None:
    assert (await keystore.credentials.set(tenant, NAME, "mm-1", expected_version=0)).version == 1
    with pytest.raises(CredentialConflict):
        await keystore.credentials.set(tenant, NAME, "mm-2", expected_version=0)


async def test_versions_are_listed_with_what_became_of_them(world: World, keystore: Keystore, tenant: Tenant) -> None:
    await keystore.credentials.set(tenant, NAME, "mm-1")
    await keystore.credentials.set(tenant, NAME, "mm-2", grace=HOUR)
    await keystore.credentials.set(tenant, NAME, "mm-3", label="spare", activate=False)
    told = [
        (one.label, one.version, one.state, one.grace_until)
        for one in await keystore.credentials.versions(tenant, NAME)
    ]
    assert told == [("", 2, "active", None), ("", 1, "superseded", START + HOUR), ("spare", 1, "pending", None)]
    assert len(await keystore.credentials.versions(tenant, NAME, "spare")) == 1
    with pytest.raises(CredentialUnknown):
        await keystore.credentials.versions(tenant, "OPENAI_API_KEY")


# --- labels --------------------------------------------------------------------------------------------------------


async def test_labels_are_tried_by_position(keystore: Keystore, tenant: Tenant) -> None:
    for label, position in (("third", 2), ("first", 0), ("second", 1)):
        await keystore.credentials.set(tenant, NAME, f"mm-{label}", label=label, position=position)
    assert await in_turn(keystore, tenant) == ["mm-first", "mm-second", "mm-third"]
    changed = await keystore.credentials.change(tenant, NAME, label="first", position=9)
    assert (changed.position, changed.version) == (9, 1)
    assert await in_turn(keystore, tenant) == ["mm-second", "mm-third", "mm-first"]
    with pytest.raises(CredentialUnknown, match="with this label"):
        await keystore.credentials.change(tenant, NAME, label="fourth", weight=1)


async def test_labels_of_one_position_share_by_weight(keystore: Keystore, tenant: Tenant) -> None:
    await keystore.credentials.set(tenant, NAME, "mm-a", label="a", weight=3)
    await keystore.credentials.set(tenant, NAME, "mm-b", label="b", weight=1)
    choices = (await keystore.keyring(tenant)).choices["minimax"]
    draw = random.Random(7).random
    firsts = Counter(order_of_trial(choices, START, draw)[0].label for _ in range(4000))
    assert 2850 <= firsts["a"] <= 3150  # 3000 with a standard deviation of 27
    drawn = {
        tuple(key.label for key in keystore.keys_in_turn(await keystore.keyring(tenant), "minimax")) for _ in "1" * 64
    }
    assert drawn == {("a", "b"), ("b", "a")}


async def test_damaged_label_is_passed_over(world: World, keystore: Keystore, tenant: Tenant) -> None:
    await keystore.credentials.set(tenant, NAME, "mm-a", label="a")
    await keystore.credentials.set(tenant, NAME, "mm-b", label="b", position=1)
    await world.sql("UPDATE wardgate_credentials SET envelope = 'wg1.no.no' WHERE label = 'a'")
    assert await in_turn(keystore, tenant) == ["mm-b"]
    found = (await keystore.keyring(tenant)).resolutions["minimax"]
    assert isinstance(found, Found)
    listed = {one.label: one.unusable for one in await keystore.credentials.list(tenant)}
    assert listed == {"a": Unusable.DAMAGED, "b": None}


async def test_label_is_removed_alone_or_with_the_others(world: World, keystore: Keystore, tenant: Tenant) -> None:
    for label in ("", "a", "b"):
        await keystore.credentials.set(tenant, NAME, f"mm-{label}", label=label)
    await keystore.credentials.remove(tenant, NAME, "a")
    assert [one.label for one in await keystore.credentials.list(tenant)] == ["", "b"]
    with pytest.raises(CredentialUnknown):
        await keystore.credentials.remove(tenant, NAME, "a")
    await keystore.credentials.remove(tenant, NAME)
    assert await keystore.credentials.list(tenant) == []
    assert await world.sql("SELECT count(*) FROM wardgate_credentials WHERE envelope IS NOT NULL") == [(0,)]


async def test_quarantined_row_is_listed_and_removed(world: World, keystore: Keystore, tenant: Tenant) -> None:
    await keystore.credentials.set(tenant, NAME, "mm-1")
    await world.sql("UPDATE wardgate_credentials SET state = 'quarantined', quarantine = 'masked'")
    (listed,) = await keystore.credentials.list(tenant)
    assert (listed.state, listed.quarantine) == ("quarantined", "masked")
    await keystore.credentials.remove(tenant, NAME)
    assert await keystore.credentials.list(tenant) == []


async def test_grace_of_a_version_that_waits_is_refused(keystore: Keystore, tenant: Tenant) -> None:
    await keystore.credentials.set(tenant, NAME, "mm-1")
    with pytest.raises(CredentialRefused, match="say it when you make it active"):
        await keystore.credentials.set(tenant, NAME, "mm-2", activate=False, grace=timedelta(hours=3))
    assert [one.version for one in await keystore.credentials.versions(tenant, NAME)] == [1]


@pytest.mark.parametrize("label", ["A", "a b", "-a", "a" * 64, "\x00", "é", "a\n"])
async def test_label_that_is_none_is_refused(keystore: Keystore, tenant: Tenant, label: str) -> None:
    with pytest.raises(CredentialRefused, match="a label is"):
        await keystore.credentials.set(tenant, NAME, "mm-1", label=label)
    with pytest.raises(CredentialUnknown):
        await keystore.credentials.remove(tenant, NAME, label)


@pytest.mark.parametrize(
    "wrong", [{"weight": 0}, {"weight": 1001}, {"position": -1}, {"grace": -HOUR}, {"grace": 999 * HOUR}]
)
async def test_turn_or_grace_outside_its_range_is_refused(
    keystore: Keystore, tenant: Tenant, wrong: dict[str, Any]
) -> None:
    with pytest.raises(CredentialRefused):
        await keystore.credentials.set(tenant, NAME, "mm-1", **wrong)
    assert await keystore.credentials.list(tenant) == []


# --- fields --------------------------------------------------------------------------------------------------------


async def test_fields_are_sealed_with_the_key_and_fill_in_the_url(world: World) -> None:
    keystore = await world.open(registry=load_registry({"azure_like": AZURE}))
    tenant = await keystore.tenants.add("acme", "team")
    info = await keystore.credentials.set(tenant, "AZURE_LIKE_API_KEY", "az-1", fields={"resource": "acme-eu"})
    assert info.fields == {"resource": "acme-eu"}
    credential = keystore.unseal(await keystore.keyring(tenant), "azure_like")
    assert credential.provider.base_url == "https://acme-eu.openai.example/v1"
    assert credential.hosts == {"acme-eu.openai.example", "acme-eu.services.example"}
    assert "acme-eu" not in repr(await world.sql("SELECT * FROM wardgate_credentials"))
    own = {"resource": "acme-eu", "base_url": "https://acme-eu.services.example/openai/v1"}
    await keystore.credentials.set(tenant, "AZURE_LIKE_API_KEY", "az-1", fields=own)
    credential = keystore.unseal(await keystore.keyring(tenant), "azure_like")
    assert (credential.provider.base_url, credential.hosts) == (
        own["base_url"],
        frozenset({"acme-eu.services.example"}),
    )
    await keystore.close()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "without its fields.*resource: the resource's name"),
        ({"resource": ""}, "resource does not fit"),
        ({"resource": "evil.example/"}, "resource does not fit"),
        ({"resource": "evil.example#"}, "resource does not fit"),
        ({"resource": "a@b"}, "resource does not fit"),
        ({"resource": "A"}, "resource does not fit"),
        ({"resource": "-a"}, "resource does not fit"),
        ({"resource": "a\n"}, "resource does not fit"),
        ({"resource": "a" * 64}, "resource does not fit"),
        ({"resource": "a", "resorce": "b"}, "did you mean .resource."),
        ({"resource": "a", "canary\x00": "b"}, "has no such field"),
        ({"resource": "a", "base_url": "https://evil.example/v1"}, "not approved"),
        ({"resource": "a", "base_url": "http://a.openai.example/v1"}, "not approved"),
        ({"resource": "a", "base_url": "https://b.openai.example/v1"}, "not approved"),
        ({"resource": "a", "base_url": "https://a.openai.example:444/v1"}, "not approved"),
        ({"resource": "a", "base_url": "https://u:p@a.openai.example/v1"}, "plain URL"),
        ({"resource": "a", "base_url": "https://:p@a.openai.example/v1"}, "plain URL"),
        ({"resource": "a", "base_url": "https://a.openai.example/v1?"}, "plain URL"),
        ({"resource": "a", "base_url": "https://a.openai.example/v1#"}, "plain URL"),
        ({"resource": "a", "base_url": "https://a.openai.example/v1?x=1"}, "plain URL"),
        ({"resource": "a", "base_url": "https://a.openai.example/v1#x"}, "plain URL"),
        ({"resource": "a", "base_url": "ftp://a.openai.example/v1"}, "plain URL"),
        ({"resource": "a", "base_url": "https://a.openai.example\\@evil.example/v1"}, "plain URL|not approved"),
        ({"resource": "a", "base_url": "no url"}, "no URL"),
        ({"resource": "a", "base_url": "https://["}, "no URL"),
    ],
)
async def test_fields_that_are_wrong_are_refused(world: World, fields: dict[str, str], why: str) -> None:
    keystore = await world.open(registry=load_registry({"azure_like": AZURE}))
    tenant = await keystore.tenants.add("acme", "team")
    with pytest.raises(CredentialRefused, match=why) as refused:
        await keystore.credentials.set(tenant, "AZURE_LIKE_API_KEY", "az-canary-1", fields=fields)
    assert "canary" not in str(refused.value)
    assert await keystore.credentials.list(tenant) == []
    await keystore.close()


async def test_base_url_of_its_own_is_refused_where_the_row_does_not_allow_it(
    keystore: Keystore, tenant: Tenant
) -> None:
    with pytest.raises(CredentialRefused, match="tenant_base_url = true"):
        await keystore.credentials.set(tenant, NAME, "mm-1", fields={"base_url": "https://api.minimax.io/v2"})
    with pytest.raises(CredentialRefused, match="come without fields"):
        await keystore.credentials.set(tenant, NAME, "mm-1", fields={"region": "eu"})


async def test_key_without_the_fields_that_its_provider_now_needs_is_not_used(world: World) -> None:
    keystore = await world.open()
    tenant = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(tenant, NAME, "mm-1")
    await keystore.close()
    changed = await world.open(registry=load_registry({"minimax": {**AZURE, "tenant_base_url": False}}))
    found = (await changed.keyring(tenant)).resolutions["minimax"]
    assert isinstance(found, Missing)
    assert [one.why for one in found.skipped] == [Unusable.LACKS_FIELDS]
    await changed.close()


async def test_host_that_is_no_longer_approved_is_not_served(world: World) -> None:
    """The base URL that came with a key is checked again each time, against the row as it is now."""
    wide = {"minimax": {"hosts": ["api.minimax.io", "eu.minimax.io"], "tenant_base_url": True}}
    keystore = await world.open(registry=load_registry(wide))
    tenant = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(tenant, NAME, "mm-1", fields={"base_url": "https://eu.minimax.io/v1"})
    assert await in_turn(keystore, tenant) == ["mm-1"]
    await keystore.close()
    narrow = await world.open()
    found = (await narrow.keyring(tenant)).resolutions["minimax"]
    assert isinstance(found, Missing)
    assert [one.why for one in found.skipped] == [Unusable.WRONG_HOST]
    await narrow.close()


async def test_base_url_of_its_own_ends_with_the_rows_permission(world: World) -> None:
    wide: dict[str, dict[str, object]] = {
        "minimax": {"hosts": ["api.minimax.io", "eu.minimax.io"], "tenant_base_url": True}
    }
    keystore = await world.open(registry=load_registry(wide))
    tenant = await keystore.tenants.add("acme", "team")
    await keystore.credentials.set(tenant, NAME, "mm-1", fields={"base_url": "https://eu.minimax.io/mine/"})
    there = keystore.unseal(await keystore.keyring(tenant), "minimax")
    assert there.provider.base_url == "https://eu.minimax.io/mine"
    await keystore.close()
    wide["minimax"]["tenant_base_url"] = False
    narrow = await world.open(registry=load_registry(wide))
    found = (await narrow.keyring(tenant)).resolutions["minimax"]
    assert isinstance(found, Missing)
    assert [one.why for one in found.skipped] == [Unusable.WRONG_HOST]
    await narrow.close()
