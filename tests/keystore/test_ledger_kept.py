"""The ledger over time: months as partitions on PostgreSQL, old rows removed, usage kept and compared with the rows."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text

from keystore.engine import Database
from keystore.errors import DatabaseUnavailable, LedgerUnknown
from keystore.ledger import LedgerStore
from keystore.ledger_partitions import Month
from keystore.ledger_pruning import Pruned
from keystore.ledger_usage import Sums
from tests.keystore.conftest import START, World
from tests.keystore.ledgers import a_row, all_rows, all_usage, truth

JOURNAL = "journal-1"
TODAY = START.date()
PARTITIONS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'wardgate_ledger'::regclass ORDER BY 1"


@pytest.fixture
async def store(world: World) -> AsyncIterator[LedgerStore]:
    database = Database(world.url)
    yield LedgerStore(database, now=world.clock)
    await database.close()


@pytest.fixture
async def on_postgres(pg_world: World) -> AsyncIterator[LedgerStore]:
    database = Database(pg_world.url)
    yield LedgerStore(database, now=pg_world.clock)
    await database.close()


def at(month: int, day: int = 1, year: int = 2026, **time: int) -> datetime:
    return datetime(year, month, day, tzinfo=UTC) + timedelta(**time)


async def months(world: World) -> list[str]:
    return [name.removeprefix("wardgate_ledger_") for (name,) in await world.sql(PARTITIONS)]


# --- partitions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("month", "following", "table"),
    [
        (Month(2026, 11), Month(2026, 12), "wardgate_ledger_2026_11"),
        (Month(2026, 12), Month(2027, 1), "wardgate_ledger_2026_12"),
        (Month(987, 1), Month(987, 2), "wardgate_ledger_0987_01"),
    ],
)
def test_month_knows_its_limits(month: Month, following: Month, table: str) -> None:
    assert (month.following, month.table) == (following, table)
    assert month.begins < following.begins == month.following.begins


@pytest.mark.services
async def test_month_is_made_when_a_row_needs_it(pg_world: World, on_postgres: LedgerStore) -> None:
    assert await months(pg_world) == []
    await on_postgres.write(JOURNAL, 0, [a_row(1), None, a_row(2, began_at=at(12))])
    assert await months(pg_world) == ["2026_11", "2026_12"]
    last, first = at(1, year=2027, microseconds=-1), at(1, year=2027)
    await on_postgres.write(JOURNAL, 3, [a_row(3, began_at=last), a_row(4, began_at=first)])
    assert await months(pg_world) == ["2026_11", "2026_12", "2027_01"]
    counted = "SELECT (SELECT count(*) FROM wardgate_ledger_2026_12), (SELECT count(*) FROM wardgate_ledger_2027_01)"
    assert await pg_world.sql(counted) == [(2, 1)]


@pytest.mark.services
async def test_month_is_made_once_by_many_at_once(pg_world: World) -> None:
    databases = [Database(pg_world.url) for _ in range(6)]
    stores = [LedgerStore(each, now=pg_world.clock) for each in databases]
    rows = [[a_row(10 * index + each, began_at=at(each)) for each in (1, 2, 3)] for index in range(6)]
    await asyncio.gather(*(store.write(f"j{index}", 0, rows[index]) for index, store in enumerate(stores)))
    assert await months(pg_world) == ["2026_01", "2026_02", "2026_03"]
    assert await all_usage(pg_world) == truth([row for each in rows for row in each])
    for each in databases:
        await each.close()


@pytest.mark.services
async def test_month_is_made_while_others_read_and_write(pg_world: World, on_postgres: LedgerStore) -> None:
    """A reader of the whole ledger that takes its time holds up no month's beginning."""
    await on_postgres.write(JOURNAL, 0, [a_row(1)])
    async with on_postgres._database.read() as reader:
        assert (await reader.execute(text("SELECT count(*) FROM wardgate_ledger"))).scalar() == 1
        await on_postgres.write(JOURNAL, 1, [a_row(2, began_at=at(12))])
    assert await months(pg_world) == ["2026_11", "2026_12"]


@pytest.mark.services
async def test_month_that_another_process_dropped_is_made_again(pg_world: World, on_postgres: LedgerStore) -> None:
    await on_postgres.write(JOURNAL, 0, [a_row(1)])
    await pg_world.sql("DROP TABLE wardgate_ledger_2026_11")
    await on_postgres.write(JOURNAL, 1, [a_row(2)])
    assert [row[0] for row in await all_rows(pg_world)] == [a_row(2).request_id]
    assert await all_usage(pg_world) == truth([a_row(1), a_row(2)])


@pytest.mark.services
async def test_month_stands_beside_the_ledger_whatever_schema_is_first(pg_world: World) -> None:
    await pg_world.sql("CREATE SCHEMA front")
    database = Database(pg_world.url + "&options=-csearch_path%3Dfront,public")
    store = LedgerStore(database, now=pg_world.clock)
    await store.write(JOURNAL, 0, [a_row(1)])
    assert await pg_world.sql("SELECT schemaname FROM pg_tables WHERE tablename = 'wardgate_ledger_2026_11'") == [
        ("public",)
    ]
    pg_world.clock.advance(days=400)
    assert await store.prune(timedelta(days=30)) == Pruned(months=("wardgate_ledger_2026_11",))
    await database.close()


@pytest.mark.services
async def test_role_that_may_make_no_month_writes_into_those_that_are_there(pg_world: World) -> None:
    """The month is made by the owner, as docs/ledger.md says."""
    role = f"ledger_writer_{pg_world.url.split('keystore_')[1][:12]}"
    await pg_world.sql(f"CREATE ROLE {role} LOGIN", f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    await pg_world.sql(f"GRANT CREATE ON SCHEMA public TO {role}")
    database = Database(pg_world.url.replace("postgres@", f"{role}@"))
    store = LedgerStore(database, now=pg_world.clock)
    with pytest.raises(DatabaseUnavailable, match="make the ledger's months: another owns its table"):
        await store.write(JOURNAL, 0, [a_row(1)])
    await pg_world.sql(
        "CREATE TABLE wardgate_ledger_2026_11 PARTITION OF wardgate_ledger"
        " FOR VALUES FROM ('2026-11-01 00:00+00') TO ('2026-12-01 00:00+00')"
    )
    await store.write(JOURNAL, 0, [a_row(1)])
    assert await store.get(a_row(1).request_id) == a_row(1)
    await database.close()
    await pg_world.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.services
async def test_index_serves_the_reads(pg_world: World, on_postgres: LedgerStore) -> None:
    """A partition has the parent's key and index, also one that was made by itself."""
    await on_postgres.write(JOURNAL, 0, [a_row(1)])
    made = await pg_world.sql("SELECT indexdef FROM pg_indexes WHERE tablename = 'wardgate_ledger_2026_11'")
    assert sorted(definition.split(" USING ")[1] for (definition,) in made) == [
        "btree (request_id, began_at)",
        "btree (tenant_id, began_at)",
    ]


# --- old rows ------------------------------------------------------------------------------------------------------


async def test_old_rows_go_and_usage_stays(world: World, store: LedgerStore) -> None:
    """Kept for 30 days on 20 November: October's last ten days are too old on SQLite, September on both."""
    times = [at(8, 31), at(9, 30, hours=23), at(10, 20), at(10, 21, hours=23), at(11, 19)]
    rows = [a_row(number, began_at=time, tenant_id=f"t{number % 2}") for number, time in enumerate(times)]
    await store.write(JOURNAL, 0, rows)
    pruned = await store.prune(timedelta(days=30))
    left = 2 if world.is_sqlite else 3
    assert len(await all_rows(world)) == left
    assert pruned == (
        Pruned(rows=3) if world.is_sqlite else Pruned(months=("wardgate_ledger_2026_08", "wardgate_ledger_2026_09"))
    )
    assert await all_usage(world) == truth(rows)
    with pytest.raises(LedgerUnknown):
        await store.get(rows[0].request_id)
    assert (await store.get(rows[-1].request_id)) == rows[-1]
    assert await store.prune(timedelta(days=30)) == Pruned()
    await store.write(JOURNAL, 0, rows)
    assert len(await all_rows(world)) == left


async def test_late_row_of_a_removed_month_is_written_and_goes_again(world: World, store: LedgerStore) -> None:
    await store.write(JOURNAL, 0, [a_row(1, began_at=at(3))])
    await store.prune(timedelta(days=30))
    await store.write(JOURNAL, 1, [a_row(2, began_at=at(3))])
    assert await all_usage(world) == truth([a_row(1, began_at=at(3)), a_row(2, began_at=at(3))])
    await store.prune(timedelta(days=30))
    assert await all_rows(world) == []


async def test_many_old_rows_go_in_bounded_calls(sqlite_world: World) -> None:
    database = Database(sqlite_world.url)
    store = LedgerStore(database, now=sqlite_world.clock)
    await store.write(JOURNAL, 0, [a_row(number, tenant_id=f"t{number % 40}") for number in range(2_500)])
    sqlite_world.clock.advance(days=31)
    assert await store.prune(timedelta(days=30)) == Pruned(rows=2_500)
    plan = await sqlite_world.sql(
        "EXPLAIN QUERY PLAN SELECT request_id FROM wardgate_ledger WHERE tenant_id = 'x' AND began_at < 'y'"
    )
    assert "ix_wardgate_ledger_tenant_id_began_at (tenant_id=? AND began_at<?)" in str(plan)
    await database.close()


@pytest.mark.services
async def test_dropping_waits_for_no_long_reader(pg_world: World, on_postgres: LedgerStore) -> None:
    await on_postgres.write(JOURNAL, 0, [a_row(1, began_at=at(3))])
    async with on_postgres._database.read() as reader:
        await reader.execute(text("SELECT count(*) FROM wardgate_ledger"))
        with pytest.raises(DatabaseUnavailable):
            await on_postgres.prune(timedelta(days=30))
    assert await on_postgres.prune(timedelta(days=30)) == Pruned(months=("wardgate_ledger_2026_03",))


# --- usage against rows --------------------------------------------------------------------------------------------


async def test_usage_that_is_the_sum_of_its_rows_differs_in_nothing(store: LedgerStore) -> None:
    rows = [
        a_row(1),
        a_row(2, tenant_id="t2", provider=None, model=None, key_source=None, cost_nano=None, input_tokens=None),
        a_row(3, cost_nano=2**53 + 1, began_at=START + timedelta(days=1)),
        a_row(4, began_at=at(12)),
    ]
    await store.write(JOURNAL, 0, rows)
    for day in (TODAY, TODAY + timedelta(days=1), date(2026, 12, 1), date(2026, 12, 31), date(2025, 1, 1)):
        told = await store.reconcile(day)
        assert (told.day, told.rows_kept, told.differences) == (day, True, ())


async def test_lost_row_and_changed_usage_are_told(world: World, store: LedgerStore) -> None:
    await store.write(JOURNAL, 0, [a_row(1), a_row(2), a_row(3, tenant_id="t2")])
    await world.sql(
        f"DELETE FROM wardgate_ledger WHERE request_id = '{a_row(1).request_id}'",
        "UPDATE wardgate_usage SET cost_nano = cost_nano + 5 WHERE tenant_id = 't2' AND period = 'month'",
        "DELETE FROM wardgate_usage WHERE tenant_id = 't2' AND period = 'day'",
    )
    told = (await store.reconcile(TODAY)).differences
    assert [(each.key.tenant_id, each.key.period) for each in told] == [("t1", "day"), ("t2", "day"), ("t2", "month")]
    lost, missing, changed = told
    assert (lost.parts.requests, lost.usage.requests, lost.usage.cost_nano - lost.parts.cost_nano) == (1, 2, 1_001)
    assert (missing.parts.requests, missing.usage) == (1, Sums())
    assert (changed.parts, changed.usage.cost_nano) == (Sums(), 1_008)


async def test_day_whose_rows_are_removed_is_not_compared_with_nothing(store: LedgerStore) -> None:
    await store.write(JOURNAL, 0, [a_row(1, began_at=at(3))])
    await store.prune(timedelta(days=30))
    told = await store.reconcile(date(2026, 3, 1))
    assert (told.rows_kept, told.differences) == (False, ())
    assert (await store.reconcile(TODAY)).rows_kept


async def test_what_was_removed_is_remembered_when_more_is_kept_later(world: World, store: LedgerStore) -> None:
    await store.prune(timedelta(days=30))
    await store.prune(timedelta(days=300))
    assert not (await store.reconcile(date(2026, 9, 30))).rows_kept
    world.clock.advance(days=40)
    await store.prune(timedelta(days=30))
    assert not (await store.reconcile(date(2026, 10, 31))).rows_kept
