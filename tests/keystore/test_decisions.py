"""Kept decisions: written in batches, read by id and tenant, gone after their time, bounded in number."""

from datetime import datetime, timedelta

import pytest

from keystore.decisions import DecisionStore, Keeping, KeptDecision
from keystore.engine import Database
from keystore.errors import DatabaseUnavailable, DecisionUnknown
from tests.keystore.conftest import START, World

DOCUMENT = b'{"model": "auto", "why": "' + b"because " * 200 + b'"}'


def kept(number: int, at: datetime = START, tenant: str = "t1") -> KeptDecision:
    return KeptDecision(f"req_{number:032x}", tenant, at, (DOCUMENT,))


def store(world: World, **keeping: object) -> DecisionStore:
    return DecisionStore(Database(world.url), Keeping(**keeping), now=world.clock)  # type: ignore[arg-type]


async def count(world: World) -> int:
    return int((await world.sql("SELECT count(*) FROM wardgate_decisions"))[0][0])


async def unknown(decisions: DecisionStore, request_id: str, **options: str) -> str:
    with pytest.raises(DecisionUnknown) as caught:
        await decisions.get(request_id, **options)
    return str(caught.value)


async def test_pieces_come_back_joined_also_where_records_share_one(world: World) -> None:
    decisions = store(world)
    both = [KeptDecision(f"req_{number:032x}", "t1", START, (b'{"id":%d,' % number, DOCUMENT[1:])) for number in (1, 2)]
    await decisions.write(both)
    for number, one in enumerate(both, 1):
        assert (await decisions.get(one.request_id)).document == b'{"id":%d,' % number + DOCUMENT[1:]
    await decisions._database.close()


async def test_document_comes_back_as_it_was_and_is_small_in_the_table(world: World) -> None:
    decisions = store(world)
    await decisions.write([kept(1), kept(2, tenant="t2")])
    assert await decisions.get(kept(1).request_id) == kept(1)
    assert await decisions.get(kept(2).request_id, tenant_id="t2") == kept(2, tenant="t2")
    sizes = await world.sql("SELECT length(document) FROM wardgate_decisions")
    assert max(size for (size,) in sizes) < len(DOCUMENT) / 10
    await decisions._database.close()


async def test_row_of_another_tenant_is_as_unknown_as_none(world: World) -> None:
    decisions = store(world)
    await decisions.write([kept(1)])
    told = {await unknown(decisions, kept(1).request_id, tenant_id="t2")}
    told |= {await unknown(decisions, kept(9).request_id), await unknown(decisions, "req_'; DROP TABLE x")}
    assert len(told) == 1
    assert "for 24 hours" in told.pop()
    await decisions._database.close()


async def test_first_of_two_is_kept_and_many_are_written_at_once(world: World) -> None:
    decisions = store(world)
    await decisions.write([])
    await decisions.write([kept(number) for number in range(1, 1_203)])
    await decisions.write([kept(1, tenant="t2"), kept(1_203)])
    assert await count(world) == 1_203
    assert (await decisions.get(kept(1).request_id)).tenant_id == "t1"
    await decisions._database.close()


async def test_row_is_unknown_from_its_time_on_and_deleted_soon(world: World) -> None:
    decisions = store(world, kept=timedelta(hours=2))
    await decisions.write([kept(1), kept(2, START + timedelta(minutes=1))])
    world.clock.advance(hours=2, seconds=-1)
    assert await decisions.get(kept(1).request_id) == kept(1)
    assert await decisions.expire() == 0
    world.clock.advance(seconds=1)
    assert "for 2 hours" in await unknown(decisions, kept(1).request_id)
    assert (await decisions.expire(), await count(world)) == (0, 2)  # it was looked a second ago
    world.clock.advance(seconds=9)
    assert (await decisions.expire(), await count(world)) == (1, 1)
    assert (await decisions.get(kept(2).request_id)).request_id == kept(2).request_id
    await decisions._database.close()


async def test_old_rows_are_deleted_in_bounded_batches(world: World) -> None:
    decisions = store(world)
    await decisions.write([kept(number) for number in range(2_500)])
    world.clock.advance(days=2)
    assert await decisions.expire() == 2_500
    assert await decisions.expire() == 0
    await decisions._database.close()


async def test_no_more_than_the_most_are_kept_and_the_newest_stay(world: World) -> None:
    decisions = store(world, most=3)
    await decisions.write([kept(number, START + timedelta(seconds=number)) for number in range(5)])
    world.clock.advance(minutes=5)
    assert await decisions.expire() == 2
    assert [await count(world), (await decisions.get(kept(2).request_id)).created_at.second] == [3, 2]
    world.clock.advance(seconds=20)
    await decisions.write([kept(9, world.clock())])
    assert await decisions.expire() == 0  # it is counted once a minute
    world.clock.advance(minutes=1)
    assert await decisions.expire() == 1
    await decisions._database.close()


async def test_nothing_is_kept_when_it_is_switched_off(world: World) -> None:
    await (before := store(world)).write([kept(1)])
    decisions = store(world, kept=timedelta(0))
    assert "keeps no decisions" in await unknown(decisions, kept(1).request_id)
    world.clock.advance(seconds=1)
    assert (await decisions.expire(), await count(world)) == (1, 0)
    for each in (before, decisions):
        await each._database.close()


async def test_replicas_delete_side_by_side(world: World) -> None:
    import asyncio

    replicas = [store(world) for _ in range(3)]
    await replicas[0].write([kept(number) for number in range(1_500)])
    world.clock.advance(days=2)
    deleted = await asyncio.gather(*(replica.expire() for replica in replicas))
    world.clock.advance(minutes=1)
    assert sum(deleted) + await replicas[0].expire() == 1_500
    for each in replicas:
        await each._database.close()


async def test_tending_deletes_and_a_database_that_is_away_is_said(world: World) -> None:
    keystore = await world.open(keeping=Keeping(timedelta(hours=1)))
    await keystore.decisions.write([kept(1)])
    world.clock.advance(hours=1)
    await keystore.tend()
    assert await count(world) == 0
    await world.sql("ALTER TABLE wardgate_decisions RENAME TO away")
    for work in (keystore.decisions.write([kept(1)]), keystore.decisions.get(kept(1).request_id)):
        with pytest.raises(DatabaseUnavailable):
            await work
    await world.sql("ALTER TABLE away RENAME TO wardgate_decisions")
    await keystore.close()
