"""The shipper and the real ledger, on both databases: rows and positions move together, whatever is refused."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select, text

from keystore.engine import Database
from keystore.errors import DatabaseUnavailable, RowsRefused
from keystore.journal import Journal
from keystore.ledger import LedgerStore
from keystore.ledger_row import LedgerRow, State
from keystore.money_tables import journals
from keystore.shipping import Shipper
from tests.keystore.conftest import World
from tests.keystore.journals import NOW, QUICK, Bench, begun, died, ended, request_id, row


@pytest.fixture
async def database(world: World) -> AsyncIterator[Database]:
    opened = Database(world.url)
    await opened.use_wal()
    yield opened
    await opened.close()


@pytest.fixture
def store(database: Database) -> LedgerStore:
    return LedgerStore(database, now=lambda: NOW)


@pytest.fixture
async def pg_store(pg_world: World) -> AsyncIterator[LedgerStore]:
    opened = Database(pg_world.url)
    yield LedgerStore(opened, now=lambda: NOW)
    await opened.close()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "journal")


async def there(store: LedgerStore, numbers: range) -> list[LedgerRow]:
    return [await store.get(request_id(number)) for number in numbers]


async def test_journals_come_into_the_ledger_whole(bench: Bench, store: LedgerStore, database: Database) -> None:
    dead, journal = bench.journal(), bench.journal(segment_bytes=4_000)
    dead.append(begun(100))
    dead.append(begun(101))
    dead.append(ended(101))
    died(dead)
    shipper = bench.shipper(journal, store=store, batch_bytes=3_000)
    for number in range(50):
        journal.append(begun(number))
        journal.append(ended(number))
        if number % 10 == 0:
            await shipper.flush()
    await shipper.flush()
    await shipper.take_over()
    assert await there(store, range(50)) == [row(number) for number in range(50)]
    assert await store.get(request_id(100)) == row(100, State.ESTIMATED, outcome="lost")
    async with database.read() as connection:
        found = {each.journal_id: each.position for each in await connection.execute(select(journals))}
    assert found == {journal.journal_id: 100, dead.journal_id: 4}
    await journal.close(finished=await shipper.close(5))
    assert bench.files() == []


async def test_value_that_postgresql_does_not_hold_is_set_aside(bench: Bench, pg_store: LedgerStore) -> None:
    journal = bench.journal()
    shipper = bench.shipper(journal, store=pg_store)
    for number in range(20):
        journal.append(ended(number, cost_nano=2**63 if number == 7 else number))
    for _ in range(2):
        with pytest.raises(RowsRefused):
            await shipper.flush()
    await shipper.flush()
    found = [*await there(pg_store, range(7)), *await there(pg_store, range(8, 20))]
    assert [each.cost_nano for each in found] == [number for number in range(20) if number != 7]
    assert [one["position"] for one in bench.rejected()] == [7] and shipper.counts.rejected == 1
    await journal.close(finished=await shipper.close(5))


async def tried(shipper: Shipper) -> None:
    """Often enough that rows would be set aside."""
    for _ in range(4):
        with pytest.raises(RowsRefused):
            await shipper.flush()


async def test_rows_that_wait_for_a_lock_are_not_set_aside(bench: Bench, pg_world: World) -> None:
    """Somebody holds the usage of one tenant for long, and the rows of another could be written meanwhile."""
    hasty, other = Database(pg_world.url, command_s=0.1), Database(pg_world.url)
    store, journal = LedgerStore(hasty, now=lambda: NOW), bench.journal()
    shipper = bench.shipper(journal, store=store)
    journal.append(ended(0))
    await shipper.flush()
    for number in range(1, 7):
        journal.append(ended(number, tenant_id="t1" if number % 2 else "t2"))
    async with other.write() as connection:
        await connection.execute(text("SELECT 1 FROM wardgate_usage WHERE tenant_id = 't1' FOR UPDATE"))
        await tried(shipper)
    assert bench.rejected() == [] and shipper.pending == 6
    await shipper.flush()
    assert bench.rejected() == [] and len(await there(store, range(7))) == 7
    died(journal)
    for database in (hasty, other):
        await database.close()


async def test_rows_of_a_month_that_cannot_be_made_wait(bench: Bench, pg_world: World, pg_store: LedgerStore) -> None:
    """As docs/ledger.md has it: they stay in the journals; those of the month before, which is there, behind them."""
    journal = bench.journal()
    shipper = bench.shipper(journal, store=pg_store)
    journal.append(ended(0))
    await shipper.flush()
    december = NOW.replace(month=12)
    for number in range(1, 7):
        journal.append(ended(number, began_at=december if number < 4 else NOW))
    await pg_world.sql("CREATE TABLE wardgate_ledger_2026_12 (stands_in_the_way int)")
    await tried(shipper)
    assert bench.rejected() == []
    await pg_world.sql("DROP TABLE wardgate_ledger_2026_12")
    await shipper.flush()
    assert bench.rejected() == [] and [each.began_at for each in await there(pg_store, range(3, 5))] == [december, NOW]
    died(journal)


class Deaf(LedgerStore):
    """Commits, and the answer is lost."""

    deaf = False

    async def write_at(self, *arguments: object) -> None:
        await super().write_at(*arguments)  # type: ignore[arg-type]
        if self.deaf:
            raise DatabaseUnavailable("no answer")

    async def position(self, journal_id: str) -> int:
        if self.deaf:
            raise DatabaseUnavailable("no answer")
        return await super().position(journal_id)


async def test_commit_whose_answer_was_lost_counts_once(bench: Bench, database: Database) -> None:
    store, journal = Deaf(database, now=lambda: NOW), bench.journal()
    shipper = bench.shipper(journal, store=store)
    for number in range(5):
        journal.append(ended(number))
    store.deaf = True
    with pytest.raises(DatabaseUnavailable):
        await shipper.flush()
    died(journal)
    store.deaf = False
    second: Journal = bench.journal()
    again = Shipper(second, store, bench.told.append, now=lambda: NOW, pace=QUICK)
    await again.take_over()
    assert await there(store, range(5)) == [row(number) for number in range(5)]
    totals = await store.totals(NOW, NOW.replace(hour=23))
    assert (totals.requests, totals.cost_nano) == (5, sum(1_000 + number for number in range(5)))
    await second.close(finished=await again.close(5))
