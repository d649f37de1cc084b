"""Names over time: who is on an old name, who holds two keys, and who breaks when a row changes; on both databases."""

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keystore.errors import RegistryError
from keystore.impact import BREAKS, Effect, renamed, retired
from keystore.keyring import build_keyring
from keystore.keystore import Keystore
from keystore.providers import Provider, Registry, Wire, load_registry, setting_key_of
from keystore.resolve import Found, HeldName, NameTable, Store, Via, known_names, names_for, resolve
from keystore.tenants import Tenant
from keystore.use import UsedKey
from tests.keystore.conftest import START, World

OLD, NEW = "MINIMAX_2_7_API_KEY", "MINIMAX_API_KEY"
ONE, TWO = "sk-one-0123456789abcdef", "sk-two-0123456789abcdef"


async def holder(keystore: Keystore, slug: str, **keys: str) -> Tenant:
    tenant = await keystore.tenants.add(slug, "team")
    for name, value in keys.items():
        await keystore.credentials.set(tenant, name, value)
    return tenant


async def test_report_names_who_is_on_an_old_name(keystore: Keystore) -> None:
    acme = await holder(keystore, "acme", **{OLD: ONE})
    await holder(keystore, "modern", **{NEW: ONE})
    await holder(keystore, "both", **{OLD: TWO, NEW: ONE})
    keystore.use.note(UsedKey(acme.id, OLD, "", "minimax"), START + timedelta(hours=1), ok=True)
    await keystore.use.flush()
    report = await keystore.names.report("minimax")
    (use,) = report.uses
    assert (use.tenant, use.setting_key, use.canonical, use.via) == ("acme", OLD, NEW, Via.FORMER)
    assert (use.store, use.last_used_at) == (Store.CREDENTIALS, START + timedelta(hours=1))
    assert [(one.setting_key, one.tenants, one.safe) for one in report.verdicts] == [(OLD, ("acme",), False)]


async def test_former_name_is_safe_to_retire_when_nobody_needs_it(keystore: Keystore) -> None:
    acme = await holder(keystore, "acme", **{OLD: ONE})
    await keystore.credentials.set(acme, NEW, ONE)
    report = await keystore.names.report()
    assert report.uses == ()
    assert [one.safe for one in report.verdicts if one.provider_id == "minimax"] == [True]


async def test_report_is_of_a_provider_that_there_is(keystore: Keystore) -> None:
    await holder(keystore, "acme", **{OLD: ONE})
    assert [one.tenant for one in (await keystore.names.report("minimax_2_7")).uses] == ["acme"]
    with pytest.raises(RegistryError, match="no provider 'minimx'; did you mean \"minimax\""):
        await keystore.names.report("minimx")


async def test_conflicts_are_listed_with_the_winner(keystore: Keystore) -> None:
    await holder(keystore, "same", **{OLD: ONE, NEW: f" {ONE} "})
    await holder(keystore, "differs", **{OLD: TWO, NEW: ONE})
    (conflict,) = await keystore.names.conflicts()
    assert (conflict.tenant, conflict.provider_id, conflict.winner, conflict.others) == (
        "differs",
        "minimax",
        NEW,
        (OLD,),
    )


async def test_progress_counts_tenants(keystore: Keystore) -> None:
    seen: list[tuple[int, int]] = []
    for number in range(3):
        await holder(keystore, f"t{number}")
    await keystore.names.report(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


async def effects(keystore: Keystore, after: Registry) -> dict[str, Effect]:
    return {change.tenant: change.effect for change in await keystore.names.impact(after)}


async def test_retiring_breaks_who_holds_a_key(keystore: Keystore, registry: Registry) -> None:
    await holder(keystore, "acme", **{OLD: ONE})
    await holder(keystore, "other", OPENAI_API_KEY=ONE)
    (change,) = await keystore.names.impact(retired(registry, "minimax"))
    assert (change.tenant, change.effect, change.before, change.breaks) == ("acme", Effect.LOST, OLD, True)
    assert "retired" in change.why


async def test_renaming_breaks_nobody(keystore: Keystore, registry: Registry) -> None:
    await holder(keystore, "acme", **{OLD: ONE})
    await holder(keystore, "modern", **{NEW: TWO})
    changes = await keystore.names.impact(renamed(registry, "minimax", "minimax_3"))
    assert {change.successor for change in changes} == {"minimax_3"}
    assert not any(change.breaks for change in changes)


async def test_row_that_forgets_a_former_id_loses_its_keys(keystore: Keystore, registry: Registry) -> None:
    """The seeds' own change, which nobody asked about beforehand."""
    await holder(keystore, "acme", **{OLD: ONE})
    await holder(keystore, "both", **{OLD: TWO, NEW: ONE})
    forgetful = Registry(replace(row, former_ids=()) if row.id == "minimax" else row for row in registry.providers)
    assert await effects(keystore, forgetful) == {"acme": Effect.LOST}


async def test_moved_host_loses_the_keys_that_were_sealed_for_the_old_one(world: World, keystore: Keystore) -> None:
    await holder(keystore, "acme", **{NEW: ONE})
    moved = {"base_url": "https://api.minimaxi.com/v1", "hosts": ["api.minimaxi.com"]}
    (change,) = await keystore.names.impact(load_registry({"minimax": moved}))
    assert (change.effect, change.why) == (Effect.LOST, f"{NEW}: wrong_host")


async def test_moved_host_takes_rows_of_a_legacy_table_along(world: World) -> None:
    """They are bound to no host of their own, so they are not lost: they would go to the new one."""
    await world.sql("CREATE TABLE tenant_settings (tenant_id TEXT, setting_key TEXT, setting_value TEXT)")
    await world.sql("INSERT INTO tenant_settings VALUES ('acme', :name, :value)", name=NEW, value=ONE)
    keystore = await world.open()
    await keystore.tenants.add("acme", "team")
    moved = {"base_url": "https://api.minimaxi.com/v1", "hosts": ["api.minimaxi.com"]}
    assert await keystore.names.impact(load_registry({"minimax": moved})) == []
    await keystore.close()


async def test_another_value_is_a_break(keystore: Keystore, registry: Registry) -> None:
    await holder(keystore, "acme", **{OLD: ONE, "MINIMAX_API_KEY": TWO})
    newer = renamed(registry, "minimax", "minimax_2_8")
    assert await effects(keystore, newer) in ({"acme": Effect.OTHER_NAME}, {})
    swapped = Registry(
        replace(row, id="minimax_2_7", former_ids=("minimax",), api_key_env_var=OLD) if row.id == "minimax" else row
        for row in registry.providers
    )
    assert await effects(keystore, swapped) == {"acme": Effect.OTHER_VALUE}


def test_unknown_provider_is_named(registry: Registry) -> None:
    with pytest.raises(RegistryError, match='did you mean "minimax"'):
        retired(registry, "minimaxx")
    with pytest.raises(RegistryError, match='did you mean "minimax"'):
        renamed(registry, "minimaxx", "m")
    with pytest.raises(RegistryError, match="'Bad Id': an id is lower-case letters"):
        renamed(registry, "minimax", "Bad Id")


def test_breaks_are_losses_and_other_values() -> None:
    assert {Effect.LOST, Effect.OTHER_VALUE} == BREAKS


# --- T33: names outlive rows -----------------------------------------------------------------------------------------

IDS = st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon"])


def plain_row(provider_id: str, **fields: Any) -> Provider:
    known: dict[str, Any] = {"api_key_env_var": f"{provider_id.upper()}_KEY"} | fields
    url, hosts = f"https://{provider_id}.example", (f"{provider_id}.example",)
    return Provider(provider_id, provider_id, Wire.OPENAI, url, hosts, auth=load_registry().providers[0].auth, **known)


@given(st.lists(IDS, min_size=2, max_size=5, unique=True))
@settings(max_examples=100, deadline=None)
def test_key_is_found_after_any_number_of_renames(ids: list[str]) -> None:
    """T33: a key stored under the first id a provider ever had is found under its last, through every rename."""
    registry = Registry([plain_row(ids[0])])
    stored = setting_key_of(ids[0])
    for old, new in pairwise(ids):
        registry = renamed(registry, old, new)
    heir = registry.get(ids[-1])
    assert heir is not None
    assert {setting_key_of(one) for one in ids} <= {name for name, _ in names_for(heir, registry)}
    found = resolve({stored: HeldName(stored, Store.CREDENTIALS, None, b"x")}, heir, registry)
    assert isinstance(found, Found) and found.setting_key == stored
    assert {setting_key_of(one) for one in ids} <= known_names(registry)


def test_empty_keyring_changes_for_nobody(registry: Registry) -> None:
    keyring = build_keyring("t", [], registry, NameTable(registry))
    assert not any(isinstance(one, Found) for one in keyring.resolutions.values())
