"""The ledger's rows that used something, read to the end of a time in pieces."""

from datetime import timedelta

from keystore.engine import Database
from keystore.ledger import LedgerStore
from keystore.ledger_row import State
from tests.keystore.conftest import START, World
from tests.keystore.ledgers import a_row

LATER = START + timedelta(hours=1)


async def test_pieces_hold_every_row_once_also_of_one_moment(world: World) -> None:
    database = Database(world.url)
    store = LedgerStore(database, now=world.clock)
    mine = [a_row(n, began_at=START + timedelta(seconds=n // 4), cost_nano=n) for n in range(1, 26)]
    others = [a_row(100 + n, tenant_id="t2", cost_nano=100 + n) for n in range(3)]
    free, late = a_row(200, state=State.RELEASED, cost_nano=0), a_row(201, began_at=LATER)
    early = a_row(202, tenant_id="t0", began_at=START - timedelta(seconds=1))
    await store.write("j", 0, [*mine, *others, free, late, early])
    for at_once in (1, 3, 1_000):
        pieces = [one async for one in store.used(START, LATER, at_once=at_once)]
        assert [row.cost_nano for piece in pieces for row in piece] == [*range(1, 26), 100, 101, 102]
        assert max(map(len, pieces)) <= at_once
    alone = [row async for piece in store.used(START, LATER, tenant_id="t2") for row in piece]
    assert [row.cost_nano for row in alone] == [100, 101, 102] and alone[0].provider == "openai"
    assert [one async for one in store.used(START, START)] == []
    await database.close()
