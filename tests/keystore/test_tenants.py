"""Tenants: slugs, ids, plans."""

import asyncio
from collections.abc import Callable
from datetime import UTC

import pytest

from keystore.errors import DatabaseUnavailable, TenantExists, TenantInvalid, TenantUnknown, UnknownPlan
from keystore.keystore import Keystore
from keystore.tenants import Tenant
from tests.keystore.conftest import START, World

UUID = "31c06fc4-db22-4740-83ea-48ac14f25810"


async def test_tenant_is_found_again_by_slug_and_id(keystore: Keystore) -> None:
    added = await keystore.tenants.add("acme", "team", name="Acme Inc", default_model="minimax/MiniMax-M2")
    assert added == Tenant(added.id, "acme", "Acme Inc", "team", "minimax/MiniMax-M2", START)
    assert await keystore.tenants.get("acme") == added
    assert await keystore.tenants.get(added.id) == added
    assert await keystore.tenants.get(added.id.upper()) == added
    assert (await keystore.tenants.get("acme")).created_at.tzinfo is UTC


async def test_tenant_has_defaults_when_only_slug_and_plan_are_given(keystore: Keystore) -> None:
    added = await keystore.tenants.add("acme", "team")
    assert (added.name, added.default_model) == ("acme", None)
    assert len(added.id) == 36


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (UUID, UUID),
        (UUID.upper(), UUID),
        (UUID.replace("-", ""), UUID),
        (f"{{{UUID}}}", None),
        ("42", "42"),
        ("Tenant_A-1", "Tenant_A-1"),
        ("", None),
        ("a b", None),
        ("é", None),
        ("a\x00", None),
        ("a" * 65, None),
    ],
)
async def test_id_is_kept_when_it_is_one(keystore: Keystore, given: str, kept: str | None) -> None:
    if kept is None:
        with pytest.raises(TenantInvalid):
            await keystore.tenants.add("acme", "team", id=given)
    else:
        assert (await keystore.tenants.add("acme", "team", id=given)).id == kept


@pytest.mark.parametrize("slug", ["a", "0", "acme-2", "a" * 63])
async def test_slug_is_kept_when_it_is_one(keystore: Keystore, slug: str) -> None:
    assert (await keystore.tenants.add(slug, "team")).slug == slug


@pytest.mark.parametrize("slug", ["", "-a", "Acme", "ac me", "acme_1", "acme.", "é", "a" * 64, "a\n", "a\x00"])
async def test_slug_is_refused_when_it_is_none(keystore: Keystore, slug: str) -> None:
    with pytest.raises(TenantInvalid):
        await keystore.tenants.add(slug, "team")
    assert await keystore.tenants.list() == []


async def test_plan_is_refused_when_unknown(keystore: Keystore) -> None:
    with pytest.raises(UnknownPlan, match=r"'taem'.*\"team\".*free, solo, team"):
        await keystore.tenants.add("acme", "taem")
    await keystore.tenants.add("acme", "team")
    with pytest.raises(UnknownPlan):
        await keystore.tenants.set_plan("acme", "gold")
    assert (await keystore.tenants.get("acme")).plan == "team"


async def test_plan_changes_when_set(keystore: Keystore) -> None:
    added = await keystore.tenants.add("acme", "team")
    assert (await keystore.tenants.set_plan("acme", "solo")).plan == "solo"
    assert (await keystore.tenants.set_plan(added.id, "free")).plan == "free"
    with pytest.raises(TenantUnknown):
        await keystore.tenants.set_plan("nobody", "solo")


async def test_plans_in_use_are_counted(keystore: Keystore) -> None:
    for slug, plan in [("a", "team"), ("b", "solo"), ("c", "team")]:
        await keystore.tenants.add(slug, plan)
    assert await keystore.tenants.plans_in_use() == {"solo": 1, "team": 2}


COLLISIONS: dict[str, tuple[str, str | None]] = {
    "same slug": ("acme", None),
    "same id": ("other", "id-1"),
    "slug that is an id": ("id-1", None),
    "id that is a slug": ("other", "acme"),
    "id in capitals": ("other", "ID-1"),
    "id that is a slug in capitals": ("other", "ACME"),
}
SPELLINGS: dict[str, tuple[tuple[str, str | None], tuple[str, str | None]]] = {
    # what one tenant has and another may not have as well: slug, id
    "slug is a UUID's digits": (("acme", UUID), (UUID.replace("-", ""), None)),
    "slug is a UUID's digits, added first": ((UUID.replace("-", ""), None), ("acme", UUID)),
    "slug is a UUID": (("acme", UUID), (UUID, None)),
    "slug is a UUID with hyphens elsewhere": (("acme", UUID), (f"{UUID[:4]}-{UUID[4:].replace('-', '')}", None)),
    "number with zeros": (("acme", "7"), ("other", "007")),
    "number without zeros": (("acme", "007"), ("other", "7")),
    "slug is the number": (("acme", "007"), ("7", None)),
    "slug is the number with zeros": (("007", None), ("other", "7")),
    "zero": (("acme", "0"), ("other", "000")),
}


@pytest.mark.parametrize(("slug", "tenant_id"), COLLISIONS.values(), ids=list(COLLISIONS))
async def test_tenant_is_refused_when_it_could_be_taken_for_another(
    keystore: Keystore, slug: str, tenant_id: str | None
) -> None:
    await keystore.tenants.add("acme", "team", id="id-1")
    with pytest.raises(TenantExists):
        await keystore.tenants.add(slug, "team", id=tenant_id)
    assert len(await keystore.tenants.list()) == 1


@pytest.mark.parametrize(("one", "other"), SPELLINGS.values(), ids=list(SPELLINGS))
async def test_tenant_is_refused_when_its_name_is_a_spelling_of_anothers(
    keystore: Keystore, one: tuple[str, str | None], other: tuple[str, str | None]
) -> None:
    await keystore.tenants.add(one[0], "team", id=one[1])
    with pytest.raises(TenantExists, match=f'"{other[0]}"'):
        await keystore.tenants.add(other[0], "team", id=other[1])
    assert [tenant.slug for tenant in await keystore.tenants.list()] == [one[0]]


async def test_tenants_stay_apart_when_their_names_only_look_alike(keystore: Keystore) -> None:
    for slug, tenant_id in [("acme", "acme"), ("acme-1", "acme_1"), ("7a", "07a"), ("70", "700"), (UUID, UUID)]:
        await keystore.tenants.add(slug, "team", id=tenant_id)
    assert len(await keystore.tenants.list()) == 5


async def test_one_wins_when_spellings_are_added_at_once(keystore: Keystore) -> None:
    ids = ["7", "07", "007", "0007"]
    adding = (keystore.tenants.add(f"acme-{each}", "team", id=each) for each in ids)
    results = await asyncio.gather(*adding, return_exceptions=True)
    assert sorted(type(each).__name__ for each in results) == ["Tenant"] + ["TenantExists"] * 3


async def test_tenant_that_cannot_be_read_is_no_crash(pg_world: World) -> None:
    """PostgreSQL's calendar begins before Python's."""
    keystore = await pg_world.open()
    await keystore.tenants.add("acme", "team")
    await pg_world.sql("UPDATE wardgate_tenants SET created_at = '4000-01-01 BC'")
    with pytest.raises(DatabaseUnavailable, match="holds a value that cannot be read"):
        await keystore.tenants.get("acme")
    await keystore.ping()
    await keystore.close()


async def test_tenant_with_a_time_that_is_none_is_no_crash(sqlite_world: World) -> None:
    keystore = await sqlite_world.open()
    await keystore.tenants.add("acme", "team")
    await sqlite_world.sql("UPDATE wardgate_tenants SET created_at = 'yesterday'")
    with pytest.raises(DatabaseUnavailable, match="holds a value that cannot be read"):
        await keystore.tenants.list()
    await keystore.close()


async def test_one_wins_when_the_same_slug_is_added_at_once(keystore: Keystore) -> None:
    results = await asyncio.gather(*(keystore.tenants.add("acme", "team") for _ in range(8)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in results) == ["Tenant"] + ["TenantExists"] * 7
    assert len(await keystore.tenants.list()) == 1


async def test_list_is_by_slug(keystore: Keystore) -> None:
    for slug in ("b", "a", "c"):
        await keystore.tenants.add(slug, "team")
    assert [tenant.slug for tenant in await keystore.tenants.list()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("wanted", "tail"),
    [
        ("acmee", '; did you mean "acme"?'),
        ("Acme", '; did you mean "acme"?'),
        ("zzz", ""),
        ("", ""),
        ("a\x00b", ""),
        ("' OR 1=1", ""),
        ("%", ""),
    ],
)
async def test_unknown_tenant_is_named_with_the_nearest(keystore: Keystore, wanted: str, tail: str) -> None:
    await keystore.tenants.add("acme", "team")
    with pytest.raises(TenantUnknown) as refused:
        await keystore.tenants.get(wanted)
    assert str(refused.value) == f"there is no tenant {wanted!r}{tail}"


async def test_id_comes_from_the_random_source(world: World) -> None:
    fixed: Callable[[int], bytes] = lambda size: bytes(range(1, size + 1))  # noqa: E731
    keystore = await world.open(random=fixed)
    assert (await keystore.tenants.add("acme", "team")).id == "01020304-0506-4708-890a-0b0c0d0e0f10"
    await keystore.close()
