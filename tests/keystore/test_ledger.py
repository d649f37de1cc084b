"""The ledger in the database: rows once whatever comes again, usage always their sum, nobody else's rows."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from keystore.engine import Database
from keystore.errors import DatabaseUnavailable, LedgerGap, LedgerUnknown
from keystore.ledger import LedgerStore
from keystore.ledger_row import LedgerRow, State
from keystore.money_tables import ledger
from tests.keystore.conftest import START, World
from tests.keystore.ledgers import a_row, all_rows, all_usage, truth

JOURNAL = "journal-1"


@pytest.fixture
async def store(world: World) -> AsyncIterator[LedgerStore]:
    database = Database(world.url)
    yield LedgerStore(database, now=world.clock)
    await database.close()


async def test_row_comes_back_as_it_was(store: LedgerStore) -> None:
    plain = a_row(1)
    bare = LedgerRow(
        request_id=f"req_{2:032x}",
        began_at=START,
        tenant_id="t1",
        token_id="",
        endpoint="chat",
        state=State.RELEASED,
        outcome="refused",
    )
    precise = a_row(3, began_at=START.replace(microsecond=123_456), state=State.ESTIMATED, stream=False)
    await store.write(JOURNAL, 0, [plain, bare, precise])
    for row in (plain, bare, precise):
        assert await store.get(row.request_id, tenant_id="t1") == row
    assert await store.position(JOURNAL) == 3


async def unknown(store: LedgerStore, request_id: str, **options: str) -> str:
    with pytest.raises(LedgerUnknown) as caught:
        await store.get(request_id, **options)
    return str(caught.value)


def test_row_and_table_have_the_same_fields() -> None:
    without_column = {"managed_nano", "byok_nano", "holds"}  # for what settles with a row, and of no use once it has
    assert {each.name for each in fields(LedgerRow)} - without_column == {each.name for each in ledger.columns}


async def test_row_of_another_tenant_is_as_unknown_as_none(store: LedgerStore) -> None:
    row = a_row(1)
    await store.write(JOURNAL, 0, [row])
    told = {await unknown(store, row.request_id, tenant_id="t2"), await unknown(store, f"req_{9:032x}")}
    told |= {await unknown(store, each) for each in ("", "req_\0", "' OR 1=1 --", row.request_id.upper())}
    assert len(told) == 1
    assert "has no row of this request id" in told.pop()


async def test_thousand_requests_with_one_client_id_are_a_thousand_rows(world: World, store: LedgerStore) -> None:
    """RELIABILITY T29: what a client calls its request decides nothing."""
    rows = [a_row(number, client_request_id="forged") for number in range(1_000)]
    await store.write(JOURNAL, 0, rows)
    assert len(await all_rows(world)) == 1_000
    assert await all_usage(world) == truth(rows)


async def test_batch_that_comes_again_changes_nothing(world: World, store: LedgerStore) -> None:
    rows = [a_row(number) for number in range(5)]
    await store.write(JOURNAL, 0, rows[:3])
    once = await all_usage(world)
    await store.write(JOURNAL, 0, rows[:3])
    await store.write(JOURNAL, 1, rows[1:2])
    await store.write(JOURNAL, 3, [])
    assert (await all_usage(world), await store.position(JOURNAL)) == (once, 3)
    await store.write(JOURNAL, 1, rows[1:])
    assert (await all_usage(world), await store.position(JOURNAL)) == (truth(rows), 5)


async def test_line_without_a_row_is_a_position_of_its_own(world: World, store: LedgerStore) -> None:
    await store.write(JOURNAL, 0, [None, None])
    assert (await store.position(JOURNAL), await all_rows(world)) == (2, [])
    await store.write(JOURNAL, 1, [None, a_row(1), None])
    assert (await store.position(JOURNAL), len(await all_rows(world))) == (4, 1)
    assert await all_usage(world) == truth([a_row(1)])


async def test_gap_is_refused_and_said(world: World, store: LedgerStore) -> None:
    await store.write(JOURNAL, 0, [a_row(1)])
    with pytest.raises(LedgerGap, match=r"written up to line 1; these begin at 2"):
        await store.write(JOURNAL, 2, [a_row(3)])
    with pytest.raises(LedgerGap, match="up to line 0"):
        await store.write("another", 1, [a_row(3)])
    assert (await store.position(JOURNAL), await store.position("another")) == (1, 0)
    assert await all_usage(world) == truth([a_row(1)])


async def test_request_that_is_there_stays_and_is_not_counted_again(world: World, store: LedgerStore) -> None:
    """A second journal that holds the same request, and one journal that holds it twice."""
    await store.write(JOURNAL, 0, [a_row(1), a_row(1, cost_nano=7), a_row(2)])
    await store.write("another", 0, [a_row(3), a_row(2, cost_nano=9), a_row(1, cost_nano=8)])
    await store.write("third", 0, [a_row(3, cost_nano=9)])
    assert await all_usage(world) == truth([a_row(1), a_row(2), a_row(3)])
    assert (await store.get(a_row(1).request_id)).cost_nano == 1_001
    assert [await store.position(each) for each in (JOURNAL, "another", "third")] == [3, 3, 1]


async def test_lines_that_are_not_there_cost_nothing_however_many_they_are(world: World, store: LedgerStore) -> None:
    far = 2**40
    rows = {far - 9: a_row(1), far - 1: a_row(2)}
    await store.write_at(JOURNAL, range(far), rows)
    await store.write_at(JOURNAL, range(5, far), rows)
    await store.write_at(JOURNAL, range(far - 9, far + 1), {**rows, far: a_row(3)})
    assert await store.position(JOURNAL) == far + 1
    assert await all_usage(world) == truth([a_row(1), a_row(2), a_row(3)])
    await store.write_at(JOURNAL, range(far + 1, far + 1), {})
    with pytest.raises(LedgerGap, match="these begin at"):
        await store.write_at(JOURNAL, range(far + 2, far + 3), {far + 2: a_row(4)})


@pytest.mark.parametrize("row", [a_row(1, state=State.RESERVED), a_row(1, began_at=START.replace(tzinfo=None))])
async def test_row_that_cannot_be_one_is_refused(store: LedgerStore, row: LedgerRow) -> None:
    with pytest.raises(ValueError, match="has not ended, or began at a time without a zone"):
        await store.write(JOURNAL, 0, [a_row(2), row])
    assert await store.position(JOURNAL) == 0


async def test_usage_is_of_the_day_and_month_in_utc(world: World, store: LedgerStore) -> None:
    east = timezone(timedelta(hours=5))
    times = [
        datetime(2026, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 12, 1, tzinfo=UTC),
        datetime(2026, 12, 1, 4, 59, tzinfo=east),  # November in UTC
        datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2027, 1, 1, tzinfo=UTC),
    ]
    rows = [a_row(number, began_at=time) for number, time in enumerate(times)]
    await store.write(JOURNAL, 0, rows)
    assert await all_usage(world) == truth(rows)
    months = [(str(row[2]), row[8]) for row in await all_usage(world) if row[1] == "month"]
    assert months == [("2026-11-01", 2), ("2026-12-01", 2), ("2027-01-01", 1)]
    assert (await store.get(rows[2].request_id)).began_at == times[2]


async def test_unknown_cost_is_unpriced_and_never_zero(world: World, store: LedgerStore) -> None:
    rows = [
        a_row(1, cost_nano=None),
        a_row(2, cost_nano=0),
        a_row(3, cost_nano=None, state=State.ESTIMATED),
        a_row(4, cost_nano=None, state=State.RELEASED),  # nothing was used: that is known to cost nothing
        a_row(5, cost_nano=5, state=State.ESTIMATED, input_tokens=None),
    ]
    await store.write(JOURNAL, 0, rows)
    (day, month) = await all_usage(world)
    assert day[14:] == month[14:] == (5, 2, 2)
    assert (await store.get(rows[0].request_id)).cost_nano is None
    assert await store.totals(START, START + timedelta(days=1)) == day[8:]


async def test_large_numbers_stay_exact(world: World, store: LedgerStore) -> None:
    """Beyond 2^53, where a float has no odd numbers."""
    large = 2**53 + 1
    rows = [a_row(number, cost_nano=large, input_tokens=large) for number in range(3)]
    await store.write(JOURNAL, 0, rows)
    assert (await store.get(rows[0].request_id)).cost_nano == large
    assert await all_usage(world) == truth(rows)
    assert (await store.totals(START, START + timedelta(days=1), tenant_id="t1")).cost_nano == 3 * large


async def test_sums_that_no_column_holds_stay_at_the_most_and_stop_nothing(world: World, store: LedgerStore) -> None:
    """A provider that lies in each answer: usage stays a whole number, and other tenants' rows go on."""
    lies = [a_row(number, cost_nano=2**62, input_tokens=2**62) for number in range(5)]
    others = [a_row(100 + number, tenant_id="t2") for number in range(3)]
    await store.write(JOURNAL, 0, lies[:3])
    await store.write(JOURNAL, 3, [*lies[3:], *others])
    assert len(await all_rows(world)) == 8
    sums = {(row[0], row[1]): (row[9], row[14]) for row in await all_usage(world)}
    assert sums["t1", "day"] == sums["t1", "month"] == (2**63 - 1, 2**63 - 1)
    assert [row for row in await all_usage(world) if row[0] == "t2"] == truth(others)


async def test_text_of_callers_comes_back_and_nul_stops_nothing(world: World, store: LedgerStore) -> None:
    texts = ["'; DROP TABLE x; --", 'a "quoted" \\u0000 \\', "žluťoučký 模型 🦜", "\x01\x1f\x7f"]
    rows = [a_row(number, model_asked=each, client_request_id=each) for number, each in enumerate(texts)]
    await store.write(JOURNAL, 0, rows)
    assert [(await store.get(row.request_id)).model_asked for row in rows] == texts
    await store.write("another", 0, [a_row(9, model_asked="a\0b", model="m\0")])
    assert (await store.get(a_row(9).request_id)).model_asked == "a\ufffdb"
    assert ("m\ufffd", 1) in [(row[5], row[8]) for row in await all_usage(world)]


async def test_rows_come_by_pages_oldest_first(store: LedgerStore) -> None:
    same = START + timedelta(seconds=2)
    rows = [a_row(number, began_at=min(START + timedelta(seconds=number), same)) for number in range(6)]
    await store.write(JOURNAL, 0, [*reversed(rows), a_row(7, tenant_id="t2"), a_row(8, began_at=same + timedelta(1))])
    read: list[LedgerRow] = []
    while page := await store.rows(
        tenant_id="t1", since=START, until=same + timedelta(seconds=1), after=read[-1] if read else None, limit=2
    ):
        assert len(page) <= 2
        read += page
    assert read == rows
    assert await store.rows(tenant_id="t1", since=same, until=same) == []


async def test_totals_are_of_a_time_and_a_tenant(store: LedgerStore) -> None:
    rows = [a_row(number, tenant_id=f"t{number % 3}") for number in range(9)]
    await store.write(JOURNAL, 0, rows)
    until = START + timedelta(seconds=6)
    assert (await store.totals(START, until)).cost_nano == sum(1_000 + number for number in range(6))
    assert (await store.totals(START, until, tenant_id="t1")).cost_nano == 1_001 + 1_004
    assert (await store.totals(until, until)).requests == 0


# --- what settles with it ------------------------------------------------------------------------------------------


async def test_settling_gets_what_is_new_and_fails_with_the_batch(world: World) -> None:
    settled: list[str] = []
    committed: list[int] = []

    async def settle(connection: AsyncConnection, rows: Sequence[LedgerRow]) -> Callable[[], None] | None:
        if any(row.code == "broken" for row in rows):
            raise RuntimeError("cannot settle")
        settled.extend(row.request_id for row in rows)
        assert committed == before
        return (lambda: committed.append(len(rows))) if len(rows) > 1 else None

    database, before = Database(world.url), list[int]()
    store = LedgerStore(database, now=world.clock, settle=settle)
    await store.write(JOURNAL, 0, [a_row(2), a_row(1), None])
    before = [2]
    assert committed == before
    await store.write("another", 0, [a_row(2), a_row(3)])
    await store.write("another", 0, [a_row(2), a_row(3)])
    assert settled == [a_row(number).request_id for number in (1, 2, 3)]
    with pytest.raises(RuntimeError):
        await store.write(JOURNAL, 3, [a_row(4, code="broken"), a_row(5)])
    assert (await store.position(JOURNAL), await all_usage(world)) == (3, truth([a_row(1), a_row(2), a_row(3)]))
    assert committed == before
    await database.close()


async def test_database_that_is_away_is_said_and_nothing_is_half_written(world: World, store: LedgerStore) -> None:
    await store.write(JOURNAL, 0, [a_row(1)])
    await world.sql("ALTER TABLE wardgate_usage RENAME TO away")
    for work in (store.write(JOURNAL, 1, [a_row(2)]), store.reconcile(START.date())):
        with pytest.raises(DatabaseUnavailable):
            await work
    await world.sql("ALTER TABLE away RENAME TO wardgate_usage")
    assert (await store.position(JOURNAL), len(await all_rows(world))) == (1, 1)
    await store.write(JOURNAL, 1, [a_row(2)])
    assert await all_usage(world) == truth([a_row(1), a_row(2)])


async def test_written_rows_are_secured_once_no_reader_holds_the_log(world: World, store: LedgerStore) -> None:
    await store._database.use_wal()
    assert await store.secured()
    async with store._database.read() as reader:
        await reader.execute(text("SELECT count(*) FROM wardgate_ledger"))
        await store.write(JOURNAL, 0, [a_row(1)])
        assert await store.secured() is not world.is_sqlite
    assert await store.secured()
