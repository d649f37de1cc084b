"""A pause is kept in the database, and every process that looks sees it."""

from datetime import timedelta

import pytest

from keystore.bulk_pauses import Pause
from keystore.errors import TenantUnknown
from tests.keystore.conftest import World


async def test_pause_outlives_its_process_and_is_seen_by_another(world: World) -> None:
    one = await world.open()
    acme, other = [await one.tenants.add(name, "team") for name in ("acme", "other")]
    at = world.clock()
    assert await one.bulk_pauses.pause(acme) == Pause("acme", at)
    world.clock.now += timedelta(hours=1)
    assert await one.bulk_pauses.pause(acme) == Pause("acme", at), "it is paused since it was paused"
    await one.close()

    two = await world.open()
    told: list[frozenset[str]] = []
    two.bulk_pauses.tell = told.append
    await two.begin_serving()
    await two.tend()
    assert two.bulk_pauses.paused == {acme.id} and told == [{acme.id}]
    assert [row.tenant for row in await two.bulk_pauses.list()] == ["acme"]
    await two.bulk_pauses.pause(other)
    assert (await two.bulk_pauses.resume(acme), await two.bulk_pauses.resume(acme)) == (True, False)
    await two.tend()
    assert told == [{acme.id}, {other.id}]
    await two.close()


async def test_nobody_is_paused_who_is_not_there(world: World) -> None:
    keystore = await world.open()
    acme = await keystore.tenants.add("acme", "team")
    await world.sql("DELETE FROM wardgate_tenant_names", "DELETE FROM wardgate_tenants")
    with pytest.raises(TenantUnknown):
        await keystore.bulk_pauses.pause(acme)
    await keystore.close()
