"""Journals that are long gone and periods that are long over are forgotten; nothing is counted twice for that."""

from datetime import timedelta

from keystore.engine import Database
from keystore.ledger import LedgerStore
from keystore.money_pruning import BUDGETS_KEPT, JOURNALS_KEPT, OldMoney
from tests.keystore.conftest import START, World
from tests.keystore.ledgers import a_row, all_usage, truth

ROWS = [a_row(number) for number in range(3)]
KNOWN = "SELECT journal_id, position FROM wardgate_journals ORDER BY 1"
USED = "SELECT budget_key, spent_nano FROM wardgate_budget_use ORDER BY 1"
HOUR = timedelta(hours=1, seconds=1)


async def test_journal_that_is_long_gone_is_forgotten_and_harmless_when_it_comes_back(world: World) -> None:
    database = Database(world.url)
    store, old = LedgerStore(database, now=world.clock), OldMoney(database, now=world.clock)
    await store.write("gone", 0, ROWS)
    world.clock.now = START + JOURNALS_KEPT
    await store.write("lives", 0, [a_row(7)])
    assert await old.expire() == 0 and await world.sql(KNOWN) == [("gone", 3), ("lives", 1)]
    world.clock.now += timedelta(seconds=1)
    assert await old.expire() == 0, "it was looked a moment ago"
    world.clock.now += HOUR
    assert await old.expire() == 1 and await world.sql(KNOWN) == [("lives", 1)]
    await store.write("gone", 0, ROWS)  # its disk was put back
    assert await all_usage(world) == truth([*ROWS, a_row(7)])
    await database.close()


async def test_journal_is_known_for_longer_than_the_rows_that_it_wrote(world: World) -> None:
    database, kept = Database(world.url), timedelta(days=400)
    store = LedgerStore(database, now=world.clock, kept=kept)
    await store.write("gone", 0, ROWS)
    world.clock.now = START + kept + JOURNALS_KEPT
    await store.expire()
    assert await OldMoney(database, now=world.clock, ledger_kept=kept).expire() == 0
    await store.write("gone", 0, ROWS)
    assert await all_usage(world) == truth(ROWS), "its rows are gone from the ledger, and not counted again"
    world.clock.now += timedelta(seconds=1)
    assert await OldMoney(database, now=world.clock, ledger_kept=kept).expire() == 1
    await database.close()


async def test_periods_that_are_over_are_forgotten_unless_something_is_held(world: World) -> None:
    today = (START + BUDGETS_KEPT).date()
    insert = "INSERT INTO wardgate_budget_use (budget_key, starts, spent_nano, held_nano, told) VALUES"
    dated = [("over", 1, 0), ("holding", 1, 5), ("held by a row", 1, 0), ("this one", 0, 0)]
    rows = [f"('{key}', '{today - BUDGETS_KEPT - timedelta(days)}', 7, {held}, 0)" for key, days, held in dated]
    many = [f"('many {n}', '{today - timedelta(200)}', 7, 0, 0)" for n in range(1_500)]
    await world.sql(f"{insert} {', '.join([*rows, *many])}")
    before = today - BUDGETS_KEPT - timedelta(1)
    await world.sql(
        "INSERT INTO wardgate_budget_holds (holder, budget_key, starts, amount_nano) VALUES"
        f" ('h', 'held by a row', '{before}', 5)"
    )
    database = Database(world.url)
    world.clock.now = START + BUDGETS_KEPT
    assert await OldMoney(database, now=world.clock).expire() == 1_501
    assert [key for key, _ in await world.sql(USED)] == ["held by a row", "holding", "this one"]
    await database.close()
