"""What a process does every few seconds: each step for itself, whatever became of those before it."""

import asyncio
import re
from datetime import timedelta

import pytest

from keystore.decisions import Keeping
from keystore.errors import KeystoreError
from tests.keystore.conftest import World, administer, named
from tests.keystore.ledgers import a_row, all_rows

KEPT = Keeping(timedelta(hours=1))


async def test_step_that_fails_keeps_none_behind_it_from_being_done(world: World) -> None:
    keystore = await world.open(keeping=KEPT, ledger_kept=timedelta(days=30))
    await keystore.tenants.add("acme", "solo", id="t1")
    await keystore.ledger.write("j", 0, [a_row(1)])
    world.clock.advance(days=70)
    held = world.ring.read_text()
    world.ring.unlink()
    await world.sql(*(f"ALTER TABLE wardgate_{table} RENAME TO {table}_away" for table in ("decisions", "answers")))
    with pytest.raises(KeystoreError, match=r"root keys: .*; decisions: .*; answers: ") as told:
        await keystore.tend()
    assert told.value.__cause__ is not None
    assert await all_rows(world) == [], "what is behind them was done"
    assert len(await keystore.replicas.live()) == 1
    await world.sql(*(f"ALTER TABLE {table}_away RENAME TO wardgate_{table}" for table in ("decisions", "answers")))
    world.ring.write_text(held)
    world.ring.chmod(0o600)
    await keystore.tend()
    await keystore.close()


async def test_step_that_is_cancelled_ends_the_round(world: World) -> None:
    keystore = await world.open()
    tending = asyncio.create_task(keystore.tend())
    await asyncio.sleep(0)
    tending.cancel()
    await asyncio.wait({tending})
    assert tending.cancelled()
    await keystore.close()


@pytest.mark.services
async def test_database_that_is_away_is_asked_by_no_other_step(pg_world: World) -> None:
    keystore = await pg_world.open()
    name = pg_world.url.split("?")[0].rpartition("/")[2]
    admin = named(pg_world.url, "postgres")
    administer(admin, f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false')
    administer(admin, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    with pytest.raises(KeystoreError) as told:
        await keystore.tend()
    administer(admin, f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS true')
    assert re.fullmatch(r"root keys: [^;]*", str(told.value)), "one sentence, and none for each step"
    await keystore.tend()
    await keystore.close()
